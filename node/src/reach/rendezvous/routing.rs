//! Which addresses that peers state are believed: what gets into the routing tables of the two DHTs, and into their provider
//! records.
//!
//! What it is not: a judgement of peers by what they do; the limits on records and connections stand elsewhere.

use std::{collections::HashSet, net::IpAddr, net::SocketAddr};

use libp2p::{
    Multiaddr, PeerId, identify,
    kad::{ProviderRecord, store::RecordStore},
    swarm::DialError,
};

use super::{
    behaviour::{Behaviour, protocol},
    circuit::is_circuit,
    records::record_key_of,
    scope::{AddressScope, is_loopback, socket_addr_of},
};

/// Addresses of one peer that are put into a routing table.
const MAX_PEER_ADDRS: usize = 8;
/// Addresses of unconnected peers that the status names.
const MAX_UNCONNECTED: usize = 16;

/// Puts the addresses that a peer connected at `remote` states about itself into the tables where they belong.
pub(super) fn on_identified(behaviour: &mut Behaviour, peer: PeerId, info: &identify::Info, remote: &Multiaddr) {
    let serves = |scope: AddressScope| info.protocols.contains(&protocol(scope));
    let serves_no: Vec<_> = AddressScope::ALL.into_iter().filter(|scope| !serves(*scope)).collect();
    remove(behaviour, &peer, &serves_no);
    let is_believed = |addr: &&Multiaddr| match AddressScope::of(addr) {
        Some(AddressScope::Lan) => serves(AddressScope::Lan) && is_from_here(addr, remote),
        Some(AddressScope::Wan) => serves(AddressScope::Wan),
        None => false,
    };
    for addr in info.listen_addrs.iter().filter(is_believed).take(MAX_PEER_ADDRS) {
        add(behaviour, peer, addr.clone());
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

/// Stores a provider record with those of its addresses that the provider, connected at `remotes`, can have. Returns whether
/// there was room for it, and an address.
pub(super) fn add_provider(
    behaviour: &mut Behaviour,
    scope: AddressScope,
    mut record: ProviderRecord,
    remotes: &[&Multiaddr],
) -> bool {
    record.addresses.retain(|addr| {
        AddressScope::of(addr) == Some(scope)
            && (scope == AddressScope::Wan || remotes.iter().any(|remote| is_from_here(addr, remote)))
    });
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
