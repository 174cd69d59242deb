//! Which file has which blob: an index in sled that can always be made again from the roots.
//!
//! ```text
//! b | 32 hash   8 checksum | codec(list of Location)    where a blob is; at most MAX_LOCATIONS places
//! r | 32 hash   8 checksum | u64 count                  this root is in the index, with so many blobs
//! p | 32 hash   8 checksum | u64 unix time              a blob that belongs to no root yet (an unfinished fetch)
//! n             8 checksum | u64 count                  how many `b` entries there are
//! ```
//! A checksum is the beginning of BLAKE3(key | value). sled checks its own pages too, but a folder that was overwritten
//! may still read as an older state or as garbage, so a value is checked when it is read, and all of them at the start.
//!
//! What it is not: the truth. The store tries what it says, and skips a place that no longer holds.

mod opening;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use keyferry_net::time::UnixTime;
use keyferry_proto::{codec, hash::ContentHash};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sled::Batch;

use super::StoreError;
use crate::base::{
    any_path,
    stamp::{Machine, Stamp, StampTrust},
};

pub(super) use self::opening::open;

/// How many places are remembered for one blob; the oldest goes first.
const MAX_LOCATIONS: usize = 4;
/// No value is longer, in bytes.
const MAX_VALUE_LEN: usize = 64 * 1024;
/// How many entries go into sled in one batch.
const BATCH: usize = 1024;
const CHECKSUM_LEN: usize = 8;
const COUNT_KEY: &[u8] = b"n";
/// The tree of all this. Another form of the values is another tree.
const ENTRIES: &str = "places";
/// The tree of a form that is no more, whose stamps had no time that nobody can set.
const FORMER_ENTRIES: &str = "entries";

/// A file that has a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Location {
    /// The file, absolute.
    #[serde(with = "any_path")]
    pub(super) path: PathBuf,
    /// What it was like when it was hashed, or found.
    pub(super) stamp: Stamp,
    /// How far that vouches for it.
    pub(super) trust: StampTrust,
}

impl Location {
    /// Whether a file with this stamp has the blob for sure.
    pub(super) fn vouches_for(&self, found: &Stamp, machine: &Machine) -> bool {
        self.stamp == *found && self.trust.holds(machine)
    }
}

/// The open index.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    /// None if the disk was too full to open it: whoever only makes room does without.
    opened: Option<OpenIndex>,
    /// Held while entries change, so that their number is right.
    changing: Mutex<()>,
}

#[derive(Debug)]
struct OpenIndex {
    database: sled::Db,
    entries: sled::Tree,
}

/// Why the index gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    /// It says something that cannot be true: make it again.
    #[error("{0}")]
    Damaged(String),
    /// The disk refused.
    #[error(transparent)]
    Disk(StoreError),
}

impl Index {
    fn new(path: PathBuf, database: sled::Db) -> Result<Self, IndexError> {
        let entries = guarded(&path, || database.open_tree(ENTRIES))?;
        Ok(Self { path, opened: Some(OpenIndex { database, entries }), changing: Mutex::new(()) })
    }

    /// One that cannot be opened for want of space: it knows nothing, and everything asked of it fails for that reason.
    fn absent(path: PathBuf) -> Self {
        Self { path, opened: None, changing: Mutex::new(()) }
    }

    /// Whether it could be opened.
    pub(super) fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Closes it, and waits for that.
    fn close(mut self) {
        // sled may panic when it writes out what it made of a damaged file.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.opened.take())));
    }

    fn call<T>(&self, call: impl FnOnce(&OpenIndex) -> sled::Result<T>) -> Result<T, IndexError> {
        match &self.opened {
            Some(opened) => guarded(&self.path, || call(opened)),
            None => Err(classify(&self.path, std::io::ErrorKind::StorageFull.into())),
        }
    }

    /// Writes out what is new. It is not waited for until the disk has the file's length and place, too: what is lost is put in again.
    pub(super) fn write_out(&self) -> Result<(), IndexError> {
        self.call(|opened| opened.database.flush()).map(drop)
    }

