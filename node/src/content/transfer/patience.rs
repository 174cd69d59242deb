//! How long to wait for somebody who has the content.
//!
//! What it is not: patience with a single provider; that is the schedule's.

use std::time::Duration;

/// How long an attempt with nobody to ask waits for somebody.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// If nobody was ever found.
    pub(super) to_find: Duration,
    /// If all who were found are there, and give nothing.
    pub(super) when_refused: Duration,
    /// If somebody was lost who may be back: so long after there was last any progress.
    pub(super) for_return: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let (to_find, when_refused) = (Duration::from_secs(30), Duration::from_secs(4));
        Self { to_find, when_refused, for_return: Duration::from_secs(60) }
    }
}
