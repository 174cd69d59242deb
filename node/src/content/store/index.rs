//! Which file has which blob: an index in sled that can always be made again from the roots.
//!
//! ```text
//! c | u32 number, big-endian   8 checksum | chunk             where some blobs are
//! r | 32 hash                  8 checksum | u64 count         this root is in the index, with so many blobs
//! p | 32 hash                  8 checksum | u64 unix time     a blob that belongs to no root yet (an unfinished fetch)
//! n                            8 checksum | u64 count         how many places there are in all chunks
//! ```
//! A million files are some thousand chunks: an entry for each of them would take sled longer than all else takes. Which chunk has a blob is in
//! memory (`places`).
//!
//! A checksum is the beginning of BLAKE3(key | value). sled checks its own pages too, but a folder that was overwritten
//! may still read as an older state or as garbage, so a value is checked when it is read, and all of them at the start.
//!
//! What it is not: the truth. The store tries what it says, and skips a place that no longer holds.

mod chunk;
mod error;
mod location;
mod opening;
mod places;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use keyferry_net::time::UnixTime;
use keyferry_proto::{codec, hash::ContentHash};
use serde::{Serialize, de::DeserializeOwned};
use sled::Batch;

use super::StoreError;

use self::{
    chunk::{Chunk, MAX_CHUNK_LEN, hashes_in},
    places::{BlobPlaces, ChunkNumber, Draft},
};
pub(super) use self::{error::IndexError, location::Location, opening::open};

/// No value is longer, in bytes.
const MAX_VALUE_LEN: usize = 64 * 1024;
/// How many places of a former index are taken over together.
const TAKEN_OVER_TOGETHER: usize = 4096;
const CHECKSUM_LEN: usize = 8;
const COUNT_KEY: &[u8] = b"n";
/// The tree of all this. Another form of the values is another tree.
const ENTRIES: &str = "chunks";
/// The tree of a form that is no more: `b`, the hash, and a list of places; the rest as here.
const FORMER_PLACES: &str = "places";
/// One of which nothing can be taken over: its stamps had no time that nobody can set.
const FORMER_ENTRIES: &str = "entries";

/// The open index.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    /// None if the disk was too full to open it: whoever only makes room does without.
    opened: Option<OpenIndex>,
    /// What is in the chunks. Held while they change.
    places: Mutex<BlobPlaces>,
}

#[derive(Debug)]
struct OpenIndex {
    database: sled::Db,
    entries: sled::Tree,
}

impl Index {
    fn new(path: PathBuf, database: sled::Db) -> Result<Self, IndexError> {
        let entries = guarded(&path, || database.open_tree(ENTRIES))?;
        Ok(Self { path, opened: Some(OpenIndex { database, entries }), places: Mutex::default() })
    }