    /// The same, while the caller goes on.
    pub(super) fn begin_to_write_out(&self) {
        let Some(opened) = &self.opened else { return };
        let (database, path) = (opened.database.clone(), self.path.clone());
        let write_out = move || {
            if let Err(error) = guarded(&path, || database.flush()) {
                tracing::debug!(%error, "the index is not written out yet");
            }
        };
        // Where there is no thread to be had, it is written out later.
        let _ = thread::Builder::new().name("write index".to_owned()).spawn(write_out);
    }

    /// Drops the entries of a former version.
    fn drop_former(&self) -> Result<(), IndexError> {
        self.call(|opened| opened.database.drop_tree(FORMER_ENTRIES)).map(drop)
    }

    /// A tree of the same database for another part of the node, which may lose it at any time.
    pub(super) fn other_tree(&self, name: &str) -> Result<sled::Tree, IndexError> {
        self.call(|opened| opened.database.open_tree(name))
    }

    /// The places of a blob, the most recent first.
    pub(super) fn locations(&self, hash: &ContentHash) -> Result<Vec<Location>, IndexError> {
        Ok(self.get(&blob_key(hash))?.unwrap_or_default())
    }

    /// Adds a place for each blob. What was there and cannot be read is replaced.
    pub(super) fn add(&self, places: impl IntoIterator<Item = (ContentHash, Location)>) -> Result<(), IndexError> {
        let mut places = places.into_iter().peekable();
        while places.peek().is_some() {
            let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            // One map for a batch, as a blob may come twice in it.
            let mut merged = std::collections::HashMap::new();
            let mut added = 0;
            for (hash, location) in places.by_ref().take(BATCH) {
                let known = match merged.remove(&hash) {
                    Some(known) => known,
                    None => match self.get::<Vec<Location>>(&blob_key(&hash)) {
                        Ok(Some(known)) => known,
                        Ok(None) => {
                            added += 1;
                            Vec::new()
                        }
                        Err(IndexError::Damaged(_)) => Vec::new(),
                        Err(error) => return Err(error),
                    },
                };
                merged.insert(hash, with_location(known, location));
            }
            let mut batch = Batch::default();
            for (hash, locations) in merged {
                put(&mut batch, &blob_key(&hash), &locations);
            }
            put(&mut batch, COUNT_KEY, &(self.count()? + added));
            self.apply(batch)?;
        }
        Ok(())
    }

    /// Forgets blobs, and the roots among them.
    pub(super) fn remove(&self, hashes: &[ContentHash]) -> Result<(), IndexError> {
        for hashes in hashes.chunks(BATCH) {
            let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut batch = Batch::default();
            let mut removed = 0;
            for hash in hashes {
                removed += u64::from(self.contains(&blob_key(hash))?);
                batch.remove(blob_key(hash).as_slice());
                batch.remove(key(b'r', hash).as_slice());
            }
            put(&mut batch, COUNT_KEY, &self.count()?.saturating_sub(removed));
            self.apply(batch)?;
        }
        Ok(())
    }

    /// Says that a root is in the index. Nobody waits until the disk has it: one that is lacking is put in again.
    pub(super) fn finish_root(&self, root: &ContentHash, blobs: u64) -> Result<(), IndexError> {
        let mut batch = Batch::default();
        put(&mut batch, &key(b'r', root), &blobs);
        batch.remove(key(b'p', root).as_slice());
        self.apply(batch)
    }

    /// Whether [`Index::finish_root`] was called for this root.
    pub(super) fn has_root(&self, root: &ContentHash) -> Result<bool, IndexError> {
        Ok(self.get::<u64>(&key(b'r', root))?.is_some())
    }

    /// Notes a blob that belongs to no root yet.
    pub(super) fn add_pending(&self, hash: &ContentHash, now: UnixTime) -> Result<(), IndexError> {
        let mut batch = Batch::default();
        put(&mut batch, &key(b'p', hash), &now.0);
        self.apply(batch)
    }

    /// Since when a blob belongs to no root yet.
    pub(super) fn pending_since(&self, hash: &ContentHash) -> Result<Option<UnixTime>, IndexError> {
        Ok(self.get(&key(b'p', hash))?.map(UnixTime))
    }

    /// Every blob in the index, and every pending one, in no order that matters.
    pub(super) fn hashes(&self) -> Result<Vec<ContentHash>, IndexError> {
        self.call(|opened| {
            let mut hashes = Vec::new();
            for entry in &opened.entries {
                let (key, _) = entry?;
                if let Some((b'b' | b'p', hash)) = key.split_first()
                    && let Ok(hash) = hash.try_into()
                {
                    hashes.push(ContentHash::from_bytes(hash));
                }
            }
            Ok(hashes)
        })
    }

