//! What a way does to packets: they take their time, are lost alone or in bursts, overtake each other, and wait for their turn on a
//! slow line.
//!
//! Bursts of loss are those of Gilbert's model: a way is either good, and loses nothing, or bad, and loses everything. From how much is
//! lost in all and how long a burst lasts on average follows how likely the way turns bad (loss / (burst · (1 − loss))) and good again
//! (1 / burst) with each packet.
//!
//! What it is not: a place where packets wait. It only says when one arrives, or that it does not.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::{Rng, RngExt};

/// The longest that a packet is late which others overtake, where the way itself takes less than twice that.
const LEAST_LAG: Duration = Duration::from_millis(2);

/// The most of all packets that may be lost. Beyond, nothing that deserves the name of a connection is left.
const MOST_LOSS: f64 = 0.5;

/// How the way from one attachment to another is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Way {
    /// How long it takes at least, one way.
    pub(crate) delay: Duration,
    /// How much longer it takes at most: each packet has a time of its own, evenly spread. None overtakes another by that.
    pub(crate) jitter: Duration,
    /// The part of the packets that is lost, from 0 to 0.5.
    pub(crate) loss: f64,
    /// How many packets are lost in a row on average, from 1 on; none where each is lost or not by itself.
    pub(crate) burst: Option<f64>,
    /// The part of the packets that later ones overtake, from 0 to 1.
    pub(crate) reorder: f64,
    /// What each line into the core carries in each direction; none where that is without a limit.
    pub(crate) rate: Option<Rate>,
}

/// What a line carries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    /// How fast.
    pub(crate) bytes_per_second: u64,
    /// How long a packet may wait for its turn; one that had to wait longer is dropped.
    pub(crate) queue: Duration,
}

impl Way {
    /// A way that takes time, and does nothing else.
    pub(crate) const fn taking(delay: Duration) -> Self {
        Self { delay, jitter: Duration::ZERO, loss: 0.0, burst: None, reorder: 0.0, rate: None }
    }

    /// Whether packets fare differently on it, so that each has to go by itself.
    pub(crate) fn is_rough(&self) -> bool {
        !self.jitter.is_zero() || self.loss > 0.0 || self.reorder > 0.0 || self.rate.is_some()
    }

    /// Fails if there is no such way.
    pub(crate) fn ensure_possible(&self) -> Result<()> {
        ensure!((0.0..=MOST_LOSS).contains(&self.loss), "the loss is a part of all packets, from 0 to {MOST_LOSS}");
        ensure!((0.0..=1.0).contains(&self.reorder), "what is overtaken is a part of all packets, from 0 to 1");
        ensure!(self.burst.is_none_or(|burst| (1.0..=1000.0).contains(&burst)), "a burst is of 1 to 1000 packets");
        ensure!(self.burst.is_none() || self.loss > 0.0, "bursts of loss need a loss");
        Ok(())
    }
}

/// What has come of the packets of one way so far, as far as it matters for the next.
#[derive(Debug, Default)]
pub(super) struct WayState {
    is_bad: bool,
    last_arrival: Option<Instant>,
}

impl WayState {
    /// When a packet arrives that sets out now; none if it is lost.
    pub(super) fn arrival(&mut self, way: &Way, now: Instant, random: &mut impl Rng) -> Option<Instant> {
        if self.loses(way, random) {
            return None;
        }
        let arrival = now + way.delay + way.jitter.mul_f64(random.random());
        if way.reorder > 0.0 && random.random_bool(way.reorder) {
            return Some(arrival + (way.delay / 2).max(LEAST_LAG));
        }
        let arrival = self.last_arrival.map_or(arrival, |last| arrival.max(last));
        self.last_arrival = Some(arrival);
        Some(arrival)
    }

    fn loses(&mut self, way: &Way, random: &mut impl Rng) -> bool {
        let Some(burst) = way.burst else { return way.loss > 0.0 && random.random_bool(way.loss) };
        let turns_good = 1.0 / burst;
        let turns_bad = (way.loss * turns_good / (1.0 - way.loss)).min(1.0);
        self.is_bad = match self.is_bad {
            true => !random.random_bool(turns_good),
            false => random.random_bool(turns_bad),
        };
        self.is_bad
    }
}

/// Until when one direction of a line is taken.
#[derive(Debug, Default)]
pub(super) struct LineState {
    free_at: Option<Instant>,
}

