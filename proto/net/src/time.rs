//! Wall-clock time as the wire has it: whole seconds since 1970, and UTC days.
//!
//! What it is not: a clock. The caller says what time it is.

use std::time::Duration;

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct UnixTime(pub u64);

/// Days since 1970-01-01, in UTC: the period for which one blinded key is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct UtcDay(pub u32);

impl UnixTime {
    /// The UTC day that this moment lies in.
    pub fn day(self) -> UtcDay {
        UtcDay(u32::try_from(self.0 / 86_400).unwrap_or(u32::MAX))
    }

    /// This moment moved forward, by whole seconds; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }

    /// How long after `earlier` this moment is; zero if it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}
