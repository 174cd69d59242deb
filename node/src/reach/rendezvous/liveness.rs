//! The libp2p behaviour that asks, on each connection that is silent, whether the other end is still there: libp2p's ping, on the
//! wire, with times of its own.
//!
//! | connection                              | the dialler asks after | patience | a death is found within |
//! |-----------------------------------------|------------------------|----------|-------------------------|
//! | of a node that others cannot reach      | 15 s                   | 30 s     | 45 s                    |
//! | one of the first [`MAX_WATCHED`]        | 34 s                   | 14 s     | 50 s                    |
//! | any other                               | 255 s                  | 30 s     | 287 s                   |
//!
//! Whoever is asked knows as well that the other end is there, and asks only after that has been silent: its own time is a little
//! longer, so that one ping serves both. Where the other end has asked more often than this node would, its silence is noticed in
//! proportion. A node that others cannot reach holds the mappings of its NAT by asking: its times are short.
//!
//! What it is not: what follows from silence; or a question at another time.

use std::{
    collections::{HashSet, VecDeque},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    ping,
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// Connections whose other end a reachable node watches closely.
pub(super) const MAX_WATCHED: usize = 3;
/// Bytes of a ping and of its answer.
const PING_LEN: usize = 32;
/// How much longer than the dialler the other side waits before it asks.
const LISTENER_EXTRA: Duration = Duration::from_secs(2);

/// How often to ask, and how long an answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rhythm {
    every: Duration,
    patience: Duration,
}

const HOLDING: Rhythm = Rhythm { every: Duration::from_secs(15), patience: Duration::from_secs(30) };
const WATCHING: Rhythm = Rhythm { every: Duration::from_secs(34), patience: Duration::from_secs(14) };
const RESTING: Rhythm = Rhythm { every: Duration::from_secs(255), patience: Duration::from_secs(30) };

/// The behaviour.
pub(super) struct Liveness {
    is_reachable: Arc<AtomicBool>,
    watched: HashSet<ConnectionId>,
    events: VecDeque<ping::Event>,
}

/// When a connection is to be asked.
#[derive(Debug)]
struct PingPace {
    is_reachable: Arc<AtomicBool>,
    is_watched: bool,
    is_dialler: bool,
    /// When the other end asked last, and how long after its question before.
    asked_at: Option<Instant>,
    asked_every: Option<Duration>,
}

impl Liveness {
    /// Until the node proves reachable, it counts as one that is not.
    pub(super) fn new() -> Self {
        Self { is_reachable: Arc::default(), watched: HashSet::new(), events: VecDeque::new() }
    }

    /// Says whether others can connect to this node.
    pub(super) fn set_reachable(&self, is_reachable: bool) {
        self.is_reachable.store(is_reachable, Ordering::Relaxed);
    }

    fn handler(&mut self, id: ConnectionId, is_dialler: bool) -> LivenessHandler {
        let is_watched = self.watched.len() < MAX_WATCHED;
        if is_watched {
            self.watched.insert(id);
        }
        let is_reachable = Arc::clone(&self.is_reachable);
        LivenessHandler::new(PingPace { is_reachable, is_watched, is_dialler, asked_at: None, asked_every: None })
    }
}

impl PingPace {
    fn rhythm(&self) -> Rhythm {
        match (self.is_reachable.load(Ordering::Relaxed), self.is_watched) {
            (false, _) => HOLDING,
            (true, true) => WATCHING,
            (true, false) => RESTING,
        }
    }

    /// Notes that the other end asks.
    fn asked(&mut self, now: Instant) {
        self.asked_every = self.asked_at.map(|before| now - before);
        self.asked_at = Some(now);
    }

    /// How long after the last sign of life to ask, and how long an answer may take then.
    fn next(&self) -> Rhythm {
        let own = self.rhythm();
        let every = if self.is_dialler { own.every } else { own.every + LISTENER_EXTRA };
        match self.asked_every.map(|every| every * 2 + LISTENER_EXTRA) {
            // It has left out two questions.
            Some(missed) if missed < every => Rhythm { every: missed, patience: own.patience.min(WATCHING.patience) },
            _ => Rhythm { every, ..own },
        }
    }
}

