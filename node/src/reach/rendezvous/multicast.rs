//! Peers of the local network that are found by multicast (mDNS, RFC 6762), and how to dial them.
//!
//! What it is not: the local DHT, which they join as any other peer does.

use std::{collections::HashMap, net::SocketAddr};

use libp2p::{
    Multiaddr, PeerId, mdns,
    swarm::{
        NetworkBehaviour,
        behaviour::toggle::Toggle,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{config::RendezvousError, scope::AddressScope};

/// Peers found by multicast that are dialled at a time.
const MAX_DISCOVERED: usize = 32;

/// Multicast over IPv4, and over IPv6: each instance of it speaks one of them only.
#[derive(NetworkBehaviour)]
pub(super) struct Multicast {
    ipv4: Toggle<mdns::tokio::Behaviour>,
    ipv6: Toggle<mdns::tokio::Behaviour>,
}

/// Makes the behaviour of a node with these listening addresses; one that does nothing unless it is `wanted`.
pub(super) fn behaviour(wanted: bool, own: PeerId, listen: &[SocketAddr]) -> Result<Multicast, RendezvousError> {
    let family = |enable_ipv6: bool| {
        let is_wanted = wanted && listen.iter().any(|addr| addr.is_ipv6() == enable_ipv6);
        let config = mdns::Config { enable_ipv6, ..mdns::Config::default() };
        let made = is_wanted.then(|| mdns::tokio::Behaviour::new(config, own)).transpose();
        Toggle::from(made.unwrap_or_else(|error| {
            tracing::info!(%error, enable_ipv6, "peers of the local network cannot be found by multicast");
            None
        }))
    };
    Ok(Multicast { ipv4: family(false), ipv6: family(true) })
}

/// How to dial the peers that an event names and that are not connected.
pub(super) fn dials(event: MulticastEvent, is_connected: impl Fn(&PeerId) -> bool) -> impl Iterator<Item = DialOpts> {
    let (MulticastEvent::Ipv4(event) | MulticastEvent::Ipv6(event)) = event;
    let mut peers: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
    let found = match event {
        mdns::Event::Discovered(found) => found,
        mdns::Event::Expired(_) => Vec::new(),
    };
    for (peer, addr) in found {
        let is_one_too_many = peers.len() >= MAX_DISCOVERED && !peers.contains_key(&peer);
        if AddressScope::of(&addr) == Some(AddressScope::Lan) && !is_one_too_many && !is_connected(&peer) {
            peers.entry(peer).or_default().push(addr);
        }
    }
    let condition = PeerCondition::DisconnectedAndNotDialing;
    peers.into_iter().map(move |(peer, addrs)| DialOpts::peer_id(peer).condition(condition).addresses(addrs).build())
}
