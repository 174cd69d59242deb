//! Opening the way between two addresses in turns: whose turn it is, with which SYN, and how long to wait for the other side.
//!
//! ```text
//! both map by endpoint    round 0: one side opens, tells; the other connects. If that fails it opens in round 1, and so on.
//!                         TTLs 2 2 3 3 4 4 5 5, then crossings. A side that cannot open crosses in its turns.
//! the peer's NAT maps by  this side opens in every round, TTLs 2 3 4 5, so that its filter lets the peer's address in; the
//! destination             peer connects, from whatever port.
//! ```
//! A plain SYN that nobody has answered has opened the way as well as any: this side keeps it, and tells the peer so (TTL 0).
//!
//! What it is not: a holder of sockets or signals. It says what to do next ([`Opening::step`]), and hears what happened.

use std::time::{Duration, Instant};

use super::{Config, ConnectFailure, SignalError, Strategy};

/// Rounds that a ladder may have, whatever the configuration or the peer says.
const MAX_ROUNDS: u8 = 32;

/// Rounds for a peer whose port cannot be foretold, where this side cannot send opening SYNs. One is enough; the second is for
/// a lost packet.
const PLAIN_ROUNDS: u8 = 2;

/// Turns of the peer that may pass in silence before this side gives up the pair.
const MAX_SILENT_TURNS: u8 = 2;

/// Turns to put off because the port is in use towards that address: an earlier connection has not gone yet.
const MAX_BUSY_TURNS: u8 = 4;

/// Rounds after which to give up if nothing has answered an attempt of this side, not even a refusal. Each side has sent
/// plain SYNs by then, which have opened its own routers however many they are; only refusals make smaller TTLs necessary.
const QUIET_ROUNDS: u8 = 4;

/// Attempts that may fail because there is no route.
const MAX_UNREACHABLE: u8 = 2;

/// A little less than the time after which a system repeats a SYN (RFC 6298 §2), with the TTL of its other packets.
const RETRANSMISSION: Duration = Duration::from_millis(900);

/// A round trip from which on the repetition of a lost SYN is waited for.
const LONG_WAY: Duration = Duration::from_millis(500);

/// The time after which a system repeats a SYN (RFC 6298 §2).
const SYN_TIMEOUT: Duration = Duration::from_secs(1);

/// The TTL that stands for a plain SYN which has opened the way.
pub(super) const PLAIN_TTL: u8 = 0;

/// Who opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Both in turns.
    Alternate {
        /// Whether round 0 is this side's.
        ours_first: bool,
    },
    /// This side alone: nobody knows from which port the peer will come.
    Here,
    /// The peer alone: nobody knows from which port this side will come.
    There,
}

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// A signal, to the peer and back.
    pub(super) round_trip: Duration,
    /// How much longer to wait.
    pub(super) patience: Duration,
    /// How much longer than that, as long as nothing says that the peer has heard of this side.
    pub(super) unheard: Duration,
}

impl Timing {
    /// How long a plain SYN may take to be answered. On a way so long that a turn takes about as long as a system waits before it repeats
    /// a lost SYN (RFC 6298 §2), the repetition is waited for.
    fn connecting(self) -> Duration {
        let once = self.round_trip + self.patience;
        if self.round_trip >= LONG_WAY { once + SYN_TIMEOUT } else { once }
    }

