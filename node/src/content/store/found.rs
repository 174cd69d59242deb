//! What is in a folder: every name of it, in the order of a manifest, before any file is read.
//!
//! No link is followed. What cannot be part of a collection is left out and noted.
//!
//! What it is not: reading files; see [`super::hashing`].

use std::{
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use keyferry_proto::{
    collection::{
        CollectionEntry, EntryKind, EntryName, FileAttributes, FileEntry, FileTime, FolderAttributes, LinkTarget,
        MAX_DEPTH, MAX_ENTRIES, Manifest, ManifestBuilder, ManifestError,
    },
    hash::ContentHash,
};

use super::{
    StoreError,
    attributes::folder_attributes,
    hashing::{FileToHash, Hashed},
    left_out::{LeftOut, LeftOutReason},
    selection::{Excludes, Selection},
    source::SourceFolder,
};
use crate::base::stamp::FileId;

/// What an import takes.
pub(super) struct FoundTree {
    /// The regular files.
    pub(super) sources: Vec<FileToHash>,
    /// The folder that they are in; none for a single file.
    pub(super) folder: Option<FoundFolder>,
    pub(super) left_out: LeftOut,
}

/// A folder, and what is in it.
pub(super) struct FoundFolder {
    pub(super) handle: SourceFolder,
    attributes: FolderAttributes,
    entries: Vec<FoundEntry>,
}

struct FoundEntry {
    depth: u8,
    name: OsString,
    kind: FoundKind,
}

enum FoundKind {
    Folder(FolderAttributes),
    /// The number of its source.
    File(u32),
    Link(OsString),
}

impl FoundTree {
    /// Looks at `path` and all that is below it and not excluded.
    ///
    /// # Errors
    /// If there is nothing that could be shared, or too much.
    pub(super) fn at(path: &Path, excludes: &Excludes, cancelled: &AtomicBool) -> Result<Self, StoreError> {
        // Of a path without links: one that is there now has just been put there.
        let metadata = fs::symlink_metadata(path).map_err(StoreError::io("read", path))?;
        let mut found = Self { sources: Vec::new(), folder: None, left_out: LeftOut::default() };
        if metadata.is_dir() {
            let handle = SourceFolder::open(path, FileId::of(&metadata))?;
            let mut entries = Vec::new();
            found.walk(path, Selection::of(path, excludes), &mut entries, cancelled)?;
            found.folder = Some(FoundFolder { handle, attributes: folder_attributes(&metadata), entries });
            // That there is too much is said before anything is hashed.
            found.manifest(path, None)?;
        } else if metadata.is_file() {
            found.add(path, &metadata);
        } else {
            return Err(StoreError::NotShareable { path: path.to_owned() });
        }
        Ok(found)
    }

    /// The manifest of a folder, with the files that were hashed; or one with nothing but names, as long as none is. None of a single file.
    pub(super) fn manifest(
        &self,
        path: &Path,
        files: Option<&[Option<Hashed>]>,
    ) -> Result<Option<Manifest>, StoreError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let failed = |source| StoreError::Folder { path: path.to_owned(), source };
        let mut builder = ManifestBuilder::new(folder.attributes);
        for FoundEntry { depth, name, kind } in &folder.entries {
            let kind = match kind {
                FoundKind::Folder(attributes) => EntryKind::Folder(*attributes),
                FoundKind::File(number) => match files.map(|files| &files[*number as usize]) {
                    None => EntryKind::File(NOT_READ),
                    Some(None) => continue,
                    Some(Some(hashed)) => EntryKind::File(FileEntry {
                        size: hashed.size,
                        hash: hashed.hash,
                        attributes: hashed.attributes,
                    }),
                },
                FoundKind::Link(target) => match LinkTarget::new(target.as_bytes(), *depth) {
                    Ok(target) => EntryKind::Link(target),
                    Err(_) => continue,
                },
            };
            // A file system gives no others.
            let Ok(name) = EntryName::new(name.as_bytes()) else { continue };
            builder.push(&CollectionEntry { depth: *depth, name, kind }).map_err(failed)?;
        }
        builder.finish().map(Some).map_err(failed)
    }

    /// Notes what a file is like now that was changed since it was found.
    pub(super) fn look_again(&mut self, number: usize) {
        let source = &mut self.sources[number];
        if let Ok(metadata) = fs::symlink_metadata(&source.path) {
            (source.size, source.file) = (metadata.len(), Some(FileId::of(&metadata)));
        }
    }

    fn walk(
        &mut self,
        folder: &Path,
        mut selection: Selection,
        entries: &mut Vec<FoundEntry>,
        cancelled: &AtomicBool,
    ) -> Result<(), StoreError> {
        let mut walk =
            walkdir::WalkDir::new(folder).min_depth(1).follow_root_links(false).sort_by_file_name().into_iter();
        while let Some(entry) = walk.next() {
            if cancelled.load(Ordering::Relaxed) {
                return Err(StoreError::Cancelled);
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.leave_out_unread(folder, error, entries)?;
                    continue;
                }
            };
            let (depth, is_folder) = (entry.depth() - 1, entry.file_type().is_dir());
            if !selection.takes(entry.path(), depth, is_folder) {
                if is_folder {
                    walk.skip_current_dir();
                }
                continue;
            }
            if entries.len() == MAX_ENTRIES {
                let source = ManifestError::TooManyEntries;
                return Err(StoreError::Folder { path: folder.to_owned(), source });
            }
            let reason = if depth >= MAX_DEPTH {
                Some(LeftOutReason::TooDeep)
            } else if is_part_of_fetch(entry.file_name()) {
                Some(LeftOutReason::PartOfFetch)
            } else {
                self.take(&entry, depth as u8, entries).err()
            };
            match reason {
                None if is_folder => selection.enter(entry.path(), depth + 1),
                None => {}
                Some(reason) => {
                    if is_folder {
                        walk.skip_current_dir();
                    }
                    self.left_out.add(entry.into_path(), reason);
                }
            }
        }
        Ok(())
    }

    /// Takes in one entry, unless there is a reason to leave it out.
    fn take(
        &mut self,
        entry: &walkdir::DirEntry,
        depth: u8,
        entries: &mut Vec<FoundEntry>,
    ) -> Result<(), LeftOutReason> {
        let kind = entry.file_type();
        let metadata = || {
            let metadata = entry.metadata().map_err(walk_reason)?;
            // It may be something else by now.
            if metadata.file_type() == kind { Ok(metadata) } else { Err(LeftOutReason::Unsteady) }
        };
        let kind = if kind.is_dir() {
            FoundKind::Folder(folder_attributes(&metadata()?))
        } else if kind.is_file() {
            let metadata = metadata()?;
            self.add(entry.path(), &metadata);
            // At most MAX_ENTRIES.
            FoundKind::File(self.sources.len() as u32 - 1)
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path()).map_err(|error| io_reason(error.kind()))?;
            LinkTarget::new(target.as_os_str().as_bytes(), depth).map_err(LeftOutReason::of_link)?;
            FoundKind::Link(target.into_os_string())
        } else {
            return Err(LeftOutReason::SpecialFile);
        };
        entries.push(FoundEntry { depth, name: entry.file_name().to_owned(), kind });
        Ok(())
    }

    /// Leaves out what the walk could not look at. A folder that cannot be listed stands in the list already.
    fn leave_out_unread(
        &mut self,
        folder: &Path,
        error: walkdir::Error,
        entries: &mut Vec<FoundEntry>,
    ) -> Result<(), StoreError> {
        let Some(path) = error.path().filter(|path| *path != folder).map(Path::to_owned) else {
            return Err(walk_error(folder, error));
        };
        let depth = path.strip_prefix(folder).map_or(0, |relative| relative.components().count());
        let is_it = |last: &FoundEntry| {
            usize::from(last.depth) + 1 == depth
                && Some(&*last.name) == path.file_name()
                && matches!(last.kind, FoundKind::Folder(_))
        };
        if entries.last().is_some_and(is_it) {
            entries.pop();
        }
        self.left_out.add(path, walk_reason(error));
        Ok(())
    }

    fn add(&mut self, path: &Path, metadata: &Metadata) {
        let file = Some(FileId::of(metadata));
        self.sources.push(FileToHash { path: path.to_owned(), size: metadata.len(), file, expected: None });
    }
}

/// What stands in a list for a file that nobody has read yet.
const NOT_READ: FileEntry = FileEntry {
    size: 0,
    hash: ContentHash::EMPTY,
    attributes: FileAttributes { modified: FileTime(0), executable: false, private: false },
};

/// Whether a name is one that fetches give to what they have not finished.
fn is_part_of_fetch(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b".") && (name.ends_with(b".keyferry-part") || name.ends_with(b".keyferry-part.d"))
}

fn walk_reason(error: walkdir::Error) -> LeftOutReason {
    io_reason(error.io_error().map_or(std::io::ErrorKind::InvalidData, std::io::Error::kind))
}

fn io_reason(kind: std::io::ErrorKind) -> LeftOutReason {
    match kind {
        std::io::ErrorKind::NotFound => LeftOutReason::Vanished,
        kind => LeftOutReason::Unreadable(kind),
    }
}

pub(super) fn walk_error(folder: &Path, error: walkdir::Error) -> StoreError {
    let path = error.path().unwrap_or(folder).to_owned();
    let source = error.into_io_error().unwrap_or_else(|| std::io::ErrorKind::InvalidData.into());
    StoreError::io("read", &path)(source)
}
