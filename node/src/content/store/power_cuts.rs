//! What a power cut took of what was fetched: nobody waits until that is on the disk, so it may be gone in the next boot.
//!
//! Damage must not be confused with what the owner of a file did to it. So it is noted when each fetch ended, by the clock of its file
//! system, and in which boot of the machine. What was changed later, or in the same boot, is the owner's.
//!
//! ```json
//! {"version": 1, "fetched": [{"path": "/home/me/x", "boot": "32 digits", "changed_nanos": 1790000000123456789}]}
//! ```
//! That file may be lost, too: then nothing is taken for damage.
//!
//! What it is not: a check of what is shared; that is `verify`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use keyferry_proto::hash::ContentHash;
use serde::{Deserialize, Serialize};

use super::{
    Inner, OpenReport, Root, RootOrigin, Store, StoreError, disk,
    hashing::{self, FileToHash, Sources},
    rebuild::Rehashing,
};
use crate::base::stamp::Stamp;

const VERSION: u32 = 1;

/// How many fetches are remembered; the last ones. A power cut takes what is less than a minute old.
const MAX_REMEMBERED: usize = 256;

/// What ended when, in the order in which it did.
#[derive(Debug, Serialize, Deserialize)]
struct FetchEnds {
    version: u32,
    fetched: Vec<FetchEnd>,
}

/// When a fetch had put everything in its place.
#[derive(Debug, Serialize, Deserialize)]
struct FetchEnd {
    /// The file or folder.
    path: PathBuf,
    /// The boot in which that was, as [`BootId`](crate::base::stamp::BootId) shows it.
    boot: String,
    /// The last change of any of its files, in nanoseconds since 1970.
    changed_nanos: i128,
}

impl Store {
    /// Whether what was fetched to `path` in an earlier boot is not as it was, though nobody has changed it since.
    ///
    /// All of it is hashed for that.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn has_lost(&self, hash: &ContentHash, path: &Path) -> Result<bool, StoreError> {
        let is_meant =
            |root: &Root| root.hash == *hash && matches!(&root.origin, RootOrigin::Fetched { path: to } if to == path);
        let Some(root) = self.roots().into_iter().find(is_meant) else { return Ok(false) };
        let Inner { folders, machine, .. } = &*self.0;
        let ends = FetchEnds::read(&folders.fetch_ends());
        let Some(end) = ends.fetched.iter().rfind(|end| end.path == path) else { return Ok(false) };
        if end.boot == machine.boot.to_string() || !is_untouched_since(path, end.changed_nanos) {
            return Ok(false);
        }
        let _changing = self.lock_changing();
        let mut report = OpenReport::default();
        let wanted = self.files_of(&root, path, &mut report)?;
        let file = |(hash, size, path)| FileToHash { path, size, file: None, expected: Some(hash) };
        let files: Vec<FileToHash> = wanted.into_iter().map(file).collect();
        let mut rehashing = Rehashing::new(&files, Vec::new(), &mut report);
        let sources = Sources { files: &files, folder: None };
        hashing::hash_files(folders, machine, sources, false, &mut rehashing, &AtomicBool::new(false))?;
        Ok(report.lost_count > 0)
    }

    /// Notes that a fetch has just ended. `changed_nanos` is the last change of any of its files.
    ///
    /// The disk is not waited for: whatever is waited for next, such as the list of roots, takes it along where the file system has a
    /// journal.
    pub(super) fn note_fetch_end(&self, path: &Path, changed_nanos: i128) {
        let Inner { folders, machine, .. } = &*self.0;
        let file = folders.fetch_ends();
        let mut ends = FetchEnds::read(&file);
        ends.fetched.retain(|end| end.path != path);
        ends.fetched.push(FetchEnd { path: path.to_owned(), boot: machine.boot.to_string(), changed_nanos });
        let surplus = ends.fetched.len().saturating_sub(MAX_REMEMBERED);
        ends.fetched.drain(..surplus);
        let written = serde_json::to_vec(&ends).map_err(io::Error::from);
        let written = written.and_then(|bytes| {
            let temporary = tempfile::NamedTempFile::new_in(folders.temporary())?;
            disk::write_all_at(temporary.as_file(), &bytes, 0)?;
            temporary.persist(&file)?;
            Ok(())
        });
        if let Err(error) = written {
            tracing::warn!(%error, "what a power cut takes of this fetch would not be known as damage");
        }
    }
}

impl FetchEnds {
    /// Reads the file; one that is absent, or damaged, knows nothing.
    fn read(file: &Path) -> Self {
        let read = fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        read.filter(|ends| ends.version == VERSION).unwrap_or(Self { version: VERSION, fetched: Vec::new() })
    }
}

/// Whether the last change of every file at `path`, or below it, is no later than that. A power cut makes none later.
fn is_untouched_since(path: &Path, changed_nanos: i128) -> bool {
    walkdir::WalkDir::new(path).into_iter().all(|entry| {
        let is_old = |metadata: fs::Metadata| metadata.is_dir() || Stamp::of(&metadata).changed <= changed_nanos;
        entry.and_then(|entry| entry.metadata()).is_ok_and(is_old)
    })
}