    /// How long the peer may take to its turn, from when it can begin.
    fn awaiting(self) -> Duration {
        self.round_trip + 2 * self.patience + self.unheard
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpeningStep {
    /// Send an opening SYN, in place of the attempt that there is.
    Open { ttl: u8 },
    /// Connect as usual, in place of the attempt that there is.
    Connect,
    /// Tell the peer that the way is open.
    TellOpened { round: u8, ttl: u8 },
    /// Tell the peer to connect at once; this side will, after that time.
    TellCross { round: u8, after: Duration },
    /// Nothing is left to try.
    GiveUp,
}

/// The turns of one pair.
#[derive(Debug)]
pub(super) struct Opening {
    plan: Plan,
    ladder: Ladder,
    can_open: bool,
    /// Opening SYNs that this side has sent.
    openings: u8,
    /// Whether this side has kept a plain SYN as an opening one. Once is enough: the peer has tried that way.
    has_kept_one: bool,
    /// The greatest TTL that has not gone too far yet.
    greatest_ttl: u8,
    /// The first round that has not begun.
    next: u8,
    phase: Phase,
    silent_turns: u8,
    unreachable: u8,
    busy_turns: u8,
    /// Whether anything has answered an attempt of this side.
    was_answered: bool,
    peer_gone: bool,
}

/// The TTLs and the number of rounds.
#[derive(Debug, Clone, Copy)]
struct Ladder {
    first_ttl: u8,
    last_ttl: u8,
    crossings: u8,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// It is the peer's turn.
    Await { until: Instant },
    /// It is this side's turn.
    Due { at: Instant },
    /// The opening SYN is about to leave.
    Leaving { round: u8, ttl: u8 },
    /// It has left; the peer does not know yet.
    Left { round: u8, ttl: u8 },
    /// It has left, and the peer knows.
    Open { ttl: u8, told_at: Instant, until: Instant },
    /// The peer connects, and this side will.
    CrossAt { at: Instant },
    /// A plain SYN is under way.
    Connecting { how: How, ours: bool, until: Instant },
    /// There is a connection.
    Connected { strategy: Strategy },
    /// Nothing is left.
    Over,
}

#[derive(Debug, Clone, Copy)]
enum How {
    ByPeer { ttl: u8 },
    Crossing,
}

impl Opening {
    /// A pair whose turns begin after `delay`. `can_open`: whether this side and the peer can send opening SYNs.
    pub(super) fn new(
        plan: Plan,
        can_open: (bool, bool),
        config: &Config,
        delay: Duration,
        timing: Timing,
        now: Instant,
    ) -> Self {
        let ladder = Ladder {
            first_ttl: config.first_opening_ttl,
            last_ttl: config.last_opening_ttl.max(config.first_opening_ttl),
            crossings: config.crossings,
        };
        let next = if plan.is_alternate() && can_open == (false, false) { ladder.rounds() } else { 0 };
        let mut opening = Self {
            plan,
            ladder,
            can_open: can_open.0,
            openings: 0,
            has_kept_one: false,
            greatest_ttl: ladder.last_ttl,
            next,
            phase: Phase::Due { at: now + delay },
            silent_turns: 0,
            unreachable: 0,
            busy_turns: 0,
            was_answered: false,
            peer_gone: false,
        };
        if !opening.is_ours(next) {
            opening.phase = Phase::Await { until: now + delay + timing.awaiting() };
        }
        opening
    }

    /// What to do by now, if anything. Call until there is nothing.
    pub(super) fn step(
        &mut self,
        now: Instant,
        timing: Timing,
        jittered: impl FnOnce(Duration) -> Duration,
    ) -> Option<OpeningStep> {
        if let Phase::Connecting { ours, until, .. } = self.phase
            && now >= until
            && (ours || self.plan == Plan::There)
        {
            self.phase = Phase::Await { until: now + timing.awaiting() };
        }
        match self.phase {
            Phase::Left { round, ttl } => {
                let until = now + self.answer_time(timing);
                self.phase = Phase::Open { ttl, told_at: now, until };
                Some(OpeningStep::TellOpened { round, ttl })
            }
            Phase::CrossAt { at } if now >= at => {
                let until = now + timing.connecting();
                self.phase = Phase::Connecting { how: How::Crossing, ours: true, until };
                Some(OpeningStep::Connect)
            }
            Phase::Due { at } if now >= at => Some(self.turn(now, timing, false, jittered)),
            Phase::Await { until } | Phase::Open { until, .. } if now >= until || self.peer_gone => {
                self.pass_silent_turn();
                Some(self.turn(now, timing, false, jittered))
            }
            Phase::Connecting { until, .. } if now >= until => Some(self.turn(now, timing, true, jittered)),
            _ => None,
        }
    }

    /// When [`Self::step`] has something to do by itself.
    pub(super) fn due_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Await { until } | Phase::Open { until, .. } | Phase::Connecting { until, .. } => Some(until),
            Phase::Due { at } | Phase::CrossAt { at } => Some(at),
            Phase::Leaving { .. } | Phase::Left { .. } | Phase::Connected { .. } | Phase::Over => None,
        }
    }

    /// The opening SYN has left.
    pub(super) fn opened(&mut self) {
        if let Phase::Leaving { round, ttl } = self.phase {
            self.openings += 1;
            self.phase = Phase::Left { round, ttl };
        }
    }

