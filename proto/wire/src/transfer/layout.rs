//! The one linear space of units that a root spans: the root blob, then the distinct non-empty files of the collection.
//!
//! ```text
//! item 0      the root blob: ceil(size / 65536) units, none if it is empty
//! items 1..   (a collection) each distinct hash of the manifest whose size is not 0, in order of first appearance:
//!             ceil(size / 65536) units each
//! ```
//! Units are numbered through all items. So one request names any part of a collection, and `0..MAX` names all of it
//! without knowing anything about it.
//!
//! What it is not: places on a disk. Where a blob goes, and how many files share it, is the sink's business.

use std::{collections::HashSet, ops::Range};

use crate::{
    collection::Manifest,
    hash::ContentHash,
    transfer::{
        groups::{GROUP_LEN, MAX_BLOB_SIZE, group_count},
        units::UnitRanges,
    },
};

/// The layout of a root: its items, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    items: Vec<Item>,
    total_units: u64,
    total_bytes: u64,
}

/// One blob in a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub hash: ContentHash,
    /// Its size in bytes.
    pub size: u64,
    /// The number of its first unit.
    pub first_unit: u64,
    /// How many units it has.
    pub units: u64,
    /// Bytes of all items before it.
    first_byte: u64,
}

/// Why a claimed size makes no layout. It is the fault of the peer that claims it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The claimed size of the root blob is above [`MAX_BLOB_SIZE`].
    #[error("the peer claims that {root} has {size} bytes; at most {MAX_BLOB_SIZE} are allowed")]
    TooLarge {
        /// The root.
        root: ContentHash,
        /// The claimed size in bytes.
        size: u64,
    },
    /// The claimed size is 0 and the hash is not the empty one, or the other way round.
    #[error("the peer claims that {root} has {size} bytes, which cannot be: one of both is of the empty blob")]
    Emptiness {
        /// The root.
        root: ContentHash,
        /// The claimed size in bytes.
        size: u64,
    },
}

impl Item {
    /// Its units, in the numbering of the layout.
    pub fn unit_range(&self) -> Range<u64> {
        self.first_unit..self.first_unit + self.units
    }

    /// Bytes from the start of the layout to the start of `unit`, which is one of this item or its end.
    fn bytes_until(&self, unit: u64) -> u64 {
        self.first_byte + ((unit - self.first_unit) * GROUP_LEN as u64).min(self.size)
    }
}

impl Layout {
    /// The layout of a single blob.
    pub fn blob(root: ContentHash, size: u64) -> Result<Self, LayoutError> {
        if size > MAX_BLOB_SIZE {
            return Err(LayoutError::TooLarge { root, size });
        }
        if (size == 0) != (root == ContentHash::EMPTY) {
            return Err(LayoutError::Emptiness { root, size });
        }
        let mut layout = Self { items: Vec::new(), total_units: 0, total_bytes: 0 };
        layout.push(root, size);
        Ok(layout)
    }

    /// The layout of a collection, whose manifest is a blob of `manifest_size` bytes.
    pub fn collection(root: ContentHash, manifest_size: u64, manifest: &Manifest) -> Result<Self, LayoutError> {
        let mut layout = Self::blob(root, manifest_size)?;
        let mut seen = HashSet::with_capacity(manifest.file_count());
        for (_, file) in manifest.files() {
            // The manifest vouches that equal hashes have equal sizes.
            if file.size > 0 && seen.insert(&file.hash) {
                layout.push(file.hash, file.size);
            }
        }
        Ok(layout)
    }

    /// The items, in order. The first is the root blob, even if it is empty.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// How many units there are in all.
    pub fn total_units(&self) -> u64 {
        self.total_units
    }

    /// How many bytes there are in all, the manifest included, each distinct blob once.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The item that has this unit, with its place among the items; none past the end.
    pub fn item_at(&self, unit: u64) -> Option<(usize, &Item)> {
        let index = self.items.partition_point(|item| item.unit_range().end <= unit);
        self.items.get(index).map(|item| (index, item))
    }

    /// How many bytes a range of units has; units past the end have none.
    pub fn byte_len(&self, units: Range<u64>) -> u64 {
        self.bytes_until(units.end).saturating_sub(self.bytes_until(units.start))
    }

    /// The items that have any of `units`, in order, each with its place among the items and the groups of it that are
    /// wanted (numbered from the start of the blob).
    pub fn select<'a>(&'a self, units: &'a UnitRanges) -> impl Iterator<Item = (usize, &'a Item, UnitRanges)> + 'a {
        let end = units.end().unwrap_or(0);
        let first = self.items.partition_point(|item| item.unit_range().end <= units.first().unwrap_or(0));
        let candidates = self.items.iter().enumerate().skip(first).take_while(move |(_, item)| item.first_unit < end);
        candidates
            .map(|(index, item)| (index, item, units.slice(item.unit_range())))
            .filter(|(_, _, groups)| !groups.is_empty())
    }

    fn bytes_until(&self, unit: u64) -> u64 {
        self.item_at(unit).map_or(self.total_bytes, |(_, item)| item.bytes_until(unit))
    }

    fn push(&mut self, hash: ContentHash, size: u64) {
        let units = group_count(size);
        self.items.push(Item { hash, size, first_unit: self.total_units, units, first_byte: self.total_bytes });
        self.total_units += units;
        self.total_bytes += size;
    }
}

#[cfg(test)]
mod tests;
