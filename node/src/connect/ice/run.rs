//! One negotiation under way: an agent, its sockets, its relays, its signals and its timers, in one future.
//!
//! What it is not: a decision about pairs, checks or nomination; those are the agent's.

use std::{collections::VecDeque, future::poll_fn, net::SocketAddr, sync::Arc, time::Duration};

use keyferry_ice::{
    Agent, Candidate, CandidateKind, ConnId, ConnectMethod, Description, FailureReason, LocalCandidate, Output,
    Selected, Signal, SignalError, Source, Strategy,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    FoundPath, IceError, IceFailure, Inbound,
    admission::{admit_description, admit_signal},
    host::IceHost,
    relaying::RelayEvent,
    sockets::{Event, Sockets},
    talk::{PeerArrivals, Remote, Talk},
};
use crate::{
    net::{
        path::{AddressPolicy, Path, PathKind, PathReport, PathStream, RelayWay},
        port::opens_after,
    },
    reach::gather::Gathered,
};

/// Signals that may wait for the signalling channel. More is a peer, or a path, that has stopped taking them.
const MAX_UNSENT_SIGNALS: usize = 64;
/// How long to wait for a path after the peer has hung up, beyond two round trips: if the peer has found one, its last check is
/// under way, and may have to be sent again.
const HANG_UP_PATIENCE: Duration = Duration::from_secs(1);
/// How long to sleep when the agent needs no timer.
const NO_TIMER: Duration = Duration::from_secs(60);

/// What every negotiation has when it begins.
#[derive(Debug)]
pub(super) struct BegunNegotiation {
    pub(super) agent: Agent,
    pub(super) told: Vec<LocalCandidate>,
    pub(super) gathered: watch::Receiver<Gathered>,
    pub(super) host: Arc<IceHost>,
    /// What goes right behind the last frame of the side that nominates.
    pub(super) first_words: Vec<u8>,
}

/// A negotiation that talks to its peer.
pub(super) struct RunningNegotiation<'a> {
    agent: Agent,
    told: Vec<LocalCandidate>,
    gathered: watch::Receiver<Gathered>,
    /// Whether `gathered` may still change.
    gathering: bool,
    arrivals: PeerArrivals,
    host: Arc<IceHost>,
    policy: &'a AddressPolicy,
    sockets: Sockets,
    first_words: Vec<u8>,
    /// The connection on which they have been said last.
    said_on: Option<ConnId>,
    outgoing: mpsc::Sender<Signal>,
    incoming: mpsc::Receiver<Signal>,
    round_trip: watch::Receiver<Duration>,
    /// Whether `round_trip` may still change.
    measuring: bool,
    unsent: VecDeque<Signal>,
    remote: Remote,
    /// Once the peer has hung up: until when a path may still come about.
    hung_up: Option<Instant>,
    /// Ways that will be open, the next one first.
    opening: VecDeque<(Instant, ConnId)>,
    began: Instant,
}

/// What woke the negotiation.
enum Woken {
    Socket(Event),
    Inbound(Option<Inbound>),
    Relay(RelayEvent),
    /// The peer's description, or the news that there will be none.
    Described(Option<Description>),
    Signal(Option<Signal>),
    /// A signal can be sent, or nobody takes signals any more.
    Room(bool),
    Gathered(bool),
    RoundTrip(bool),
    Timer,
}

impl<'a> RunningNegotiation<'a> {
    pub(super) fn new(begun: BegunNegotiation, arrivals: PeerArrivals, talk: Talk, policy: &'a AddressPolicy) -> Self {
        let BegunNegotiation { agent, told, gathered, host, first_words } = begun;
        let Talk { remote, describe, round_trip, outgoing, incoming } = talk;
        let mut run = Self {
            agent,
            told,
            gathered,
            gathering: true,
            arrivals,
            host,
            policy,
            sockets: Sockets::default(),
            first_words,
            said_on: None,
            outgoing,
            incoming,
            round_trip,
            measuring: true,
            unsent: VecDeque::new(),
            remote,
            hung_up: None,
            opening: VecDeque::new(),
            began: Instant::now(),
        };
        if let Some(describe) = describe {
            run.tell_agent();
            // If nobody takes it, that shows by the signals.
            let _ = describe.send(run.agent.description());
        }
        run
    }

