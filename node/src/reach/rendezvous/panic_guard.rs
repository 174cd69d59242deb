//! A libp2p behaviour whose connection handlers may panic: the connection is closed, and nothing else is harmed.
//!
//! libp2p's relay client sets a timer to the moment at which the relay says that a reservation ends, and panics if that is
//! too far ahead for a timer. The panic would end the task of the connection, which would then count as open for ever.
//!
//! What it is not: a licence to panic. The behaviour itself is not guarded, nor is any code of this crate.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::ConnectionEvent,
    },
};

/// The behaviour `B`.
pub(super) struct PanicGuard<B> {
    inner: B,
    /// Connections that are to be closed; each handler says once that it is broken.
    broken: Vec<(PeerId, ConnectionId)>,
}

/// The handler `H`; it is not called any more once it has panicked.
pub(super) struct PanicGuardHandler<H> {
    inner: H,
    state: GuardState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GuardState {
    Sound,
    /// It has panicked, and the behaviour is still to be told.
    Untold,
    Broken,
}

/// What a guarded handler reports.
#[derive(Debug)]
pub(super) enum PanicReport<E> {
    /// What the handler itself reports.
    Inner(E),
    /// The handler has panicked.
    Broken,
}

impl<B> PanicGuard<B> {
    pub(super) fn new(inner: B) -> Self {
        Self { inner, broken: Vec::new() }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for PanicGuard<B> {
    type ConnectionHandler = PanicGuardHandler<B::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote).map(PanicGuardHandler::new)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addrs: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(id, peer, addrs, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, addr, role, port_use).map(PanicGuardHandler::new)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            PanicReport::Inner(event) => self.inner.on_connection_handler_event(peer, id, event),
            PanicReport::Broken => self.broken.push((peer, id)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, id)) = self.broken.pop() {
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) });
        }
        self.inner.poll(cx)
    }
}

impl<H> PanicGuardHandler<H> {
    fn new(inner: H) -> Self {
        Self { inner, state: GuardState::Sound }
    }

    /// Calls the handler, unless it has panicked before or does so now.
    fn call<T>(&mut self, call: impl FnOnce(&mut H) -> T) -> Option<T> {
        if self.state != GuardState::Sound {
            return None;
        }
        let inner = &mut self.inner;
        match catch_unwind(AssertUnwindSafe(|| call(inner))) {
            Ok(result) => Some(result),
            Err(_) => {
                tracing::debug!("a peer has made libp2p panic; its connection is closed");
                self.state = GuardState::Untold;
                None
            }
        }
    }
}

impl<H: ConnectionHandler> ConnectionHandler for PanicGuardHandler<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = PanicReport<H::ToBehaviour>;
    type InboundProtocol = H::InboundProtocol;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.state == GuardState::Sound && self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        let polled = self.call(|inner| inner.poll(cx));
        if self.state == GuardState::Untold {
            self.state = GuardState::Broken;
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(PanicReport::Broken));
        }
        polled.unwrap_or(Poll::Pending).map(|event| event.map_custom(PanicReport::Inner))
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.call(|inner| inner.on_behaviour_event(event));
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        self.call(|inner| inner.on_connection_event(event));
    }
}
