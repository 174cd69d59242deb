//! Keeps a number of connections open although nothing runs on them, so that a lookup need not connect first.
//!
//! Two nodes that have dialled each other at one moment have two connections; both ends then keep the same one.
//!
//! The first that come are kept; all others close after the idle time. Where one host has more of them than others, it has to give
//! way to those: it could keep everyone else out.
//!
//! What it is not: a choice of peers, or the limit on connections.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    net::IpAddr,
    task::{Context, Poll},
};

use keyferry_net::ip::host_of;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse, upgrade::DeniedUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::ConnectionEvent,
    },
};

use super::{circuit::is_circuit, scope::socket_addr_of};

/// Connections that a node keeps open which others can reach: about as many as it has contacts, so that a contact's death is heard of.
/// To look at each of them now and then by a new connection would take more bytes than an open one does.
const MAX_KEPT: usize = 64;
/// Those that a node keeps open behind a NAT, whose mappings it has to hold as well.
const MAX_KEPT_BEHIND_NAT: usize = 16;

/// The behaviour that keeps connections open.
pub(super) struct KeepAlive {
    own: PeerId,
    kept: HashMap<ConnectionId, KeptConnection>,
    room: usize,
    /// The connections of each peer that are no circuits, and who has dialled them, in the order in which they were made.
    of_peers: HashMap<PeerId, Vec<(ConnectionId, PeerId)>>,
    orders: VecDeque<(PeerId, ConnectionId, KeepOrder)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KeptConnection {
    peer: PeerId,
    /// None where that is not known.
    host: Option<IpAddr>,
}

/// The handler of a connection: all it does is to want it open, or not.
pub(super) struct KeepOpen(bool);

/// Tells a handler whether to want its connection open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeepOrder {
    Keep,
    Release,
}

impl KeepAlive {
    /// Until the node proves reachable, it counts as one that is not.
    pub(super) fn new(own: PeerId) -> Self {
        let (kept, of_peers, orders) = (HashMap::new(), HashMap::new(), VecDeque::new());
        Self { own, kept, room: MAX_KEPT_BEHIND_NAT, of_peers, orders }
    }

    /// Says whether others can connect to this node. What is kept by then stays.
    pub(super) fn set_reachable(&mut self, is_reachable: bool) {
        self.room = if is_reachable { MAX_KEPT } else { MAX_KEPT_BEHIND_NAT };
    }

    fn on_established(&mut self, peer: PeerId, id: ConnectionId, is_dialler: bool) {
        let dialler = if is_dialler { self.own } else { peer };
        let of_peer = self.of_peers.entry(peer).or_default();
        of_peer.push((id, dialler));
        let Some(best) = best_of(of_peer) else { return };
        let surplus: Vec<_> = of_peer.iter().map(|(id, _)| *id).filter(|id| *id != best).collect();
        surplus.into_iter().for_each(|id| self.release(id));
    }

    fn on_gone(&mut self, peer: Option<PeerId>, id: ConnectionId) {
        let was_kept = self.kept.remove(&id);
        let Some(peer) = peer else { return };
        let Some(of_peer) = self.of_peers.get_mut(&peer) else { return };
        of_peer.retain(|(other, _)| *other != id);
        match (was_kept, best_of(of_peer)) {
            // One that was released for it is kept again.
            (Some(kept), Some(left)) if !self.kept.contains_key(&left) => {
                self.kept.insert(left, kept);
                self.orders.push_back((peer, left, KeepOrder::Keep));
            }
            (_, None) => drop(self.of_peers.remove(&peer)),
            _ => {}
        }
    }

    fn release(&mut self, id: ConnectionId) {
        if let Some(kept) = self.kept.remove(&id) {
            self.orders.push_back((kept.peer, id, KeepOrder::Release));
        }
    }

    /// Whether there is room for one more connection with a host; where there is none, one of the host that has most gives way.
    fn make_room(&mut self, host: Option<IpAddr>) -> bool {
        if self.kept.len() < self.room {
            return true;
        }
        let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
        self.kept.values().for_each(|kept| *counts.entry(kept.host).or_default() += 1);
        let own = counts.get(&host).copied().unwrap_or(0);
        let Some((busiest, most)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return false };
        if own + 1 >= most {
            return false;
        }
        let newest = self.kept.iter().filter(|(_, kept)| kept.host == busiest).map(|(id, _)| *id).max();
        newest.into_iter().for_each(|id| self.release(id));
        true
    }

