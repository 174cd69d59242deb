//! What the actor does about relays: when this node is one, when it needs some, and where it finds them.
//!
//! What it is not: the reservations themselves; see [`super::reservations`].

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, identify, kad, relay,
    swarm::{dial_opts::DialOpts, dial_opts::PeerCondition},
};

use super::{Actor, FIRST_SEEK_PAUSE};
use crate::reach::rendezvous::{
    reservations::RelayVerdict,
    scope::{Scope, multiaddr_of, socket_addr_of},
};

/// Peers of the wide-area DHT that are dialled at once because there are too few relays among those that are connected.
const MAX_SOUGHT: usize = 3;
/// How long the search for relays rests at most: there may be no relay in the whole network.
const MAX_SEEK_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Addresses of this node that are taken for reachable from outside, besides those of its own interfaces. A peer that has
/// made one up and helpers that say they have tried it can add to them, and identify tells them all in one message.
const MAX_EXTERNAL: usize = 16;

impl Actor {
    /// Notes that an address of this node has been reached from outside, or can be no longer.
    pub(super) fn on_reachable(&mut self, addr: &Multiaddr, is_reachable: bool) {
        let Some(socket_addr) = socket_addr_of(addr) else { return };
        if self.hidden || Scope::of(addr) != Some(Scope::Wan) {
            return;
        }
        self.external.retain(|known| *known != socket_addr);
        if is_reachable {
            self.external.push(socket_addr);
            let own: Vec<_> = self.swarm.listeners().filter_map(socket_addr_of).collect();
            for gone in beyond_limit(&mut self.external, &own) {
                self.swarm.remove_external_address(&multiaddr_of(gone));
                self.count(|counters| &counters.external_address_dropped);
            }
        }
        let serve = self.public || !self.external.is_empty();
        let mode = if serve { kad::Mode::Server } else { kad::Mode::Client };
        if self.swarm.behaviour_mut().wan.inner.mode() != mode {
            tracing::info!(serve, "the wide-area DHT is served now, or no longer");
            self.swarm.behaviour_mut().wan.inner.set_mode(Some(mode));
            self.announce_relay();
        }
        self.on_reachability();
        self.status_changed();
    }

    /// Compares what this node is known to be reachable at with what it does: whether it relays, and whether it needs relays.
    ///
    /// A test from outside is believed here only for an address of this machine's own: a NAT that filters by address lets
    /// in whoever this node has connected to before, which is who tests it, and nobody else.
    pub(super) fn on_reachability(&mut self) {
        let own: Vec<_> = self.swarm.listeners().filter_map(socket_addr_of).collect();
        let is_proven = |family: fn(&SocketAddr) -> bool| own.iter().any(|a| family(a) && self.external.contains(a));
        let has_ipv4 = own.iter().any(|addr| addr.is_ipv4() && !addr.ip().is_loopback());
        // Most peers have IPv4, and some have nothing else.
        let is_reachable =
            self.public || if has_ipv4 { is_proven(SocketAddr::is_ipv4) } else { is_proven(SocketAddr::is_ipv6) };
        let has_address = self.swarm.external_addresses().any(|addr| Scope::of(addr) == Some(Scope::Wan));
        let status = match has_address && (self.public || is_proven(|_| true)) {
            true => relay::Status::Enable,
            false => relay::Status::Disable,
        };
        self.reservations.set_needed(!is_reachable);
        self.swarm.behaviour_mut().relay.inner.set_status(Some(status));
    }

    /// Notes what a peer says of itself that concerns relaying.
    pub(super) fn on_identified_relay(&mut self, peer: PeerId, info: &identify::Info, remote: Option<SocketAddr>) {
        let relays = info.protocols.contains(&relay::HOP_PROTOCOL_NAME);
        let stated = info.listen_addrs.iter().filter(|addr| Scope::of(addr) == Some(Scope::Wan));
        // One that has come to this node, or was dialled by name, is where it says to be, if the host is the same.
        let addr = stated.filter_map(socket_addr_of).find(|addr| remote.is_none_or(|remote| remote.ip() == addr.ip()));
        self.reservations.on_identified(peer, relays, addr);
    }

    pub(super) fn on_relay_client(&mut self, event: relay::client::Event) {
        if let relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal, .. } = event {
            tracing::debug!(relay = %relay_peer_id, renewal, "a relay keeps a reservation");
            match self.reservations.on_accepted(&relay_peer_id, renewal, Instant::now()) {
                RelayVerdict::Fine => self.seek_pause = FIRST_SEEK_PAUSE,
                RelayVerdict::Leave => {
                    self.count(|counters| &counters.relay_left);
                    let _ = self.swarm.disconnect_peer_id(relay_peer_id);
                }
            }
            self.status_changed();
        }
    }

    /// When [`Self::seek_relays`] has something to do.
    pub(super) fn relays_due(&self, now: Instant) -> Option<Instant> {
        let seek = self.reservations.lacks_relays(now).then_some(self.seek_due);
        self.reservations.next_due(now).into_iter().chain(seek).min()
    }

    /// Connects to peers of the wide-area DHT, if there are too few relays among those that are connected.
    pub(super) fn seek_relays(&mut self, now: Instant) {
        if !self.reservations.lacks_relays(now) || self.seek_due > now {
            return;
        }
        self.seek_due = now + self.seek_pause;
        self.seek_pause = (self.seek_pause * 2).min(MAX_SEEK_PAUSE);
        let mut unconnected = Vec::new();
        for bucket in self.swarm.behaviour_mut().kad(Scope::Wan).kbuckets() {
            let peers = bucket.iter().map(|entry| (*entry.node.key.preimage(), entry.node.value.clone().into_vec()));
            unconnected.extend(peers.filter(|(peer, _)| !self.connections.contains_key(peer)));
        }
        for _ in 0..MAX_SOUGHT.min(unconnected.len()) {
            let (peer, addrs) = unconnected.swap_remove(rand::random_range(0..unconnected.len()));
            let dial = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).addresses(addrs);
            let _ = self.swarm.dial(dial.build());
        }
    }
}

/// Takes out the oldest of those addresses that are too many; those of this machine's own stay.
fn beyond_limit(external: &mut Vec<SocketAddr>, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let others = external.iter().filter(|addr| !own.contains(addr));
    let too_many = others.clone().count().saturating_sub(MAX_EXTERNAL);
    let gone: Vec<SocketAddr> = others.take(too_many).copied().collect();
    external.retain(|addr| !gone.contains(addr));
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_outer_addresses_the_oldest_go_and_those_of_this_machine_stay() {
        let addr = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let mut external: Vec<_> = (0..MAX_EXTERNAL as u16 + 3).map(addr).collect();

        assert_eq!(beyond_limit(&mut external, &[addr(0)]), [addr(1), addr(2)]);
        assert_eq!(external.len(), MAX_EXTERNAL + 1);
        assert!(external.contains(&addr(0)));
        assert_eq!(beyond_limit(&mut external, &[addr(0)]), []);
    }
}
