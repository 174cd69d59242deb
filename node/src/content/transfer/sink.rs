//! Where verified bytes go: gathered, written, and reported.
//!
//! What it is not: a judge of bytes; only what is verified comes here.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use keyferry_proto::{
    message::Refusal,
    transfer::{groups::GROUP_LEN, layout::Item, units::UnitRanges},
};

use super::{
    FetchError,
    plan::{FetchPlan, ItemFile},
};

/// Bytes of one unit.
pub(super) const UNIT: u64 = GROUP_LEN as u64;
/// Verified data is written in pieces of this many bytes.
const WRITE_LEN: usize = 512 * 1024;
/// Holes are made, and reported, in pieces of this many bytes at the most.
const CLEARED_TOGETHER: u64 = 64 << 20;
/// Small items are reported as verified in batches of this many units.
const REPORT_UNITS: u64 = 32;
/// What is verified is written and reported at least this often, so that a slow provider is not taken for a silent one.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What a request tells the fetch while it runs.
#[derive(Debug)]
pub(super) enum RequestProgress {
    /// Something useful came, but it is not kept yet.
    Alive,
    /// The content is described, and the search for what is here already has begun; that may take a while.
    Planning,
    /// The content's shape is known now, and these units need not be fetched.
    Planned { have: UnitRanges },
    /// These units are verified and on disk.
    Verified { units: Range<u64> },
    /// The provider does not give these units.
    ItemRefused { units: Range<u64>, refusal: Refusal },
}

/// Writes verified bytes of one item; consecutive ones are gathered first.
pub(super) struct Writer<'a> {
    plan: &'a FetchPlan,
    index: usize,
    first_unit: u64,
    pub(super) file: ItemFile,
    buffer: Vec<u8>,
    /// Where the gathered bytes, or zeros, begin in the item.
    offset: u64,
    len: usize,
    /// How many zeros are gathered, behind no bytes.
    zeros: u64,
    flushed: Instant,
    report: &'a dyn Fn(RequestProgress),
}

impl<'a> Writer<'a> {
    pub(super) fn open(
        plan: &'a FetchPlan,
        index: usize,
        item: &Item,
        report: &'a dyn Fn(RequestProgress),
    ) -> Result<Self, FetchError> {
        let file = plan.open_item(index)?;
        let buffer = vec![0; WRITE_LEN.min(item.size as usize)];
        let (first_unit, flushed) = (item.first_unit, Instant::now());
        Ok(Self { plan, index, first_unit, file, buffer, offset: 0, len: 0, zeros: 0, flushed, report })
    }

    /// Where to put the next bytes; they count once they are kept.
    pub(super) fn place(&mut self, offset: u64, len: usize) -> Result<&mut [u8], FetchError> {
        if self.zeros > 0 || offset != self.offset + self.len as u64 || self.len + len > self.buffer.len() {
            self.flush()?;
            self.offset = offset;
        }
        Ok(&mut self.buffer[self.len..self.len + len])
    }

    pub(super) fn keep(&mut self, len: usize) -> Result<(), FetchError> {
        self.len += len;
        if self.flushed.elapsed() >= REPORT_EVERY { self.flush() } else { Ok(()) }
    }

    /// Keeps zeros, which did not come.
    pub(super) fn keep_zeros(&mut self, offset: u64, len: usize) -> Result<(), FetchError> {
        if self.len > 0 || offset != self.offset + self.zeros {
            self.flush()?;
            self.offset = offset;
        }
        self.zeros += len as u64;
        let is_due = self.zeros >= CLEARED_TOGETHER || self.flushed.elapsed() >= REPORT_EVERY;
        if is_due { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> Result<(), FetchError> {
        self.flushed = Instant::now();
        let end = self.offset + self.len as u64 + self.zeros;
        if end > self.offset {
            match self.zeros {
                0 => self.plan.write_item(self.index, &self.file.data, &self.buffer[..self.len], self.offset)?,
                _ => self.plan.clear_item(self.index, &self.file.data, self.offset..end)?,
            }
            let units = self.first_unit + self.offset / UNIT..self.first_unit + end.div_ceil(UNIT);
            (self.report)(RequestProgress::Verified { units });
            (self.offset, self.len, self.zeros) = (end, 0, 0);
        }
        Ok(())
    }
}

/// Verified small items at consecutive units that wait to be reported.
pub(super) struct Batch<'a> {
    start_unit: u64,
    end_unit: u64,
    flushed: Instant,
    report: &'a dyn Fn(RequestProgress),
}

impl<'a> Batch<'a> {
    pub(super) fn new(report: &'a dyn Fn(RequestProgress)) -> Self {
        Self { start_unit: 0, end_unit: 0, flushed: Instant::now(), report }
    }

    pub(super) fn add(&mut self, unit: u64) {
        if self.end_unit != unit {
            self.flush();
            self.start_unit = unit;
        }
        self.end_unit = unit + 1;
        if self.end_unit - self.start_unit >= REPORT_UNITS || self.flushed.elapsed() >= REPORT_EVERY {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        self.flushed = Instant::now();
        if self.end_unit > self.start_unit {
            (self.report)(RequestProgress::Verified { units: self.start_unit..self.end_unit });
        }
        self.start_unit = self.end_unit;
    }
}
