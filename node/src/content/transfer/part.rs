//! What of a content is wanted: all of it, or what is at a path in a folder.
//!
//! A part is asked for as units of the whole, and put in place as a version of its own.
//!
//! What it is not: the address of a part (`keyferry_proto::address`).

use keyferry_proto::{
    collection::{EntryKind, EntryPath, FileEntry, Manifest, ShownPath},
    hash::ContentHash,
};

use super::FetchError;
use crate::content::store::FetchedVersion;

/// What of a folder is wanted.
#[derive(Debug)]
pub(super) enum WantedPart {
    /// A folder, the whole one or one in it, and how many links it goes without since they lead out of it.
    Folder(Manifest, u64),
    /// A file in it.
    File(FileEntry),
}

impl WantedPart {
    /// What is at a path in a folder; all of it without one.
    ///
    /// # Errors
    /// If nothing is there, or a link.
    pub(super) fn of(manifest: Manifest, path: Option<&EntryPath>) -> Result<Self, FetchError> {
        let Some(path) = path else { return Ok(Self::Folder(manifest, 0)) };
        let not_there = || FetchError::NotInFolder { path: path.to_string() };
        let index = manifest.find(path.as_bytes()).ok_or_else(not_there)?;
        match manifest.entry(index).map(|entry| entry.kind) {
            Some(EntryKind::File(file)) => Ok(Self::File(file)),
            Some(EntryKind::Folder(_)) => {
                manifest.below(index).map(|(part, links)| Self::Folder(part, links)).ok_or_else(not_there)
            }
            Some(EntryKind::Link(target)) => {
                Err(FetchError::IsALink { path: path.to_string(), target: ShownPath(target.as_bytes()).to_string() })
            }
            None => Err(not_there()),
        }
    }

    /// What it is as a version of its own, in the record of what was put where. `root` is the whole folder, whose bytes need not be hashed again.
    pub(super) fn version(&self, root: ContentHash, path: Option<&EntryPath>) -> FetchedVersion {
        match self {
            Self::Folder(..) if path.is_none() => FetchedVersion::folder(root),
            Self::Folder(manifest, _) => FetchedVersion::folder(ContentHash::of(&manifest.encode())),
            Self::File(file) => FetchedVersion::file(file.hash),
        }
    }
}
