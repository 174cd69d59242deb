//! The libp2p behaviour that asks, when it is told to, whether the other end of a connection is still there: by a ping of its own,
//! which libp2p's sends at its own times only.
//!
//! What it is not: the choice of the connections, or what follows for them ([`super::doubts`]).

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::DeniedUpgrade, upgrade::ReadyUpgrade},
    ping,
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedOutbound},
    },
};
use tokio::time::{Sleep, sleep};

/// Bytes of a ping and of its answer.
const PING_LEN: usize = 32;

/// The behaviour.
#[derive(Default)]
pub(super) struct Prober {
    actions: VecDeque<ToSwarm<Probed, Duration>>,
    waker: Option<Waker>,
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probed {
    pub(super) connection: ConnectionId,
    /// Whether the other end has answered in time.
    pub(super) is_alive: bool,
}

impl Prober {
    /// Asks whether the other end of a connection, which must stand, answers within this time.
    pub(super) fn probe(&mut self, peer_id: PeerId, connection: ConnectionId, patience: Duration) {
        let handler = NotifyHandler::One(connection);
        self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler, event: patience });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Prober {
    type ConnectionHandler = ProbeHandler;
    type ToSwarm = Probed;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(ProbeHandler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(ProbeHandler::default())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, connection: ConnectionId, is_alive: THandlerOutEvent<Self>) {
        self.actions.push_back(ToSwarm::GenerateEvent(Probed { connection, is_alive }));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.actions.pop_front() {
            Some(action) => Poll::Ready(action),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The handler of one connection.
#[derive(Default)]
pub(super) struct ProbeHandler {
    /// The probe under way.
    probe: Option<Probe>,
    waker: Option<Waker>,
}

struct Probe {
    is_stream_asked: bool,
    exchange: Option<BoxFuture<'static, io::Result<()>>>,
    patience: std::pin::Pin<Box<Sleep>>,
}

impl ConnectionHandler for ProbeHandler {
    type FromBehaviour = Duration;
    /// Whether the other end has answered.
    type ToBehaviour = bool;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn on_behaviour_event(&mut self, patience: Self::FromBehaviour) {
        if self.probe.is_none() {
            let patience = Box::pin(sleep(patience));
            self.probe = Some(Probe { is_stream_asked: false, exchange: None, patience });
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        self.waker = Some(cx.waker().clone());
        let Some(probe) = &mut self.probe else { return Poll::Pending };
        if !probe.is_stream_asked {
            probe.is_stream_asked = true;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(ping::PROTOCOL_NAME), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        let answered = probe.exchange.as_mut().map(|exchange| exchange.poll_unpin(cx));
        let is_alive = match answered {
            Some(Poll::Ready(result)) => result.is_ok(),
            _ if probe.patience.poll_unpin(cx).is_ready() => false,
            _ => return Poll::Pending,
        };
        self.probe = None;
        Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(is_alive))
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), ()>,
    ) {
        if let ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) = event
            && let Some(probe) = &mut self.probe
        {
            probe.exchange = Some(exchange(protocol).boxed());
        }
        // A stream that cannot be opened is no answer, and the probe runs out of time.
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

async fn exchange(mut stream: Stream) -> io::Result<()> {
    let ping: [u8; PING_LEN] = rand::random();
    stream.write_all(&ping).await?;
    stream.flush().await?;
    let mut answer = [0; PING_LEN];
    stream.read_exact(&mut answer).await?;
    let _ = stream.close().await;
    if answer == ping { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
