//! What a fetch would change at its target. Nothing is written for that, so names are taken as their sender has them.
//!
//! What it is not: a fetch; see [`super::fetch`].

use std::{collections::HashSet, ffi::OsStr, path::PathBuf};

use cap_std::{ambient_authority, fs::Dir};
use keyferry_proto::{
    collection::{EntryKind, Manifest},
    hash::{ContentFormat, ContentHash},
};
use tokio_util::sync::CancellationToken;

use super::{
    FetchError,
    changes::{Changes, Paths},
    context::Job,
    describing::ContentDescription,
    part::WantedPart,
    staging::{
        FetchTarget, StagingError,
        file_system::TargetFileSystem,
        present::{LookError, Looking, PresentTree, open_folder},
        tree::FittedTree,
    },
};
use crate::content::store::FetchedVersion;

/// What a fetch would change.
#[derive(Debug)]
pub struct Comparison {
    /// A file or a folder.
    pub format: ContentFormat,
    /// Where it would be.
    pub path: PathBuf,
    /// Bytes of content in all, if that is known.
    pub size: Option<u64>,
    /// Files in it.
    pub files: u64,
    /// Bytes that are not on this machine, at the most; none if that is not known.
    pub missing_bytes: Option<u64>,
    /// What would be done.
    pub changes: Changes,
}

/// Compares what content is with what is at the target of a job. Blocks.
///
/// # Errors
///
/// Those of a fetch that can be foretold, such as a target that may not be replaced.
pub fn compare(
    job: &Job,
    description: Option<ContentDescription>,
    cancel: &CancellationToken,
) -> Result<Comparison, FetchError> {
    let (manifest, size) = match (description, job.format) {
        (Some(ContentDescription::Folder(_, manifest)), _) => (Some(manifest), None),
        (Some(ContentDescription::File(size)), _) => (None, Some(size)),
        (None, Some(ContentFormat::Blob)) => (None, None),
        (None, _) => (job.store.manifest(&job.root).ok().flatten(), None),
    };
    let path = job.part.as_ref();
    match (manifest, path) {
        (None, Some(path)) => Err(FetchError::NotInFolder { path: path.to_string() }),
        (None, None) => compare_file(job, job.root, job.root_size.or(size), cancel),
        (Some(manifest), _) => {
            let part = WantedPart::of(manifest, path)?;
            let version = part.version(job.root, path);
            match part {
                WantedPart::Folder(manifest, _) => compare_folder(job, manifest, version, cancel),
                WantedPart::File(file) => compare_file(job, file.hash, Some(file.size), cancel),
            }
        }
    }
}

fn compare_file(
    job: &Job,
    hash: ContentHash,
    size: Option<u64>,
    cancel: &CancellationToken,
) -> Result<Comparison, FetchError> {
    let FetchTarget { out_dir, name, overwrite, .. } = &job.target;
    let path = out_dir.join(name);
    let mut changes = Changes::default();
    let this_file = || Paths { listed: vec![name.clone()], count: 1 };
    match path.symlink_metadata() {
        Err(_) => changes.added = this_file(),
        Ok(found) if found.is_dir() => return Err(StagingError::Clash { path, found: "folder", needed: "file" }.into()),
        Ok(found) => {
            let told = job.store.blob_of_file(path.clone(), vec![(hash, found.len())], &|| !cancel.is_cancelled());
            if told.map_err(LookError::from)?.is_none() {
                if !overwrite && job.store.file_as_written(&path).is_none() {
                    return Err(StagingError::Exists { path }.into());
                }
                changes.replaced = this_file();
            }
        }
    }
    let is_here = changes.are_none() || matches!(job.store.blob(&hash), Ok(Some(_)));
    let missing_bytes = if is_here { Some(0) } else { size };
    Ok(Comparison { format: ContentFormat::Blob, path, size, files: 1, missing_bytes, changes })
}

fn compare_folder(
    job: &Job,
    manifest: Manifest,
    version: FetchedVersion,
    cancel: &CancellationToken,
) -> Result<Comparison, FetchError> {
    let FetchTarget { out_dir, name, overwrite, mirror, .. } = &job.target;
    let path = out_dir.join(name);
    let parent = Dir::open_ambient_dir(out_dir, ambient_authority());
    let target = parent.as_ref().map_or_else(|_| TargetFileSystem::default(), TargetFileSystem::at);
    let tree = FittedTree::new(manifest, target);
    let is_there = match path.symlink_metadata() {
        Err(_) => false,
        Ok(found) if found.is_dir() => true,
        Ok(_) => return Err(StagingError::Clash { path, found: "file or link", needed: "folder" }.into()),
    };
    let present = if is_there {
        let looking = Looking {
            store: &job.store,
            path: &path,
            wanted: version.hash,
            overwrite: *overwrite,
            go_on: &|| !cancel.is_cancelled(),
        };
        let folder = parent.and_then(|parent| open_folder(&parent, OsStr::new(name)));
        PresentTree::look(&tree, &folder.map_err(|source| StagingError::Io { path: path.clone(), source })?, &looking)?
    } else {
        PresentTree::nothing(&tree)
    };
    let mut changes = Changes::to_come(&tree, &present);
    let has_others = || path.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    let is_the_same = changes.are_none() && changes.kept.count == 0;
    let may_be_put_there = present.is_fetched() || *overwrite || !is_there || is_the_same;
    if !may_be_put_there && has_others() {
        return Err(StagingError::Exists { path }.into());
    }
    if *mirror {
        changes.removed = std::mem::take(&mut changes.gone);
    }
    let mut seen = HashSet::new();
    let is_missing = |hash: &ContentHash| !matches!(job.store.blob(hash), Ok(Some(_)));
    let missing = tree.manifest().entries().zip(0..).filter_map(|(entry, index)| match entry.kind {
        EntryKind::File(file) if present.wants(index) && seen.insert(file.hash) && is_missing(&file.hash) => {
            Some(file.size)
        }
        _ => None,
    });
    Ok(Comparison {
        format: ContentFormat::Collection,
        missing_bytes: Some(missing.sum()),
        size: Some(tree.manifest().total_size()),
        files: tree.manifest().file_count() as u64,
        path,
        changes,
    })
}