    /// Reads every entry and compares it with its checksum, and their number with the one noted.
    fn check(&self) -> Result<(), IndexError> {
        let found = self.call(|opened| {
            let mut found = 0;
            for entry in &opened.entries {
                let (key, value) = entry?;
                let sound = match key.first() {
                    Some(b'b') if key.len() == 33 => {
                        found += 1;
                        decode::<Vec<Location>>(&key, &value).is_some()
                    }
                    Some(b'r' | b'p') if key.len() == 33 => decode::<u64>(&key, &value).is_some(),
                    _ => key == COUNT_KEY && decode::<u64>(&key, &value).is_some(),
                };
                if !sound {
                    return Ok(Err(IndexError::Damaged(format!("an entry does not match its checksum: {key:02x?}"))));
                }
            }
            Ok(Ok(found))
        })??;
        let noted = self.count()?;
        if found == noted {
            return Ok(());
        }
        Err(IndexError::Damaged(format!("expected {noted} entries, got {found}")))
    }

    fn count(&self) -> Result<u64, IndexError> {
        Ok(self.get(COUNT_KEY)?.unwrap_or_default())
    }

    fn contains(&self, key: &[u8]) -> Result<bool, IndexError> {
        self.call(|opened| opened.entries.contains_key(key))
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, IndexError> {
        let Some(value) = self.call(|opened| opened.entries.get(key))? else { return Ok(None) };
        let damaged = || IndexError::Damaged(format!("the entry {key:02x?} does not match its checksum"));
        decode(key, &value).map(Some).ok_or_else(damaged)
    }

    fn apply(&self, batch: Batch) -> Result<(), IndexError> {
        // Taken apart from the closure's borrow: sled wants the batch by value.
        let mut batch = Some(batch);
        self.call(|opened| batch.take().map_or(Ok(()), |batch| opened.entries.apply_batch(batch)))
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// sled waits for the disk when it is closed, on ext4 for everything that was written of late. Nobody else needs to; but the process does not
/// end in that time, so one that is to end keeps the index open.
impl Drop for Index {
    fn drop(&mut self) {
        if let Some(opened) = self.opened.take() {
            // Where there is no thread to be had, it is closed here.
            let _ = thread::Builder::new().name("close index".to_owned()).spawn(move || drop(opened));
        }
    }
}

fn with_location(mut known: Vec<Location>, location: Location) -> Vec<Location> {
    known.retain(|other| other.path != location.path);
    known.insert(0, location);
    known.truncate(MAX_LOCATIONS);
    known
}

fn key(kind: u8, hash: &ContentHash) -> Vec<u8> {
    [&[kind], &hash.as_bytes()[..]].concat()
}

fn blob_key(hash: &ContentHash) -> Vec<u8> {
    key(b'b', hash)
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = blake3::Hasher::new().update(key).update(value).finalize();
    let mut checksum = [0; CHECKSUM_LEN];
    checksum.copy_from_slice(&hash.as_bytes()[..CHECKSUM_LEN]);
    checksum
}

fn put<T: Serialize>(batch: &mut Batch, key: &[u8], value: &T) {
    let value = codec::encode(value);
    batch.insert(key, [&checksum(key, &value)[..], &value].concat());
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Option<T> {
    let (found, value) = value.split_first_chunk::<CHECKSUM_LEN>()?;
    if *found != checksum(key, value) {
        return None;
    }
    codec::decode(value, MAX_VALUE_LEN).ok()
}

/// Calls sled, which panics where it meets what it does not expect.
fn guarded<T>(path: &std::path::Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(classify(path, error)),
        Ok(Err(error)) => Err(IndexError::Damaged(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            Err(IndexError::Damaged(format!("sled panicked: {text}")))
        }
    }
}

/// Tells a disk that refuses, which a new index would not cure, from files that make no sense.
fn classify(path: &std::path::Path, error: std::io::Error) -> IndexError {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};

    if matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull) {
        return IndexError::Disk(StoreError::io("write in", path)(error));
    }
    IndexError::Damaged(error.to_string())
}

#[cfg(test)]
mod tests;
