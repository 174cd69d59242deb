//! Which addresses that peers state are believed: what gets into the routing tables of the two DHTs, and into their provider
//! records.
//!
//! Whoever could name addresses of others would have this node and all whom it answers dial them. So a peer has the addresses at
//! which this node has dialled it, and those that it states itself on a host that it is connected from. What it states besides is
//! tried once ([`super::address_proofs`]). Each time that it speaks of itself, this replaces what was there.
//!
//! What it is not: a judgement of peers by what they do; the limits on records and connections stand elsewhere.

use std::{collections::HashSet, net::IpAddr, net::SocketAddr};

use keyferry_net::ip::host_of;
use libp2p::{
    Multiaddr, PeerId, identify,
    kad::{Addresses, KBucketKey, ProviderRecord, store::RecordStore},
    swarm::DialError,
};

use super::{
    behaviour::{Behaviour, protocol},
    circuit::is_circuit,
    connections::DirectConnection,
    records::record_key_of,
    scope::{AddressScope, MAX_PEER_ADDRS, is_loopback, multiaddr_of, socket_addr_of},
};

/// Addresses of unconnected peers that the status names.
const MAX_UNCONNECTED: usize = 16;

/// Puts what a peer states about itself, as far as its connections bear that out, into the tables where it belongs, in place of
/// what was there. Returns the addresses of the wide area that nothing bears out.
pub(super) fn on_identified(
    behaviour: &mut Behaviour,
    peer: PeerId,
    info: &identify::Info,
    connections: &[&DirectConnection],
) -> Vec<SocketAddr> {
    let mut unproven = Vec::new();
    for scope in AddressScope::ALL {
        if !info.protocols.contains(&protocol(scope)) {
            remove(behaviour, &peer, &[scope]);
            continue;
        }
        let known = addrs_of(behaviour, scope, &peer);
        let stated: Vec<_> = info.listen_addrs.iter().filter(|addr| AddressScope::of(addr) == Some(scope)).collect();
        let believed = believed(scope, &stated, connections, &known);
        if scope == AddressScope::Wan {
            unproven = stated.into_iter().filter_map(socket_addr_of).filter(|addr| !believed.contains(addr)).collect();
        }
        believed.iter().for_each(|addr| add(behaviour, peer, multiaddr_of(*addr)));
        for gone in known.iter().filter(|addr| !believed.contains(addr)) {
            behaviour.kad(scope).remove_address(&peer, &multiaddr_of(*gone));
        }
    }
    unproven
}

/// Of the addresses of a scope that a peer states: those that its connections bear out, or that were proven before.
fn believed(
    scope: AddressScope,
    stated: &[&Multiaddr],
    connections: &[&DirectConnection],
    known: &[SocketAddr],
) -> Vec<SocketAddr> {
    let dialled = connections.iter().filter(|connection| connection.is_dialled).map(|connection| &connection.remote);
    let dialled = dialled.filter(|remote| AddressScope::of(remote) == Some(scope)).filter_map(socket_addr_of);
    // What is proven of the local network holds as long as the peer is in it.
    let is_proven = |addr: &SocketAddr| scope == AddressScope::Wan && known.contains(addr);
    let is_borne_out = |addr: &&SocketAddr| is_proven(addr) || is_seen_at(**addr, scope, connections);
    let stated: Vec<_> = stated.iter().filter_map(|addr| socket_addr_of(addr)).collect();
    let mut believed: Vec<SocketAddr> = Vec::new();
    for addr in dialled.chain(stated.iter().filter(is_borne_out).copied()) {
        if believed.len() < MAX_PEER_ADDRS && !believed.contains(&addr) {
            believed.push(addr);
        }
    }
    believed
}

/// Whether a peer with these connections can be believed to be at an address that it states.
fn is_seen_at(stated: SocketAddr, scope: AddressScope, connections: &[&DirectConnection]) -> bool {
    connections.iter().any(|connection| match scope {
        AddressScope::Lan => is_from_here(&multiaddr_of(stated), &connection.remote),
        AddressScope::Wan => {
            socket_addr_of(&connection.remote).is_some_and(|seen| host_of(seen.ip()) == host_of(stated.ip()))
        }
    })
}

/// The addresses of a peer in the table of a scope.
fn addrs_of(behaviour: &mut Behaviour, scope: AddressScope, peer: &PeerId) -> Vec<SocketAddr> {
    let Some(bucket) = behaviour.kad(scope).kbucket(*peer) else { return Vec::new() };
    let key = KBucketKey::from(*peer);
    let own = bucket.iter().find(|entry| *entry.node.key == key);
    own.map_or_else(Vec::new, |entry| entry.node.value.iter().filter_map(socket_addr_of).collect())
}

