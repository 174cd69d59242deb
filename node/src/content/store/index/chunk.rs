//! Places of blobs that are kept together, and their form in the index.
//!
//! ```text
//! u16 count | count × 32 hash | codec(list of PackedPlace)          oldest first
//! ```
//! Files that were found one after the other mostly lie in one folder: of each path, only what it does not share with the one before is kept.
//!
//! What it is not: a judge of what is in it; whoever keeps it adds a checksum.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

use keyferry_proto::{codec, hash::ContentHash};
use serde::{Deserialize, Serialize};

use super::location::Location;
use crate::base::stamp::{Stamp, StampTrust};

/// How many places are kept together. More of them are fewer entries; fewer are less to read for one of them.
pub(super) const MAX_PLACES: usize = 128;
/// With so many bytes of paths, a chunk takes no further place.
const MAX_PATHS_LEN: usize = 32 * 1024;
/// No form is longer, in bytes: one path may come on top.
pub(super) const MAX_CHUNK_LEN: usize = 1024 * 1024;
/// The length of a hash, in bytes.
const HASH_LEN: usize = 32;

/// Places that are kept together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The oldest first.
    places: Vec<(ContentHash, Location)>,
}

#[derive(Serialize, Deserialize)]
struct PackedPlace {
    /// How many bytes the path has in common with the one before.
    shared: usize,
    /// The other bytes.
    rest: Vec<u8>,
    stamp: Stamp,
    trust: StampTrust,
}

impl Chunk {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_full(&self) -> bool {
        let paths = || self.places.iter().map(|(_, location)| location.path.as_os_str().len()).sum::<usize>();
        self.len() >= MAX_PLACES || paths() >= MAX_PATHS_LEN
    }

    pub(super) fn push(&mut self, hash: ContentHash, location: Location) {
        self.places.push((hash, location));
    }

    /// The places of a blob, the oldest first.
    pub(super) fn of<'a>(&'a self, hash: &'a ContentHash) -> impl DoubleEndedIterator<Item = &'a Location> {
        self.places.iter().filter(move |(other, _)| other == hash).map(|(_, location)| location)
    }

    /// Keeps those places of a blob that are wanted. Returns whether that changes anything.
    pub(super) fn retain(&mut self, hash: &ContentHash, is_wanted: impl Fn(&Location) -> bool) -> bool {
        let before = self.len();
        self.places.retain(|(other, location)| other != hash || is_wanted(location));
        self.len() != before
    }

    pub(super) fn hashes(&self) -> impl Iterator<Item = &ContentHash> {
        self.places.iter().map(|(hash, _)| hash)
    }

    pub(super) fn into_places(self) -> Vec<(ContentHash, Location)> {
        self.places
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let count = u16::try_from(self.len()).expect("no more than MAX_PLACES");
        let mut bytes = count.to_le_bytes().to_vec();
        bytes.extend(self.hashes().flat_map(|hash| *hash.as_bytes()));
        let mut before: &[u8] = &[];
        let mut packed = Vec::with_capacity(self.len());
        for (_, Location { path, stamp, trust }) in &self.places {
            let path = path.as_os_str().as_bytes();
            let shared = path.iter().zip(before).take_while(|(one, other)| one == other).count();
            packed.push(PackedPlace { shared, rest: path[shared..].to_vec(), stamp: *stamp, trust: *trust });
            before = path;
        }
        bytes.extend(codec::encode(&packed));
        bytes
    }

    /// Reads what [`Chunk::encode`] wrote; none if it cannot be that.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (hashes, packed) = split(bytes)?;
        let packed: Vec<PackedPlace> = codec::decode(packed, MAX_CHUNK_LEN).ok()?;
        if packed.len() != hashes.len() {
            return None;
        }
        let mut before = Vec::new();
        let mut places = Vec::with_capacity(packed.len());
        for (hash, PackedPlace { shared, rest, stamp, trust }) in hashes.iter().zip(packed) {
            let mut path = before.get(..shared)?.to_vec();
            path.extend(rest);
            before.clone_from(&path);
            let location = Location { path: OsString::from_vec(path).into(), stamp, trust };
            places.push((ContentHash::from_bytes(*hash), location));
        }
        Some(Self { places })
    }
}

/// The blobs that a chunk has places of, by its form.
pub(super) fn hashes_in(bytes: &[u8]) -> Option<impl ExactSizeIterator<Item = ContentHash>> {
    let (hashes, _) = split(bytes)?;
    Some(hashes.iter().map(|hash| ContentHash::from_bytes(*hash)))
}

fn split(bytes: &[u8]) -> Option<(&[[u8; HASH_LEN]], &[u8])> {
    let (count, bytes) = bytes.split_first_chunk()?;
    let (hashes, rest) = bytes.split_at_checked(usize::from(u16::from_le_bytes(*count)) * HASH_LEN)?;
    Some((hashes.as_chunks().0, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::stamp::FileId;

    fn chunk(paths: &[Vec<u8>]) -> Chunk {
        let mut chunk = Chunk::default();
        for (number, path) in paths.iter().enumerate() {
            let (number, size) = (number as u64, path.len() as u64);
            let stamp = Stamp { size, modified: -5, changed: i128::from(number), file: FileId::numbered(number) };
            let location = Location { path: OsString::from_vec(path.clone()).into(), stamp, trust: StampTrust::Always };
            chunk.push(ContentHash::of(path), location);
        }
        chunk
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(paths in prop::collection::vec(prop::collection::vec(1u8..4, 0..20), 0..MAX_PLACES)) {
            let chunk = chunk(&paths);
            let bytes = chunk.encode();
            prop_assert!(hashes_in(&bytes).unwrap().eq(chunk.hashes().copied()));
            prop_assert_eq!(Chunk::decode(&bytes), Some(chunk));
        }

        #[test]
        fn garbage_is_no_chunk_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Chunk::decode(&bytes), hashes_in(&bytes).map(|hashes| hashes.len()));
        }
    }

    #[test]
    fn neighbours_take_little_space() {
        let paths: Vec<_> =
            (0..MAX_PLACES).map(|number| format!("/home/someone/pictures/2026/{number:05}.jpg").into_bytes()).collect();
        let len = chunk(&paths).encode().len();
        assert!(len < MAX_PLACES * 120, "{len}");
    }
}
