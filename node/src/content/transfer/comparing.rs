//! What a fetch would change at its target. Nothing is written for that, so names are taken as their sender has them.
//!
//! What it is not: a fetch; see [`super::fetch`].

use std::{collections::HashSet, path::PathBuf};

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
        present::{LookError, Looking, PresentTree},
        tree::FittedTree,
    },
};
use crate::content::store::{CandidateFile, FetchedVersion};

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
    let manifest = match (description, job.format) {
        (Some(ContentDescription::Folder(_, manifest)), _) => Some(manifest),
        (Some(ContentDescription::File(_)), _) | (None, Some(ContentFormat::Blob)) => None,
        (None, _) => job.store.manifest(&job.root).ok().flatten(),
    };
    let path = job.part.as_ref();
    match (manifest, path) {
        (None, Some(path)) => Err(FetchError::NotInFolder { path: path.to_string() }),
        (None, None) => compare_file(job, job.root, job.root_size, cancel),
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
            let file = CandidateFile { path: path.clone(), may_have: vec![(hash, found.len())] };
            let told = job.store.blobs_of_files(&[file], &|| !cancel.is_cancelled()).map_err(LookError::from)?;
            let is_right = told.into_iter().flatten().any(|found| found.hash == Some(hash));
            if !is_right {
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
    let tree = FittedTree::new(manifest, TargetFileSystem::default());
    let versions = job.store.versions_at(&path);
    let folder = match path.symlink_metadata() {
        Err(_) => None,
        Ok(found) if found.is_dir() => {
            let opened = Dir::open_ambient_dir(&path, ambient_authority());
            Some(opened.map_err(|source| StagingError::Io { path: path.clone(), source })?)
        }
        Ok(_) => return Err(StagingError::Clash { path, found: "file or link", needed: "folder" }.into()),
    };
    let present = match &folder {
        None => PresentTree::nothing(&tree),
        Some(folder) => {
            let looking = Looking {
                store: &job.store,
                path: &path,
                versions: &versions,
                wanted: version.hash,
                overwrite: *overwrite,
                go_on: &|| !cancel.is_cancelled(),
            };
            PresentTree::look(&tree, folder, &looking)?
        }
    };
    let mut changes = Changes::to_come(&tree, &present);
    let has_others = || path.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if versions.is_empty()
        && !overwrite
        && folder.is_some()
        && !(changes.are_none() && changes.kept.count == 0)
        && has_others()
    {
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
