//! When a peer counts as dead: pings that bring nothing back, and closer looks while this side waits for something.
//!
//! What it is not: the sending of pings (`control`).

use std::time::Duration;

use tokio::time::Instant;

use crate::net::trouble;

/// From one ping to the next. It also keeps the mappings of NATs.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);

/// How many pings in a row may bring nothing back.
pub const MAX_MISSED_PINGS: u32 = 2;

/// From one look to the next while something is under way.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The same while nothing is.
pub(super) const IDLE_LOOK_EVERY: Duration = Duration::from_millis(1250);

/// A round trip that is not known yet counts as this long.
const ASSUMED_ROUND_TRIP: Duration = Duration::from_secs(1);
/// A ping that took longer than the known round trip counts for one part in so many: most of what its pong waits for is data that was sent
/// before it, and while that comes nobody is silent.
const SLOW_TO_GROW: u32 = 64;
/// Fewer bytes than this between two looks are pings, and none of them says that what was sent before has arrived.
const FEW_BYTES: u64 = 4096;

/// Looks for silence while something is under way, closer than pings do: the path may have died without a word.
#[derive(Debug)]
pub(super) struct Silence {
    last: MovedBytes,
    looked_at: Instant,
    /// How long after that the next look was to be.
    look_after: Duration,
    /// Since when nothing has moved.
    since: Instant,
    /// The bytes sent at the look before something last came: it may answer no more than those.
    sent_when_heard: u64,
    has_asked: bool,
    is_doubted: bool,
    /// What the path takes by itself, as far as pings have shown.
    round_trip: Option<Duration>,
    /// Whether a ping is out that will tell the round trip.
    is_measuring: bool,
}

