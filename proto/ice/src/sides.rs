//! The two sides of a negotiation: what each can do, its credentials and its candidates, and which of them a connection belongs to.
//!
//! What it is not: pairs of candidates (`checklist`).

use std::{net::SocketAddr, time::Instant};

use super::{
    Candidate, CandidateKind, Credentials, Description, LocalCandidate, MAX_SIGNALLED_CANDIDATES, Mapping, Priority,
    Signal, SignalError, TcpType,
    candidate::is_from_simultaneous_open,
    credentials::check_credentials,
    pair::{Pair, Way, is_inside, makes_sense},
};

/// Signals that one negotiation can need: four pairs with a ladder of rounds each, and some candidates.
const MAX_SIGNALS: usize = 256;

/// What a negotiation looks for: a data stream of RFC 8445 §4. Each has its own credentials, checklist and nomination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Stream {
    /// A connection from node to node. No relayed candidate counts.
    Direct,
    /// A connection through one or two relays: every pair has a relayed candidate. Nothing is opened in turns.
    Relayed,
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        })
    }
}

/// What the agent is for, and what this side can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentOptions {
    /// What the agent looks for.
    pub stream: Stream,
    /// What the NAT of this side does.
    pub mapping: Mapping,
    /// Whether this system can send opening SYNs.
    pub opening: bool,
}

/// Both sides of a negotiation.
#[derive(Debug)]
pub(super) struct Sides {
    pub(super) own: OwnSide,
    /// `None` until the peer has described itself.
    pub(super) peer: Option<PeerSide>,
}

/// This side.
#[derive(Debug)]
pub(super) struct OwnSide {
    pub(super) credentials: Credentials,
    pub(super) options: AgentOptions,
    pub(super) candidates: Vec<LocalCandidate>,
    /// Whether there will be no further candidates.
    complete: bool,
}

/// The peer, as its description and signals have it.
#[derive(Debug)]
pub(super) struct PeerSide {
    pub(super) credentials: Credentials,
    pub(super) mapping: Mapping,
    pub(super) opening: bool,
    pub(super) candidates: Vec<Candidate>,
    /// When the newest of them came.
    pub(super) candidates_at: Instant,
    /// Candidates over all messages, those left out among them.
    named: usize,
    /// Whether it will name no further candidates.
    pub(super) complete: bool,
    /// Whether it has said that it has nothing left to try.
    pub(super) exhausted: bool,
    signals: usize,
    /// When the negotiation ends, whatever has come of it.
    pub(super) deadline: Instant,
}

impl Sides {
    /// Whether both sides have named all their candidates.
    pub(super) fn are_complete(&self) -> bool {
        self.own.complete && self.peer.as_ref().is_some_and(|peer| peer.complete)
    }

    /// The peer's candidates that are known so far.
    pub(super) fn remote(&self) -> impl Iterator<Item = &Candidate> {
        self.peer.iter().flat_map(|peer| &peer.candidates)
    }

    /// Whether the NATs of this side and of the peer map by destination.
    pub(super) fn map_by_destination(&self) -> (bool, bool) {
        let is_dependent = |mapping| mapping == Mapping::EndpointDependent;
        let peer = self.peer.as_ref().is_some_and(|peer| is_dependent(peer.mapping));
        (is_dependent(self.own.options.mapping), peer)
    }

    /// Whether any side has an address at a relay.
    pub(super) fn know_a_relay(&self) -> bool {
        let own = self.own.candidates.iter().map(|own| own.candidate.kind);
        own.chain(self.remote().map(|other| other.kind)).any(|kind| kind == CandidateKind::Relayed)
    }

    /// The pairs that the peer may be connecting now: from its active candidates to those of this side that accept and
    /// that it can reach from where it is.
    pub(super) fn awaited(&self) -> impl Iterator<Item = Pair> {
        let active = self.remote().filter(|other| other.tcp_type == TcpType::Active);
        active.flat_map(move |other| {
            let accepts = |own: &&LocalCandidate| {
                own.candidate.tcp_type == TcpType::Passive
                    && own.candidate.addr.is_ipv4() == other.addr.is_ipv4()
                    && !is_inside(own.candidate.addr)
            };
            self.own.candidates.iter().filter(accepts).map(|own| Pair::new(*own, *other, Way::Passive))
        })
    }

    /// The candidate of the peer from which a connection has come. Its port is that of a NAT, or any: its address tells,
    /// and the priority of the check tells which role the candidate has.
    pub(super) fn remote_of(&self, remote: SocketAddr, priority: Priority) -> Candidate {
        let is_so = is_from_simultaneous_open(priority);
        let tcp_type = if is_so { TcpType::SimultaneousOpen } else { TcpType::Active };
        let likely = |known: &&Candidate| (known.tcp_type == tcp_type, known.priority);
        let known = self.remote().filter(|known| known.addr.ip() == remote.ip()).max_by_key(likely);
        let kind = known.map_or(CandidateKind::ServerReflexive, |known| known.kind);
        let signalled = known.filter(|known| known.tcp_type == tcp_type).map(|known| known.priority);
        Candidate { kind, tcp_type, addr: remote, priority: signalled.unwrap_or(priority) }
    }
}

