//! The wall clock of the machine. Nothing else in the crate reads it.
//!
//! A clock that is set before 1970 counts as 1970, so every record seems to come from the future.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use keyferry_net::time::{UnixTime, UtcDay};
use keyferry_proto::offer::{MAX_CLOCK_ERROR, MAX_CLOCK_SKEW};
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
        self.ahead_secs.unsigned_abs() > MAX_CLOCK_SKEW.as_secs()
    }

    /// What time it is by the others when this machine's clock says `own`.
    pub(crate) fn by_others(self, own: UnixTime) -> UnixTime {
        UnixTime(own.0.saturating_add_signed(self.ahead_secs.saturating_neg()))
    }
}

/// What time it may be: by this machine's clock, and also by those of others where they say that it is wrong by up to a day. They are
/// strangers, so nothing of what the own clock says is left out for their word.
pub(crate) fn possible_times(own: UnixTime, skew: Option<ClockSkew>) -> Vec<UnixTime> {
    let is_borne = |skew: &ClockSkew| skew.ahead_secs.unsigned_abs() <= (MAX_CLOCK_ERROR + MAX_CLOCK_SKEW).as_secs();
    let by_others = skew.filter(|skew| skew.is_too_much()).filter(is_borne).map(|skew| skew.by_others(own));
    std::iter::once(own).chain(by_others).collect()
}

/// The days that a rule gives for each of these times, those of the first time first.
pub(crate) fn days_of(times: &[UnixTime], rule: fn(UnixTime) -> Vec<UtcDay>) -> Vec<UtcDay> {
    let mut days = Vec::new();
    for day in times.iter().flat_map(|time| rule(*time)) {
        if !days.contains(&day) {
            days.push(day);
        }
    }
    days
}

impl fmt::Display for ClockSkew {
    /// Such as `2 h 5 min ahead of the clocks of 3 other hosts`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&span_in_words(Duration::from_secs(self.ahead_secs.unsigned_abs())))?;
        f.write_str(if self.ahead_secs < 0 { " behind" } else { " ahead of" })?;
        match self.hosts {
            1 => f.write_str(" the clock of another host"),
            hosts => write!(f, " the clocks of {hosts} other hosts"),
        }
    }
}

/// A span of time for people, such as `2 h 5 min`: to the nearest minute, since peers say what time it is to half a one.
pub(crate) fn span_in_words(span: Duration) -> String {
    let by = span.as_secs();
    let minutes = by.saturating_add(30) / 60;
    match (by, minutes) {
        (0..60, _) => format!("{by} s"),
        (_, 0..60) => format!("{minutes} min"),
        (_, 60..1440) => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{} d {} h", minutes / 1440, minutes % 1440 / 60),
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
    use keyferry_proto::offer::resolve_days;
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

    #[test]
    fn others_add_a_time_where_the_clock_is_wrong_by_minutes_to_a_day_and_take_none_away() {
        const NOON: UnixTime = UnixTime(20_000 * 86_400 + 43_200);
        let times = |ahead_secs| possible_times(NOON, Some(ClockSkew { ahead_secs, hosts: 3 }));
        assert_eq!(possible_times(NOON, None), [NOON]);
        for near in [0, 600, -600, 90_000, -90_000, i64::MIN, i64::MAX] {
            assert_eq!(times(near), [NOON], "{near}");
        }
        for ahead in [601_i64, -7200, 86_400, -86_400] {
            assert_eq!(times(ahead), [NOON, UnixTime(NOON.0.checked_add_signed(-ahead).unwrap())]);
        }
        assert_eq!(days_of(&times(50_000), resolve_days), [UtcDay(20_000), UtcDay(19_999)]);
        assert_eq!(days_of(&times(7200), resolve_days), [UtcDay(20_000)]);
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