    pub(super) async fn until_done(mut self) -> Result<FoundPath, IceError> {
        let result = self.negotiate().await;
        match result {
            Ok(selected) => match self.sockets.release(selected.conn).await {
                Ok(stream) => {
                    let stream = self.with_relay(stream, &selected);
                    let path = Path { stream, report: self.report(&selected) };
                    path.end_in_order();
                    let first_words_said = self.said_on == Some(selected.conn);
                    Ok(FoundPath { path, pairs: self.agent.pairs(), first_words_said })
                }
                Err(error) => {
                    tracing::debug!(%error, "the connection that was found broke");
                    Err(self.failed(IceFailure::Broke))
                }
            },
            Err(reason) => Err(self.failed(reason)),
        }
    }

    fn failed(&self, reason: IceFailure) -> IceError {
        IceError { reason, pairs: self.agent.pairs() }
    }

    fn report(&self, selected: &Selected) -> PathReport {
        PathReport {
            remote: selected.remote,
            kind: kind_of(selected),
            scope: self.policy.scope(selected.remote),
            took: self.began.elapsed(),
        }
    }

    /// Has the allocation through which a path goes last as long as the path.
    fn with_relay(&mut self, stream: PathStream, selected: &Selected) -> PathStream {
        let relayed = selected.relay.filter(|_| selected.local_kind == CandidateKind::Relayed);
        match (&mut self.arrivals, relayed) {
            (PeerArrivals::Relays(relaying), Some(relayed)) => match relaying.take(relayed) {
                Some(allocation) => stream.holding(allocation.into_lease()),
                None => stream,
            },
            _ => stream,
        }
    }

    async fn negotiate(&mut self) -> Result<Selected, IceFailure> {
        self.start()?;
        loop {
            if let Some(selected) = self.carry_out()? {
                return Ok(selected);
            }
            match self.wait().await {
                Woken::Timer => self.on_timer()?,
                woken => self.on_woken(woken)?,
            }
        }
    }

    fn start(&mut self) -> Result<(), IceFailure> {
        let round_trip = *self.round_trip.borrow_and_update();
        self.agent.set_round_trip(round_trip);
        match std::mem::replace(&mut self.remote, Remote::Taken) {
            Remote::Known(remote) => self.on_described(remote),
            awaited => {
                self.remote = awaited;
                Ok(())
            }
        }
    }

    fn on_described(&mut self, mut remote: Description) -> Result<(), IceFailure> {
        let now = Instant::now().into_std();
        self.count_refused(admit_description(self.policy, &mut remote));
        self.permit(&remote.candidates);
        match self.agent.set_remote(now, remote) {
            Err(error @ SignalError::Credentials) => return Err(IceFailure::Peer(error)),
            Err(error) => self.count_refused_signal(error),
            Ok(()) => {}
        }
        // What has been found since the peer was told.
        self.on_gathered();
        Ok(())
    }

    /// Does what the agent wants done; returns the pair that both sides agreed on, once there is one.
    fn carry_out(&mut self) -> Result<Option<Selected>, IceFailure> {
        let mut selected = None;
        let mut failed: Option<FailureReason> = None;
        while let Some(output) = self.agent.poll_output() {
            tracing::trace!(?output, "the agent's wish");
            match output {
                Output::Connect { conn, source, remote, method } => self.connect(conn, source, remote, method),
                Output::Send { conn, message } => self.sockets.send(conn, &message),
                Output::Nominating { conn } if self.first_words.is_empty() => tracing::trace!(?conn, "nominating"),
                Output::Nominating { conn } => {
                    self.sockets.say(conn, &self.first_words);
                    self.said_on = Some(conn);
                }
                Output::Close { conn } => self.sockets.close(conn),
                Output::Signal(signal) => self.unsent.push_back(signal),
                Output::Selected(pair) => selected = Some(pair),
                Output::Failed(reason) => failed = Some(reason),
            }
        }
        match failed {
            Some(reason) => {
                self.say_what_is_unsent();
                Err(reason.into())
            }
            None if self.unsent.len() > MAX_UNSENT_SIGNALS => Err(IceFailure::PeerGone),
            None => Ok(selected),
        }
    }