    /// The attempt has failed.
    pub(super) fn attempt_failed(&mut self, now: Instant, timing: Timing, failure: ConnectFailure) {
        if failure == ConnectFailure::Unreachable {
            self.unreachable += 1;
        }
        self.was_answered |= failure != ConnectFailure::TimedOut;
        match self.phase {
            Phase::Leaving { round, .. }
                if failure == ConnectFailure::AddrInUse && self.busy_turns < MAX_BUSY_TURNS =>
            {
                self.busy_turns += 1;
                self.next = round;
                self.phase = Phase::Due { at: now + timing.patience };
            }
            Phase::Leaving { round, .. } if failure != ConnectFailure::Refused => {
                self.can_open = false;
                self.next = round;
                self.phase = Phase::Due { at: now };
            }
            Phase::Leaving { round, ttl } => {
                self.greatest_ttl = ttl - 1;
                self.phase = Phase::Left { round, ttl };
            }
            // An opening SYN that is answered with RST went too far. Its answer has closed the way again.
            Phase::Open { ttl, told_at, .. } if ttl != PLAIN_TTL && now < told_at + RETRANSMISSION => {
                self.greatest_ttl = ttl - 1;
            }
            Phase::Connecting { ours, .. } if ours || self.plan == Plan::There => {
                self.phase = Phase::Await { until: now + timing.awaiting() };
            }
            Phase::Connecting { .. } => self.phase = Phase::Due { at: now },
            _ => {}
        }
    }

    /// The peer has opened its way. Returns whether this side connects now; `yields`: whether the peer goes first if both
    /// took the same round.
    pub(super) fn peer_opened(
        &mut self,
        now: Instant,
        timing: Timing,
        round: u8,
        ttl: u8,
        yields: bool,
    ) -> Result<Option<OpeningStep>, SignalError> {
        let how = if ttl == PLAIN_TTL { How::Crossing } else { How::ByPeer { ttl } };
        self.peer_acts(now, timing, round, how, yields)
    }

    /// The peer will connect; this side does at once.
    pub(super) fn peer_crosses(
        &mut self,
        now: Instant,
        timing: Timing,
        round: u8,
        yields: bool,
    ) -> Result<Option<OpeningStep>, SignalError> {
        self.peer_acts(now, timing, round, How::Crossing, yields)
    }

    /// The peer has heard of this side.
    pub(super) fn peer_is_heard(&mut self, now: Instant, timing: Timing) {
        let answer_time = self.answer_time(timing);
        match &mut self.phase {
            Phase::Await { until } => *until = (*until).min(now + timing.awaiting()),
            Phase::Open { until, .. } => *until = (*until).min(now + answer_time),
            _ => {}
        }
    }

    /// The peer has nothing left to try: it will not act any more.
    pub(super) fn peer_is_exhausted(&mut self) {
        self.peer_gone = true;
    }

    /// There is a connection, however it came about. Returns how.
    pub(super) fn connected(&mut self) -> Strategy {
        let strategy = self.strategy();
        self.phase = Phase::Connected { strategy };
        strategy
    }

    /// The connection has gone without proof of the peer.
    pub(super) fn lost(&mut self, now: Instant, timing: Timing) {
        self.phase = if self.is_ours(self.next) {
            Phase::Due { at: now }
        } else {
            Phase::Await { until: now + timing.awaiting() }
        };
    }

    /// Ends the turns: somebody else is there, or nothing is left to try.
    pub(super) fn give_up(&mut self) {
        self.phase = Phase::Over;
    }

    /// How a connection that stands now came about.
    pub(super) fn strategy(&self) -> Strategy {
        match self.phase {
            Phase::Leaving { ttl, .. } | Phase::Left { ttl, .. } | Phase::Open { ttl, .. } if ttl != PLAIN_TTL => {
                Strategy::OpenedHere { ttl }
            }
            Phase::Connecting { how: How::ByPeer { ttl }, .. } => Strategy::OpenedByPeer { ttl },
            Phase::Connected { strategy } => strategy,
            Phase::Await { .. } | Phase::Due { .. } | Phase::Over => Strategy::Accepted,
            _ => Strategy::Crossing,
        }
    }

    /// Whether a connection from another port of the peer's address would be due to this side's opening.
    pub(super) fn lets_in_any_port(&self) -> bool {
        self.plan == Plan::Here && matches!(self.phase, Phase::Left { .. } | Phase::Open { .. })
    }

    /// Whether this side does better to connect from any port: the peer cannot tell from which it will come, and a port that no
    /// NAT on the way knows is better than one whose SYNs have been refused. In round 0 none has been; and if this side's NAT
    /// has been misjudged, its known port is the right one.
    pub(super) fn is_any_port_right(&self) -> bool {
        self.plan == Plan::There && self.next > 1
    }