/// Takes the oldest addresses of a peer out of a table where there are too many: each address at which it is dialled comes on top.
pub(super) fn limit(behaviour: &mut Behaviour, scope: AddressScope, peer: &PeerId, addrs: &Addresses) {
    let too_many = addrs.len().saturating_sub(MAX_PEER_ADDRS);
    for addr in addrs.iter().take(too_many) {
        behaviour.kad(scope).remove_address(peer, addr);
    }
}

/// Puts an address of a peer into the table of its scope.
pub(super) fn add(behaviour: &mut Behaviour, peer: PeerId, addr: Multiaddr) {
    if let Some(scope) = AddressScope::of(&addr) {
        behaviour.kad(scope).add_address(&peer, addr);
    }
}

/// Takes a peer out of the tables of these scopes. Returns whether it was in one.
pub(super) fn remove(behaviour: &mut Behaviour, peer: &PeerId, scopes: &[AddressScope]) -> bool {
    scopes.iter().filter(|scope| behaviour.kad(**scope).remove_peer(peer).is_some()).count() > 0
}

/// Looks which peers of the tables are still there.
pub(super) fn refresh(behaviour: &mut Behaviour) {
    for scope in AddressScope::ALL {
        // Without a peer there is nothing to refresh.
        let _ = behaviour.kad(scope).bootstrap();
    }
}

/// Stores a provider record with those of its addresses that the provider, which has these connections, can have. Returns whether
/// there was room for it, and an address.
pub(super) fn add_provider(
    behaviour: &mut Behaviour,
    scope: AddressScope,
    mut record: ProviderRecord,
    connections: &[&DirectConnection],
) -> bool {
    let known = match scope {
        AddressScope::Lan => Vec::new(),
        AddressScope::Wan => addrs_of(behaviour, scope, &record.provider),
    };
    let stated: Vec<_> = record.addresses.iter().filter(|addr| AddressScope::of(addr) == Some(scope)).collect();
    let stated = stated.into_iter().filter_map(socket_addr_of);
    let mut addrs: Vec<_> =
        stated.filter(|addr| known.contains(addr) || is_seen_at(*addr, scope, connections)).collect();
    addrs.dedup();
    record.addresses = addrs.into_iter().map(multiaddr_of).collect();
    let is_sound = record_key_of(&record.key).is_some() && !record.addresses.is_empty();
    is_sound && behaviour.kad(scope).store_mut().add_provider(record).is_ok()
}

/// Addresses of peers of the wide-area DHT on hosts other than these.
pub(super) fn unconnected(behaviour: &mut Behaviour, others: &HashSet<IpAddr>) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for bucket in behaviour.kad(AddressScope::Wan).kbuckets() {
        let addrs = bucket.iter().filter_map(|peer| socket_addr_of(peer.node.value.first())).collect::<Vec<_>>();
        found.extend(addrs.into_iter().filter(|addr| !others.contains(&addr.ip())));
    }
    found.truncate(MAX_UNCONNECTED);
    found
}

/// Whether a dial that has failed says that the peer is gone.
pub(super) fn is_gone(error: &DialError) -> bool {
    match error {
        // A circuit that leads nowhere says nothing about the peer.
        DialError::Transport(tried) => tried.iter().any(|(addr, _)| !is_circuit(addr)),
        DialError::WrongPeerId { address, .. } => !is_circuit(address),
        other => matches!(other, DialError::NoAddresses),
    }
}

