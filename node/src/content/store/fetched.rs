//! Taking over what was fetched.
//!
//! What it is not: fetching, or putting anything in its place; that is `transfer`.

use std::path::{Path, PathBuf};

use keyferry_proto::{
    address::Address,
    collection::FileTime,
    hash::{ContentFormat, ContentHash},
};

use super::{FetchedVersion, Root, RootOrigin, RootState, Store, StoreError, index::Location};
use crate::base::stamp::StampTrust;

/// How many files are put into the index together.
pub(super) const MAX_ADDED_TOGETHER: usize = 4096;

/// More files than this are not put into the index again for want of half a second.
const MAX_PUT_IN_AGAIN: u64 = 20_000;

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedFile {
    /// The blob that was written to it.
    pub hash: ContentHash,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is.
    pub path: PathBuf,
    /// The time of its last change that it was given when it was written, if it was given one.
    pub modified: Option<FileTime>,
}

impl Store {
    /// The versions that were put at `path`, the last one first. Some of what is there may be of an earlier one.
    pub fn versions_at(&self, path: &Path) -> Vec<FetchedVersion> {
        let mut versions = self.0.targets.versions_at(path);
        // The record may be lost, or of another form.
        let is_at = |root: &Root| matches!(&root.origin, RootOrigin::Fetched { path: at } if at == path);
        for root in self.read_roots().iter().filter(|root| is_at(root)) {
            let version = FetchedVersion { hash: root.hash, format: root.format };
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        versions
    }

    /// What was last fetched to `path`, as its address says it.
    pub fn source_at(&self, path: &Path) -> Option<Address> {
        self.0.targets.source_at(path)
    }

    /// Notes that a version of what `source` names is about to be put at `path`; all of it is written, at `staged`. What was fetched there
    /// before is no root any more.
    ///
    /// # Errors
    /// If the disk refuses; then nothing of the version could be replaced by a newer one unasked.
    pub fn begin_version(
        &self,
        path: &Path,
        version: FetchedVersion,
        source: Option<&Address>,
        staged: &Path,
    ) -> Result<(), StoreError> {
        let _changing = self.lock_changing();
        let former = self.versions_at(path).into_iter().filter(|other| *other != version);
        // Where nothing was before, a power cut after this is known for what it is, though the fetch has not ended.
        let written = self.fetch_end(staged).ok();
        self.0.targets.begin(path, [version].into_iter().chain(former).collect(), source, written)?;
        let is_former = |root: &Root| {
            root.hash != version.hash && matches!(&root.origin, RootOrigin::Fetched { path: at } if at == path)
        };
        let former: Vec<Root> = self.read_roots().iter().filter(|root| is_former(root)).cloned().collect();
        if !former.is_empty() {
            self.change_roots(|roots| roots.retain(|root| !is_former(root)))?;
            // Most of the version may be what was there before.
            let to_come = Root {
                hash: version.hash,
                format: version.format,
                state: RootState::Kept,
                origin: RootOrigin::Fetched { path: path.to_owned() },
                ..former[0].clone()
            };
            let kept: Vec<Root> = self.roots_in_use().into_iter().chain([to_come]).collect();
            self.forget(&former, &kept);
        }
        Ok(())
    }

    /// Takes over what was fetched: `placed` says where each blob of the root is now, and from there it can be offered. The manifest of a
    /// collection was given by [`Store::put_blob_bytes`].
    ///
    /// # Errors
    /// [`StoreError::Changed`] or [`StoreError::Vanished`] if a file is not there with the size given.
    pub fn add_fetched(&self, root: Root, placed: impl IntoIterator<Item = PlacedFile>) -> Result<(), StoreError> {
        let _changing = self.lock_changing();
        let count = self.note_files(placed)?;
        self.on_index(|index| {
            index.finish_root(&root.hash, count)?;
            if count > MAX_PUT_IN_AGAIN { index.write_out() } else { Ok(()) }
        })?;
        if let RootOrigin::Fetched { path } = &root.origin {
            self.note_fetch_end(path);
        }
        self.add_root(|_| Some(root)).map(|_| ())
    }

    /// Notes files that were fetched, so that nobody has to fetch them again. Returns how many they are.
    ///
    /// # Errors
    /// [`StoreError::Changed`] or [`StoreError::Vanished`] if a file is not there with the size given.
    pub fn note_files(&self, placed: impl IntoIterator<Item = PlacedFile>) -> Result<u64, StoreError> {
        let (mut placed, mut count) = (placed.into_iter().peekable(), 0);
        // Of a million files, only some are in memory at a time.
        while placed.peek().is_some() {
            let mut places = Vec::new();
            for PlacedFile { hash, size, path, modified } in placed.by_ref().take(MAX_ADDED_TOGETHER) {
                let mut location = self.locate(path)?;
                if location.stamp.size != size {
                    return Err(StoreError::Changed { path: location.path });
                }
                location.trust = self.trust_in_written(&location, modified);
                places.push((hash, location));
            }
            count += places.len() as u64;
            self.add_places(&places)?;
        }
        Ok(count)
    }

    /// How far the stamp of a file vouches for it that was written here: not beyond what the index knows of it, if it was there before.
    fn trust_in_written(&self, location: &Location, modified: Option<FileTime>) -> StampTrust {
        modified.map_or(StampTrust::Never, |modified| {
            StampTrust::in_written(&location.stamp, i128::from(modified.0), &self.0.machine)
        })
    }
}

impl FetchedVersion {
    /// A version of a file.
    pub fn file(hash: ContentHash) -> Self {
        Self { hash, format: ContentFormat::Blob }
    }

    /// A version of a folder.
    pub fn folder(hash: ContentHash) -> Self {
        Self { hash, format: ContentFormat::Collection }
    }
}