    fn handler_for(&mut self, id: ConnectionId, peer: PeerId, ends: [&Multiaddr; 2]) -> KeepOpen {
        let [local, remote] = ends;
        let host = socket_addr_of(remote).map(|addr| host_of(addr.ip()));
        let has_room = !is_circuit(local) && !is_circuit(remote) && self.make_room(host);
        if has_room {
            self.kept.insert(id, KeptConnection { peer, host });
        }
        KeepOpen(has_room)
    }
}

/// Of the connections of a peer, both ends keep the first that the node with the smaller name has dialled.
fn best_of(of_peer: &[(ConnectionId, PeerId)]) -> Option<ConnectionId> {
    of_peer.iter().min_by_key(|(_, dialler)| *dialler).map(|(id, _)| *id)
}

impl NetworkBehaviour for KeepAlive {
    type ConnectionHandler = KeepOpen;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler_for(id, peer, [local, remote]))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler_for(id, peer, [addr, addr]))
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
        let Some((peer_id, id, event)) = self.orders.pop_front() else { return Poll::Pending };
        Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(id), event })
    }
}

impl ConnectionHandler for KeepOpen {
    type FromBehaviour = KeepOrder;
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

    fn on_behaviour_event(&mut self, order: Self::FromBehaviour) {
        self.0 = order == KeepOrder::Keep;
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
        let addr: Multiaddr = "/ip4/192.0.2.1/tcp/4600".parse().unwrap();
        for (own, peer, is_first_dialled) in [(peers[0], peers[1], true), (peers[1], peers[0], false)] {
            for order in [[1, 2], [2, 1]] {
                let mut keep_alive = KeepAlive::new(own);
                for number in order {
                    assert!(keep_alive.handler_for(id(number), peer, [&addr, &addr]).0);
                    // The first is the one that the smaller has dialled.
                    keep_alive.on_established(peer, id(number), (number == 1) == is_first_dialled);
                }
                assert_eq!(keep_alive.kept.keys().collect::<Vec<_>>(), [&id(1)]);
                assert_eq!(keep_alive.orders, [(peer, id(2), KeepOrder::Release)]);
                keep_alive.on_gone(Some(peer), id(1));
                assert_eq!(keep_alive.kept.keys().collect::<Vec<_>>(), [&id(2)]);
                assert_eq!(keep_alive.orders[1], (peer, id(2), KeepOrder::Keep));
                keep_alive.on_gone(Some(peer), id(2));
                assert!(keep_alive.kept.is_empty() && keep_alive.of_peers.is_empty());
            }
        }
    }

    fn kept(keep_alive: &mut KeepAlive, host: &str, numbers: std::ops::Range<usize>) -> usize {
        let addr: Multiaddr = format!("/ip4/{host}/tcp/4600").parse().unwrap();
        numbers.filter(|number| keep_alive.handler_for(id(*number), PeerId::random(), [&addr, &addr]).0).count()
    }

    #[test]
    fn a_node_that_is_not_known_to_be_reachable_keeps_few_connections_and_another_more() {
        let mut keep_alive = KeepAlive::new(PeerId::random());
        assert_eq!(kept(&mut keep_alive, "192.0.2.1", 0..100), MAX_KEPT_BEHIND_NAT);
        keep_alive.set_reachable(true);
        assert_eq!(kept(&mut keep_alive, "192.0.2.1", 100..200), MAX_KEPT - MAX_KEPT_BEHIND_NAT);
    }

    #[test]
    fn a_host_that_has_all_places_gives_way_to_others_until_they_have_as_many() {
        let mut keep_alive = KeepAlive::new(PeerId::random());
        kept(&mut keep_alive, "192.0.2.1", 0..100);
        assert_eq!(kept(&mut keep_alive, "192.0.2.2", 100..200), MAX_KEPT_BEHIND_NAT / 2);
        assert_eq!(keep_alive.kept.len(), MAX_KEPT_BEHIND_NAT);
        assert_eq!(keep_alive.orders.len(), MAX_KEPT_BEHIND_NAT / 2);
        assert_eq!(kept(&mut keep_alive, "192.0.2.1", 200..300), 0);
        // The first that came stay.
        assert!(keep_alive.kept.contains_key(&id(0)) && keep_alive.kept.contains_key(&id(100)));
    }
}