impl NetworkBehaviour for Liveness {
    type ConnectionHandler = LivenessHandler;
    type ToSwarm = ping::Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, false))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, true))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let gone = match event {
            FromSwarm::ConnectionClosed(closed) => closed.connection_id,
            // A connection that another behaviour refused after this one had made its handler.
            FromSwarm::ListenFailure(failure) => failure.connection_id,
            FromSwarm::DialFailure(failure) => failure.connection_id,
            _ => return,
        };
        self.watched.remove(&gone);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.events.push_back(ping::Event { peer, connection: id, result: event });
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The swarm polls again after each event of a handler.
        self.events.pop_front().map_or(Poll::Pending, |event| Poll::Ready(ToSwarm::GenerateEvent(event)))
    }
}

/// The handler of a connection.
pub(super) struct LivenessHandler {
    pace: PingPace,
    /// When to ask; while a stream is being opened, how long that may take.
    timer: Pin<Box<Sleep>>,
    asking: Asking,
    /// Whether the last stream failed while its connection stood, which the other end may do once.
    has_failed: bool,
    answering: Option<BoxFuture<'static, io::Result<Stream>>>,
}

enum Asking {
    Resting(Option<Stream>),
    Opening,
    Waiting(BoxFuture<'static, Result<(Stream, Duration), ping::Failure>>),
    /// The other end does not answer, or has no such protocol.
    Over,
}

impl LivenessHandler {
    fn new(pace: PingPace) -> Self {
        // The dialler measures the round trip at once.
        let first = if pace.is_dialler { Duration::ZERO } else { pace.next().every };
        Self { pace, timer: Box::pin(sleep(first)), asking: Asking::Resting(None), has_failed: false, answering: None }
    }

    fn rest(&mut self) {
        self.timer.as_mut().reset(Instant::now() + self.pace.next().every);
    }

    fn poll_answering(&mut self, cx: &mut Context<'_>) {
        while let Some(answering) = &mut self.answering {
            match answering.poll_unpin(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(stream)) => {
                    self.pace.asked(Instant::now());
                    if matches!(self.asking, Asking::Resting(_)) {
                        self.rest();
                    }
                    self.answering = Some(answer(stream).boxed());
                }
                Poll::Ready(Err(_)) => self.answering = None,
            }
        }
    }
}

impl ConnectionHandler for LivenessHandler {
    type FromBehaviour = std::convert::Infallible;
    type ToBehaviour = Result<Duration, ping::Failure>;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(ping::PROTOCOL_NAME), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        self.poll_answering(cx);
        loop {
            match &mut self.asking {
                Asking::Over => return Poll::Pending,
                Asking::Resting(stream) => {
                    std::task::ready!(self.timer.as_mut().poll(cx));
                    let patience = self.pace.next().patience;
                    if let Some(stream) = stream.take() {
                        self.asking = Asking::Waiting(ask(stream, patience).boxed());
                        continue;
                    }
                    self.asking = Asking::Opening;
                    self.timer.as_mut().reset(Instant::now() + patience);
                    let protocol = SubstreamProtocol::new(ReadyUpgrade::new(ping::PROTOCOL_NAME), ());
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                }
                Asking::Opening => {
                    std::task::ready!(self.timer.as_mut().poll(cx));
                    self.asking = Asking::Over;
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Err(ping::Failure::Timeout)));
                }
                Asking::Waiting(waiting) => match std::task::ready!(waiting.poll_unpin(cx)) {
                    Ok((stream, round_trip)) => {
                        self.has_failed = false;
                        self.asking = Asking::Resting(Some(stream));
                        self.rest();
                        return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Ok(round_trip)));
                    }
                    Err(ping::Failure::Other { .. }) if !self.has_failed => {
                        self.has_failed = true;
                        self.asking = Asking::Resting(None);
                        self.rest();
                    }
                    Err(failure) => {
                        self.asking = Asking::Over;
                        return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Err(failure)));
                    }
                },
            }
        }
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), ()>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: mut stream, .. }) => {
                stream.ignore_for_keep_alive();
                self.answering = Some(answer(stream).boxed());
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: mut stream, .. }) => {
                stream.ignore_for_keep_alive();
                self.asking = Asking::Waiting(ask(stream, self.pace.next().patience).boxed());
            }
            ConnectionEvent::DialUpgradeError(failed) => match failed.error {
                StreamUpgradeError::NegotiationFailed => self.asking = Asking::Over,
                // The time for opening has run out, or soon will.
                _ => self.timer.as_mut().reset(Instant::now()),
            },
            _ => {}
        }
    }
}

