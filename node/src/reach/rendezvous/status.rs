//! The state of the rendezvous, as others see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use libp2p::{Multiaddr, PeerId};

use super::observed::Observation;

/// The state of the rendezvous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RendezvousStatus {
    /// This node's rendezvous peer.
    pub peer: PeerId,
    /// Peers in the routing table of the wide-area DHT.
    pub wan_peers: usize,
    /// Peers in the routing table of the local DHT.
    pub lan_peers: usize,
    /// Peers that are connected.
    pub connected: usize,
    /// Whether the wide-area DHT is served: reachability is confirmed, or the operator says so.
    pub public: bool,
    /// The addresses that the port listens on, with those of the interfaces for unspecified ones.
    pub listen: Vec<SocketAddr>,
    /// The addresses at which others reached this node when it asked them to try.
    pub external: Vec<SocketAddr>,
    /// The circuits at which this node may be called, while it cannot be reached by itself: at most
    /// `keyferry_proto::offer::MAX_SIGNALLING`.
    pub circuits: Vec<Multiaddr>,
    /// What others say of the connections that they saw come from this node's port, at most one for each host.
    pub observed: Vec<Observation>,
    /// The addresses that others tried on request, in vain.
    pub unreachable: Vec<SocketAddr>,
    /// Addresses of peers of the wide-area DHT that are not connected, so that this node's port is free to connect there.
    pub unconnected: Vec<SocketAddr>,
    /// Versions of the rendezvous that peers spoke and this node does not, at most 4.
    pub other_versions: BTreeSet<u32>,
    /// Records of others that are stored, of both DHTs.
    pub records: usize,
    /// Counters of bad input and of limits reached, by name.
    pub counters: BTreeMap<String, u64>,
}
