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
        Ok(self.copy_from_store(&place, item, cancel)?.unwrap_or(left))
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

    /// Copies an item that the store holds already, and says which groups are right; none if it does not hold it.
    fn copy_from_store(
        &self,
        place: &FilePlace,
        item: &Item,
        cancel: &CancellationToken,
    ) -> Result<Option<UnitRanges>, FetchError> {
        let held = self.store.blob(&item.hash).ok().flatten();
        let Some(blob) = held.filter(|blob| blob.size() == item.size) else { return Ok(None) };
        let file = self.staging.open_file(&place.relative, &place.attributes)?;
        let disk = |source| self.disk(&place.relative, source);
        match blob.file() {
            None => {
                // A small one was proven when it was opened.
                let mut bytes = vec![0; item.size.min(GROUP_LEN as u64) as usize];
                blob.read_at(0, &mut bytes)?;
                file.write_all_at(&bytes, 0).map_err(disk)?;
                file.set_len(item.size).map_err(disk)?;
                Ok(Some(UnitRanges::from(0..item.units)))
            }
            Some(source) => {
                if let Err(error) = self.copy(source, &file, item.size, &place.relative, cancel)? {
                    tracing::debug!(%error, "what the store has already cannot be read to its end");
                }
                // The copy is what counts: its source may change at any time.
                let outboard = self.store.partial_outboard(item.hash, item.size)?;
                Ok(Some(outboard.verified_groups(&file, item.hash, item.size)?))
            }
        }
    }
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
