//! The connections with peers, and whether they make this node part of the network. Circuits are for calls alone and are none
//! of them.
//!
//! Who comes in has a place as long as there are some; then the host that has most of them gives one back.
//!
//! What it is not: the limits on connections of one peer, or on those that this node makes; see [`super::behaviour`].

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use keyferry_net::ip::host_of;
use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, swarm::ConnectionId};

use super::{
    handshake::LastReceived,
    scope::{is_loopback, socket_addr_of},
};
use crate::base::rate_limit::{Bucket, Rate};

/// How often a peer may speak of itself on one connection: it does once, and whenever its addresses change, each for itself.
const IDENTIFY_RATE: Rate = Rate { burst: 64, interval: Duration::from_secs(10) };

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
    /// The address of this machine that it hangs on, if that is known, and its port.
    pub(super) local: Option<SocketAddr>,
    /// How long the last ping took to the peer and back.
    pub(super) round_trip: Option<Duration>,
    /// How often the peer has spoken of itself.
    identified: Bucket,
    /// When something was received last, if it is an incoming one that has not been pushed out.
    last_received: Option<LastReceived>,
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
    /// Notes a connection that is no circuit; it hangs on this address of this machine, and if it is incoming, it says when
    /// something was received.
    pub(super) fn opened(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
        (local, last_received): (Option<SocketAddr>, Option<LastReceived>),
    ) {
        let connection = DirectConnection {
            remote: endpoint.get_remote_address().clone(),
            is_dialled: endpoint.is_dialer(),
            local: local.map(|local| SocketAddr::new(local.ip().to_canonical(), local.port())),
            round_trip: None,
            identified: Bucket::default(),
            last_received,
        };
        self.by_peer.entry(peer).or_default().insert(id, connection);
    }

    /// Gives the place of an incoming connection away if there are more than this: it has to be closed.
    pub(super) fn push_out(&mut self, max_incoming: usize) -> Option<ConnectionId> {
        let mut hosts: HashMap<IpAddr, Vec<(Instant, ConnectionId)>> = HashMap::new();
        for (id, connection) in self.by_peer.values().flatten() {
            if let (Some(last), Some(remote)) = (&connection.last_received, socket_addr_of(&connection.remote)) {
                hosts.entry(host_of(remote.ip())).or_default().push((last.at(), *id));
            }
        }
        if hosts.values().map(Vec::len).sum::<usize>() <= max_incoming {
            return None;
        }
        let (_, id) = hosts.into_values().max_by_key(Vec::len)?.into_iter().min()?;
        let pushed_out = self.by_peer.values_mut().find_map(|own| own.get_mut(&id))?;
        pushed_out.last_received = None;
        Some(id)
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

    /// Notes how long a ping took on a connection.
    pub(super) fn measured(&mut self, peer: &PeerId, id: ConnectionId, round_trip: Duration) {
        if let Some(connection) = self.by_peer.get_mut(peer).and_then(|own| own.get_mut(&id)) {
            connection.round_trip = Some(round_trip);
        }
    }

    /// The connections that this node has dialled.
    pub(super) fn dialled(&self) -> impl Iterator<Item = (PeerId, ConnectionId, &DirectConnection)> {
        let all =
            self.by_peer.iter().flat_map(|(peer, own)| own.iter().map(|(id, connection)| (*peer, *id, connection)));
        all.filter(|(.., connection)| connection.is_dialled)
    }

    /// The connections of a peer but this one.
    pub(super) fn others_of(
        &self,
        peer: &PeerId,
        id: ConnectionId,
    ) -> impl Iterator<Item = (ConnectionId, &DirectConnection)> {
        let own = self.by_peer.get(peer).into_iter().flatten();
        own.filter(move |(other, _)| **other != id).map(|(id, connection)| (*id, connection))
    }

    /// The connections of a peer.
    pub(super) fn of(&self, peer: &PeerId) -> Vec<&DirectConnection> {
        self.by_peer.get(peer).into_iter().flat_map(HashMap::values).collect()
    }

    /// Notes that a peer speaks of itself on a connection; false if it does so too often.
    pub(super) fn identified(&mut self, peer: &PeerId, id: ConnectionId, now: Instant) -> bool {
        let connection = self.by_peer.get_mut(peer).and_then(|own| own.get_mut(&id));
        connection.is_none_or(|connection| connection.identified.take(IDENTIFY_RATE, now))
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

    /// The hosts at the other ends of these connections.
    pub(super) fn hosts_of(&self, which: impl Fn(&DirectConnection) -> bool) -> HashSet<IpAddr> {
        let those = self.by_peer.values().flat_map(HashMap::values).filter(|connection| which(connection));
        those.filter_map(|connection| socket_addr_of(&connection.remote)).map(|addr| addr.ip()).collect()
    }

    /// The connections that hang on an address that this machine has lost. Where it is not known on which one hangs, those count that
    /// may: over the same family, to peers beyond this machine. A private address leads to the whole internet.
    pub(super) fn hanging_on(&self, lost: &Multiaddr) -> Vec<ConnectionId> {
        let family = |addr: &Multiaddr| addr.iter().next().map(|first| first.tag());
        let lost_ip = socket_addr_of(lost).map(|addr| addr.ip().to_canonical());
        let hangs = |connection: &DirectConnection| match connection.local {
            Some(local) => Some(local.ip()) == lost_ip,
            None => family(&connection.remote) == family(lost) && !is_loopback(&connection.remote),
        };
        let all = self.by_peer.values().flatten();
        all.filter(|(_, connection)| hangs(connection)).map(|(id, _)| *id).collect()
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

        connections.opened(peer, first, &endpoint, (None, None));
        assert_eq!(
            connections.closed(&peer, first),
            Some(ConnectionLoss { peer: true, network: false }),
            "it had not joined"
        );
        [first, second].into_iter().for_each(|id| connections.opened(peer, id, &endpoint, (None, None)));
        assert_eq!(connections.join(), Membership::New);
        assert_eq!(connections.closed(&peer, first), Some(ConnectionLoss { peer: false, network: false }));
        assert_eq!(connections.closed(&peer, second), Some(ConnectionLoss { peer: true, network: true }));
        assert_eq!(connections.closed(&peer, second), None);
        assert_eq!(connections.join(), Membership::Lost);
    }

    #[test]
    fn with_an_address_go_the_connections_that_hang_on_it_wherever_they_lead() {
        let mut connections = PeerConnections::default();
        let inner: SocketAddr = "192.168.1.10:4600".parse().unwrap();
        let other: SocketAddr = "192.168.7.2:4600".parse().unwrap();
        let cases = [
            ("/ip4/203.0.113.1/tcp/443", Some(inner)),
            ("/ip4/192.168.1.20/tcp/4600", Some(inner)),
            ("/ip4/203.0.113.2/tcp/443", Some(other)),
            ("/ip4/203.0.113.3/tcp/443", None),
            ("/ip6/2001:db8::1/tcp/443", None),
            ("/ip4/127.0.0.1/tcp/4600", None),
        ];
        for (number, (remote, local)) in cases.into_iter().enumerate() {
            let remote: Multiaddr = remote.parse().unwrap();
            let endpoint = ConnectedPoint::Listener { local_addr: remote.clone(), send_back_addr: remote };
            connections.opened(PeerId::random(), ConnectionId::new_unchecked(number), &endpoint, (local, None));
        }

        let mut hanging = connections.hanging_on(&"/ip4/192.168.1.10/tcp/4600".parse().unwrap());

        hanging.sort();
        assert_eq!(hanging, [0, 1, 3].map(ConnectionId::new_unchecked));
    }
}
