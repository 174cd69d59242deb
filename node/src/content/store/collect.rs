//! Garbage collection: removing from the data folder what no root refers to.
//!
//! What it is not: a way to remove what the user owns. Files that are shared in place, or fetched, are never touched.

use std::{
    fs::{self, Metadata},
    io,
    path::Path,
    time::Duration,
};

use keyferry_proto::hash::ContentHash;

use super::{Store, StoreError, disk::Folders, found::walk_error, needed::Needed};
use crate::base::clock;

/// How long to keep what belongs to an unfinished fetch, so that the fetch can go on.
pub const UNFINISHED_GRACE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The result of a garbage collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files removed.
    pub files: u64,
    /// Bytes freed.
    pub bytes: u64,
}

impl Store {
    /// Removes copies, manifests, outboards and index entries that no root refers to, and indexes that were set aside.
    ///
    /// What unfinished fetches need is kept for `grace` (normally [`UNFINISHED_GRACE`]), and as long as it is in use. If the manifest of a
    /// root cannot be read, everything that it might refer to is kept.
    pub fn gc(&self, grace: Duration) -> Result<Collected, StoreError> {
        let _changing = self.lock_changing();
        if let Err(error) = self.0.targets.forget_gone() {
            tracing::warn!(%error, "the lists of what was fetched and is gone are kept");
        }
        let needed = self.needed_by(&self.roots_in_use());
        let mut collected = Collected::default();
        self.collect_folder(&self.0.folders.blobs(), &|hash| needed.has_copy(hash), grace, &mut collected)?;
        self.collect_folder(&self.0.folders.outboards(), &|hash| needed.has_entry(hash), grace, &mut collected)?;
        self.collect_set_aside(&mut collected)?;
        if let Err(error) = self.collect_entries(&needed, grace) {
            // What is removed is removed. The entries lead nowhere, and are tried again the next time.
            tracing::warn!(%error, "the index still has what was removed");
        }
        Ok(collected)
    }

    fn collect_entries(&self, needed: &Needed, grace: Duration) -> Result<(), StoreError> {
        let mut unneeded = self.on_index(|index| index.hashes())?;
        unneeded.retain(|hash| !needed.has_entry(hash) && !self.is_pending(hash, grace).unwrap_or(true));
        self.on_index(|index| index.remove(&unneeded))
    }

    /// Removes the files of one blob from the data folder, unless a fetch is using them.
    pub(super) fn remove_files(&self, hash: &ContentHash, needed: &Needed) -> Result<(), StoreError> {
        if self.0.active.contains(hash) {
            return Ok(());
        }
        let folders = &self.0.folders;
        if !needed.has_copy(hash) {
            remove(&folders.blob(hash))?;
        }
        if !needed.has_entry(hash) {
            remove(&folders.outboard(hash))?;
            remove(&folders.partial_outboard(hash))?;
        }
        Ok(())
    }

    fn collect_folder(
        &self,
        folder: &Path,
        is_needed: &dyn Fn(&ContentHash) -> bool,
        grace: Duration,
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        for entry in walkdir::WalkDir::new(folder).min_depth(2) {
            let entry = entry.map_err(|error| walk_error(folder, error))?;
            // A name that is not ours is not our business.
            let Some(hash) = Folders::hash_of(entry.path()).filter(|_| entry.file_type().is_file()) else { continue };
            if is_needed(&hash) || self.0.active.contains(&hash) {
                continue;
            }
            let metadata = entry.metadata().map_err(|error| walk_error(folder, error))?;
            let is_outboard = entry.path().extension().is_some();
            // Without the index, which a full disk may not let us open, its age has to do.
            let is_young = || is_younger(&metadata, grace);
            let is_unfinished =
                if is_outboard { is_young() } else { self.is_pending(&hash, grace).unwrap_or_else(|_| is_young()) };
            if !is_unfinished {
                remove(entry.path())?;
                collected.files += 1;
                collected.bytes += metadata.len();
            }
        }
        Ok(())
    }

    fn collect_set_aside(&self, collected: &mut Collected) -> Result<(), StoreError> {
        let folder = self.0.folders.root();
        for entry in folder.read_dir().map_err(StoreError::io("read", folder))?.flatten() {
            if !entry.file_name().to_string_lossy().starts_with("index.damaged-") {
                continue;
            }
            for file in walkdir::WalkDir::new(entry.path()).into_iter().flatten() {
                if let Ok(metadata) = file.metadata()
                    && metadata.is_file()
                {
                    collected.files += 1;
                    collected.bytes += metadata.len();
                }
            }
            fs::remove_dir_all(entry.path()).map_err(StoreError::io("remove", &entry.path()))?;
        }
        Ok(())
    }

    fn is_pending(&self, hash: &ContentHash, grace: Duration) -> Result<bool, StoreError> {
        let since = self.on_index(|index| index.pending_since(hash))?;
        Ok(since.is_some_and(|since| clock::now().since(since) < grace))
    }
}

fn is_younger(metadata: &Metadata, grace: Duration) -> bool {
    let age = metadata.modified().ok().and_then(clock::age);
    age.is_none_or(|age| age < grace)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(StoreError::io("remove", path)),
    }
}
