//! What need not be fetched: what an earlier run left, and what the store has from elsewhere; and whether there is room for the rest.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use keyferry_proto::{
    hash::ContentHash,
    transfer::{groups::GROUP_LEN, layout::Item, units::UnitRanges},
};
use tokio_util::sync::CancellationToken;

use super::{FetchPlan, FilePlace};
use crate::content::transfer::FetchError;

/// The largest file that every file system takes: FAT has 32 bits for it.
const LARGEST_EVERYWHERE: u64 = u32::MAX as u64;

impl FetchPlan {
    /// The units that need not be fetched: what an earlier run left, and what the store has from elsewhere.
    ///
    /// Everything that counts is hashed here; what is damaged is simply not counted.
    pub(in super::super) fn take_stock(&self, cancel: &CancellationToken) -> Result<UnitRanges, FetchError> {
        self.look_at_target(cancel)?;
        self.sort_out_taken_over(cancel)?;
        let mut have = UnitRanges::empty();
        for (index, item) in self.layout.items().iter().enumerate().filter(|(_, item)| item.units > 0) {
            if cancel.is_cancelled() {
                return Err(FetchError::Interrupted);
            }
            // What no file is to be written for is right where it is, or is not put there.
            if self.is_manifest(index) || self.wanted_places(index).next().is_none() {
                have.insert(item.unit_range());
                continue;
            }
            for group in self.groups_at_hand(index, item, cancel)?.iter() {
                have.insert(item.first_unit + group.start..item.first_unit + group.end);
            }
        }
        self.check_space(&have)?;
        Ok(have)
    }

    /// Finds, before the first byte comes, that the file system has room for all that is not here yet, and takes files as large.
    fn check_space(&self, have: &UnitRanges) -> Result<(), FetchError> {
        let mut needed = self.bytes_of_copies()?;
        for (index, item) in self.layout.items().iter().enumerate() {
            if self.is_manifest(index) || have.covers(item.unit_range()) {
                continue;
            }
            let here: u64 = have.slice(item.unit_range()).iter().map(|range| self.layout.byte_len(range)).sum();
            needed = needed.saturating_add(item.size.saturating_sub(here));
            if item.size > LARGEST_EVERYWHERE {
                let place = self.first_place(index)?;
                let file = self.staging.open_file(&place.relative, &place.attributes)?;
                self.try_length(&place.relative, &file, item.size)?;
            }
        }
        if needed > 0 { Ok(self.staging.check_room(needed)?) } else { Ok(()) }
    }

    /// Finds that a file can become so long. It stays as it is.
    fn try_length(&self, relative: &Path, file: &File, size: u64) -> Result<(), FetchError> {
        let io = |source| self.disk(relative, source);
        let before = file.metadata().map_err(io)?.len();
        file.set_len(size).map_err(io)?;
        file.set_len(before).map_err(io)
    }

    fn groups_at_hand(&self, index: usize, item: &Item, cancel: &CancellationToken) -> Result<UnitRanges, FetchError> {
        let place = self.first_place(index)?;
        let left = self.groups_left(&place, item)?;
        if left.total() == item.units {
            return Ok(left);
        }
        // The store may have all of it by now, from another fetch.
        match self.copy_from_store(&place, item, cancel)? {
            Copied::Whole => Ok(UnitRanges::from(0..item.units)),
            Copied::Nothing => Ok(left),
            // What was written may have replaced what was left.
            Copied::Damaged => self.groups_left(&place, item),
        }
    }

    /// The groups of an item that an earlier run left.
    fn groups_left(&self, place: &FilePlace, item: &Item) -> Result<UnitRanges, FetchError> {
        let leftover = if self.staging.is_new() { None } else { self.staging.open_existing(&place.relative)? };
        let Some(file) = leftover else { return Ok(UnitRanges::empty()) };
        if item.units == 1 {
            let is_whole = hash_of_small_file(&file, item.size).is_ok_and(|hash| hash == item.hash);
            return Ok(if is_whole { UnitRanges::from(0..1) } else { UnitRanges::empty() });
        }
        let outboard = self.store.partial_outboard(item.hash, item.size)?;
        Ok(outboard.verified_groups(&file, item.hash, item.size)?)
    }

    /// Copies an item that the store holds already, verifying it on the way. A damaged source counts as absent.
    fn copy_from_store(
        &self,
        place: &FilePlace,
        item: &Item,
        cancel: &CancellationToken,
    ) -> Result<Copied, FetchError> {
        let Ok(Some(blob)) = self.store.blob(&item.hash) else { return Ok(Copied::Nothing) };
        if blob.size() != item.size {
            return Ok(Copied::Nothing);
        }
        let file = self.staging.open_file(&place.relative, &place.attributes)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; item.size.min(1 << 20) as usize];
        let mut offset = 0;
        while offset < item.size {
            if cancel.is_cancelled() {
                return Err(FetchError::Interrupted);
            }
            let len = buffer.len().min((item.size - offset) as usize);
            if blob.read_at(offset, &mut buffer[..len]).is_err() {
                return Ok(Copied::Damaged);
            }
            hasher.update(&buffer[..len]);
            let written = file.write_all_at(&buffer[..len], offset);
            written.map_err(|source| self.disk(&place.relative, source))?;
            offset += len as u64;
        }
        if ContentHash::from(hasher.finalize()) != item.hash {
            return Ok(Copied::Damaged);
        }
        file.set_len(item.size).map_err(|source| self.disk(&place.relative, source))?;
        Ok(Copied::Whole)
    }
}

/// What became of a copy.
enum Copied {
    /// All of it is there, and is right.
    Whole,
    /// The store does not have it; nothing was written.
    Nothing,
    /// Something was written, but the store's source is not what it should be.
    Damaged,
}

/// The hash of a file of at most one unit; anything of another size is no match.
fn hash_of_small_file(mut file: &File, size: u64) -> io::Result<ContentHash> {
    let mut bytes = Vec::with_capacity(GROUP_LEN);
    if file.metadata()?.len() != size {
        return Err(io::ErrorKind::InvalidData.into());
    }
    file.read_to_end(&mut bytes)?;
    Ok(ContentHash::of(&bytes))
}
