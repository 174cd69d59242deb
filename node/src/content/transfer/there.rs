//! Whether the target of a fetch holds already what is to be fetched: all of it is read and hashed.
//!
//! What it is not: what a fetch left unfinished, or files elsewhere on this machine (see [`super::plan`]).

use std::{
    ffi::OsString,
    io::{self, Read as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use cap_std::{
    ambient_authority,
    fs::{Dir, Metadata, MetadataExt as _},
};
use keyferry_proto::{
    collection::{EntryKind, FileEntry, Manifest},
    hash::{ContentFormat, ContentHash},
};
use tokio_util::sync::CancellationToken;

use super::{FetchError, context::Job, staging::FetchTarget};

/// How much of a file to hash before looking whether the user has had enough.
const HASHED_TOGETHER: usize = 1 << 20;

/// The content, where it was to go.
#[derive(Debug)]
pub(super) struct There {
    pub(super) path: PathBuf,
    pub(super) format: ContentFormat,
    /// Bytes of content in all.
    pub(super) size: u64,
    pub(super) files: Vec<FileThere>,
}

/// One file of the content, where it is.
#[derive(Debug)]
pub(super) struct FileThere {
    pub(super) hash: ContentHash,
    pub(super) size: u64,
    pub(super) path: PathBuf,
}

/// Finds the content at its target; none if something else is there, or it is not known what would have to be. Other files in a folder do
/// not matter: they would stay.
pub(super) fn find(job: &Job, cancel: &CancellationToken) -> Result<Option<There>, FetchError> {
    let FetchTarget { out_dir, name, .. } = &job.target;
    let Ok(folder) = Dir::open_ambient_dir(out_dir, ambient_authority()) else { return Ok(None) };
    let Ok(found) = folder.symlink_metadata(name) else { return Ok(None) };
    let path = out_dir.join(name);
    let files = match job.format {
        Some(ContentFormat::Collection) | None if found.is_dir() => {
            // A damaged list is no list.
            let Ok(Some(manifest)) = job.store.manifest(&job.root) else { return Ok(None) };
            let Ok(base) = folder.open_dir(name) else { return Ok(None) };
            files_of(&manifest, &base, &path, cancel)?
        }
        Some(ContentFormat::Blob) | None if found.is_file() => {
            let is_it = job.root_size.is_none_or(|size| size == found.len())
                && has_hash(&folder, Path::new(name), &job.root, cancel)?;
            is_it.then(|| vec![FileThere { hash: job.root, size: found.len(), path: path.clone() }])
        }
        _ => None,
    };
    let format = if found.is_dir() { ContentFormat::Collection } else { ContentFormat::Blob };
    Ok(files.map(|files| There { path, format, size: files.iter().map(|file| file.size).sum(), files }))
}

/// The files of a folder, if all that a list names is there as it says. Times do not matter.
fn files_of(
    manifest: &Manifest,
    base: &Dir,
    path: &Path,
    cancel: &CancellationToken,
) -> Result<Option<Vec<FileThere>>, FetchError> {
    let relative = |index: u32| PathBuf::from(OsString::from_vec(manifest.path(index)));
    // What tells most differences costs least, and comes first.
    if !manifest.entries().zip(0..).all(|(entry, index)| looks_right(base, &relative(index), &entry.kind)) {
        return Ok(None);
    }
    let mut files = Vec::with_capacity(manifest.file_count());
    for (index, file) in manifest.files() {
        let relative = relative(index);
        if !has_hash(base, &relative, &file.hash, cancel)? {
            return Ok(None);
        }
        files.push(FileThere { hash: file.hash, size: file.size, path: path.join(relative) });
    }
    Ok(Some(files))
}

/// Whether what is there is of the right kind, as far as that can be told without reading files.
fn looks_right(base: &Dir, relative: &Path, kind: &EntryKind<'_>) -> bool {
    let Ok(found) = base.symlink_metadata(relative) else { return false };
    match kind {
        EntryKind::Folder(_) => found.is_dir(),
        EntryKind::File(file) => found.is_file() && has_form(&found, file),
        EntryKind::Link(target) => {
            base.read_link_contents(relative).is_ok_and(|found| found.as_os_str().as_bytes() == target.as_bytes())
        }
    }
}

fn has_form(found: &Metadata, file: &FileEntry) -> bool {
    found.len() == file.size && (found.mode() & 0o100 != 0) == file.attributes.executable
}

/// Whether a file has this hash; a file that cannot be read has none.
fn has_hash(base: &Dir, relative: &Path, hash: &ContentHash, cancel: &CancellationToken) -> Result<bool, FetchError> {
    let Ok(mut file) = base.open(relative) else { return Ok(false) };
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; HASHED_TOGETHER];
    loop {
        if cancel.is_cancelled() {
            return Err(FetchError::Interrupted);
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(ContentHash::from(hasher.finalize()) == *hash),
            Ok(got) => hasher.update(&buffer[..got]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Ok(false),
        };
    }
}