/// Sends a ping, and waits for its answer.
async fn ask(mut stream: Stream, patience: Duration) -> Result<(Stream, Duration), ping::Failure> {
    let other = |error: io::Error| ping::Failure::Other { error: Box::new(error) };
    let asked = Instant::now();
    let exchange = async {
        let sent: [u8; PING_LEN] = rand::random();
        stream.write_all(&sent).await?;
        stream.flush().await?;
        let mut answer = [0; PING_LEN];
        stream.read_exact(&mut answer).await?;
        (answer == sent).then_some(()).ok_or(io::Error::new(io::ErrorKind::InvalidData, "another answer than that"))
    };
    match timeout(patience, exchange).await {
        Ok(Ok(())) => Ok((stream, asked.elapsed())),
        Ok(Err(error)) => Err(other(error)),
        Err(_) => Err(ping::Failure::Timeout),
    }
}

/// Answers the next ping.
async fn answer(mut stream: Stream) -> io::Result<Stream> {
    let mut ping = [0; PING_LEN];
    stream.read_exact(&mut ping).await?;
    stream.write_all(&ping).await?;
    stream.flush().await?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(is_reachable: bool, is_watched: bool, is_dialler: bool) -> PingPace {
        let is_reachable = Arc::new(AtomicBool::new(is_reachable));
        PingPace { is_reachable, is_watched, is_dialler, asked_at: None, asked_every: None }
    }

    #[test]
    fn one_ping_serves_both_ends_and_a_node_behind_a_nat_asks_more_often() {
        let cases = [(true, true, WATCHING), (true, false, RESTING), (false, false, HOLDING), (false, true, HOLDING)];
        for (is_reachable, is_watched, rhythm) in cases {
            let [dialler, listener] =
                [true, false].map(|is_dialler| pace(is_reachable, is_watched, is_dialler).next().every);
            assert_eq!(dialler, rhythm.every);
            assert!(listener > dialler && listener <= dialler + LISTENER_EXTRA);
        }
    }

    #[test]
    fn no_death_is_found_later_than_libp2ps_ping_at_15_s_would_find_it() {
        // Two questions in a row without an answer: 15 s, 10 s, 15 s, 10 s.
        let most = Duration::from_secs(50);
        for rhythm in [HOLDING, WATCHING] {
            assert!(rhythm.every + LISTENER_EXTRA + rhythm.patience <= most);
        }
        // A contact without a connection was looked at every 5 minutes.
        assert!(RESTING.every + LISTENER_EXTRA + RESTING.patience <= Duration::from_secs(5 * 60));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_asked_often_notices_soon_that_it_is_not_asked_any_more() {
        let mut listener = pace(true, false, false);
        listener.asked(Instant::now());
        assert_eq!(listener.next().every, RESTING.every + LISTENER_EXTRA);
        tokio::time::advance(HOLDING.every).await;
        listener.asked(Instant::now());
        assert!(listener.next().every + listener.next().patience <= Duration::from_secs(50));
        tokio::time::advance(RESTING.every).await;
        listener.asked(Instant::now());
        assert_eq!(listener.next().every, RESTING.every + LISTENER_EXTRA);
    }
}
