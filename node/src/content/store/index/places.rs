//! Which chunks have places of a blob, and changes of chunks before they are written.
//!
//! In memory there are eight bytes for each place: the beginning of the hash, and the number of a chunk. A chunk that they lead to may have
//! nothing of the blob; what it has says the chunk.
//!
//! What it is not: the chunks themselves; whoever asks reads and writes them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    sync::Arc,
};

use keyferry_proto::hash::ContentHash;

use super::{
    chunk::{Chunk, MAX_PLACES},
    error::IndexError,
    location::Location,
};

/// How many places are remembered for one blob; the oldest goes first.
const MAX_LOCATIONS: usize = 4;
/// How many chunks are kept as they were read: some requests at a time, each of which goes through a folder.
const MAX_RECENT: usize = 16;
/// How many chunks may be changed together.
const MAX_CHANGED: usize = 64;
/// A chunk of fewer places is joined with others.
const FEW_PLACES: usize = MAX_PLACES / 4;

/// The number of a chunk: those that were begun later have greater ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkNumber(pub(super) u32);

/// The first bytes of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Beginning(u32);

/// What is known of the chunks without reading them.
#[derive(Debug, Default)]
pub(super) struct BlobPlaces {
    chunks_of: BTreeSet<(Beginning, ChunkNumber)>,
    lens: BTreeMap<ChunkNumber, usize>,
    recent: VecDeque<(ChunkNumber, Arc<Chunk>)>,
}

/// Changes of chunks that are not written yet.
pub(super) struct ChunkChanges<'a, R> {
    places: &'a BlobPlaces,
    read: R,
    drafts: BTreeMap<ChunkNumber, Draft>,
    /// What is in the drafts and not in `places`.
    added: BTreeSet<(Beginning, ChunkNumber)>,
    last: ChunkNumber,
}

/// A chunk to write; one without places is to be removed.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) chunk: Chunk,
    is_changed: bool,
    /// What it had places of.
    before: Vec<Beginning>,
}

impl BlobPlaces {
    /// Learns what is in a chunk that was read.
    pub(super) fn insert(&mut self, number: ChunkNumber, hashes: impl ExactSizeIterator<Item = ContentHash>) {
        self.lens.insert(number, hashes.len());
        self.chunks_of.extend(hashes.map(|hash| (Beginning::of(&hash), number)));
    }

    /// How many places there are.
    pub(super) fn count(&self) -> u64 {
        self.lens.values().map(|len| *len as u64).sum()
    }

    /// How many of them a chunk has.
    pub(super) fn len_of(&self, number: ChunkNumber) -> u64 {
        self.lens.get(&number).map_or(0, |len| *len as u64)
    }

    /// The chunks, the oldest first.
    pub(super) fn chunks(&self) -> Vec<ChunkNumber> {
        self.lens.keys().copied().collect()
    }

    /// Forgets a chunk that cannot be read.
    pub(super) fn lose(&mut self, number: ChunkNumber) {
        self.lens.remove(&number);
        self.recent.retain(|(other, _)| *other != number);
        self.chunks_of.retain(|(_, other)| *other != number);
    }

    /// The places of a blob, most recent ones first.
    pub(super) fn of(
        &mut self,
        hash: &ContentHash,
        read: impl Fn(ChunkNumber) -> Result<Chunk, IndexError>,
    ) -> Result<Vec<Location>, IndexError> {
        let numbers: Vec<_> = chunks_of(&self.chunks_of, hash).collect();
        let mut found = Vec::new();
        for number in numbers.into_iter().rev() {
            let chunk = match self.recent.iter().find(|(other, _)| *other == number) {
                Some((_, chunk)) => Arc::clone(chunk),
                None => {
                    let chunk = Arc::new(read(number)?);
                    self.recent.truncate(MAX_RECENT - 1);
                    self.recent.push_front((number, Arc::clone(&chunk)));
                    chunk
                }
            };
            found.extend(chunk.of(hash).rev().cloned());
        }
        found.truncate(MAX_LOCATIONS);
        Ok(found)
    }

    /// Begins to change chunks, which are read by `read`.
    pub(super) fn change<R>(&self, read: R) -> ChunkChanges<'_, R>
    where
        R: Fn(ChunkNumber) -> Result<Chunk, IndexError>,
    {
        let last = self.lens.last_key_value().map_or(ChunkNumber(0), |(last, _)| *last);
        ChunkChanges { places: self, read, drafts: BTreeMap::new(), added: BTreeSet::new(), last }
    }

