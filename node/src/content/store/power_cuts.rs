//! What a power cut took of what was fetched: nobody waits until that is on the disk, so it may be gone in the next boot.
//!
//! Damage must not be confused with what the owner of a file did to it. So it is noted when each fetch ended, by the clock of its file
//! system, and in which boot of the machine (see [`super::targets`]). What was changed later, or in the same boot, is the owner's.
//!
//! What it is not: a check of what is shared; that is `verify`.

use std::{fs, path::Path, sync::atomic::AtomicBool};

use keyferry_proto::hash::ContentHash;

use super::{
    FetchedVersion, Inner, OpenReport, Root, RootOrigin, RootState, Store, StoreError,
    hashing::{self, FileToHash, Sources},
    rebuild::Rehashing,
    targets::FetchEnd,
};
use crate::base::{clock, stamp::Stamp};

impl Store {
    /// Whether what was fetched to `path` in an earlier boot is not as it was, though nobody has changed it since.
    ///
    /// All of it is hashed for that.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn has_lost(&self, hash: &ContentHash, path: &Path) -> Result<bool, StoreError> {
        let Inner { folders, machine, targets, .. } = &*self.0;
        // It need not be a root: the power may have been cut before that.
        let Some(version) = targets.versions_at(path).into_iter().next().filter(|version| version.hash == *hash) else {
            return Ok(false);
        };
        let Some(end) = targets.end_at(path) else { return Ok(false) };
        if end.boot == machine.boot.to_string() || !is_untouched_since(path, end.changed_nanos) {
            return Ok(false);
        }
        let _changing = self.lock_changing();
        let mut report = OpenReport::default();
        let wanted = self.files_of(&as_root(version, path)?, path, &mut report)?;
        let file = |(hash, size, path)| FileToHash { path, size, file: None, expected: Some(hash) };
        let files: Vec<FileToHash> = wanted.into_iter().map(file).collect();
        let mut rehashing = Rehashing::new(&files, Vec::new(), &mut report);
        let sources = Sources { files: &files, folder: None };
        hashing::hash_files(folders, machine, sources, false, &mut rehashing, &AtomicBool::new(false))?;
        Ok(report.lost_count > 0)
    }

    /// Notes that a fetch to `path` has just ended. Its last act was to give the file or folder there its time, or its name: nothing in it was
    /// changed later.
    pub(super) fn note_fetch_end(&self, path: &Path) {
        let ended = self.fetch_end(path).and_then(|end| self.0.targets.end(path, end));
        if let Err(error) = ended {
            tracing::warn!(%error, "what a power cut takes of this fetch would not be known as damage");
        }
    }

    /// The end of a fetch whose last act was at `path`.
    pub(super) fn fetch_end(&self, path: &Path) -> Result<FetchEnd, StoreError> {
        let metadata = fs::symlink_metadata(path).map_err(StoreError::io("read", path))?;
        Ok(FetchEnd { boot: self.0.machine.boot.to_string(), changed_nanos: Stamp::of(&metadata).changed })
    }
}

/// What would be the root of a version that is at `path`. A file has the size that it has: if that is wrong, so is its hash.
fn as_root(version: FetchedVersion, path: &Path) -> Result<Root, StoreError> {
    let metadata = fs::symlink_metadata(path).map_err(StoreError::io("read", path))?;
    Ok(Root {
        hash: version.hash,
        format: version.format,
        size: metadata.len(),
        files: 1,
        attributes: None,
        state: RootState::Kept,
        origin: RootOrigin::Fetched { path: path.to_owned() },
        added: clock::now(),
    })
}

/// Whether the last change of every file at `path`, or below it, is no later than that. A power cut makes none later.
fn is_untouched_since(path: &Path, changed_nanos: i128) -> bool {
    walkdir::WalkDir::new(path).into_iter().all(|entry| {
        let is_old = |metadata: fs::Metadata| metadata.is_dir() || Stamp::of(&metadata).changed <= changed_nanos;
        entry.and_then(|entry| entry.metadata()).is_ok_and(is_old)
    })
}
