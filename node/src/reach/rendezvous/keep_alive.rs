//! Keeps a number of connections open although nothing runs on them, so that a lookup need not connect first.
//!
//! Two nodes that have dialled each other at one moment have two connections; both ends then keep the same one.
//!
//! What it is not: a choice of peers. The first that come are kept; all others close after the idle time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse, upgrade::DeniedUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::ConnectionEvent,
    },
};

use super::circuit::is_circuit;

/// Connections that a node keeps open which others can reach: about as many as it has contacts, so that a contact's death is heard of.
/// To look at each of them now and then by a new connection would take more bytes than an open one does.
const MAX_KEPT: usize = 64;
/// Those that a node keeps open behind a NAT, whose mappings it has to hold as well.
const MAX_KEPT_BEHIND_NAT: usize = 16;

/// The behaviour that keeps connections open.
pub(super) struct KeepAlive {
    own: PeerId,
    kept: HashSet<ConnectionId>,
    room: usize,
    /// The connections of each peer that are no circuits, and who has dialled them, in the order in which they were made.
    of_peers: HashMap<PeerId, Vec<(ConnectionId, PeerId)>>,
    released: VecDeque<(PeerId, ConnectionId)>,
}

/// The handler of a connection: all it does is to want it open, or not.
pub(super) struct KeepOpen(bool);

/// Tells a handler to want its connection open no longer.
#[derive(Debug)]
pub(super) struct Release;

impl KeepAlive {
    /// Until the node proves reachable, it counts as one that is not.
    pub(super) fn new(own: PeerId) -> Self {
        let (kept, of_peers, released) = (HashSet::new(), HashMap::new(), VecDeque::new());
        Self { own, kept, room: MAX_KEPT_BEHIND_NAT, of_peers, released }
    }

    /// Says whether others can connect to this node. What is kept by then stays.
    pub(super) fn set_reachable(&mut self, is_reachable: bool) {
        self.room = if is_reachable { MAX_KEPT } else { MAX_KEPT_BEHIND_NAT };
    }

    fn on_established(&mut self, peer: PeerId, id: ConnectionId, is_dialler: bool) {
        let dialler = if is_dialler { self.own } else { peer };
        let of_peer = self.of_peers.entry(peer).or_default();
        of_peer.push((id, dialler));
        // Of several, both ends keep the first that the node with the smaller name has dialled.
        let Some((best, _)) = of_peer.iter().min_by_key(|(_, dialler)| *dialler).copied() else { return };
        let surplus: Vec<_> = of_peer.iter().map(|(id, _)| *id).filter(|id| *id != best).collect();
        let released = surplus.into_iter().filter(|id| self.kept.remove(id)).map(|id| (peer, id));
        self.released.extend(released);
    }

    fn on_gone(&mut self, peer: Option<PeerId>, id: ConnectionId) {
        self.kept.remove(&id);
        let Some(peer) = peer else { return };
        if let Some(of_peer) = self.of_peers.get_mut(&peer) {
            of_peer.retain(|(other, _)| *other != id);
            if of_peer.is_empty() {
                self.of_peers.remove(&peer);
            }
        }
    }

    fn handler_for(&mut self, id: ConnectionId, addr: &Multiaddr) -> KeepOpen {
        let has_room = self.kept.len() < self.room && !is_circuit(addr);
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
            FromSwarm::ConnectionEstablished(made) if !made.endpoint.is_relayed() => {
                self.on_established(made.peer_id, made.connection_id, made.endpoint.is_dialer());
            }
            FromSwarm::ConnectionClosed(closed) => self.on_gone(Some(closed.peer_id), closed.connection_id),
            // A connection that another behaviour refused after this one had made its handler.
            FromSwarm::ListenFailure(failure) => self.on_gone(None, failure.connection_id),
            FromSwarm::DialFailure(failure) => self.on_gone(None, failure.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The swarm polls again after each of its events.
        let Some((peer_id, id)) = self.released.pop_front() else { return Poll::Pending };
        Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(id), event: Release })
    }
}

impl ConnectionHandler for KeepOpen {
    type FromBehaviour = Release;
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

    fn on_behaviour_event(&mut self, Release: Self::FromBehaviour) {
        self.0 = false;
    }

    fn on_connection_event(&mut self, _: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), ()>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    #[test]
    fn of_two_connections_with_a_peer_both_ends_keep_the_same() {
        let mut peers = [PeerId::random(), PeerId::random()];
        peers.sort();
        let addr = "/ip4/192.0.2.1/tcp/4600".parse().unwrap();
        for (own, peer, is_first_dialled) in [(peers[0], peers[1], true), (peers[1], peers[0], false)] {
            for order in [[1, 2], [2, 1]] {
                let mut keep_alive = KeepAlive::new(own);
                for number in order {
                    assert!(keep_alive.handler_for(id(number), &addr).0);
                    // The first is the one that the smaller has dialled.
                    keep_alive.on_established(peer, id(number), (number == 1) == is_first_dialled);
                }
                assert_eq!(keep_alive.kept, HashSet::from([id(1)]));
                assert_eq!(keep_alive.released, [(peer, id(2))]);
                keep_alive.on_gone(Some(peer), id(2));
                keep_alive.on_gone(Some(peer), id(1));
                assert!(keep_alive.kept.is_empty() && keep_alive.of_peers.is_empty());
            }
        }
    }

    #[test]
    fn a_node_that_is_not_known_to_be_reachable_keeps_few_connections_and_another_more() {
        let mut keep_alive = KeepAlive::new(PeerId::random());
        let addr = "/ip4/192.0.2.1/tcp/4600".parse().unwrap();
        let kept = |keep_alive: &mut KeepAlive, from| {
            (from..from + 100).filter(|number| keep_alive.handler_for(id(*number), &addr).0).count()
        };
        assert_eq!(kept(&mut keep_alive, 0), MAX_KEPT_BEHIND_NAT);
        keep_alive.set_reachable(true);
        assert_eq!(kept(&mut keep_alive, 100), MAX_KEPT - MAX_KEPT_BEHIND_NAT);
    }
}
