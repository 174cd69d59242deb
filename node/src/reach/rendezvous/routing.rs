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
