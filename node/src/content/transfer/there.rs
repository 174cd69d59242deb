//! Whether the target of a fetch holds already what is to be fetched, as far as that can be told without the network.
//!
//! What it is not: what a fetch left unfinished, or files elsewhere on this machine (see [`super::plan`]).

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use cap_std::{
    ambient_authority,
    fs::{Dir, MetadataExt as _},
};
use keyferry_proto::{
    collection::{EntryKind, FileAttributes, Manifest},
    hash::{ContentFormat, ContentHash},
};
use tokio_util::sync::CancellationToken;

use super::{
    FetchError,
    changes::Changes,
    context::Job,
    part::WantedPart,
    staging::{
        FetchTarget,
        carried::finish_file,
        file_system::TargetFileSystem,
        present::{LookError, Looking, PresentState, PresentTree, open_folder},
        tree::FittedTree,
    },
};
use crate::content::store::{FetchedVersion, PlacedFile};

/// The content, where it was to go.
#[derive(Debug)]
pub(super) struct There {
    pub(super) path: PathBuf,
    pub(super) format: ContentFormat,
    /// Bytes of content in all.
    pub(super) size: u64,
    pub(super) files: Vec<PlacedFile>,
    /// Whether a fetch put it there.
    pub(super) is_fetched: bool,
    /// What else is told of the folder.
    pub(super) changes: Changes,
}

/// Finds the content at its target; none if something else is there, or it is not known what would have to be. Other files in a folder do
/// not matter: they would stay.
pub(super) fn find(job: &Job, cancel: &CancellationToken) -> Result<Option<There>, FetchError> {
    let FetchTarget { out_dir, name, .. } = &job.target;
    let Ok(parent) = Dir::open_ambient_dir(out_dir, ambient_authority()) else { return Ok(None) };
    let Ok(found) = parent.symlink_metadata(name) else { return Ok(None) };
    if job.format == Some(ContentFormat::Blob) || (job.format.is_none() && found.is_file() && job.part.is_none()) {
        return find_file(job, &parent, found.is_file().then_some(found.size()), job.root, job.attributes, cancel);
    }
    // A damaged list is no list.
    let Ok(Some(manifest)) = job.store.manifest(&job.root) else { return Ok(None) };
    let part = WantedPart::of(manifest, job.part.as_ref())?;
    let version = part.version(job.root, job.part.as_ref());
    match part {
        WantedPart::Folder(manifest, _) if found.is_dir() => find_folder(job, &parent, manifest, version, cancel),
        WantedPart::File(file) if found.is_file() && found.size() == file.size => {
            find_file(job, &parent, Some(file.size), file.hash, Some(file.attributes), cancel)
        }
        _ => Ok(None),
    }
}

fn find_file(
    job: &Job,
    parent: &Dir,
    size: Option<u64>,
    hash: ContentHash,
    attributes: Option<FileAttributes>,
    cancel: &CancellationToken,
) -> Result<Option<There>, FetchError> {
    let path = job.target.out_dir.join(&job.target.name);
    let Some(size) = size.filter(|size| job.root_size.is_none_or(|wanted| wanted == *size)) else { return Ok(None) };
    let told = job.store.blob_of_file(path.clone(), vec![(hash, size)], &|| !cancel.is_cancelled());
    if told.map_err(LookError::from)?.is_none() {
        return Ok(None);
    }
    // What was fetched follows its sender; what is its owner's own is let be.
    let is_fetched = !job.store.versions_at(&path).is_empty();
    let attributes = attributes.filter(|_| is_fetched);
    if let Some(attributes) = attributes {
        let finished = finish_file(parent, Path::new(&job.target.name), &attributes, None);
        finished.map_err(|source| FetchError::Disk { path: path.clone(), source })?;
    }
    let modified = attributes.map(|attributes| attributes.modified);
    let files = vec![PlacedFile { hash, size, path: path.clone(), modified }];
    Ok(Some(There { path, format: ContentFormat::Blob, size, files, is_fetched, changes: Changes::default() }))
}

fn find_folder(
    job: &Job,
    parent: &Dir,
    manifest: Manifest,
    version: FetchedVersion,
    cancel: &CancellationToken,
) -> Result<Option<There>, FetchError> {
    let path = job.target.out_dir.join(&job.target.name);
    let Ok(folder) = open_folder(parent, OsStr::new(&job.target.name)) else { return Ok(None) };
    let tree = FittedTree::new(manifest, TargetFileSystem::at(parent));
    let looking = Looking {
        store: &job.store,
        path: &path,
        wanted: version.hash,
        overwrite: false,
        go_on: &|| !cancel.is_cancelled(),
    };
    let present = PresentTree::look(&tree, &folder, &looking)?;
    let differences = present.differences();
    let is_like_it = match present.is_fetched() {
        false => !differences.rights,
        true => !differences.rights && !differences.times && (!job.target.mirror || present.gone().is_empty()),
    };
    let is_lacking = |index| present.state(index) != PresentState::Right && !tree.is_left_out(index);
    if !is_like_it || tree.indexes().any(is_lacking) {
        return Ok(None);
    }
    let files = tree.manifest().entries().zip(0..).filter_map(|(entry, index)| match entry.kind {
        EntryKind::File(file) => Some(PlacedFile {
            hash: file.hash,
            size: file.size,
            path: path.join(tree.path(index)),
            modified: Some(file.attributes.modified),
        }),
        EntryKind::Folder(_) | EntryKind::Link(_) => None,
    });
    let (files, size) = (files.collect(), tree.manifest().total_size());
    let changes = Changes::to_come(&tree, &present);
    Ok(Some(There { path, format: ContentFormat::Collection, size, files, is_fetched: present.is_fetched(), changes }))
}