    fn connect(&mut self, conn: ConnId, source: Source, remote: SocketAddr, method: ConnectMethod) {
        let counters = &self.host.counters;
        counters.connects.add_one();
        let now = || Instant::now().into_std();
        tracing::debug!(?conn, ?source, %remote, ?method, "connecting");
        let started = match (source, &self.arrivals) {
            (Source::Relayed(relayed), PeerArrivals::Relays(relaying)) => {
                relaying.connect(relayed, remote).map(|connecting| self.sockets.await_connection(conn, connecting))
            }
            _ => self.sockets.connect(conn, source, remote, method),
        };
        match (started, method) {
            (Ok(()), ConnectMethod::Plain) => {}
            (Ok(()), ConnectMethod::Opening { .. }) => {
                counters.opening_syns.add_one();
                match opens_after(remote) {
                    Duration::ZERO => self.agent.opened(now(), conn),
                    later => self.opening.push_back((Instant::now() + later, conn)),
                }
            }
            (Err(failure), _) => self.agent.connect_failed(now(), conn, failure),
        }
    }

    /// Waits for whatever comes first. Cancel-safe: all state is in `self`.
    async fn wait(&mut self) -> Woken {
        let timer = self.next_timer();
        let talks = self.hung_up.is_none();
        let is_described = matches!(self.remote, Remote::Taken);
        tokio::select! {
            event = poll_fn(|cx| self.sockets.poll_event(cx)) => Woken::Socket(event),
            woken = next_arrival(&mut self.arrivals) => woken,
            remote = self.remote.described(), if talks => Woken::Described(remote),
            signal = self.incoming.recv(), if talks && is_described => Woken::Signal(signal),
            permit = self.outgoing.reserve(), if talks && !self.unsent.is_empty() => match permit {
                Ok(permit) => {
                    if let Some(signal) = self.unsent.pop_front() {
                        permit.send(signal);
                    }
                    Woken::Room(true)
                }
                Err(_) => Woken::Room(false),
            },
            changed = self.gathered.changed(), if self.gathering => Woken::Gathered(changed.is_ok()),
            changed = self.round_trip.changed(), if self.measuring => Woken::RoundTrip(changed.is_ok()),
            () = sleep_until(timer) => Woken::Timer,
        }
    }

    fn next_timer(&self) -> Instant {
        let agent = self.agent.poll_timeout().map_or_else(|| Instant::now() + NO_TIMER, Instant::from_std);
        let agent = self.opening.front().map_or(agent, |(at, _)| agent.min(*at));
        self.hung_up.map_or(agent, |until| agent.min(until))
    }

    fn on_timer(&mut self) -> Result<(), IceFailure> {
        if self.hung_up.is_some_and(|until| Instant::now() >= until) {
            return Err(IceFailure::PeerGone);
        }
        while let Some((_, conn)) = self.opening.pop_front_if(|(at, _)| *at <= Instant::now()) {
            self.agent.opened(Instant::now().into_std(), conn);
        }
        self.agent.handle_timeout(Instant::now().into_std());
        Ok(())
    }

    fn on_woken(&mut self, woken: Woken) -> Result<(), IceFailure> {
        let now = Instant::now().into_std();
        match woken {
            Woken::Socket(Event::Connected { conn, local }) => self.agent.connected(now, conn, local),
            Woken::Socket(Event::ConnectFailed { conn, failure }) => self.agent.connect_failed(now, conn, failure),
            Woken::Socket(Event::Received { conn, message }) => self.agent.received(now, conn, &message),
            Woken::Socket(Event::Closed { conn }) => self.agent.closed(now, conn),
            Woken::Inbound(Some(inbound)) => self.on_inbound(inbound),
            Woken::Relay(RelayEvent::Allocated) => self.on_gathered(),
            Woken::Relay(RelayEvent::Accepted { stream, relayed, remote }) => self.on_relayed(stream, relayed, remote),
            Woken::Described(Some(remote)) => {
                self.remote = Remote::Taken;
                return self.on_described(remote);
            }
            // The host keeps the other end for as long as this registration lives.
            Woken::Inbound(None) => return Err(IceFailure::PeerGone),
            Woken::Signal(Some(signal)) => self.on_signal(signal),
            Woken::Described(None) | Woken::Signal(None) | Woken::Room(false) => {
                self.remote = Remote::Taken;
                self.hung_up = Some(Instant::now() + HANG_UP_PATIENCE + 2 * *self.round_trip.borrow());
            }
            Woken::Room(true) | Woken::Timer => {}
            Woken::Gathered(true) => self.on_gathered(),
            Woken::Gathered(false) => self.gathering = false,
            Woken::RoundTrip(false) => self.measuring = false,
            Woken::RoundTrip(true) => {
                let round_trip = *self.round_trip.borrow_and_update();
                self.agent.set_round_trip(round_trip);
            }
        }
        Ok(())
    }

