//! When to publish which offer: there is one for each day that somebody may ask for, each at times of its own.
//!
//! Today's offer goes out at once and after each change. Tomorrow's goes out some time before midnight and follows changes at
//! random moments: nobody needs it yet, and an observer who saw both records put at the same moment, again and again, would know
//! that they belong to one node.
//!
//! What it is not: the publishing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use keyferry_net::time::{UnixTime, UtcDay};
use keyferry_proto::offer::publish_days;

use super::reachability::Reachability;
use crate::base::clock::days_of;

/// The longest time between two publications of an offer.
pub(super) const REPUBLISH_EVERY: Duration = Duration::from_secs(20 * 60);
/// The longest that tomorrow's first offer waits. It is scheduled from 130 minutes before midnight on.
const MAX_FIRST_DELAY: Duration = Duration::from_secs(90 * 60);
/// The longest that tomorrow's offer waits before it follows a change.
const MAX_CHANGE_DELAY: Duration = Duration::from_secs(10 * 60);
/// How long to wait after a failed publication before the next one.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The offers, by day.
#[derive(Debug, Default)]
pub(super) struct OfferSchedule {
    days: BTreeMap<UtcDay, Planned>,
}

#[derive(Debug)]
struct Planned {
    due: Instant,
    /// What the next offer says, so that a change is noticed once.
    reachability: Reachability,
}

impl OfferSchedule {
    /// Takes in what time it may be, and where the node can be reached. Where there is more than one time, there is an offer for the days of
    /// each. `random` gives numbers from 0 to 1.
    pub(super) fn update(
        &mut self,
        now: Instant,
        times: &[UnixTime],
        reachability: &Reachability,
        mut random: impl FnMut() -> f64,
    ) {
        let days = days_of(times, publish_days);
        self.days.retain(|day, _| days.contains(day));
        for day in days {
            let until = |time: &UnixTime| (u64::from(day.0) * 86_400).saturating_sub(time.0);
            let until_day = Duration::from_secs(times.iter().map(until).min().unwrap_or(0));
            let mut after = |most: Duration| now + most.min(until_day).mul_f64(random());
            match self.days.get_mut(&day) {
                None => {
                    let due = after(MAX_FIRST_DELAY);
                    self.days.insert(day, Planned { due, reachability: reachability.clone() });
                }
                Some(planned) if planned.reachability != *reachability => {
                    planned.due = planned.due.min(after(MAX_CHANGE_DELAY));
                    planned.reachability = reachability.clone();
                }
                Some(_) => {}
            }
        }
    }

    /// The day whose offer is due next, and when.
    pub(super) fn next(&self) -> Option<(UtcDay, Instant)> {
        self.days.iter().map(|(day, planned)| (*day, planned.due)).min_by_key(|(_, due)| *due)
    }

    /// Notes that the offer of a day was published, or that it failed.
    pub(super) fn done(&mut self, now: Instant, day: UtcDay, is_published: bool, random: f64) {
        if let Some(planned) = self.days.get_mut(&day) {
            planned.due = now
                + match is_published {
                    true => REPUBLISH_EVERY.mul_f64(1.0 - random / 4.0),
                    false => RETRY_AFTER,
                };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIDNIGHT: UnixTime = UnixTime(20_001 * 86_400);
    const TODAY: UtcDay = UtcDay(20_000);
    const TOMORROW: UtcDay = UtcDay(20_001);

    fn before_midnight(minutes: u64) -> UnixTime {
        UnixTime(MIDNIGHT.0 - minutes * 60)
    }

    fn elsewhere() -> Reachability {
        Reachability { circuits: vec!["/ip4/192.0.2.1/tcp/443".parse().unwrap()], ..Reachability::default() }
    }

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(count * 60)
    }

    #[test]
    fn the_offer_of_today_is_due_at_once_and_with_each_change() {
        let mut schedule = OfferSchedule::default();
        let now = Instant::now();
        schedule.update(now, &[before_midnight(600)], &Reachability::default(), || 0.5);
        assert_eq!(schedule.next(), Some((TODAY, now)));
        schedule.done(now, TODAY, true, 0.0);
        assert_eq!(schedule.next(), Some((TODAY, now + REPUBLISH_EVERY)));
        schedule.update(now + minutes(1), &[before_midnight(599)], &Reachability::default(), || 0.5);
        assert_eq!(schedule.next(), Some((TODAY, now + REPUBLISH_EVERY)));
        schedule.update(now + minutes(2), &[before_midnight(598)], &elsewhere(), || 0.5);
        assert_eq!(schedule.next(), Some((TODAY, now + minutes(2))));
    }

    #[test]
    fn what_failed_is_tried_again_soon() {
        let mut schedule = OfferSchedule::default();
        let now = Instant::now();
        schedule.update(now, &[before_midnight(600)], &Reachability::default(), || 0.5);
        schedule.done(now, TODAY, false, 0.0);
        assert_eq!(schedule.next(), Some((TODAY, now + RETRY_AFTER)));
    }

    #[test]
    fn where_others_say_that_the_clock_is_wrong_the_offers_of_their_day_go_out_at_once_too() {
        for (own, others) in [(before_midnight(600), MIDNIGHT), (MIDNIGHT, before_midnight(600))] {
            let mut schedule = OfferSchedule::default();
            let now = Instant::now();
            schedule.update(now, &[own, others], &Reachability::default(), || 0.5);
            let due: Vec<_> = schedule.days.iter().map(|(day, planned)| (*day, planned.due)).collect();
            assert_eq!(due, [(TODAY, now), (TOMORROW, now)]);
            // The clock was set right.
            schedule.update(now, &[others], &Reachability::default(), || 0.5);
            assert_eq!(schedule.days.into_keys().collect::<Vec<_>>(), [others.day()]);
        }
    }

    proptest! {
        #[test]
        fn the_offer_of_tomorrow_is_out_by_midnight_and_moves_apart_from_that_of_today(
            left in 2_u64..=120,
            first in 0.01..1.0,
            change in 0.01..1.0,
        ) {
            let mut schedule = OfferSchedule::default();
            let (now, clock) = (Instant::now(), before_midnight(left));
            schedule.update(now, &[clock], &Reachability::default(), || first);
            prop_assert_eq!(schedule.next(), Some((TODAY, now)));
            schedule.done(now, TODAY, true, first);

            let due = schedule.days[&TOMORROW].due;
            prop_assert!(due > now && due <= now + minutes(left));

            schedule.done(due, TOMORROW, true, change);
            let moved = now + Duration::from_secs(1);
            schedule.update(moved, &[UnixTime(clock.0 + 1)], &elsewhere(), || change);
            prop_assert_eq!(schedule.next(), Some((TODAY, moved)));
            let followed = schedule.days[&TOMORROW].due;
            prop_assert!(followed > moved && followed <= now + minutes(left));

            // The day begins: the offer goes on as it was planned, and that of yesterday is done with.
            schedule.update(now + minutes(left), &[MIDNIGHT], &elsewhere(), || change);
            schedule.update(now + minutes(left + 1), &[UnixTime(MIDNIGHT.0 + 60)], &elsewhere(), || change);
            prop_assert_eq!(schedule.next(), Some((TOMORROW, followed)));
        }
    }
}
