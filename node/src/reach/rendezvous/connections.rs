//! The connections with peers, and whether they make this node part of the network. Circuits are for calls alone and are none
//! of them.
//!
//! What it is not: the limits on connections; see [`super::behaviour`].

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, swarm::ConnectionId};

use super::scope::{AddressScope, is_loopback, socket_addr_of};

/// All connections that stand.
#[derive(Default)]
pub(super) struct PeerConnections {
    by_peer: HashMap<PeerId, HashMap<ConnectionId, DirectConnection>>,
    membership: Membership,
}

/// A connection with no relay between.
#[derive(Debug)]
pub(super) struct DirectConnection {
    pub(super) remote: Multiaddr,
    /// Whether this node has dialled it.
    pub(super) is_dialled: bool,
}

/// Whether this node is part of the network: whether a connected peer has said that it is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Membership {
    /// It has never been.
    #[default]
    New,
    Joined,
    /// It was, and all peers have gone since.
    Lost,
}

/// What has gone with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionLoss {
    /// No connection with that peer is left.
    pub(super) peer: bool,
    /// No connection at all is left, and this node is no part of the network any more.
    pub(super) network: bool,
}

impl PeerConnections {
    /// Notes a connection that is no circuit.
    pub(super) fn opened(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let connection =
            DirectConnection { remote: endpoint.get_remote_address().clone(), is_dialled: endpoint.is_dialer() };
        self.by_peer.entry(peer).or_default().insert(id, connection);
    }

    /// Notes that a connection has closed; returns nothing if the peer had none.
    pub(super) fn closed(&mut self, peer: &PeerId, id: ConnectionId) -> Option<ConnectionLoss> {
        let own = self.by_peer.get_mut(peer)?;
        own.remove(&id);
        let is_peer_gone = own.is_empty();
        if is_peer_gone {
            self.by_peer.remove(peer);
        }
        let is_network_gone = self.by_peer.is_empty() && self.membership == Membership::Joined;
        if is_network_gone {
            self.membership = Membership::Lost;
        }
        Some(ConnectionLoss { peer: is_peer_gone, network: is_network_gone })
    }

    /// Notes that a connected peer is one of ours. Returns the membership of before.
    pub(super) fn join(&mut self) -> Membership {
        std::mem::replace(&mut self.membership, Membership::Joined)
    }

    /// Whether this node is part of the network.
    pub(super) fn is_joined(&self) -> bool {
        self.membership == Membership::Joined
    }

    pub(super) fn get(&self, peer: &PeerId, id: ConnectionId) -> Option<&DirectConnection> {
        self.by_peer.get(peer)?.get(&id)
    }

    /// The addresses at which a peer is connected.
    pub(super) fn remotes_of(&self, peer: &PeerId) -> impl Iterator<Item = &Multiaddr> {
        self.by_peer.get(peer).into_iter().flat_map(HashMap::values).map(|connection| &connection.remote)
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.by_peer.contains_key(peer)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_peer.is_empty()
    }

    /// How many peers are connected.
    pub(super) fn peers(&self) -> usize {
        self.by_peer.len()
    }

    /// The hosts of all peers.
    pub(super) fn hosts(&self) -> HashSet<IpAddr> {
        let remotes = self.by_peer.values().flat_map(HashMap::values).map(|connection| &connection.remote);
        remotes.filter_map(socket_addr_of).map(|addr| addr.ip()).collect()
    }

    /// The connections that may hang on an address that this machine has lost: those over its family, to peers in its scope.
    pub(super) fn hanging_on(&self, lost: &Multiaddr) -> Vec<ConnectionId> {
        let family = |addr: &Multiaddr| addr.iter().next().map(|first| first.tag());
        let hangs = |remote: &Multiaddr| {
            AddressScope::of(remote) == AddressScope::of(lost) && family(remote) == family(lost) && !is_loopback(remote)
        };
        let all = self.by_peer.values().flatten();
        all.filter(|(_, connection)| hangs(&connection.remote)).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_lost_with_the_last_connection_of_its_last_peer() {
        let (mut connections, peer) = (PeerConnections::default(), PeerId::random());
        let [first, second] = [1, 2].map(ConnectionId::new_unchecked);
        let remote: Multiaddr = "/ip4/192.0.2.1/tcp/7".parse().unwrap();
        let endpoint = ConnectedPoint::Listener { local_addr: remote.clone(), send_back_addr: remote };

        connections.opened(peer, first, &endpoint);
        assert_eq!(
            connections.closed(&peer, first),
            Some(ConnectionLoss { peer: true, network: false }),
            "it had not joined"
        );
        [first, second].into_iter().for_each(|id| connections.opened(peer, id, &endpoint));
        assert_eq!(connections.join(), Membership::New);
        assert_eq!(connections.closed(&peer, first), Some(ConnectionLoss { peer: false, network: false }));
        assert_eq!(connections.closed(&peer, second), Some(ConnectionLoss { peer: true, network: true }));
        assert_eq!(connections.closed(&peer, second), None);
        assert_eq!(connections.join(), Membership::Lost);
    }
}
