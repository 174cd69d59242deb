//! Keeps a number of connections open although nothing runs on them, so that a lookup need not connect first.
//!
//! What it is not: a choice of peers. The first that come are kept; all others close after the idle time.

use std::{
    collections::HashSet,
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse, upgrade::DeniedUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, handler::ConnectionEvent,
    },
};

use super::circuit::is_circuit;

/// Connections that are kept open.
pub(super) const MAX_WARM: usize = 16;

/// The behaviour that keeps connections open.
#[derive(Default)]
pub(super) struct KeepAlive {
    kept: HashSet<ConnectionId>,
}

/// The handler of a connection: all it does is to want it open, or not.
pub(super) struct KeepOpen(bool);

impl KeepAlive {
    fn handler_for(&mut self, id: ConnectionId, addr: &Multiaddr) -> KeepOpen {
        let has_room = self.kept.len() < MAX_WARM && !is_circuit(addr);
        if has_room {
            self.kept.insert(id);
        }
        KeepOpen(has_room)
    }
}

impl NetworkBehaviour for KeepAlive {
    type ConnectionHandler = KeepOpen;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        local: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler_for(id, local))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        addr: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler_for(id, addr))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => {
                self.kept.remove(&closed.connection_id);
            }
            // A connection that another behaviour refused after this one had made its handler.
            FromSwarm::ListenFailure(failure) => {
                self.kept.remove(&failure.connection_id);
            }
            FromSwarm::DialFailure(failure) => {
                self.kept.remove(&failure.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

impl ConnectionHandler for KeepOpen {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.0
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(&mut self, _: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), ()>) {}
}
