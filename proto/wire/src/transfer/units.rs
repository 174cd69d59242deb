//! Sets of units: a unit is one chunk group of 64 KiB at most, numbered through everything that a root names.
//!
//! ```text
//! list of ranges   u64 count (at most 2048), then for each: u64 start, u64 end
//!                  start < end; the next start > the last end (sorted, disjoint, not adjacent)
//!                  end 2^64 - 1 in the last range: to the end, wherever that is
//! ```
//!
//! What it is not: byte ranges. [`crate::transfer::layout`] says which bytes of which blob a unit is.

use std::{fmt, ops::Range};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::codec;

/// The greatest number of ranges of a set on the wire.
pub const MAX_WIRE_RANGES: usize = 2048;

/// The end of a range that has no end of its own: everything from its start.
pub const OPEN_END: u64 = u64::MAX;

/// A set of units, held as sorted, disjoint, non-adjacent, non-empty ranges `[start, end)`.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct UnitRanges(Vec<Range64>);

/// One range `[start, end)` of a set; never empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Range64(u64, u64);

/// Why a list of ranges from a peer is not a set of units.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangesError {
    /// A range that contains nothing.
    #[error("range {index} is empty: {start}..{end}")]
    Empty {
        /// Its place in the list, from 0.
        index: usize,
        /// Its start.
        start: u64,
        /// Its end.
        end: u64,
    },
    /// A range that is not behind the one before it, with a gap between.
    #[error("range {index} starts at {start}, which is not behind {previous_end}, where the one before it ends")]
    Unsorted {
        /// Its place in the list, from 0.
        index: usize,
        /// Its start.
        start: u64,
        /// The end of the range before it.
        previous_end: u64,
    },
}

impl UnitRanges {
    /// The set of nothing.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// Everything, to the end.
    pub fn all() -> Self {
        Self(vec![Range64(0, OPEN_END)])
    }

    /// Whether the set has no unit.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many units the set has; [`OPEN_END`] counts as unit number.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|range| range.1 - range.0).sum()
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + ExactSizeIterator + '_ {
        self.0.iter().map(|range| range.0..range.1)
    }

    /// The first unit of the set.
    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|range| range.0)
    }

    /// The end of the last range: one above the last unit.
    pub fn end(&self) -> Option<u64> {
        self.0.last().map(|range| range.1)
    }

    /// Whether the set has this unit.
    pub fn contains(&self, unit: u64) -> bool {
        let at = self.first_ending_after(unit);
        self.0.get(at).is_some_and(|range| range.0 <= unit)
    }

    /// Whether the set has every unit of `range`.
    pub fn covers(&self, range: Range<u64>) -> bool {
        let at = self.first_ending_after(range.start);
        range.is_empty() || self.0.get(at).is_some_and(|own| own.0 <= range.start && range.end <= own.1)
    }

    /// Whether the set has any unit of `range`.
    pub fn intersects(&self, range: Range<u64>) -> bool {
        let at = self.first_ending_after(range.start);
        !range.is_empty() && self.0.get(at).is_some_and(|own| own.0 < range.end)
    }

    /// Adds every unit of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Adjacent ranges are merged, so one that ends exactly where this starts counts as touched.
        let from = self.0.partition_point(|own| own.1 < range.start);
        let to = from + self.0[from..].partition_point(|own| own.0 <= range.end);
        let touched = &self.0[from..to];
        let merged = match (touched.first(), touched.last()) {
            (Some(first), Some(last)) => Range64(first.0.min(range.start), last.1.max(range.end)),
            _ => Range64(range.start, range.end),
        };
        self.0.splice(from..to, [merged]);
    }

    /// Removes every unit of `range`.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.first_ending_after(range.start);
        let to = from + self.0[from..].partition_point(|own| own.0 < range.end);
        let touched = &self.0[from..to];
        let left = touched.first().map(|own| Range64(own.0, range.start));
        let right = touched.last().map(|own| Range64(range.end, own.1));
        let rest: [Option<Range64>; 2] = [left, right].map(|rest| rest.filter(|rest| rest.0 < rest.1));
        self.0.splice(from..to, rest.into_iter().flatten());
    }

    /// The units that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut a, mut b) = (0, 0);
        let mut both = Vec::new();
        while let (Some(left), Some(right)) = (self.0.get(a), other.0.get(b)) {
            let common = Range64(left.0.max(right.0), left.1.min(right.1));
            if common.0 < common.1 {
                both.push(common);
            }
            if left.1 <= right.1 { a += 1 } else { b += 1 }
        }
        Self(both)
    }

    /// The units that are in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        let mut b = 0;
        for own in &self.0 {
            let mut start = own.0;
            while let Some(cut) = other.0.get(b).filter(|cut| cut.0 < own.1) {
                if start < cut.0 {
                    rest.push(Range64(start, cut.0));
                }
                start = start.max(cut.1);
                if cut.1 > own.1 {
                    break;
                }
                b += 1;
            }
            if start < own.1 {
                rest.push(Range64(start, own.1));
            }
        }
        Self(rest)
    }

    /// The units that are in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (mut more, fewer) =
            if self.0.len() >= other.0.len() { (self.clone(), other) } else { (other.clone(), self) };
        fewer.iter().for_each(|range| more.insert(range));
        more
    }

    /// The units within `window`, numbered from its start: what a request asks of one item of a layout.
    #[must_use]
    pub fn slice(&self, window: Range<u64>) -> Self {
        let from = self.first_ending_after(window.start);
        let inside = self.0[from..].iter().take_while(|own| own.0 < window.end);
        Self(
            inside
                .map(|own| Range64(own.0.max(window.start) - window.start, own.1.min(window.end) - window.start))
                .filter(|range| range.0 < range.1)
                .collect(),
        )
    }

    /// The first `count` ranges of the set; a request carries no more than [`MAX_WIRE_RANGES`].
    #[must_use]
    pub fn first_ranges(&self, count: usize) -> Self {
        Self(self.0[..count.min(self.0.len())].to_vec())
    }

    /// The first `count` units of the set, in order.
    #[must_use]
    pub fn first_units(&self, count: u64) -> Self {
        let mut left = count;
        let mut taken = Vec::new();
        for range in &self.0 {
            let take = left.min(range.1 - range.0);
            if take == 0 {
                break;
            }
            taken.push(Range64(range.0, range.0 + take));
            left -= take;
        }
        Self(taken)
    }

    /// The place of the first range that ends behind `unit`.
    fn first_ending_after(&self, unit: u64) -> usize {
        self.0.partition_point(|range| range.1 <= unit)
    }

    fn from_wire(list: Vec<Range64>) -> Result<Self, RangesError> {
        for (index, range) in list.iter().enumerate() {
            if range.0 >= range.1 {
                return Err(RangesError::Empty { index, start: range.0, end: range.1 });
            }
            match index.checked_sub(1).map(|before| list[before].1) {
                Some(previous_end) if range.0 <= previous_end => {
                    return Err(RangesError::Unsorted { index, start: range.0, previous_end });
                }
                _ => {}
            }
        }
        Ok(Self(list))
    }
}

impl From<Range<u64>> for UnitRanges {
    fn from(range: Range<u64>) -> Self {
        std::iter::once(range).collect()
    }
}

impl FromIterator<Range<u64>> for UnitRanges {
    fn from_iter<T: IntoIterator<Item = Range<u64>>>(ranges: T) -> Self {
        let mut set = Self::empty();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

impl fmt::Debug for UnitRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<'de> Deserialize<'de> for UnitRanges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = codec::at_most::<MAX_WIRE_RANGES, _, _>(deserializer)?;
        Self::from_wire(list).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