    /// Learns that changes were written.
    pub(super) fn changed(&mut self, drafts: Vec<(ChunkNumber, Draft)>) {
        for (number, Draft { chunk, before, .. }) in drafts {
            self.recent.retain(|(other, _)| *other != number);
            for beginning in before {
                self.chunks_of.remove(&(beginning, number));
            }
            self.chunks_of.extend(chunk.hashes().map(|hash| (Beginning::of(hash), number)));
            match chunk.len() {
                0 => self.lens.remove(&number),
                len => self.lens.insert(number, len),
            };
        }
    }
}

impl<R> ChunkChanges<'_, R>
where
    R: Fn(ChunkNumber) -> Result<Chunk, IndexError>,
{
    /// Whether enough is changed, and the rest is to be changed after this is written.
    pub(super) fn are_enough(&self) -> bool {
        self.drafts.len() >= MAX_CHANGED
    }

    /// Adds a place of a blob, which is the most recent one then.
    pub(super) fn add(&mut self, hash: ContentHash, location: Location) -> Result<(), IndexError> {
        let numbers = self.chunks_of(&hash);
        let mut known = Vec::new();
        for number in &numbers {
            known.extend(self.draft(*number)?.chunk.of(&hash).cloned());
        }
        if known.last() == Some(&location) {
            return Ok(());
        }
        known.retain(|other| other.path != location.path);
        let is_oldest = known.len() + 1 > MAX_LOCATIONS;
        let oldest = known.first().filter(|_| is_oldest).map(|oldest| oldest.path.clone());
        for number in numbers {
            let draft = self.draft(number)?;
            draft.is_changed |=
                draft.chunk.retain(&hash, |other| other.path != location.path && Some(&other.path) != oldest.as_ref());
        }
        self.push(hash, location)
    }

    /// Forgets all places of a blob.
    pub(super) fn remove(&mut self, hash: &ContentHash) -> Result<(), IndexError> {
        for number in self.chunks_of(hash) {
            let draft = self.draft(number)?;
            draft.is_changed |= draft.chunk.retain(hash, |_| false);
        }
        Ok(())
    }

    /// The chunks to write.
    pub(super) fn finish(mut self) -> Result<Vec<(ChunkNumber, Draft)>, IndexError> {
        let is_thin = |(number, draft): (&ChunkNumber, &Draft)| {
            (draft.is_changed && *number != self.last && draft.chunk.len() < FEW_PLACES).then_some(*number)
        };
        let thin: Vec<_> = self.drafts.iter().filter_map(is_thin).collect();
        for number in thin {
            let draft = self.draft(number)?;
            for (hash, location) in std::mem::take(&mut draft.chunk).into_places() {
                self.push(hash, location)?;
            }
        }
        Ok(self.drafts.into_iter().filter(|(_, draft)| draft.is_changed).collect())
    }

    /// Puts a place behind all others.
    fn push(&mut self, hash: ContentHash, location: Location) -> Result<(), IndexError> {
        if self.draft(self.last)?.chunk.is_full() {
            self.last = ChunkNumber(self.last.0 + 1);
        }
        let number = self.last;
        let draft = self.draft(number)?;
        draft.chunk.push(hash, location);
        draft.is_changed = true;
        self.added.insert((Beginning::of(&hash), number));
        Ok(())
    }

    fn chunks_of(&self, hash: &ContentHash) -> Vec<ChunkNumber> {
        let numbers: BTreeSet<_> =
            chunks_of(&self.places.chunks_of, hash).chain(chunks_of(&self.added, hash)).collect();
        numbers.into_iter().collect()
    }

    fn draft(&mut self, number: ChunkNumber) -> Result<&mut Draft, IndexError> {
        match self.drafts.entry(number) {
            Entry::Occupied(draft) => Ok(draft.into_mut()),
            Entry::Vacant(place) if !self.places.lens.contains_key(&number) => Ok(place.insert(Draft::default())),
            Entry::Vacant(place) => {
                let chunk = (self.read)(number)?;
                let before = chunk.hashes().map(Beginning::of).collect();
                Ok(place.insert(Draft { chunk, is_changed: false, before }))
            }
        }
    }
}

fn chunks_of<'a>(
    chunks: &'a BTreeSet<(Beginning, ChunkNumber)>,
    hash: &ContentHash,
) -> impl DoubleEndedIterator<Item = ChunkNumber> + use<'a> {
    let beginning = Beginning::of(hash);
    chunks.range((beginning, ChunkNumber(0))..=(beginning, ChunkNumber(u32::MAX))).map(|(_, number)| *number)
}

impl Beginning {
    fn of(hash: &ContentHash) -> Self {
        let [a, b, c, d, ..] = *hash.as_bytes();
        Self(u32::from_be_bytes([a, b, c, d]))
    }
}