/// Whether a LAN address that a peer states can mean that peer, given where it is connected from: a peer far away is not
/// in our network, and one on another machine is not on this one.
fn is_from_here(stated: &Multiaddr, remote: &Multiaddr) -> bool {
    AddressScope::of(remote) == Some(AddressScope::Lan) && (!is_loopback(stated) || is_loopback(remote))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use libp2p::{Swarm, core::ConnectedPoint, identity::Keypair, swarm::ConnectionId};
    use tokio::sync::mpsc;
    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        base::traffic::Traffic,
        net::port::Port,
        reach::rendezvous::{
            behaviour, config::RendezvousConfig, connections::PeerConnections, handshake::Handshakes,
            observed::Departures,
        },
    };

    async fn a_swarm() -> Swarm<Behaviour> {
        let (port, incoming) = Port::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
        let config = RendezvousConfig { mdns: false, ..RendezvousConfig::new(Zeroizing::new([1; 32])) };
        let (guard, left) = (Handshakes::new(Traffic::default()), Departures::default());
        behaviour::swarm(&config, Arc::new(port), incoming.libp2p, guard, left, mpsc::channel(1).1).unwrap()
    }

    fn stating(keys: &Keypair, addrs: &[String]) -> identify::Info {
        identify::Info {
            public_key: keys.public(),
            protocol_version: String::new(),
            agent_version: String::new(),
            listen_addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
            protocols: AddressScope::ALL.map(protocol).to_vec(),
            observed_addr: Multiaddr::empty(),
            signed_peer_record: None,
        }
    }

    fn connected(peer: PeerId, remotes: &[(&str, bool)]) -> PeerConnections {
        let mut connections = PeerConnections::default();
        for (number, (remote, is_dialled)) in remotes.iter().enumerate() {
            let remote: Multiaddr = remote.parse().unwrap();
            let endpoint = match is_dialled {
                true => ConnectedPoint::Dialer {
                    address: remote,
                    role_override: libp2p::core::Endpoint::Dialer,
                    port_use: libp2p::core::transport::PortUse::Reuse,
                },
                false => ConnectedPoint::Listener { local_addr: Multiaddr::empty(), send_back_addr: remote },
            };
            connections.opened(peer, ConnectionId::new_unchecked(number), &endpoint, (None, None));
        }
        connections
    }

    #[tokio::test]
    async fn what_a_peer_says_of_itself_replaces_what_it_said_before() {
        let (mut swarm, keys) = (a_swarm().await, Keypair::generate_ed25519());
        let peer = keys.public().to_peer_id();
        let connections = connected(peer, &[("/ip4/10.0.0.1/tcp/5", false)]);
        for round in 0..20 {
            let stated: Vec<_> = (0..20).map(|number| format!("/ip4/10.{round}.{number}.1/tcp/80")).collect();
            on_identified(swarm.behaviour_mut(), peer, &stating(&keys, &stated), &connections.of(&peer));
        }
        let addrs = addrs_of(swarm.behaviour_mut(), AddressScope::Lan, &peer);
        let last = (0..MAX_PEER_ADDRS).map(|number| SocketAddr::from(([10, 19, number as u8, 1], 80)));
        assert_eq!(addrs, last.collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_peer_is_where_it_is_seen_and_where_it_was_dialled_and_nowhere_else() {
        let (mut swarm, keys) = (a_swarm().await, Keypair::generate_ed25519());
        let peer = keys.public().to_peer_id();
        let connections = connected(peer, &[("/ip4/203.0.113.1/tcp/5000", false), ("/ip6/2001:db8:1::1/tcp/7", true)]);
        let own = ["/ip4/203.0.113.1/tcp/80", "/ip6/2001:db8:1::9/tcp/7"];
        let of_others = ["/ip4/203.0.113.2/tcp/80", "/ip6/2001:db8:1:1::1/tcp/7", "/ip4/10.0.0.1/tcp/80"];
        let stated = [&own[..], &of_others[..]].concat().into_iter().map(String::from).collect::<Vec<_>>();
        let unproven = on_identified(swarm.behaviour_mut(), peer, &stating(&keys, &stated), &connections.of(&peer));
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let wan = addrs_of(swarm.behaviour_mut(), AddressScope::Wan, &peer);
        assert_eq!(wan, ["[2001:db8:1::1]:7", "203.0.113.1:80", "[2001:db8:1::9]:7"].map(addr));
        assert_eq!(addrs_of(swarm.behaviour_mut(), AddressScope::Lan, &peer), []);
        assert_eq!(unproven, ["203.0.113.2:80", "[2001:db8:1:1::1]:7"].map(addr));

        // One that is proven stays as long as the peer states it.
        add(swarm.behaviour_mut(), peer, of_others[0].parse().unwrap());
        on_identified(swarm.behaviour_mut(), peer, &stating(&keys, &stated), &connections.of(&peer));
        assert!(addrs_of(swarm.behaviour_mut(), AddressScope::Wan, &peer).contains(&addr("203.0.113.2:80")));
        on_identified(swarm.behaviour_mut(), peer, &stating(&keys, &[]), &connections.of(&peer));
        assert_eq!(addrs_of(swarm.behaviour_mut(), AddressScope::Wan, &peer), [addr("[2001:db8:1::1]:7")]);
    }

    #[tokio::test]
    async fn addresses_at_which_a_peer_was_dialled_are_limited_too() {
        let (mut swarm, peer) = (a_swarm().await, PeerId::random());
        for port in 1..=20 {
            add(swarm.behaviour_mut(), peer, format!("/ip4/203.0.113.1/tcp/{port}").parse().unwrap());
        }
        let mut addrs = Addresses::new("/ip4/203.0.113.1/tcp/1".parse().unwrap());
        for port in 2..=20 {
            addrs.insert(format!("/ip4/203.0.113.1/tcp/{port}").parse().unwrap());
        }
        limit(swarm.behaviour_mut(), AddressScope::Wan, &peer, &addrs);
        assert_eq!(addrs_of(swarm.behaviour_mut(), AddressScope::Wan, &peer).len(), MAX_PEER_ADDRS);
    }
}
