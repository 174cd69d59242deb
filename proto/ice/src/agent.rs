//! The agent of one negotiation: what its driver calls, and in which order the parts act.
//!
//! What it is not: any of those parts. Attempts are in `attempts`, checks in `checks`, the choice in `nomination`, the end in
//! `ending`.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    Config, ConnId, ConnectFailure, Counters, Credentials, Description, LocalCandidate, MAX_SIGNALLED_CANDIDATES,
    Mapping, Output, PairReport, Role, Signal, SignalError, Source, Strategy, Stream,
    attempts::Gone,
    checklist::Checklist,
    conn::{Conn, Stage, Standing},
    credentials::check_credentials,
    ending::End,
    opening::Timing,
    pair::{Way, makes_sense},
};
use keyferry_net::random::Random;

use crate::candidate::{Candidate, CandidateKind};

/// Signals that one negotiation can need: four pairs with a ladder of rounds each, and some candidates.
const MAX_SIGNALS: usize = 256;

/// The longest round trip that is believed. A peer that delays its answers must not stretch the timers without end.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(2);

/// What the agent is for, and what this side can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentOptions {
    /// What is looked for.
    pub stream: Stream,
    /// What the NAT of this side does.
    pub mapping: Mapping,
    /// Whether this system can send opening SYNs.
    pub opening: bool,
}

/// The state machine of one negotiation. After every call, drain [`Agent::poll_output`].
///
/// An ICE restart (RFC 8445 §9) is a new agent with new credentials; what the old one has selected is not its business.
#[derive(Debug)]
pub struct Agent {
    pub(super) config: Config,
    pub(super) role: Role,
    pub(super) tie_breaker: u64,
    pub(super) own: Credentials,
    pub(super) options: AgentOptions,
    pub(super) peer: Option<Peer>,
    pub(super) started: Instant,
    pub(super) round_trip: Duration,
    pub(super) local: Vec<LocalCandidate>,
    pub(super) local_complete: bool,
    pub(super) checklist: Checklist,
    pub(super) conns: BTreeMap<ConnId, Conn>,
    pub(super) last_conn: u64,
    /// The earliest time for the next attempt to a candidate that accepts.
    pub(super) next_start: Instant,
    pub(super) end: End,
    pub(super) role_switches: u8,
    pub(super) outputs: VecDeque<Output>,
    pub(super) counters: Counters,
    pub(super) random: Random,
}

/// What the peer has said.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) credentials: Credentials,
    pub(super) mapping: Mapping,
    pub(super) opening: bool,
    pub(super) candidates: Vec<Candidate>,
    /// When the newest of them came.
    pub(super) candidates_at: Instant,
    /// Candidates over all messages, those left out among them.
    named: usize,
    pub(super) complete: bool,
    pub(super) exhausted: bool,
    signals: usize,
    pub(super) deadline: Instant,
}

impl Agent {
    /// An agent that knows nothing of its peer yet. `seed` must be random: tie-breaker, transaction ids and jitter come
    /// from it.
    pub fn new(
        config: Config,
        role: Role,
        credentials: Credentials,
        options: AgentOptions,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let mut random = Random::new(seed);
        Self {
            round_trip: config.initial_round_trip,
            config,
            role,
            tie_breaker: random.next_u64(),
            own: credentials,
            options,
            peer: None,
            started: now,
            local: Vec::new(),
            local_complete: false,
            checklist: Checklist::default(),
            conns: BTreeMap::new(),
            last_conn: 0,
            next_start: now,
            end: End::default(),
            role_switches: 0,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            random,
        }
    }

    /// What the peer has to be told first. Candidates that are added between this and [`Self::set_remote`] are not told;
    /// those added later are, by [`Output::Signal`].
    pub fn description(&self) -> Description {
        Description {
            ufrag: self.own.ufrag.clone(),
            password: self.own.password.clone(),
            candidates: self.local.iter().map(|local| local.candidate).collect(),
            complete: self.local_complete,
            mapping: self.options.mapping,
            opening: self.options.opening,
        }
    }

