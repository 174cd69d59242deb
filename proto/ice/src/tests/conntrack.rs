//! What a router remembers of one TCP connection (after Linux' `nf_conntrack_proto_tcp.c`).
//!
//! The facts that matter to hole punching: a RST closes the entry, and in that state a SYN from the other side is invalid
//! until this side sends a new one; once SYNs of both sides were seen, a SYN-ACK must have the number of its side's SYN.

use std::time::Duration;

use super::segment::{Flags, Segment};

/// For how long a closed entry stays (`nf_conntrack_tcp_timeout_close`).
const CLOSED_FOR: Duration = Duration::from_secs(10);

/// Which way a segment goes through a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Outward,
    Inward,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    /// The first side's SYN was seen.
    SynSent {
        first: u64,
    },
    /// SYNs of both sides were seen.
    Crossed {
        first: u64,
        second: u64,
    },
    SynReceived {
        first: u64,
    },
    Established,
    Closed {
        until: Duration,
    },
}

/// The state of one connection in a router.
#[derive(Debug)]
pub(super) struct Tracked {
    began: Direction,
    state: State,
}

impl Tracked {
    pub(super) fn new(began: Direction) -> Self {
        Self { began, state: State::New }
    }

    pub(super) fn began(&self, direction: Direction) -> bool {
        self.began == direction
    }

    pub(super) fn has_expired(&self, now: Duration) -> bool {
        matches!(self.state, State::Closed { until } if until <= now)
    }

    /// Takes in a segment; false when it is invalid, and must not pass.
    pub(super) fn take(&mut self, now: Duration, direction: Direction, segment: &Segment) -> bool {
        let forward = direction == self.began;
        let next = match segment.flags {
            Flags::Syn if forward => self.syn_of_the_first(segment.seq),
            Flags::Syn => self.syn_of_the_second(segment.seq),
            Flags::SynAck => self.syn_ack(forward, segment),
            Flags::Ack => self.ack(forward),
            Flags::Rst => self.rst(now, forward, segment),
        };
        if let Some(next) = next {
            self.state = next;
        }
        next.is_some()
    }

    fn syn_of_the_first(&self, seq: u64) -> Option<State> {
        match self.state {
            State::New | State::Closed { .. } => Some(State::SynSent { first: seq }),
            State::SynSent { first } => (seq >= first).then_some(State::SynSent { first: seq }),
            State::Crossed { first, .. } => (seq == first).then_some(self.state),
            State::SynReceived { .. } | State::Established => Some(self.state),
        }
    }

    fn syn_of_the_second(&self, seq: u64) -> Option<State> {
        match self.state {
            State::SynSent { first } => Some(State::Crossed { first, second: seq }),
            State::Crossed { second, .. } => (seq == second).then_some(self.state),
            _ => None,
        }
    }

    fn syn_ack(&self, forward: bool, segment: &Segment) -> Option<State> {
        match (self.state, forward) {
            (State::SynSent { first }, false) => (segment.ack == first + 1).then_some(State::SynReceived { first }),
            (State::Crossed { first, .. }, true) => (segment.seq == first).then_some(State::SynReceived { first }),
            (State::Crossed { first, second }, false) => {
                (segment.seq == second).then_some(State::SynReceived { first })
            }
            (State::SynReceived { first }, true) => (segment.seq == first).then_some(self.state),
            (State::SynReceived { .. } | State::Established, false) => Some(self.state),
            _ => None,
        }
    }

    fn ack(&self, forward: bool) -> Option<State> {
        match self.state {
            State::SynReceived { .. } if forward => Some(State::Established),
            State::SynReceived { .. } | State::Established | State::Closed { .. } => Some(self.state),
            _ => None,
        }
    }

    fn rst(&self, now: Duration, forward: bool, segment: &Segment) -> Option<State> {
        let answers = match self.state {
            State::New => false,
            State::SynSent { first } if !forward => segment.ack == first + 1,
            _ => true,
        };
        answers.then_some(State::Closed { until: now + CLOSED_FOR })
    }
}