    /// This side's turn: the next round, or the end.
    fn turn(
        &mut self,
        now: Instant,
        timing: Timing,
        is_under_way: bool,
        jittered: impl FnOnce(Duration) -> Duration,
    ) -> OpeningStep {
        let round = self.next;
        if self.peer_gone
            || round >= self.rounds()
            || self.unreachable >= MAX_UNREACHABLE
            || self.silent_turns > MAX_SILENT_TURNS
            || self.is_all_quiet(round)
        {
            self.phase = Phase::Over;
            return OpeningStep::GiveUp;
        }
        self.next = round + 1;
        if self.can_open && self.greatest_ttl >= self.ladder.first_ttl && self.openings < self.ladder.len() {
            if is_under_way && !std::mem::replace(&mut self.has_kept_one, true) {
                self.phase = Phase::Open { ttl: PLAIN_TTL, told_at: now, until: now + self.answer_time(timing) };
                return OpeningStep::TellOpened { round, ttl: PLAIN_TTL };
            }
            let ttl = self.ladder.first_ttl.saturating_add(self.openings).min(self.greatest_ttl);
            self.phase = Phase::Leaving { round, ttl };
            return OpeningStep::Open { ttl };
        }
        if self.plan == Plan::Here {
            self.phase = Phase::Left { round, ttl: PLAIN_TTL };
            return OpeningStep::Connect;
        }
        let after = jittered(timing.round_trip / 2);
        self.phase = Phase::CrossAt { at: now + after };
        OpeningStep::TellCross { round, after }
    }

    fn is_all_quiet(&self, round: u8) -> bool {
        self.plan.is_alternate() && self.has_kept_one && !self.was_answered && round >= QUIET_ROUNDS
    }

    fn peer_acts(
        &mut self,
        now: Instant,
        timing: Timing,
        round: u8,
        how: How,
        yields: bool,
    ) -> Result<Option<OpeningStep>, SignalError> {
        if round >= MAX_ROUNDS {
            return Err(SignalError::Round { got: round, limit: MAX_ROUNDS });
        }
        let is_contested = round + 1 == self.next && yields && self.is_own_round_under_way();
        if round < self.next && !is_contested {
            // The signal has met one of this side's on the way.
            return Ok(None);
        }
        self.next = round + 1;
        self.silent_turns = 0;
        if matches!(self.phase, Phase::Connected { .. }) {
            return Ok(None);
        }
        let until = now + timing.connecting();
        self.phase = Phase::Connecting { how, ours: false, until };
        Ok(Some(OpeningStep::Connect))
    }

    fn is_own_round_under_way(&self) -> bool {
        match self.phase {
            Phase::Connecting { ours, .. } => ours,
            phase => {
                matches!(phase, Phase::Leaving { .. } | Phase::Left { .. } | Phase::Open { .. } | Phase::CrossAt { .. })
            }
        }
    }

    /// Goes on to this side's next round.
    fn pass_silent_turn(&mut self) {
        self.silent_turns += u8::from(self.plan.is_alternate());
        if self.plan == Plan::There {
            self.silent_turns = MAX_SILENT_TURNS + 1;
        }
        if !self.is_ours(self.next) {
            self.next += 1;
        }
    }

    fn is_ours(&self, round: u8) -> bool {
        match self.plan {
            Plan::Alternate { ours_first } => round.is_multiple_of(2) == ours_first,
            Plan::Here => true,
            Plan::There => false,
        }
    }

    fn rounds(&self) -> u8 {
        match self.plan {
            Plan::Alternate { .. } => self.ladder.rounds().saturating_add(self.ladder.crossings).min(MAX_ROUNDS),
            Plan::Here | Plan::There if self.can_open => self.ladder.len(),
            Plan::Here | Plan::There => PLAIN_ROUNDS,
        }
    }

    /// How long the peer may take from being told to its own turn.
    fn answer_time(&self, timing: Timing) -> Duration {
        let Timing { round_trip, patience, unheard } = timing;
        let answer = match self.plan {
            Plan::Here => round_trip / 2 + timing.connecting() - patience / 2,
            Plan::Alternate { .. } | Plan::There => round_trip + timing.connecting() + patience,
        };
        answer + unheard
    }
}

impl Plan {
    fn is_alternate(self) -> bool {
        matches!(self, Self::Alternate { .. })
    }
}

impl Ladder {
    /// Opening SYNs of one side: one for each TTL.
    fn len(self) -> u8 {
        (self.last_ttl - self.first_ttl).saturating_add(1).min(MAX_ROUNDS / 2)
    }

    /// Rounds with opening SYNs of both sides.
    fn rounds(self) -> u8 {
        2 * self.len()
    }
}

#[cfg(test)]
mod tests;
