//! What an attempt has of the content so far: the units that are verified, and what the user is told of them.
//!
//! What it is not: a record of who gave it (`ledger`).

use std::ops::Range;

use keyferry_proto::transfer::units::UnitRanges;

use crate::content::transfer::plan::FetchPlan;

/// How far a fetch has come. All numbers count verified content only, that of earlier runs included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Bytes in all; 0 until known.
    pub total_bytes: u64,
    /// Files that are complete.
    pub done_files: u64,
    /// Files in all; 0 until known.
    pub total_files: u64,
    /// Whether there is nobody to ask now, or nobody who answers.
    pub is_stuck: bool,
}

/// The verified units.
#[derive(Default)]
pub(super) struct Tally {
    have: UnitRanges,
    progress: FetchProgress,
}

impl Tally {
    pub(super) fn progress(&self) -> FetchProgress {
        self.progress
    }

    /// Whether nothing is verified.
    pub(super) fn is_empty(&self) -> bool {
        self.have.is_empty()
    }

    /// Whether the last unit is verified, which proves the size of a blob.
    pub(super) fn proves_size(&self, plan: &FetchPlan) -> bool {
        plan.layout.total_units().checked_sub(1).is_none_or(|last| self.have.contains(last))
    }

    /// Takes up a plan and what it has found here, and returns the content bytes of that.
    pub(super) fn begin(&mut self, plan: &FetchPlan, have: &UnitRanges) -> u64 {
        self.progress.total_bytes = plan.content_len();
        self.progress.total_files = plan.file_count();
        self.progress.done_files += plan.empty_file_count();
        let before = self.progress.done_bytes;
        for range in have.iter() {
            self.count(plan, range);
        }
        self.progress.done_bytes - before
    }

    /// Counts verified units, and returns the content bytes that are new.
    pub(super) fn count(&mut self, plan: &FetchPlan, units: Range<u64>) -> u64 {
        let fresh = UnitRanges::from(units.clone()).difference(&self.have);
        self.have.insert(units);
        let mut gained = 0;
        for (index, item, groups) in plan.layout.select(&fresh) {
            // What no file is for is not of the part that is wanted.
            if plan.files_of(index) == 0 {
                continue;
            }
            let in_layout = groups.iter().map(|range| item.first_unit + range.start..item.first_unit + range.end);
            gained += in_layout.map(|range| plan.layout.byte_len(range)).sum::<u64>();
            if self.have.covers(item.unit_range()) {
                let files = plan.files_of(index);
                self.progress.done_files += files;
                // The others are copies of the first.
                self.progress.done_bytes += files.saturating_sub(1) * item.size;
            }
        }
        self.progress.done_bytes += gained;
        gained
    }
}
