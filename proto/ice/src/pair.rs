//! Candidate pairs: what they are made of, how good they are, and how far they have come.
//!
//! What it is not: the list of them (`checklist`), or the connections that are tried for them (`conn`).

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use keyferry_net::ip::Class;

use super::{
    Candidate, CandidateKind, Config, ConnId, ConnectFailure, LocalCandidate, PairReport, PairState, Priority, Role,
    Source, Strategy, TcpType,
    opening::{Opening, Timing},
};

/// A pair of one agent. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PairId(pub(super) u32);

/// What makes two candidates alike, so that the success of one foretells that of the other (RFC 8445 §5.1.1.3).
pub(super) type Foundation = (CandidateKind, TcpType, IpAddr);

/// How the connection of a pair comes about.
#[derive(Debug)]
pub(super) enum Way {
    /// This side connects, from any port.
    Active,
    /// The peer connects.
    Passive,
    /// Both sides do, in turns.
    SimultaneousOpen(Opening),
}

/// How a connection, or an attempt at one, has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// The attempt has failed.
    Failed(ConnectFailure),
    /// The connection was closed.
    Closed,
    /// Somebody else is there, or the peer misbehaves.
    Disproven,
}

/// A pair of a local and a remote candidate.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) local: LocalCandidate,
    pub(super) remote: Candidate,
    pub(super) way: Way,
    pub(super) state: PairState,
    pub(super) attempts: usize,
    /// The attempt at it, or its connection; the newest.
    pub(super) conn: Option<ConnId>,
    pub(super) last_failure: Option<ConnectFailure>,
    /// While it waits: the earliest time for the next attempt.
    pub(super) not_before: Option<Instant>,
    first_attempt: Option<Instant>,
    took: Duration,
}

impl Pair {
    pub(super) fn new(local: LocalCandidate, remote: Candidate, way: Way) -> Self {
        Self {
            local,
            remote,
            way,
            state: PairState::Waiting,
            attempts: 0,
            conn: None,
            last_failure: None,
            not_before: None,
            first_attempt: None,
            took: Duration::ZERO,
        }
    }

    /// From where connections of the pair leave.
    pub(super) fn source(&self) -> Source {
        match &self.way {
            Way::SimultaneousOpen(opening) if !opening.is_any_port_right() => Source::Port(self.local.base),
            Way::Active if self.local.candidate.kind == CandidateKind::Relayed => Source::Relayed(self.local.base),
            Way::SimultaneousOpen(_) | Way::Active | Way::Passive => Source::AnyPort(self.local.base.ip()),
        }
    }

    /// The priority of the pair (RFC 8445 §6.1.2.3).
    pub(super) fn priority(&self, role: Role) -> u64 {
        match role {
            Role::Controlling => Priority::of_pair(self.local.candidate.priority, self.remote.priority),
            Role::Controlled => Priority::of_pair(self.remote.priority, self.local.candidate.priority),
        }
    }

    /// Whether both pairs are of candidates of the same kinds, and are opened alike.
    pub(super) fn is_of_kind_of(&self, other: &Self) -> bool {
        let kind = |pair: &Self| (pair.local.candidate.kind, pair.remote.kind, std::mem::discriminant(&pair.way));
        kind(self) == kind(other)
    }

    /// The foundation of the pair (RFC 8445 §6.1.2.6). The peer's bases are not known; its addresses stand for them.
    pub(super) fn foundation(&self) -> (Foundation, Foundation) {
        let local = (self.local.candidate.kind, self.local.candidate.tcp_type, self.local.base.ip());
        (local, (self.remote.kind, self.remote.tcp_type, self.remote.addr.ip()))
    }

