//! The wall clock of the machine. Nothing else in the crate reads it.
//!
//! A clock that is set before 1970 counts as 1970, so every record seems to come from the future.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keyferry_net::time::UnixTime;

/// Tells what time it is.
pub(crate) fn now() -> UnixTime {
    UnixTime(since_1970().as_secs())
}

/// Tells what time it is, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}

/// Tells what time it is, in nanoseconds since 1970, as file systems count.
pub(crate) fn now_nanos() -> i128 {
    i128::try_from(since_1970().as_nanos()).unwrap_or(i128::MAX)
}

/// Tells how long ago a moment was, such as the last change of a file; `None` if it lies ahead.
pub(crate) fn age(moment: SystemTime) -> Option<Duration> {
    SystemTime::now().duration_since(moment).ok()
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