    /// One that cannot be opened for want of space: it knows nothing, and everything asked of it fails for that reason.
    fn absent(path: PathBuf) -> Self {
        Self { path, opened: None, places: Mutex::default() }
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

    /// Takes over what an index of a former version knows, and drops it.
    fn take_over_former(&self) -> Result<(), IndexError> {
        let has_former = self.call(|opened| Ok(opened.database.tree_names().contains(&FORMER_PLACES.into())))?;
        if has_former {
            let former = self.call(|opened| opened.database.open_tree(FORMER_PLACES))?;
            let mut entries = former.iter().peekable();
            while entries.peek().is_some() {
                let (mut places, mut others) = (Vec::new(), Batch::default());
                for entry in entries.by_ref().take(TAKEN_OVER_TOGETHER) {
                    let (key, value) = self.call(|_| entry)?;
                    match key.split_first() {
                        Some((b'b', hash)) => {
                            let hash = hash.try_into().map(ContentHash::from_bytes);
                            let known = decode::<Vec<Location>>(&key, &value).unwrap_or_default();
                            places.extend(hash.ok().into_iter().flat_map(|hash| {
                                known.clone().into_iter().rev().map(move |location| (hash, location))
                            }));
                        }
                        Some((b'r' | b'p', _)) => others.insert(key, value),
                        _ => {}
                    }
                }
                self.add(places)?;
                self.apply(others)?;
            }
        }
        self.call(|opened| {
            opened.database.drop_tree(FORMER_PLACES)?;
            opened.database.drop_tree(FORMER_ENTRIES)
        })
        .map(drop)
    }

    /// A tree of the same database for another part of the node, which may lose it at any time.
    pub(super) fn other_tree(&self, name: &str) -> Result<sled::Tree, IndexError> {
        self.call(|opened| opened.database.open_tree(name))
    }

    /// The places of a blob, most recent ones first.
    pub(super) fn locations(&self, hash: &ContentHash) -> Result<Vec<Location>, IndexError> {
        self.lock_places().of(hash, |number| self.chunk(number))
    }

    /// Adds a place for each blob.
    pub(super) fn add(&self, places: impl IntoIterator<Item = (ContentHash, Location)>) -> Result<(), IndexError> {
        let mut added = places.into_iter().peekable();
        while added.peek().is_some() {
            let mut places = self.lock_places();
            let mut changes = places.change(|number| self.chunk(number));
            while !changes.are_enough()
                && let Some((hash, location)) = added.next()
            {
                changes.add(hash, location)?;
            }
            let drafts = changes.finish()?;
            self.write(&mut places, drafts, Batch::default())?;
        }
        Ok(())
    }

    /// Forgets blobs, and the roots among them.
    pub(super) fn remove(&self, hashes: &[ContentHash]) -> Result<(), IndexError> {
        let mut removed = hashes.iter().peekable();
        while removed.peek().is_some() {
            let (mut places, mut batch) = (self.lock_places(), Batch::default());
            let mut changes = places.change(|number| self.chunk(number));
            while !changes.are_enough()
                && let Some(hash) = removed.next()
            {
                changes.remove(hash)?;
                batch.remove(key(b'r', hash).as_slice());
            }
            let drafts = changes.finish()?;
            self.write(&mut places, drafts, batch)?;
        }
        Ok(())
    }

    /// Removes what cannot be read, before all of it is put in again.
    pub(super) fn remove_damaged(&self) -> Result<(), IndexError> {
        let mut places = self.lock_places();
        for number in places.chunks() {
            match self.chunk(number) {
                Err(IndexError::Damaged(_)) => {
                    places.lose(number);
                    let mut batch = Batch::default();
                    batch.remove(&chunk_key(number)[..]);
                    put(&mut batch, COUNT_KEY, &places.count());
                    self.apply(batch)?;
                }
                read => drop(read?),
            }
        }
        Ok(())
    }

    fn write(
        &self,
        places: &mut BlobPlaces,
        drafts: Vec<(ChunkNumber, Draft)>,
        mut batch: Batch,
    ) -> Result<(), IndexError> {
        for (number, Draft { chunk, .. }) in &drafts {
            let key = chunk_key(*number);
            match chunk.len() {
                0 => batch.remove(&key[..]),
                _ => put_bytes(&mut batch, &key, &chunk.encode()),
            }
        }
        let before: u64 = drafts.iter().map(|(number, _)| places.len_of(*number)).sum();
        let after: u64 = drafts.iter().map(|(_, draft)| draft.chunk.len() as u64).sum();
        put(&mut batch, COUNT_KEY, &(places.count() + after - before));
        self.apply(batch)?;
        places.changed(drafts);
        Ok(())
    }

    fn chunk(&self, number: ChunkNumber) -> Result<Chunk, IndexError> {
        let key = chunk_key(number);
        let value = self.call(|opened| opened.entries.get(&key[..]))?;
        let chunk = value.as_deref().and_then(|value| checked(&key, value)).and_then(Chunk::decode);
        chunk.ok_or_else(|| IndexError::Damaged(format!("chunk {} of it is not as it was written", number.0)))
    }

    fn lock_places(&self) -> MutexGuard<'_, BlobPlaces> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
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
                let (key, value) = entry?;
                match key.split_first() {
                    Some((b'c', _)) => {
                        hashes.extend(checked(&key, &value).and_then(hashes_in).into_iter().flatten());
                    }
                    Some((b'p', hash)) => hashes.extend(hash.try_into().map(ContentHash::from_bytes)),
                    _ => {}
                }
            }
            Ok(hashes)
        })
    }

    /// Reads every entry, compares it with its checksum, and the number of places with the one noted; learns which chunk has what.
    fn read_all(&self) -> Result<(), IndexError> {
        let places = self.call(|opened| {
            let mut places = BlobPlaces::default();
            for entry in &opened.entries {
                let (key, value) = entry?;
                let is_sound = match key.split_first() {
                    Some((b'c', number)) => number.try_into().is_ok_and(|number| {
                        let hashes = checked(&key, &value).and_then(hashes_in);
                        let is_sound = hashes.is_some();
                        let number = ChunkNumber(u32::from_be_bytes(number));
                        hashes.into_iter().for_each(|hashes| places.insert(number, hashes));
                        is_sound
                    }),
                    Some((b'r' | b'p', hash)) => hash.len() == 32 && decode::<u64>(&key, &value).is_some(),
                    _ => key == COUNT_KEY && decode::<u64>(&key, &value).is_some(),
                };
                if !is_sound {
                    return Ok(Err(IndexError::Damaged(format!("an entry does not match its checksum: {key:02x?}"))));
                }
            }
            Ok(Ok(places))
        })??;
        let (found, noted): (u64, u64) = (places.count(), self.get(COUNT_KEY)?.unwrap_or_default());
        if found != noted {
            return Err(IndexError::Damaged(format!("expected {noted} places, got {found}")));
        }
        *self.lock_places() = places;
        Ok(())
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

fn key(kind: u8, hash: &ContentHash) -> Vec<u8> {
    [&[kind], &hash.as_bytes()[..]].concat()
}

fn chunk_key(number: ChunkNumber) -> [u8; 5] {
    let [a, b, c, d] = number.0.to_be_bytes();
    [b'c', a, b, c, d]
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = blake3::Hasher::new().update(key).update(value).finalize();
    let mut checksum = [0; CHECKSUM_LEN];
    checksum.copy_from_slice(&hash.as_bytes()[..CHECKSUM_LEN]);
    checksum
}

fn put<T: Serialize>(batch: &mut Batch, key: &[u8], value: &T) {
    put_bytes(batch, key, &codec::encode(value));
}

fn put_bytes(batch: &mut Batch, key: &[u8], value: &[u8]) {
    batch.insert(key, [&checksum(key, value)[..], value].concat());
}

/// What is behind the checksum, if it is as it was written.
fn checked<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (found, value) = value.split_first_chunk::<CHECKSUM_LEN>()?;
    (value.len() <= MAX_CHUNK_LEN && *found == checksum(key, value)).then_some(value)
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Option<T> {
    codec::decode(checked(key, value)?, MAX_VALUE_LEN).ok()
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
