//! One negotiation under way: an agent, its sockets, its relays, its signals and its timers, in one future.
//!
//! What it is not: a decision about pairs, checks or nomination; those are the agent's.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, time::Duration};

use keyferry_ice::{
    Agent, CandidateKind, ConnId, ConnectMethod, Description, Output, Selected, Signal, SignalError, Source, Strategy,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    FoundPath, IceError, IceFailure,
    addresses::{ArrivalEvent, OwnCandidates, PeerArrivals},
    admission::PeerFilter,
    host::IceHost,
    sockets::{Event, Sockets},
    talk::{Talk, TalkEvent},
};
use crate::net::path::{AddressPolicy, Path, PathKind, PathReport, PathStream, RelayWay};

/// How long to sleep when the agent needs no timer.
const NO_TIMER: Duration = Duration::from_secs(60);

/// What every negotiation has when it begins.
#[derive(Debug)]
pub(super) struct BegunNegotiation {
    pub(super) agent: Agent,
    pub(super) candidates: OwnCandidates,
    pub(super) host: Arc<IceHost>,
    /// What goes right behind the last frame of the side that nominates.
    pub(super) first_words: Vec<u8>,
}

/// A negotiation that talks to its peer.
pub(super) struct RunningNegotiation<'a> {
    agent: Agent,
    candidates: OwnCandidates,
    arrivals: PeerArrivals,
    talk: Talk,
    filter: PeerFilter<'a>,
    sockets: Sockets,
    first_words: FirstWords,
    host: Arc<IceHost>,
    began: Instant,
}

/// This side's first raw bytes, if it has any to say at once.
struct FirstWords {
    bytes: Vec<u8>,
    /// The connection on which this side has said them last.
    said_on: Option<ConnId>,
}

/// What woke the negotiation.
enum Woken {
    Socket(Event),
    Arrival(ArrivalEvent),
    Talk(TalkEvent),
    Gathered,
    Timer,
}

impl<'a> RunningNegotiation<'a> {
    pub(super) fn new(begun: BegunNegotiation, arrivals: PeerArrivals, talk: Talk, policy: &'a AddressPolicy) -> Self {
        let BegunNegotiation { agent, candidates, host, first_words } = begun;
        Self {
            agent,
            candidates,
            arrivals,
            talk,
            filter: PeerFilter::new(policy, Arc::clone(&host)),
            sockets: Sockets::default(),
            first_words: FirstWords { bytes: first_words, said_on: None },
            host,
            began: Instant::now(),
        }
    }

    /// Tells the peer what this side's description is now.
    pub(super) fn describe(&mut self, to: oneshot::Sender<Description>) {
        self.tell_agent();
        // If nobody takes it, that shows by the signals.
        let _ = to.send(self.agent.description());
    }

    /// Looks for a path until there is one or it is certain that there is none.
    pub(super) async fn find(self) -> Result<FoundPath, IceError> {
        let host = Arc::clone(&self.host);
        let stream = self.arrivals.stream();
        let result = self.until_done().await;
        let counter = if result.is_ok() { &host.counters.found } else { &host.counters.failed };
        counter.add_one();
        match &result {
            Ok(found) => tracing::info!(%stream, path = %found.path.report, "a path was found"),
            Err(error) => tracing::info!(%stream, reason = %error.reason, "no path"),
        }
        result
    }

