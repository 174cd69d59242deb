//! How long steps may take, and what is said of them.

use std::{ops::RangeInclusive, time::Duration};

/// How long things may take.
pub(crate) struct Limits {
    /// All steps together.
    pub(crate) duration: Duration,
}

impl Limits {
    pub(crate) fn any(&self) -> RangeInclusive<Duration> {
        Duration::ZERO..=self.duration
    }
}