    /// Whether this side has nothing left to try at the pair.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, PairState::Failed(_) | PairState::Disproven)
    }

    /// When the first attempt began.
    pub(super) fn began_at(&self) -> Option<Instant> {
        self.first_attempt
    }

    /// Notes that an attempt begins.
    pub(super) fn begin(&mut self, now: Instant, conn: ConnId) {
        self.attempts += 1;
        self.conn = Some(conn);
        self.enter(now, PairState::InProgress);
    }

    /// Notes the state that the pair is in now.
    pub(super) fn enter(&mut self, now: Instant, state: PairState) {
        let first = *self.first_attempt.get_or_insert(now);
        self.state = state;
        self.took = now.saturating_duration_since(first);
    }

    /// Notes that there is a connection, and says how it came about.
    pub(super) fn connected(&mut self) -> Strategy {
        match (self.source(), &mut self.way) {
            (_, Way::SimultaneousOpen(opening)) => opening.connected(),
            (Source::Relayed(_), _) => Strategy::ConnectedByRelay,
            (Source::Port(_) | Source::AnyPort(_), _) => Strategy::Connected,
        }
    }

    /// Notes that its connection, or the attempt at one, is no more: what is left to try, and when.
    pub(super) fn lose(&mut self, now: Instant, config: &Config, timing: Timing, gone: Gone) {
        self.conn = None;
        if let Gone::Failed(failure) = gone {
            self.last_failure = Some(failure);
        }
        let may_open_later = self.is_turned_away(gone) && self.attempts < config.relayed_tries;
        match (&mut self.way, gone) {
            (Way::SimultaneousOpen(opening), Gone::Failed(failure)) => opening.attempt_failed(now, timing, failure),
            (Way::SimultaneousOpen(opening), Gone::Closed) => {
                opening.lost(now, timing);
                self.enter(now, PairState::InProgress);
            }
            (Way::SimultaneousOpen(opening), Gone::Disproven) => {
                opening.give_up();
                self.enter(now, PairState::Disproven);
            }
            (Way::Active, _) if may_open_later => {
                let tried = u32::try_from(self.attempts.saturating_sub(1)).unwrap_or(u32::MAX);
                let patience = config.permission_patience.saturating_mul(2_u32.saturating_pow(tried));
                self.enter(now, PairState::Waiting);
                self.not_before = Some(now + patience);
            }
            (Way::Active | Way::Passive, Gone::Failed(_)) => self.fail(now),
            (Way::Active | Way::Passive, Gone::Closed | Gone::Disproven) => self.enter(now, PairState::Disproven),
        }
    }

    /// Notes that nothing is left to try.
    pub(super) fn fail(&mut self, now: Instant) {
        if let Way::SimultaneousOpen(opening) = &mut self.way {
            opening.give_up();
        }
        self.enter(now, PairState::Failed(self.last_failure.unwrap_or(ConnectFailure::TimedOut)));
    }

    pub(super) fn report(&self) -> PairReport {
        PairReport {
            local: self.local.candidate,
            remote: self.remote,
            state: self.state,
            attempts: self.attempts,
            took: self.took,
        }
    }

    /// Whether a connection or attempt has ended as with a relay that has not been asked yet to let this side in: the relay
    /// closes what it has accepted (RFC 6062 §5.3). No answer at all is something else.
    fn is_turned_away(&self, gone: Gone) -> bool {
        let is_answer = match gone {
            Gone::Failed(failure) => matches!(failure, ConnectFailure::Refused | ConnectFailure::Other),
            Gone::Closed => true,
            Gone::Disproven => false,
        };
        is_answer && self.remote.kind == CandidateKind::Relayed
    }
}

/// Whether an address is inside a house or a carrier's network. Others use the same addresses inside theirs.
pub(super) fn is_inside(addr: SocketAddr) -> bool {
    Class::of(addr.ip()) != Class::Global
}

/// Whether a candidate of the peer can be right at all. Whether it may be dialled is for the caller to say.
pub(super) fn makes_sense(candidate: &Candidate) -> bool {
    let (ip, port) = (candidate.addr.ip(), candidate.addr.port());
    let is_mapped_v4 = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let is_one_host = Class::of(ip) != Class::NoHost;
    port != 0 && is_one_host && !is_mapped_v4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_right_make_no_sense() {
        let makes = |addr: &str| makes_sense(&Candidate::host_passive(addr.parse().unwrap(), 0));
        assert!(makes("192.0.2.1:1") && makes("[2001:db8::1]:1"));
        for addr in [
            "192.0.2.1:0",
            "0.0.0.0:1",
            "[::]:1",
            "224.0.0.1:1",
            "[ff02::1]:1",
            "255.255.255.255:1",
            "240.0.0.1:1",
            "0.1.2.3:1",
            "[::ffff:192.0.2.1]:1",
        ] {
            assert!(!makes(addr), "{addr}");
        }
    }

    #[test]
    fn inside_is_what_the_internet_does_not_route() {
        let inside = |addr: &str| is_inside(addr.parse().unwrap());
        for addr in [
            "10.1.2.3:1",
            "172.16.0.1:1",
            "192.168.0.1:1",
            "100.64.0.1:1",
            "100.127.255.255:1",
            "192.0.0.4:1",
            "198.18.0.1:1",
            "[fec0::1]:1",
            "[fd00::1]:1",
            "[fe80::1]:1",
        ] {
            assert!(inside(addr), "{addr}");
        }
        for addr in ["100.63.0.1:1", "100.128.0.1:1", "172.32.0.1:1", "203.0.113.1:1", "[2001:db8::1]:1"] {
            assert!(!inside(addr), "{addr}");
        }
    }
}
