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
enum EntryState {
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
    state: EntryState,
}

impl Tracked {
    pub(super) fn new(began: Direction) -> Self {
        Self { began, state: EntryState::New }
    }

    pub(super) fn began(&self, direction: Direction) -> bool {
        self.began == direction
    }

    pub(super) fn has_expired(&self, now: Duration) -> bool {
        matches!(self.state, EntryState::Closed { until } if until <= now)
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

    fn syn_of_the_first(&self, seq: u64) -> Option<EntryState> {
        match self.state {
            EntryState::New | EntryState::Closed { .. } => Some(EntryState::SynSent { first: seq }),
            EntryState::SynSent { first } => (seq >= first).then_some(EntryState::SynSent { first: seq }),
            EntryState::Crossed { first, .. } => (seq == first).then_some(self.state),
            EntryState::SynReceived { .. } | EntryState::Established => Some(self.state),
        }
    }

    fn syn_of_the_second(&self, seq: u64) -> Option<EntryState> {
        match self.state {
            EntryState::SynSent { first } => Some(EntryState::Crossed { first, second: seq }),
            EntryState::Crossed { second, .. } => (seq == second).then_some(self.state),
            _ => None,
        }
    }

    fn syn_ack(&self, forward: bool, segment: &Segment) -> Option<EntryState> {
        match (self.state, forward) {
            (EntryState::SynSent { first }, false) => {
                (segment.ack == first + 1).then_some(EntryState::SynReceived { first })
            }
            (EntryState::Crossed { first, .. }, true) => {
                (segment.seq == first).then_some(EntryState::SynReceived { first })
            }
            (EntryState::Crossed { first, second }, false) => {
                (segment.seq == second).then_some(EntryState::SynReceived { first })
            }
            (EntryState::SynReceived { first }, true) => (segment.seq == first).then_some(self.state),
            (EntryState::SynReceived { .. } | EntryState::Established, false) => Some(self.state),
            _ => None,
        }
    }

    fn ack(&self, forward: bool) -> Option<EntryState> {
        match self.state {
            EntryState::SynReceived { .. } if forward => Some(EntryState::Established),
            EntryState::SynReceived { .. } | EntryState::Established | EntryState::Closed { .. } => Some(self.state),
            _ => None,
        }
    }

    fn rst(&self, now: Duration, forward: bool, segment: &Segment) -> Option<EntryState> {
        let answers = match self.state {
            EntryState::New => false,
            EntryState::SynSent { first } if !forward => segment.ack == first + 1,
            _ => true,
        };
        answers.then_some(EntryState::Closed { until: now + CLOSED_FOR })
    }
}