impl LineState {
    /// When the line has carried a packet of so many bytes that comes to it now; none if too many wait already.
    pub(super) fn carried(&mut self, rate: &Rate, now: Instant, bytes: usize) -> Option<Instant> {
        let turn = self.free_at.map_or(now, |free| free.max(now));
        if turn - now > rate.queue {
            return None;
        }
        let took = Duration::from_secs_f64(bytes as f64 / rate.bytes_per_second as f64);
        self.free_at = Some(turn + took);
        self.free_at
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const PACKETS: usize = 200_000;
    const DELAY: Duration = Duration::from_millis(20);

    /// What becomes of packets that set out a millisecond after each other: after which time each arrives.
    fn sent(way: &Way, packets: usize) -> Vec<Option<Duration>> {
        way.ensure_possible().unwrap();
        let (mut state, mut random, begin) = (WayState::default(), StdRng::seed_from_u64(7), Instant::now());
        let at = |turn: usize| begin + Duration::from_millis(turn as u64);
        (0..packets).map(|turn| state.arrival(way, at(turn), &mut random).map(|arrival| arrival - begin)).collect()
    }

    fn lost(fates: &[Option<Duration>]) -> f64 {
        fates.iter().filter(|fate| fate.is_none()).count() as f64 / fates.len() as f64
    }

    /// How many are lost in a row, on average.
    fn burst(fates: &[Option<Duration>]) -> f64 {
        let begins = fates.windows(2).filter(|two| two[0].is_some() && two[1].is_none()).count();
        lost(fates) * fates.len() as f64 / begins as f64
    }

    #[test]
    fn a_plain_way_takes_its_time_and_keeps_everything_in_order() {
        let fates = sent(&Way::taking(DELAY), 1000);
        for (turn, fate) in fates.iter().enumerate() {
            assert_eq!(*fate, Some(DELAY + Duration::from_millis(turn as u64)));
        }
        assert!(!Way::taking(DELAY).is_rough());
    }

    #[test]
    fn as_much_is_lost_as_was_asked_for() {
        for loss in [0.001, 0.01, 0.1, 0.5] {
            let fates = sent(&Way { loss, ..Way::taking(DELAY) }, PACKETS);
            let (got, alone) = (lost(&fates), 1.0 / (1.0 - loss));
            assert!((got - loss).abs() < loss * 0.15, "{loss}: {got}");
            assert!((burst(&fates) - alone).abs() < alone * 0.05, "{loss}: {}", burst(&fates));
        }
    }

    #[test]
    fn bursts_are_as_long_as_was_asked_for_and_lose_no_more() {
        for (loss, length) in [(0.01, 5.0), (0.03, 5.0), (0.05, 20.0), (0.5, 2.0)] {
            let fates = sent(&Way { loss, burst: Some(length), ..Way::taking(DELAY) }, PACKETS);
            let (got, measured) = (lost(&fates), burst(&fates));
            assert!((got - loss).abs() < loss * 0.2, "{loss} by {length}: {got}");
            assert!((measured - length).abs() < length * 0.1, "{loss} by {length}: {measured}");
        }
    }

    #[test]
    fn jitter_spreads_arrivals_and_overtakes_nobody() {
        let jitter = Duration::from_millis(10);
        let fates = sent(&Way { jitter, ..Way::taking(DELAY) }, 10_000);
        assert!(fates.is_sorted());
        let extra =
            fates.iter().enumerate().map(|(turn, fate)| fate.unwrap() - DELAY - Duration::from_millis(turn as u64));
        let (least, most) = (extra.clone().min().unwrap(), extra.max().unwrap());
        assert!(least < jitter && most > jitter / 2 && most <= jitter, "{least:?} {most:?}");
    }

    #[test]
    fn as_many_are_overtaken_as_was_asked_for() {
        let fates = sent(&Way { reorder: 0.2, ..Way::taking(DELAY) }, PACKETS);
        let overtaken =
            fates.iter().enumerate().filter(|(turn, fate)| fate.unwrap() > DELAY + Duration::from_millis(*turn as u64));
        let part = overtaken.count() as f64 / PACKETS as f64;
        assert!((part - 0.2).abs() < 0.01, "{part}");
        assert!(!fates.is_sorted());
    }

    #[test]
    fn a_line_carries_its_rate_and_drops_what_waits_too_long() {
        let rate = Rate { bytes_per_second: 1_000_000, queue: Duration::from_millis(50) };
        let (mut line, begin) = (LineState::default(), Instant::now());
        let carried: Vec<_> = (0..100).filter_map(|_| line.carried(&rate, begin, 1000)).collect();
        // What waits for 50 ms or less: 51 packets of a millisecond each.
        assert_eq!(carried.len(), 51);
        assert_eq!(carried[50] - begin, Duration::from_millis(51));
        let later = begin + Duration::from_secs(1);
        assert_eq!(line.carried(&rate, later, 500), Some(later + Duration::from_micros(500)), "it is free again");
    }

    #[test]
    fn there_are_ways_that_cannot_be() {
        let way = Way::taking(DELAY);
        for wrong in [
            Way { loss: 0.6, ..way },
            Way { loss: f64::NAN, ..way },
            Way { burst: Some(5.0), ..way },
            Way { loss: 0.1, burst: Some(0.5), ..way },
            Way { reorder: 1.5, ..way },
        ] {
            assert!(wrong.ensure_possible().is_err(), "{wrong:?}");
        }
    }
}