impl OwnSide {
    pub(super) fn new(credentials: Credentials, options: AgentOptions) -> Self {
        Self { credentials, options, candidates: Vec::new(), complete: false }
    }

    /// Adds candidates, as far as they are new and within the limit. Returns the signal that tells a peer who has this side's
    /// description already.
    pub(super) fn add(&mut self, candidates: &[LocalCandidate], complete: bool) -> Option<Signal> {
        let known = self.candidates.len();
        for candidate in candidates {
            if !self.candidates.contains(candidate) && self.candidates.len() < MAX_SIGNALLED_CANDIDATES {
                self.candidates.push(*candidate);
            }
        }
        let added = self.candidates.iter().skip(known).map(|local| local.candidate).collect::<Vec<_>>();
        let is_news = !added.is_empty() || complete && !self.complete;
        self.complete |= complete;
        is_news.then_some(Signal::Candidates { candidates: added, complete: self.complete })
    }

    pub(super) fn description(&self) -> Description {
        Description {
            ufrag: self.credentials.ufrag.clone(),
            password: self.credentials.password.clone(),
            candidates: self.candidates.iter().map(|local| local.candidate).collect(),
            complete: self.complete,
            mapping: self.options.mapping,
            opening: self.options.opening,
        }
    }

    /// Whether connections to this address can be of the stream.
    pub(super) fn accepts_at(&self, local: SocketAddr) -> bool {
        let is_relayed = |own: &LocalCandidate| own.candidate.kind == CandidateKind::Relayed && own.base == local;
        self.options.stream == Stream::Direct || self.candidates.iter().any(is_relayed)
    }

    /// The candidate that the peer has connected to, as far as it can be told before the peer says what it sees.
    pub(super) fn candidate_at(&self, local: SocketAddr, remote: SocketAddr) -> LocalCandidate {
        let accepts = |own: &&LocalCandidate| own.candidate.tcp_type == TcpType::Passive && own.base == local;
        let likely =
            |own: &&LocalCandidate| (is_inside(own.candidate.addr) == is_inside(remote), own.candidate.priority);
        let host = || LocalCandidate { candidate: Candidate::host_passive(local, 0), base: local };
        self.candidates.iter().filter(accepts).max_by_key(likely).copied().unwrap_or_else(host)
    }

    /// The candidate that accepts at `local` and that the peer sees as `mapped`.
    pub(super) fn candidate_seen_as(&self, mapped: SocketAddr, local: SocketAddr) -> Option<LocalCandidate> {
        let is_seen = |own: &&LocalCandidate| {
            own.candidate.tcp_type == TcpType::Passive && own.candidate.addr == mapped && own.base == local
        };
        self.candidates.iter().find(is_seen).copied()
    }
}

impl PeerSide {
    /// The peer without its candidates, which are for [`Self::add`].
    pub(super) fn new(remote: &Description, now: Instant, deadline: Instant) -> Result<Self, SignalError> {
        let Description { ufrag, password, mapping, opening, candidates: _, complete: _ } = remote;
        check_credentials(ufrag, password).map_err(|_| SignalError::Credentials)?;
        Ok(Self {
            credentials: Credentials { ufrag: ufrag.clone(), password: password.clone() },
            mapping: *mapping,
            opening: *opening,
            candidates: Vec::new(),
            candidates_at: now,
            named: 0,
            complete: false,
            exhausted: false,
            signals: 0,
            deadline,
        })
    }

    /// Adds candidates that the peer has named, and returns how many were left out.
    pub(super) fn add(&mut self, now: Instant, candidates: &[Candidate], complete: bool, stream: Stream) -> usize {
        self.complete |= complete;
        self.candidates_at = now;
        let known_before = self.candidates.len();
        for candidate in candidates.iter().take(self.room()) {
            let is_known = self
                .candidates
                .iter()
                .any(|known| (known.tcp_type, known.addr) == (candidate.tcp_type, candidate.addr));
            let is_of_stream = stream == Stream::Relayed || candidate.kind != CandidateKind::Relayed;
            if makes_sense(candidate) && is_of_stream && !is_known {
                self.candidates.push(*candidate);
            }
        }
        self.named += candidates.len().min(self.room());
        candidates.len() - (self.candidates.len() - known_before)
    }

    /// Candidates that the peer may still name.
    pub(super) fn room(&self) -> usize {
        MAX_SIGNALLED_CANDIDATES - self.named
    }

    /// Counts a signal; an error after more than one negotiation can need.
    pub(super) fn count_signal(&mut self) -> Result<(), SignalError> {
        if self.signals >= MAX_SIGNALS {
            return Err(SignalError::TooManySignals { limit: MAX_SIGNALS });
        }
        self.signals += 1;
        Ok(())
    }
}
