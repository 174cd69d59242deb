//! The blobs of a store: which file each is read from, and those whose bytes are kept in the data folder.
//!
//! What it is not: reading one ([`super::blob`]), or what is offered of them ([`super::roots`]).

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use keyferry_proto::{
    collection::{MAX_MANIFEST_LEN, Manifest},
    hash::ContentHash,
};

use super::{
    Inner, OutboardFile, Store, StoreError,
    blob::{Blob, Vouched, open_outboard},
    disk,
    doubts::SourceFinding,
    hashing::hash_bytes,
    index::Location,
    proving, source, tree,
};
use crate::base::{
    clock, durable,
    stamp::{Stamp, StampTrust},
};

impl Store {
    /// Opens a complete blob; none if it is not here.
    ///
    /// One of a single group is hashed here. A larger one is trusted where the index vouches for its file, else proven as it is read.
    ///
    /// # Errors
    /// [`StoreError::Changed`] or [`StoreError::Vanished`] if the only files that had it do not have it any more.
    pub fn blob(&self, hash: &ContentHash) -> Result<Option<Blob>, StoreError> {
        let mut failure = None;
        for location in self.locations(hash)? {
            match self.open_source(hash, &location.path, Some(&location)) {
                Ok(blob) => return Ok(Some(blob)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match self.open_source(hash, &self.0.folders.blob(hash), None) {
            Ok(blob) => Ok(Some(blob)),
            Err(StoreError::Vanished { .. }) => failure.map_or(Ok(None), Err),
            Err(StoreError::Changed { path }) => Err(StoreError::Damaged {
                path,
                problem: "it does not have the bytes that it is named after".to_owned(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Opens the blob that should be in the file at `path`; `known` is what the index knows of it.
    fn open_source(&self, hash: &ContentHash, path: &Path, known: Option<&Location>) -> Result<Blob, StoreError> {
        let Inner { folders, doubts, machine, .. } = &*self.0;
        let (file, metadata) = source::open(path)?;
        let stamp = Stamp::of(&metadata);
        let changed = || StoreError::Changed { path: path.to_owned() };
        if known.is_some_and(|known| known.stamp.size != stamp.size) {
            return Err(changed());
        }
        if tree::groups(stamp.size) == 1 {
            return Blob::small(*hash, path, stamp, &file);
        }
        let outboard = open_outboard(folders, hash, stamp.size)?;
        if known.is_some_and(|known| known.vouches_for(&stamp, machine)) {
            return Ok(Blob::large(*hash, path, stamp, file, outboard, Vouched::ByStamp));
        }
        match doubts.of(hash, &stamp) {
            SourceFinding::Proven(groups) if groups.total() == tree::groups(stamp.size) => {
                if let Err(error) = self.trust(hash, path, stamp, known) {
                    tracing::debug!(%error, "the index does not learn that a file was proven");
                }
                return Ok(Blob::large(*hash, path, stamp, file, outboard, Vouched::ByStamp));
            }
            SourceFinding::Proven(_) => {}
            SourceFinding::Wrong => return Err(changed()),
        }
        if !proving::is_likely(&file, &outboard, hash, stamp.size).map_err(StoreError::io("read", path))? {
            doubts.add_wrong(hash, &stamp);
            return Err(changed());
        }
        let vouched = Vouched::Not { doubts: doubts.clone(), is_stamp_good: !stamp.is_young(machine) };
        Ok(Blob::large(*hash, path, stamp, file, outboard, vouched))
    }

    /// Notes that all of a file was proven under this stamp.
    fn trust(&self, hash: &ContentHash, path: &Path, stamp: Stamp, known: Option<&Location>) -> Result<(), StoreError> {
        let before = known.filter(|known| known.stamp == stamp).map_or(StampTrust::Never, |known| known.trust);
        let trust = before.after_hashing(&stamp, &self.0.machine);
        self.add_places(&[(*hash, Location { path: path.to_owned(), stamp, trust })])
    }

    /// Reads the manifest of a collection; none if it is not here.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the bytes are not those that the hash names, or are no manifest.
    pub fn manifest(&self, hash: &ContentHash) -> Result<Option<Manifest>, StoreError> {
        let path = self.0.folders.blob(hash);
        let damaged = |problem: String| StoreError::Damaged { path: path.clone(), problem };
        let bytes = match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > MAX_MANIFEST_LEN as u64 => {
                return Err(damaged(format!("{} bytes are no manifest", metadata.len())));
            }
            Ok(_) => fs::read(&path).map_err(StoreError::io("read", &path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        let got = ContentHash::of(&bytes);
        if got != *hash {
            return Err(damaged(format!("expected the hash {hash}, got {got}")));
        }
        Manifest::decode(&bytes).map(Some).map_err(|error| damaged(error.to_string()))
    }

    /// Keeps a blob whose bytes are at hand, such as the manifest of a collection that is being fetched.
    ///
    /// It is kept from garbage collection for [`UNFINISHED_GRACE`](super::UNFINISHED_GRACE), or as long as a root refers to it.
    ///
    /// # Errors
    /// [`StoreError::HashMismatch`] if the bytes have another hash.
    pub fn put_blob_bytes(&self, hash: ContentHash, bytes: &[u8]) -> Result<(), StoreError> {
        let folders = &self.0.folders;
        let (got, parents) = hash_bytes(bytes);
        if got != hash {
            return Err(StoreError::HashMismatch { expected: hash, got });
        }
        self.on_index(|index| index.add_pending(&hash, clock::now()))?;
        // A fetch that is killed goes on with it one day.
        self.0.index.begin_to_write_out();
        for (path, bytes) in [(folders.outboard(&hash), &parents[..]), (folders.blob(&hash), bytes)] {
            if bytes.is_empty() && path != folders.blob(&hash) {
                continue;
            }
            let file = folders.temporary_file()?;
            disk::write_all_at(file.as_file(), bytes, 0).map_err(StoreError::io("write", &path))?;
            disk::keep_content(file, &path)?;
        }
        Ok(())
    }

    /// Waits until the outboards of some blobs, where they have any, and copies or manifests are on the disk.
    ///
    /// # Errors
    /// If the disk refuses; nothing is known of any of them then.
    pub fn sync_blobs<'a>(
        &self,
        outboards: impl Iterator<Item = &'a ContentHash>,
        copies: impl Iterator<Item = &'a ContentHash>,
    ) -> Result<(), StoreError> {
        let folders = &self.0.folders;
        let outboards = outboards.map(|hash| folders.outboard(hash)).filter(|path| path.exists());
        // A folder may have the same file many times.
        let paths: HashSet<PathBuf> = outboards.chain(copies.map(|hash| folders.blob(hash))).collect();
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        durable::sync_below(folders.root(), &paths).map_err(|(path, error)| StoreError::io("write", &path)(error))
    }

    /// Opens the outboard of a blob that is to be fetched: the one that an earlier run left, or a new one.
    ///
    /// `size` is what a peer says: nothing is allocated for it.
    pub fn partial_outboard(&self, hash: ContentHash, size: u64) -> Result<OutboardFile, StoreError> {
        OutboardFile::open(&self.0.folders, &self.0.active, hash, size)
    }
}
