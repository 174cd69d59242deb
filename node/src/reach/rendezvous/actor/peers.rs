//! What the actor does about other peers: which of their addresses count, who is dialled, and who is forgotten.
//!
//! What it is not: judging peers by what they do; the limits on records and connections stand elsewhere.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use libp2p::{
    Multiaddr, PeerId, identify,
    kad::{ProviderRecord, store::RecordStore},
    swarm::{ConnectionId, DialError, FromSwarm, NetworkBehaviour, NewExternalAddrCandidate},
};

use super::Actor;
use crate::reach::rendezvous::{
    behaviour::{LAN_PROTOCOL, PROTOCOL_FAMILY, PROTOCOL_VERSION, VERSION, WAN_PROTOCOL, protocol},
    circuit::is_circuit,
    observed::Observation,
    records::record_key_of,
    scope::{Scope, is_loopback, multiaddr_of, socket_addr_of},
};

/// Addresses of one peer that are put into a routing table.
const MAX_PEER_ADDRS: usize = 8;
/// Addresses of this node that others tried in vain and that are remembered.
const MAX_UNREACHABLE: usize = 16;
/// Other versions that the status names.
const MAX_OTHER_VERSIONS: usize = 4;
/// Addresses of unconnected peers that the status names.
const MAX_UNCONNECTED: usize = 16;

impl Actor {
    /// Puts the addresses that a peer states about itself into the routing tables where they belong.
    pub(super) fn on_identified(&mut self, id: ConnectionId, peer: PeerId, info: identify::Info) {
        if info.protocol_version != PROTOCOL_VERSION {
            match info.protocol_version.strip_prefix(PROTOCOL_FAMILY).and_then(|version| version.parse().ok()) {
                Some(version) => self.on_other_version(version),
                None => self.count(|counters| &counters.peer_of_another_network),
            }
            self.remove_from_tables(peer, &Scope::ALL);
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        }
        let Some(remote) = self.connections.get(&peer).and_then(|own| own.get(&id)).cloned() else { return };
        self.on_observed(&info.observed_addr, &remote);
        self.on_identified_relay(peer, &info, socket_addr_of(&remote));
        let was_alone = std::mem::replace(&mut self.alone, false);
        let serves_no: Vec<Scope> =
            Scope::ALL.into_iter().filter(|scope| !info.protocols.contains(&protocol(*scope))).collect();
        self.remove_from_tables(peer, &serves_no);
        let mut left = MAX_PEER_ADDRS;
        for addr in info.listen_addrs {
            let speaks = match Scope::of(&addr) {
                Some(Scope::Lan) => info.protocols.contains(&LAN_PROTOCOL) && is_from_here(&addr, &remote),
                Some(Scope::Wan) => info.protocols.contains(&WAN_PROTOCOL),
                None => false,
            };
            if speaks && left > 0 {
                left -= 1;
                self.add_to_table(peer, addr);
            }
        }
        if was_alone {
            self.on_network_joined();
        }
    }

    /// Notes that a peer is of another version, so that the user hears of it where nothing is found.
    fn on_other_version(&mut self, version: u32) {
        self.count(|counters| &counters.peer_of_another_version);
        if self.other_versions.len() < MAX_OTHER_VERSIONS && self.other_versions.insert(version) {
            tracing::warn!("a peer speaks version {version} of the rendezvous, this program speaks version {VERSION}");
        }
    }

    /// Takes a bootstrap address for an entrance to the DHT of its scope at once, so that a lookup need not wait for what the peer
    /// says of itself. Once it has, and serves no DHT there, it leaves the table again.
    pub(super) fn on_entrance(&mut self, peer: PeerId, remote: Multiaddr) {
        let Some(scope) = Scope::of(&remote) else { return };
        self.add_to_table(peer, remote);
        self.lookups.on_peer(self.swarm.behaviour_mut(), scope);
    }

