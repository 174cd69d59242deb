//! When a peer counts as dead: pings that bring nothing back, and closer looks while this side waits for something.
//!
//! What it is not: the sending of pings, or a clock (`control`).

use std::time::Duration;

/// From one ping to the next. It also keeps the mappings of NATs.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);

/// How many pings in a row may bring nothing back.
pub const MAX_MISSED_PINGS: u32 = 2;

/// How many times in a [`PING_INTERVAL`] to look for silence while this side waits for answers.
pub(super) const HURRIED_LOOKS: u32 = 12;

/// How many of those looks in a row may find nothing new; each of them sends a ping.
pub(super) const MAX_HURRIED_MISSES: u32 = 3;

/// Looks for silence while this side waits for answers, closer than pings do: the path may have died without a word.
#[derive(Debug, Default)]
pub(super) struct Hurry {
    missed: u32,
    received: u64,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Something has come, or this side waits for nothing.
    Well,
    /// Nothing has come since the last look.
    Silent,
    /// Nothing has come for too long.
    Dead,
}

impl Hurry {
    /// Looks once more: whether this side waits, and how many bytes have come so far.
    pub(super) fn look(&mut self, is_waiting: bool, received: u64) -> Look {
        if !is_waiting || received != self.received {
            (self.missed, self.received) = (0, received);
            return Look::Well;
        }
        self.missed += 1;
        if self.missed > MAX_HURRIED_MISSES { Look::Dead } else { Look::Silent }
    }
}

/// Which ping is out, and how many brought nothing back.
#[derive(Debug, Default)]
pub(super) struct Pings {
    /// The number of the last ping, whoever wanted it.
    last: u64,
    /// The number of the last regular ping.
    number: u64,
    waiting: bool,
    missed: u32,
    received: u64,
}

impl Pings {
    /// The number of the next ping, or none if the peer counts as dead. Any byte from the peer is a sign of life: on a
    /// slow line a pong may take long to arrive behind the data.
    pub(super) fn next(&mut self, received: u64) -> Option<u64> {
        let heard = !self.waiting || received != self.received;
        self.missed = if heard { 0 } else { self.missed + 1 };
        if self.missed >= MAX_MISSED_PINGS {
            return None;
        }
        self.number = self.extra();
        self.waiting = true;
        self.received = received;
        Some(self.number)
    }

    /// The number of a ping beside the regular ones.
    pub(super) fn extra(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The pong of a ping has come.
    pub(super) fn answered(&mut self, number: u64) {
        if number == self.number {
            self.waiting = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pings_in_a_row_that_bring_nothing_back_are_death() {
        let mut pings = Pings::default();
        assert_eq!([pings.next(0), pings.next(0), pings.next(0)], [Some(1), Some(2), None]);
    }

    #[test]
    fn a_pong_or_any_other_byte_is_a_sign_of_life() {
        let mut pings = Pings::default();
        for number in 1..10 {
            assert_eq!(pings.next(7), Some(number));
            pings.answered(number);
        }
        for number in 10..20 {
            assert_eq!(pings.next(number), Some(number));
        }
        pings.answered(3);
        assert_eq!([pings.next(19), pings.next(19)], [Some(20), None]);
    }

    #[test]
    fn silence_counts_early_only_while_this_side_waits_for_something() {
        let mut hurry = Hurry::default();
        assert_eq!([hurry.look(false, 0), hurry.look(false, 0)], [Look::Well, Look::Well]);
        assert_eq!([hurry.look(true, 7), hurry.look(true, 8)], [Look::Well, Look::Well]);
        let looks = [(); 4].map(|()| hurry.look(true, 8));
        assert_eq!(looks, [Look::Silent, Look::Silent, Look::Silent, Look::Dead]);
    }
}