/// How many bytes a session has moved so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MovedBytes {
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Whether more wait for the socket to take them.
    pub(super) is_blocked: bool,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Something moves, or nothing is under way.
    Well,
    /// It is time to ask whether the peer is there.
    Ask,
    /// Nothing has come for so long that the path may be dead.
    Doubt,
    /// What was asked then was not answered either, and this side waits for something.
    Dead,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: MovedBytes::default(),
            looked_at: now,
            look_after: IDLE_LOOK_EVERY,
            since: now,
            sent_when_heard: 0,
            has_asked: false,
            is_doubted: false,
            round_trip: None,
            is_measuring: false,
        }
    }

    /// Notes how long a ping took to the peer and back.
    pub(super) fn measured(&mut self, round_trip: Duration) {
        self.is_measuring = true;
        let grown = |known: Duration| known + round_trip.saturating_sub(known) / SLOW_TO_GROW;
        self.round_trip = Some(self.round_trip.map_or(round_trip, |known| grown(known).min(round_trip)));
    }

    /// How long nothing may come before the path is doubted.
    pub(super) fn patience(&self) -> Duration {
        trouble::patience(self.round_trip.unwrap_or(ASSUMED_ROUND_TRIP))
    }

    /// When to look next.
    pub(super) fn next_look(&self, is_waiting: bool) -> Instant {
        self.looked_at + if self.is_busy(is_waiting) { LOOK_EVERY } else { IDLE_LOOK_EVERY }
    }

    /// Whether the peer has something to say: this side waits for an answer, or has sent so much that the peer has to say
    /// that it has arrived.
    fn is_busy(&self, is_waiting: bool) -> bool {
        is_waiting || self.last.is_blocked || self.last.sent - self.sent_when_heard > FEW_BYTES
    }

    /// Looks once more: whether this side waits, and how many bytes were moved so far.
    pub(super) fn look(&mut self, now: Instant, is_waiting: bool, bytes: MovedBytes) -> Look {
        let has_heard = bytes.received != self.last.received;
        // What the socket takes in while the peer waits for it shows that earlier bytes have arrived.
        let has_gone_on = !is_waiting && bytes.sent - self.last.sent > FEW_BYTES;
        // A look that comes late is of a machine that slept or had no time for this process, and says nothing about the peer.
        let has_slept = now.duration_since(self.looked_at) > self.look_after + LOOK_EVERY * 2;
        if has_heard {
            self.sent_when_heard = self.last.sent;
        }
        (self.last, self.looked_at) = (bytes, now);
        self.look_after = if self.is_busy(is_waiting) { LOOK_EVERY } else { IDLE_LOOK_EVERY };
        if self.is_busy(is_waiting) && !self.is_measuring {
            self.is_measuring = true;
            return Look::Ask;
        }
        if has_heard || has_gone_on || has_slept || !self.is_busy(is_waiting) {
            (self.since, self.has_asked, self.is_doubted) = (now, false, false);
            return Look::Well;
        }
        let (silent_for, patience) = (now.duration_since(self.since), self.patience());
        if silent_for >= patience * 2 && is_waiting {
            return Look::Dead;
        }
        if silent_for >= patience && !self.is_doubted {
            self.is_doubted = true;
            return Look::Doubt;
        }
        if silent_for >= patience / 2 && !self.has_asked {
            self.has_asked = true;
            return Look::Ask;
        }
        Look::Well
    }

    /// Whether the path is doubted.
    pub(super) fn is_doubted(&self) -> bool {
        self.is_doubted
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
    /// The ping whose way is timed.
    timed: Option<(u64, Instant)>,
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
        self.timed.get_or_insert((self.last, Instant::now()));
        self.last
    }

    /// The pong of a ping has come. Returns how long that took, if it was timed.
    pub(super) fn answered(&mut self, number: u64) -> Option<Duration> {
        if number == self.number {
            self.waiting = false;
        }
        self.timed.take_if(|(timed, _)| *timed <= number).map(|(_, since)| since.elapsed())
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

    /// Looks every [`LOOK_EVERY`] at bytes that do not move, `round_trip` being known, and tells after how many milliseconds
    /// something was found.
    fn looks(is_waiting: bool, bytes: MovedBytes, round_trip_ms: u64) -> Vec<(u128, Look)> {
        let began = Instant::now();
        let mut silence = Silence::new(began);
        silence.measured(Duration::from_millis(round_trip_ms));
        let mut found = Vec::new();
        for look in 0..60 {
            let now = began + LOOK_EVERY * look;
            match silence.look(now, is_waiting, bytes) {
                Look::Well => {}
                one => found.push((now.duration_since(began).as_millis(), one)),
            }
            if matches!(found.last(), Some((_, Look::Dead))) {
                break;
            }
        }
        found
    }

    #[tokio::test]
    async fn whoever_waits_asks_then_doubts_then_takes_the_peer_for_dead() {
        let bytes = MovedBytes { received: 7, sent: 7, is_blocked: false };
        assert_eq!(looks(true, bytes, 40), [(500, Look::Ask), (1000, Look::Doubt), (2000, Look::Dead)]);
        assert_eq!(looks(true, bytes, 500), [(1000, Look::Ask), (2000, Look::Doubt), (4000, Look::Dead)]);
    }

    #[tokio::test]
    async fn a_pong_that_has_waited_behind_data_makes_nobody_more_patient_but_a_path_that_has_become_longer_does() {
        let mut silence = Silence::new(Instant::now());
        let ms = Duration::from_millis;
        silence.measured(ms(300));
        for _ in 0..4 {
            silence.measured(ms(2000));
        }
        assert!(silence.patience() < ms(300) * 6, "{:?}", silence.patience());
        for _ in 0..400 {
            silence.measured(ms(2000));
        }
        assert!(silence.patience() > ms(2000) * 3, "{:?}", silence.patience());
        silence.measured(ms(300));
        assert_eq!(silence.patience(), ms(300) * 4);
    }

    #[tokio::test]
    async fn whoever_sends_doubts_when_nothing_more_leaves_and_nothing_comes_but_leaves_the_end_to_pings() {
        let much = MovedBytes { received: 0, sent: 1 << 20, is_blocked: false };
        assert_eq!(looks(false, much, 40), [(500, Look::Ask), (1000, Look::Doubt)]);
        let blocked = MovedBytes { received: 0, sent: 100, is_blocked: true };
        assert_eq!(looks(false, blocked, 40), [(500, Look::Ask), (1000, Look::Doubt)]);
        assert_eq!(looks(false, MovedBytes { is_blocked: false, ..blocked }, 40), [], "nothing is under way");
    }

    #[tokio::test]
    async fn what_was_sent_in_answer_to_the_last_word_has_to_be_answered_too() {
        let began = Instant::now();
        let mut silence = Silence::new(began);
        silence.measured(Duration::from_millis(40));
        let at = |look: u32| began + LOOK_EVERY * look;
        let moved = |received, sent| MovedBytes { received, sent, is_blocked: false };
        assert_eq!(silence.look(at(1), false, moved(100, 1 << 20)), Look::Well);
        assert_eq!(silence.look(at(2), false, moved(200, 2 << 20)), Look::Well);
        let found: Vec<Look> = (3..=6).map(|look| silence.look(at(look), false, moved(200, 2 << 20))).collect();
        assert_eq!(found, [Look::Well, Look::Ask, Look::Well, Look::Doubt]);

        // A pong.
        assert_eq!(silence.look(at(7), false, moved(210, 2 << 20)), Look::Well);
        assert_eq!(silence.next_look(false), at(7) + IDLE_LOOK_EVERY, "all has arrived");
    }

    #[tokio::test]
    async fn a_byte_ends_the_doubt_and_so_does_a_sleep_of_this_process() {
        let began = Instant::now();
        let (mut silence, mut now, mut bytes) = (Silence::new(began), began, MovedBytes::default());
        silence.measured(Duration::from_millis(40));
        let until_doubted = |silence: &mut Silence, now: &mut Instant, bytes| {
            while silence.look(*now, true, bytes) != Look::Doubt {
                *now += LOOK_EVERY;
            }
            assert!(silence.is_doubted());
        };
        until_doubted(&mut silence, &mut now, bytes);
        bytes.received += 1;
        assert_eq!((silence.look(now + LOOK_EVERY, true, bytes), silence.is_doubted()), (Look::Well, false));

        now += LOOK_EVERY;
        until_doubted(&mut silence, &mut now, bytes);
        assert_eq!(silence.look(now + IDLE_LOOK_EVERY * 3, true, bytes), Look::Well);
    }

    #[tokio::test]
    async fn on_a_machine_that_has_no_time_to_look_nobody_counts_as_dead() {
        let began = Instant::now();
        let mut silence = Silence::new(began);
        silence.measured(Duration::from_millis(40));
        let late = LOOK_EVERY * 4;
        let found: Vec<Look> =
            (1..=10).map(|look| silence.look(began + late * look, true, MovedBytes::default())).collect();
        assert!(found[1..].iter().all(|look| *look == Look::Well), "{found:?}");
    }

    #[tokio::test]
    async fn until_a_round_trip_is_known_one_is_asked_for_and_much_patience_is_had() {
        let mut silence = Silence::new(Instant::now());
        assert_eq!(silence.look(Instant::now(), true, MovedBytes::default()), Look::Ask);
        assert_eq!(silence.patience(), Duration::from_secs(4));
    }
}
