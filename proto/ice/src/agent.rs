//! The agent of one negotiation: what its caller tells it and asks it, and in which order the parts act.
//!
//! ```text
//! sides ───────▶ checklist ─▶ attempts, turns ─▶ checking ─▶ nomination ─▶ conclusion
//! candidates     pairs        connections        proof       choice        the end
//! ```
//! What it is not: any of those parts. Each owns its state; `links` holds pairs and connections together, and `means` is what all use.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use keyferry_net::random::Random;

use super::{
    AgentCounters, AgentOptions, Candidate, Config, ConnId, ConnectFailure, Credentials, Description, LocalCandidate,
    OpenTurn, Output, PairReport, Role, Signal, SignalError,
    attempts::Attempts,
    checking::Checking,
    conclusion::Conclusion,
    conn::{Conn, Standing},
    links::Links,
    means::Means,
    nomination::Nomination,
    pair::{Gone, Way},
    role::OwnRole,
    sides::{OwnSide, PeerSide, Sides},
    turns,
};

/// The state machine of one negotiation. After every call, drain [`Agent::poll_output`].
///
/// An ICE restart (RFC 8445 §9) is a new agent with new credentials; what the old one has selected is not its business.
#[derive(Debug)]
pub struct Agent {
    means: Means,
    role: OwnRole,
    sides: Sides,
    links: Links,
    attempts: Attempts,
    nomination: Nomination,
    conclusion: Conclusion,
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
        let mut means = Means::new(config, Random::new(seed));
        Self {
            role: OwnRole::new(role, &mut means.random),
            means,
            sides: Sides { own: OwnSide::new(credentials, options), peer: None },
            links: Links::default(),
            attempts: Attempts::new(now),
            nomination: Nomination::default(),
            conclusion: Conclusion::new(now),
        }
    }

    /// What the peer has to be told first. Candidates that are added between this and [`Self::set_remote`] are not told;
    /// those added later are, by [`Output::Signal`].
    pub fn description(&self) -> Description {
        self.sides.own.description()
    }

    /// The role, which a role conflict may have changed.
    pub fn role(&self) -> Role {
        self.role.get()
    }

    /// Tells how long a message takes over the signalling channel and back: the peer has heard of this side.
    pub fn set_round_trip(&mut self, now: Instant, round_trip: Duration) {
        let is_first = self.means.set_round_trip(round_trip);
        if let Some(peer) = self.sides.peer.as_mut().filter(|_| is_first) {
            peer.deadline = peer.deadline.max(now + self.means.deadline());
            self.links.checklist.peer_is_heard(now, self.means.timing());
            self.advance(now);
        }
    }

    /// Adds candidates of this side; `complete` when no more will come. Those beyond [`super::MAX_SIGNALLED_CANDIDATES`] are left out.
    pub fn add_local_candidates(&mut self, now: Instant, candidates: &[LocalCandidate], complete: bool) {
        let news = self.sides.own.add(candidates, complete);
        if self.sides.peer.is_some() && !self.conclusion.has_ended() {
            news.into_iter().for_each(|signal| self.means.out.push(Output::Signal(signal)));
        }
        self.form_pairs(now);
        self.advance(now);
    }

    /// Tells what the peer said first. The caller has left out the candidates that may not be dialled.
    pub fn set_remote(&mut self, now: Instant, remote: Description) -> Result<(), SignalError> {
        if self.sides.peer.is_some() {
            return Err(SignalError::DescribedTwice);
        }
        self.sides.peer = Some(PeerSide::new(&remote, now, now + self.means.deadline())?);
        let result = self.add_remote_candidates(now, &remote.candidates, remote.complete);
        self.checking(now).attach_early();
        self.advance(now);
        result
    }

    /// Takes a later message of the peer's agent.
    pub fn handle_signal(&mut self, now: Instant, signal: Signal) -> Result<(), SignalError> {
        let result = self.act_on(now, signal);
        self.means.out.counters.signals_refused += u64::from(result.is_err());
        self.advance(now);
        result
    }

    /// The opening SYN of an attempt has left, and its socket waits for the peer.
    pub fn opened(&mut self, now: Instant, conn: ConnId) {
        if let Some(Way::SimultaneousOpen(opening)) = self.links.pair_of(conn).map(|pair| &mut pair.way) {
            opening.opened();
        }
        self.advance(now);
    }

    /// An attempt has led to a connection.
    pub fn connected(&mut self, now: Instant, conn: ConnId, local: SocketAddr) {
        let until = now + self.means.config.check_timeout;
        if self.links.connected(conn, |strategy| Standing::new(local, strategy, until)) {
            self.checking(now).begin(conn);
        }
        self.advance(now);
    }

    /// An attempt has failed.
    pub fn connect_failed(&mut self, now: Instant, conn: ConnId, failure: ConnectFailure) {
        self.links.forget(now, &self.means, conn, Gone::Failed(failure));
        self.advance(now);
    }

    /// The peer has made a connection, to the node's port or to a relayed address of this agent: `local`. At the node's port,
    /// its first message names this agent's ufrag (see [`super::addressed_ufrag`]); pass that message to [`Agent::received`]
    /// next. `None`: close it, it is of no use in this stream, or limits are reached.
    pub fn accepted(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) -> Option<ConnId> {
        let Self { means, sides, links, conclusion, .. } = self;
        let unproven = links.conns.iter().filter(|(_, conn)| conn.is_unproven()).count();
        let is_full = links.conns.len() >= means.config.max_conns || unproven >= means.config.max_unproven;
        if conclusion.has_ended() || is_full || !sides.own.accepts_at(local) {
            means.out.counters.over_limit += 1;
            return None;
        }
        let conn = links.conns.add(Conn::accepted(local, remote, now + means.config.first_check_timeout));
        means.out.counters.accepted += 1;
        self.advance(now);
        Some(conn)
    }

    /// One whole message has arrived, without its length. Drain [`Agent::poll_output`] before you read the next one: after
    /// [`Output::Selected`] there are no frames any more.
    pub fn received(&mut self, now: Instant, conn: ConnId, message: &[u8]) {
        if self.checking(now).receive(conn, message) {
            self.conclusion.select(now, &mut self.means, &self.sides, &mut self.links, conn);
        }
        self.advance(now);
    }

    /// A connection has ended, or broke its framing.
    pub fn closed(&mut self, now: Instant, conn: ConnId) {
        self.links.forget(now, &self.means, conn, Gone::Closed);
        self.advance(now);
    }

    /// The time of [`Agent::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.means.out.pop()
    }

    /// When to call [`Agent::handle_timeout`]. `None` before the peer's description and after the end, when the agent waits for
    /// nothing.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let Self { means, role, sides, links, attempts, nomination, conclusion } = self;
        if conclusion.has_ended() {
            return None;
        }
        let deadline = sides.peer.as_ref().map(|peer| peer.deadline);
        let tries = [links.checklist.turn_due_at(), attempts.due_at(&means.config, links)];
        let tries = tries.into_iter().flatten().min().filter(|_| !links.conns.is_nominating());
        let nomination = nomination.due_at(role.get(), means.config.nomination_patience, sides, links);
        [deadline, links.conns.due_at(), tries, nomination].into_iter().flatten().min()
    }

    /// What has become of each pair, best first.
    pub fn pairs(&self) -> Vec<PairReport> {
        self.links.checklist.reports(self.role.get())
    }

    /// What has been counted.
    pub fn counters(&self) -> AgentCounters {
        self.means.out.counters
    }

    /// Does what is due by now. The order matters: what has run out makes room, and the end is judged last.
    fn advance(&mut self, now: Instant) {
        let Self { means, role, sides, links, attempts, nomination, conclusion } = self;
        if !conclusion.has_ended() {
            conclusion.fail_if_late(now, means, sides, links);
        }
        if conclusion.has_ended() {
            return;
        }
        links.expire(now, means);
        if !links.conns.is_nominating() {
            turns::take_due(now, means, links);
            attempts.start_due(now, means, role.get(), links);
        }
        let patience = means.config.nomination_patience;
        if let Some(conn) = nomination.due(now, role.get(), patience, sides, links) {
            Checking { now, means, sides, role, links }.nominate(conn);
        }
        conclusion.fail_if_exhausted(means, sides, links);
    }

    fn act_on(&mut self, now: Instant, signal: Signal) -> Result<(), SignalError> {
        let peer = self.sides.peer.as_mut().ok_or(SignalError::NotDescribed)?;
        peer.count_signal()?;
        if self.conclusion.has_ended() {
            return Ok(());
        }
        match signal {
            Signal::Candidates { .. } if peer.complete => Err(SignalError::CandidatesAfterLast),
            Signal::Candidates { candidates, complete } => self.add_remote_candidates(now, &candidates, complete),
            Signal::Opened(turn) => self.follow(now, turn, false),
            Signal::Cross { turn, .. } => self.follow(now, turn, true),
            Signal::Exhausted => {
                peer.exhausted = true;
                self.links.checklist.peer_is_exhausted();
                Ok(())
            }
        }
    }

    fn follow(&mut self, now: Instant, turn: OpenTurn, crosses: bool) -> Result<(), SignalError> {
        turns::follow(now, &mut self.means, &mut self.links, &self.sides.own.candidates, turn, crosses)
    }

    fn add_remote_candidates(
        &mut self,
        now: Instant,
        candidates: &[Candidate],
        complete: bool,
    ) -> Result<(), SignalError> {
        let stream = self.sides.own.options.stream;
        let peer = self.sides.peer.as_mut().ok_or(SignalError::NotDescribed)?;
        let is_too_many = candidates.len() > peer.room();
        let left_out = peer.add(now, candidates, complete, stream);
        self.means.out.counters.candidates_refused += left_out as u64;
        self.form_pairs(now);
        if is_too_many { Err(SignalError::TooManyCandidates) } else { Ok(()) }
    }

    fn form_pairs(&mut self, now: Instant) {
        if !self.conclusion.has_ended() {
            self.links.checklist.form(now, &self.means, &self.sides, self.role.get());
        }
    }

    fn checking(&mut self, now: Instant) -> Checking<'_> {
        Checking { now, means: &mut self.means, sides: &self.sides, role: &mut self.role, links: &mut self.links }
    }
}