    /// Notes from where a peer saw this node's connection come, if it left from the node's port.
    fn on_observed(&mut self, observed: &Multiaddr, remote: &Multiaddr) {
        let (Some(observed), Some(observer)) = (socket_addr_of(observed), socket_addr_of(remote)) else { return };
        let Some(local) = self.departures.local_of(observer) else { return };
        if local.port() == self.port.number()
            && local.is_ipv4() == observed.is_ipv4()
            && self.observed.insert(Observation { observer, local, observed })
        {
            // What identify itself proposes to test has the port of the listener in place of that of the NAT.
            let addr = multiaddr_of(observed);
            let candidate = FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr: &addr });
            self.swarm.behaviour_mut().reachable.on_swarm_event(candidate);
            self.status_changed();
        }
    }

    /// Notes what became of the test of an address from outside.
    pub(super) fn on_tested(&mut self, tested: &Multiaddr, is_reachable: bool) {
        let Some(addr) = socket_addr_of(tested) else { return };
        let changed = match is_reachable {
            true => self.unreachable.remove(&addr),
            false => self.unreachable.len() < MAX_UNREACHABLE && self.unreachable.insert(addr),
        };
        if changed {
            self.status_changed();
        }
    }

    /// Addresses of peers of the wide-area DHT to which no connection stands.
    pub(super) fn unconnected(&mut self) -> Vec<SocketAddr> {
        let connected: Vec<IpAddr> = self
            .connections
            .values()
            .flat_map(HashMap::values)
            .filter_map(|remote| socket_addr_of(remote).map(|addr| addr.ip()))
            .collect();
        let mut found = Vec::new();
        for bucket in self.swarm.behaviour_mut().kad(Scope::Wan).kbuckets() {
            let addrs = bucket.iter().filter_map(|peer| socket_addr_of(peer.node.value.first())).collect::<Vec<_>>();
            found.extend(addrs.into_iter().filter(|addr| !connected.contains(&addr.ip())));
        }
        found.truncate(MAX_UNCONNECTED);
        found
    }

    /// Closes what may hang on an address that this machine has no longer: such connections never say that they are dead,
    /// and what is asked over them would wait for its time to run out.
    pub(super) fn on_address_lost(&mut self, lost: &Multiaddr) {
        if let Some(lost) = socket_addr_of(lost) {
            self.observed.forget(lost.ip());
        }
        self.swarm.remove_external_address(lost);
        if !self.public {
            self.on_reachable(lost, false);
        }
        let (family, scope) = (lost.iter().next().map(|first| first.tag()), Scope::of(lost));
        let of_same_kind = |remote: &Multiaddr| {
            Scope::of(remote) == scope
                && remote.iter().next().map(|first| first.tag()) == family
                && !is_loopback(remote)
        };
        let all = self.connections.values().flatten();
        let hanging: Vec<_> = all.filter(|(_, remote)| of_same_kind(remote)).map(|(id, _)| *id).collect();
        tracing::debug!(connections = hanging.len(), "an address of this machine is gone");
        for id in hanging {
            self.swarm.close_connection(id);
            self.count(|counters| &counters.closed_with_address);
        }
    }

    pub(super) fn add_to_table(&mut self, peer: PeerId, addr: Multiaddr) {
        if let Some(scope) = Scope::of(&addr) {
            self.swarm.behaviour_mut().kad(scope).add_address(&peer, addr);
        }
    }

    /// Takes a provider record with those of its addresses that the provider can have.
    pub(super) fn on_add_provider(&mut self, scope: Scope, mut record: ProviderRecord) {
        let remotes: Vec<_> = self.connections.get(&record.provider).into_iter().flat_map(HashMap::values).collect();
        record.addresses.retain(|addr| {
            Scope::of(addr) == Some(scope)
                && (scope == Scope::Wan || remotes.iter().any(|remote| is_from_here(addr, remote)))
        });
        let is_sound = record_key_of(&record.key).is_some() && !record.addresses.is_empty();
        if !is_sound || self.swarm.behaviour_mut().kad(scope).store_mut().add_provider(record).is_err() {
            self.count(|counters| &counters.provider_refused);
        }
    }

    /// Forgets a peer that cannot be reached, unless it may be our own network that is down.
    pub(super) fn on_unreachable(&mut self, peer: PeerId, error: &DialError) {
        if self.connections.is_empty() || self.connections.contains_key(&peer) {
            return;
        }
        let is_gone = match error {
            // A circuit that leads nowhere says nothing about the peer.
            DialError::Transport(tried) => tried.iter().any(|(addr, _)| !is_circuit(addr)),
            DialError::WrongPeerId { address, .. } => !is_circuit(address),
            other => matches!(other, DialError::NoAddresses),
        };
        if is_gone {
            self.remove_from_tables(peer, &Scope::ALL);
            self.status_changed();
        }
    }

    fn remove_from_tables(&mut self, peer: PeerId, scopes: &[Scope]) {
        for scope in scopes {
            self.swarm.behaviour_mut().kad(*scope).remove_peer(&peer);
        }
    }
}

/// Whether a LAN address that a peer states can mean that peer, given where it is connected from: a peer far away is not
/// in our network, and one on another machine is not on this one.
fn is_from_here(stated: &Multiaddr, remote: &Multiaddr) -> bool {
    Scope::of(remote) == Some(Scope::Lan) && (!is_loopback(stated) || is_loopback(remote))
}