    fn on_inbound(&mut self, inbound: Inbound) {
        let Inbound { stream, remote, local, first_check } = inbound;
        let now = Instant::now().into_std();
        let counters = &self.host.counters;
        match self.agent.accepted(now, local, remote) {
            Some(conn) => {
                tracing::debug!(?conn, %remote, "accepted");
                counters.accepted.add_one();
                self.sockets.adopt(conn, stream);
                self.agent.received(now, conn, &first_check);
            }
            None => counters.refused_connections.add_one(),
        }
    }

    fn on_relayed(&mut self, stream: PathStream, relayed: SocketAddr, remote: SocketAddr) {
        let counters = &self.host.counters;
        match self.agent.accepted(Instant::now().into_std(), relayed, remote) {
            Some(conn) => {
                tracing::debug!(?conn, %relayed, %remote, "accepted at a relay");
                counters.accepted.add_one();
                self.sockets.adopt(conn, stream);
            }
            None => counters.refused_connections.add_one(),
        }
    }

    /// Has the relays let in the peer.
    fn permit(&mut self, candidates: &[Candidate]) {
        if let PeerArrivals::Relays(relaying) = &mut self.arrivals {
            relaying.permit(candidates.iter().map(|candidate| candidate.addr.ip()));
        }
    }

    fn on_signal(&mut self, mut signal: Signal) {
        tracing::debug!(?signal, "the peer signals");
        let counters = &self.host.counters;
        let Some(refused) = admit_signal(self.policy, &mut signal) else {
            counters.refused_signals.add_one();
            return;
        };
        self.count_refused(refused);
        if let Signal::Candidates { candidates, .. } = &signal {
            self.permit(candidates);
        }
        if let Err(error) = self.agent.handle_signal(Instant::now().into_std(), signal) {
            self.count_refused_signal(error);
        }
    }

    fn count_refused_signal(&self, error: SignalError) {
        tracing::debug!(%error, "what the peer says is not acted upon");
        self.host.counters.refused_signals.add_one();
    }

    /// Takes what has been found. Before the peer has described itself, the agent would not tell it.
    fn on_gathered(&mut self) {
        if !matches!(self.remote, Remote::Awaited(_)) {
            self.tell_agent();
        }
    }

    fn tell_agent(&mut self) {
        let gathered = self.gathered.borrow_and_update().clone();
        let (known, complete) = match &self.arrivals {
            PeerArrivals::Port { .. } => (gathered.candidates, gathered.complete),
            PeerArrivals::Relays(relaying) => {
                (relaying.candidates(&gathered), gathered.complete && relaying.is_complete())
            }
        };
        let new: Vec<_> = known.into_iter().filter(|candidate| !self.is_told(candidate)).collect();
        self.told.extend(&new);
        self.agent.add_local_candidates(Instant::now().into_std(), &new, complete);
    }

    /// Whether the agent knows a candidate. In a relayed stream its preference depends on what else is known.
    fn is_told(&self, candidate: &LocalCandidate) -> bool {
        let key = |local: &LocalCandidate| (local.candidate.tcp_type, local.candidate.addr, local.base);
        match &self.arrivals {
            PeerArrivals::Port { .. } => self.told.contains(candidate),
            PeerArrivals::Relays(_) => self.told.iter().any(|told| key(told) == key(candidate)),
        }
    }

    /// Gives the last signals to the channel, as far as it takes them at once: the negotiation is over.
    fn say_what_is_unsent(&mut self) {
        for signal in self.unsent.drain(..) {
            if self.outgoing.try_send(signal).is_err() {
                return;
            }
        }
    }

    fn count_refused(&self, candidates: usize) {
        self.host.counters.refused_candidates.add(candidates as u64);
    }
}

/// The next connection of the peer. Cancel-safe.
async fn next_arrival(arrivals: &mut PeerArrivals) -> Woken {
    match arrivals {
        PeerArrivals::Port { inbound, .. } => Woken::Inbound(inbound.recv().await),
        PeerArrivals::Relays(relaying) => Woken::Relay(poll_fn(|cx| relaying.poll_event(cx)).await),
    }
}

fn kind_of(selected: &Selected) -> PathKind {
    let how = match selected.strategy {
        Strategy::ConnectedByRelay => RelayWay::ThroughOurs,
        Strategy::AcceptedAtRelay => RelayWay::Accepted,
        _ => RelayWay::ToTheirs,
    };
    match selected.relay {
        Some(relay) => PathKind::Relayed { by: relay.ip(), how, why: None },
        None => PathKind::Punched(selected.strategy),
    }
}