    async fn until_done(mut self) -> Result<FoundPath, IceError> {
        match self.negotiate().await {
            Ok(selected) => match self.sockets.release(selected.conn).await {
                Ok(stream) => {
                    let stream = self.with_relay(stream, &selected);
                    let path = Path { stream, report: self.report(&selected) };
                    path.end_in_order();
                    let first_words_said = self.first_words.said_on == Some(selected.conn);
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
            scope: self.filter.policy().scope(selected.remote),
            took: self.began.elapsed(),
        }
    }

    /// Has the allocation through which a path goes last as long as the path.
    fn with_relay(&mut self, stream: PathStream, selected: &Selected) -> PathStream {
        let relayed = selected.relay.filter(|_| selected.local_kind == CandidateKind::Relayed);
        match relayed.and_then(|relayed| self.arrivals.take_allocation(relayed)) {
            Some(allocation) => stream.holding(allocation.into_lease()),
            None => stream,
        }
    }

    async fn negotiate(&mut self) -> Result<Selected, IceFailure> {
        if let Some(round_trip) = self.talk.round_trip() {
            self.agent.set_round_trip(now(), round_trip);
        }
        if let Some(remote) = self.talk.take_description() {
            self.on_described(remote)?;
        }
        loop {
            if let Some(selected) = self.carry_out()? {
                return Ok(selected);
            }
            match self.wait().await {
                Woken::Socket(event) => self.on_socket(event),
                Woken::Arrival(event) => self.on_arrival(event)?,
                Woken::Talk(event) => self.on_talk(event)?,
                Woken::Gathered => self.on_gathered(),
                Woken::Timer => self.on_timer()?,
            }
        }
    }

    /// Does what the agent wants done; returns the pair that both sides agreed on, once there is one.
    fn carry_out(&mut self) -> Result<Option<Selected>, IceFailure> {
        let mut selected = None;
        let mut failed = None;
        while let Some(output) = self.agent.poll_output() {
            tracing::trace!(?output, "the agent's wish");
            match output {
                Output::Connect { conn, source, remote, method } => self.connect(conn, source, remote, method),
                Output::Send { conn, message } => self.sockets.send(conn, &message),
                Output::Nominating { conn } => self.first_words.say(&mut self.sockets, conn),
                Output::Close { conn } => self.sockets.close(conn),
                Output::Signal(signal) => self.talk.say(signal),
                Output::Selected(pair) => selected = Some(pair),
                Output::Failed(reason) => failed = Some(reason),
            }
        }
        match failed {
            Some(reason) => {
                self.talk.say_what_is_unsent();
                Err(reason.into())
            }
            None if self.talk.is_stuck() => Err(IceFailure::PeerGone),
            None => Ok(selected),
        }
    }

    fn connect(&mut self, conn: ConnId, source: Source, remote: SocketAddr, method: ConnectMethod) {
        let counters = &self.host.counters;
        counters.connects.add_one();
        tracing::debug!(?conn, ?source, %remote, ?method, "connecting");
        let started = match (source, &self.arrivals) {
            (Source::Relayed(relayed), PeerArrivals::Relays(relaying)) => {
                relaying.connect(relayed, remote).map(|connecting| self.sockets.await_connection(conn, connecting))
            }
            _ => self.sockets.connect(conn, source, remote, method),
        };
        match (started, method) {
            (Ok(()), ConnectMethod::Plain) => {}
            (Ok(()), ConnectMethod::Opening { .. }) => counters.opening_syns.add_one(),
            (Err(failure), _) => self.agent.connect_failed(now(), conn, failure),
        }
    }

    /// Waits for whatever comes first. Cancel-safe: all state is in `self`.
    async fn wait(&mut self) -> Woken {
        let timer = self.next_timer();
        tokio::select! {
            event = poll_fn(|cx| self.sockets.poll_event(cx)) => Woken::Socket(event),
            event = self.arrivals.next() => Woken::Arrival(event),
            event = self.talk.next() => Woken::Talk(event),
            () = self.candidates.changed() => Woken::Gathered,
            () = sleep_until(timer) => Woken::Timer,
        }
    }

    fn next_timer(&self) -> Instant {
        let agent = self.agent.poll_timeout().map_or_else(|| Instant::now() + NO_TIMER, Instant::from_std);
        self.talk.ends_at().map_or(agent, |at| agent.min(at))
    }

    fn on_timer(&mut self) -> Result<(), IceFailure> {
        if self.talk.ends_at().is_some_and(|at| Instant::now() >= at) {
            return Err(IceFailure::PeerGone);
        }
        self.agent.handle_timeout(now());
        Ok(())
    }

    fn on_socket(&mut self, event: Event) {
        match event {
            Event::Opened { conn } => self.agent.opened(now(), conn),
            Event::Connected { conn, local } => self.agent.connected(now(), conn, local),
            Event::ConnectFailed { conn, failure } => self.agent.connect_failed(now(), conn, failure),
            Event::Received { conn, message } => self.agent.received(now(), conn, &message),
            Event::Closed { conn } => self.agent.closed(now(), conn),
        }
    }

    fn on_arrival(&mut self, event: ArrivalEvent) -> Result<(), IceFailure> {
        match event {
            ArrivalEvent::Connected { stream, local, remote, first_check } => {
                self.on_connected(stream, local, remote, first_check.as_deref());
            }
            ArrivalEvent::Allocated => self.on_gathered(),
            // The host keeps the other end for as long as this registration lives.
            ArrivalEvent::Closed => return Err(IceFailure::PeerGone),
        }
        Ok(())
    }

    fn on_connected(&mut self, stream: PathStream, local: SocketAddr, remote: SocketAddr, first_check: Option<&[u8]>) {
        let now = now();
        let counters = &self.host.counters;
        let Some(conn) = self.agent.accepted(now, local, remote) else {
            counters.refused_connections.add_one();
            return;
        };
        tracing::debug!(?conn, %local, %remote, "accepted");
        counters.accepted.add_one();
        self.sockets.adopt(conn, stream);
        if let Some(first_check) = first_check {
            self.agent.received(now, conn, first_check);
        }
    }

    fn on_talk(&mut self, event: TalkEvent) -> Result<(), IceFailure> {
        match event {
            TalkEvent::Described(remote) => return self.on_described(remote),
            TalkEvent::Signal(signal) => self.on_signal(signal),
            TalkEvent::RoundTrip(round_trip) => self.agent.set_round_trip(now(), round_trip),
            TalkEvent::Sent | TalkEvent::HungUp => {}
        }
        Ok(())
    }

    fn on_described(&mut self, mut remote: Description) -> Result<(), IceFailure> {
        self.filter.admit_description(&mut remote);
        self.arrivals.permit(&remote.candidates);
        match self.agent.set_remote(now(), remote) {
            Err(error @ SignalError::Credentials) => return Err(IceFailure::Peer(error)),
            Err(error) => self.filter.count_refused(error),
            Ok(()) => {}
        }
        // What this side has gathered since it described itself.
        self.on_gathered();
        Ok(())
    }

    fn on_signal(&mut self, mut signal: Signal) {
        tracing::debug!(?signal, "the peer signals");
        if !self.filter.admit_signal(&mut signal) {
            return;
        }
        if let Signal::Candidates { candidates, .. } = &signal {
            self.arrivals.permit(candidates);
        }
        if let Err(error) = self.agent.handle_signal(now(), signal) {
            self.filter.count_refused(error);
        }
    }

    /// Gives the agent what is new. Before the peer has described itself, the agent would not tell it.
    fn on_gathered(&mut self) {
        if !self.talk.awaits_description() {
            self.tell_agent();
        }
    }

    fn tell_agent(&mut self) {
        let (news, complete) = self.candidates.take_news(&self.arrivals);
        self.agent.add_local_candidates(now(), &news, complete);
    }
}

impl FirstWords {
    fn say(&mut self, sockets: &mut Sockets, conn: ConnId) {
        if !self.bytes.is_empty() {
            sockets.say(conn, &self.bytes);
            self.said_on = Some(conn);
        }
    }
}

/// The time in the form that the agent takes.
fn now() -> std::time::Instant {
    Instant::now().into_std()
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