    /// The role, which a role conflict may have changed.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Tells how long a message takes over the signalling channel and back.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip.min(MAX_ROUND_TRIP);
    }

    /// Adds candidates of this side; `complete` when no more will come. Beyond [`MAX_SIGNALLED_CANDIDATES`] they are left out.
    pub fn add_local_candidates(&mut self, now: Instant, candidates: &[LocalCandidate], complete: bool) {
        let mut added: Vec<LocalCandidate> = Vec::new();
        for candidate in candidates {
            let is_new = !self.local.contains(candidate) && !added.contains(candidate);
            if is_new && self.local.len() + added.len() < MAX_SIGNALLED_CANDIDATES {
                added.push(*candidate);
            }
        }
        let is_news = !added.is_empty() || complete && !self.local_complete;
        self.local.extend_from_slice(&added);
        self.local_complete |= complete;
        if self.peer.is_some() && is_news && !self.has_ended() {
            let candidates = added.iter().map(|local| local.candidate).collect();
            self.outputs.push_back(Output::Signal(Signal::Candidates { candidates, complete: self.local_complete }));
        }
        self.form_pairs(now);
        self.advance(now);
    }

    /// Tells what the peer said first. Candidates that may not be dialled have been left out by the caller.
    pub fn set_remote(&mut self, now: Instant, remote: Description) -> Result<(), SignalError> {
        if self.peer.is_some() {
            return Err(SignalError::DescribedTwice);
        }
        check_credentials(&remote.ufrag, &remote.password).map_err(|_| SignalError::Credentials)?;
        self.peer = Some(Peer {
            credentials: Credentials { ufrag: remote.ufrag, password: remote.password },
            mapping: remote.mapping,
            opening: remote.opening,
            candidates: Vec::new(),
            candidates_at: now,
            named: 0,
            complete: false,
            exhausted: false,
            signals: 0,
            deadline: now + self.config.deadline + self.config.deadline_round_trips * self.round_trip,
        });
        let result = self.add_remote_candidates(now, &remote.candidates, remote.complete);
        self.attach_early_conns(now);
        self.advance(now);
        result
    }

    /// Takes a later message of the peer's agent.
    pub fn handle_signal(&mut self, now: Instant, signal: Signal) -> Result<(), SignalError> {
        let result = self.act_on(now, signal);
        self.counters.signals_refused += u64::from(result.is_err());
        self.advance(now);
        result
    }

    /// The opening SYN of an attempt has left, and its socket waits for the peer.
    pub fn opened(&mut self, now: Instant, conn: ConnId) {
        if let Some(Way::SimultaneousOpen(opening)) = self.pair_of(conn).map(|pair| &mut pair.way) {
            opening.opened();
        }
        self.advance(now);
    }

    /// An attempt has led to a connection.
    pub fn connected(&mut self, now: Instant, conn: ConnId, local: SocketAddr) {
        let strategy = self.pair_of(conn).map(|pair| match (pair.source(), &mut pair.way) {
            (_, Way::SimultaneousOpen(opening)) => opening.connected(),
            (Source::Relayed(_), _) => Strategy::ConnectedByRelay,
            (Source::Port(_) | Source::AnyPort(_), _) => Strategy::Connected,
        });
        let until = now + self.config.check_timeout;
        if let Some(strategy) = strategy
            && let Some(known) = self.conns.get_mut(&conn)
            && matches!(known.stage, Stage::Attempt { .. })
        {
            known.stage = Stage::Standing(Standing::new(local, strategy, until));
            self.check_if_due(now, conn);
        }
        self.advance(now);
    }

    /// An attempt has failed.
    pub fn connect_failed(&mut self, now: Instant, conn: ConnId, failure: ConnectFailure) {
        self.forget(now, conn, Gone::Failed(failure));
        self.advance(now);
    }

    /// The peer has made a connection, to the node's port or to a relayed address of this agent: `local`. At the node's port,
    /// its first message names this agent's ufrag (see [`super::addressed_ufrag`]); pass that message to [`Agent::received`]
    /// next. `None`: close it, it is of no use in this stream, or limits are reached.
    pub fn accepted(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) -> Option<ConnId> {
        let unproven = self.conns.values().filter(|conn| conn.is_unproven()).count();
        let is_full = self.conns.len() >= self.config.max_conns || unproven >= self.config.max_unproven;
        if self.has_ended() || is_full || !self.accepts_at(local) {
            self.counters.over_limit += 1;
            return None;
        }
        let conn = self.new_conn(Conn::accepted(local, remote, now + self.config.first_check_timeout));
        self.counters.accepted += 1;
        self.advance(now);
        Some(conn)
    }

    /// One whole message has arrived, without its length. Drain [`Agent::poll_output`] before the next is read: after
    /// [`Output::Selected`] there are no frames any more.
    pub fn received(&mut self, now: Instant, conn: ConnId, message: &[u8]) {
        self.handle_message(now, conn, message);
        self.advance(now);
    }

    /// A connection has ended, or broke its framing.
    pub fn closed(&mut self, now: Instant, conn: ConnId) {
        self.forget(now, conn, Gone::Closed);
        self.advance(now);
    }

    /// The time of [`Agent::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Agent::handle_timeout`] is to be called. `None`: nothing is waited for, before the peer's description and
    /// after the end.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.has_ended() {
            return None;
        }
        let deadline = self.peer.as_ref().map(|peer| peer.deadline);
        [deadline, self.attempts_due_at(), self.nomination_due_at()].into_iter().flatten().min()
    }

    /// What has become of each pair, best first.
    pub fn pairs(&self) -> Vec<PairReport> {
        self.checklist.reports(self.role)
    }

    /// What has been counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Does what is due by now. The order matters: what has run out makes room, and the end is judged last.
    fn advance(&mut self, now: Instant) {
        if !self.has_ended() {
            self.end_if_late(now);
        }
        if self.has_ended() {
            return;
        }
        self.expire_conns(now);
        if !self.end.is_nominating() {
            self.take_turns(now);
            self.start_attempts(now);
        }
        self.nominate(now);
        self.end_if_exhausted();
    }

    /// Whether connections to this address can be of the stream.
    fn accepts_at(&self, local: SocketAddr) -> bool {
        let is_relayed = |own: &LocalCandidate| own.candidate.kind == CandidateKind::Relayed && own.base == local;
        self.options.stream == Stream::Direct || self.local.iter().any(is_relayed)
    }

    fn act_on(&mut self, now: Instant, signal: Signal) -> Result<(), SignalError> {
        let Some(peer) = &mut self.peer else { return Err(SignalError::NotDescribed) };
        if peer.signals >= MAX_SIGNALS {
            return Err(SignalError::TooManySignals { limit: MAX_SIGNALS });
        }
        peer.signals += 1;
        if self.end.has_ended {
            return Ok(());
        }
        match signal {
            Signal::Candidates { .. } if peer.complete => Err(SignalError::CandidatesAfterLast),
            Signal::Candidates { candidates, complete } => self.add_remote_candidates(now, &candidates, complete),
            Signal::Opened(turn) => self.peer_takes_turn(now, turn, false),
            Signal::Cross { turn, .. } => self.peer_takes_turn(now, turn, true),
            Signal::Exhausted => {
                self.peer_is_exhausted();
                Ok(())
            }
        }
    }

    fn add_remote_candidates(
        &mut self,
        now: Instant,
        candidates: &[Candidate],
        complete: bool,
    ) -> Result<(), SignalError> {
        let Some(peer) = &mut self.peer else { return Err(SignalError::NotDescribed) };
        peer.complete |= complete;
        peer.candidates_at = now;
        let room = MAX_SIGNALLED_CANDIDATES - peer.named;
        peer.named += candidates.len().min(room);
        for candidate in candidates.iter().take(room) {
            let is_known = peer
                .candidates
                .iter()
                .any(|known| (known.tcp_type, known.addr) == (candidate.tcp_type, candidate.addr));
            let is_of_stream = self.options.stream == Stream::Relayed || candidate.kind != CandidateKind::Relayed;
            if makes_sense(candidate) && is_of_stream && !is_known {
                peer.candidates.push(*candidate);
            } else {
                self.counters.candidates_refused += 1;
            }
        }
        self.form_pairs(now);
        if candidates.len() > room {
            self.counters.candidates_refused += (candidates.len() - room) as u64;
            return Err(SignalError::TooManyCandidates);
        }
        Ok(())
    }

    pub(super) fn timing(&self) -> Timing {
        Timing { round_trip: self.round_trip, patience: self.config.round_patience }
    }
}
