//! The wall clock of the machine. Nothing else in the crate reads it.
//!
//! A clock that is set before 1970 counts as 1970, so every record seems to come from the future.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use keyferry_net::time::UnixTime;
use serde::{Deserialize, Serialize};

/// What the wall clock must go otherwise than the one that only runs to have been set.
const LEAST_JUMP: Duration = Duration::from_secs(5);

/// How far this machine's clock is from those of others, as far as they tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSkew {
    /// How many seconds it is ahead; below 0 if it is behind.
    pub ahead_secs: i64,
    /// How many hosts have told what time it is there. This is what the one in the middle says.
    pub hosts: usize,
}

impl ClockSkew {
    /// Whether it is more than clocks may differ by.
    pub fn is_too_much(self) -> bool {
        self.ahead_secs.unsigned_abs() > keyferry_proto::offer::MAX_CLOCK_SKEW.as_secs()
    }
}

impl fmt::Display for ClockSkew {
    /// Such as `2 h 5 min ahead of the clocks of 3 other hosts`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.ahead_secs.unsigned_abs();
        // To the nearest minute: peers say it to half a one.
        let minutes = by.saturating_add(30) / 60;
        match (by, minutes) {
            (0..60, _) => write!(f, "{by} s")?,
            (_, 0..60) => write!(f, "{minutes} min")?,
            (_, 60..1440) => write!(f, "{} h {} min", minutes / 60, minutes % 60)?,
            _ => write!(f, "{} d {} h", minutes / 1440, minutes % 1440 / 60)?,
        }
        f.write_str(if self.ahead_secs < 0 { " behind" } else { " ahead of" })?;
        match self.hosts {
            1 => f.write_str(" the clock of another host"),
            hosts => write!(f, " the clocks of {hosts} other hosts"),
        }
    }
}

/// Notices that the wall clock has parted from the one that only runs: somebody has set it, or the machine has slept, in which the other
/// one stands still.
#[derive(Debug)]
pub(crate) struct JumpWatch {
    wall_ms: u64,
    at: Instant,
}

/// How the wall clock has jumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockJump {
    /// Ahead: the machine has slept, or its clock was set.
    Ahead(Duration),
    /// Back.
    Back(Duration),
}

impl JumpWatch {
    /// Begins to watch, at a time of the wall clock.
    pub(crate) fn new(wall_ms: u64, at: Instant) -> Self {
        Self { wall_ms, at }
    }

    /// Compares both clocks with those of the last look.
    pub(crate) fn look(&mut self, wall_ms: u64, at: Instant) -> Option<ClockJump> {
        let before = std::mem::replace(self, Self { wall_ms, at });
        let expected = u128::from(before.wall_ms) + at.duration_since(before.at).as_millis();
        let by = |ms: u128| Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX));
        let (ahead, back) = (u128::from(wall_ms).saturating_sub(expected), expected.saturating_sub(wall_ms.into()));
        match (by(ahead), by(back)) {
            (ahead, _) if ahead >= LEAST_JUMP => Some(ClockJump::Ahead(ahead)),
            (_, back) if back >= LEAST_JUMP => Some(ClockJump::Back(back)),
            _ => None,
        }
    }
}

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wrong_clock_is_told_in_words() {
        let told = |ahead_secs, hosts| ClockSkew { ahead_secs, hosts }.to_string();
        assert_eq!(told(7_500, 3), "2 h 5 min ahead of the clocks of 3 other hosts");
        assert_eq!(told(-660, 1), "11 min behind the clock of another host");
        assert_eq!(told(0, 2), "0 s ahead of the clocks of 2 other hosts");
        assert_eq!(told(-90_000, 2), "1 d 1 h behind the clocks of 2 other hosts");
        assert!(!ClockSkew { ahead_secs: 600, hosts: 1 }.is_too_much());
        assert!(ClockSkew { ahead_secs: -601, hosts: 1 }.is_too_much());
        assert!(ClockSkew { ahead_secs: i64::MIN, hosts: 1 }.is_too_much());
    }

    proptest! {
        #[test]
        fn a_clock_that_is_set_is_noticed_once_and_one_that_runs_never(
            start in 0..u64::MAX / 4,
            steps in proptest::collection::vec((0_u64..100_000, -4_999_i64..5_000), 1..20),
            jump in prop_oneof![5_000_i64..1_000_000_000, -1_000_000_000_i64..=-5_000],
        ) {
            let begun = Instant::now();
            let (mut wall, mut run) = (start + 2_000_000_000, Duration::ZERO);
            let mut watch = JumpWatch::new(wall, begun);
            for (ms, drift) in steps {
                run += Duration::from_millis(ms);
                wall = (wall + ms).saturating_add_signed(drift);
                prop_assert_eq!(watch.look(wall, begun + run), None);
            }
            wall = wall.saturating_add_signed(jump);
            let by = Duration::from_millis(jump.unsigned_abs());
            let expected = if jump > 0 { ClockJump::Ahead(by) } else { ClockJump::Back(by) };
            prop_assert_eq!(watch.look(wall, begun + run), Some(expected));
            prop_assert_eq!(watch.look(wall + 2_000, begun + run + Duration::from_secs(2)), None);
        }
    }
}
