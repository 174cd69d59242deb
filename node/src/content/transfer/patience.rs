//! How long to go on with providers that give nothing.
//!
//! What it is not: patience with a single provider, which is the schedule's, or the wait for somebody who is away: a fetch
//! waits for as long as more providers may come.

use std::time::Duration;

/// How long a fetch goes on with those who are there and give nothing.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// If all who were found are there, and none is left to be asked.
    pub(super) when_refused: Duration,
    /// If some are asked: so long after there was last any progress.
    pub(super) when_silent: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { when_refused: Duration::from_secs(4), when_silent: Duration::from_secs(60) }
    }
}
