//! Addresses of the wide area that peers state, on hosts that they are not connected from: a server with IPv4 and IPv6 is connected
//! over one of them. Each is dialled once in a while; if the peer is there, the address is proven, and gets into the routing table.
//!
//! Anyone can name the address of somebody else, so few are dialled: one of each peer, and all in all [`PROOF_RATE`].
//!
//! What it is not: a connection that is used. It closes as soon as it stands.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::{
    PeerId, Swarm,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{
    behaviour::Behaviour,
    connections::DirectConnection,
    scope::{AddressScope, multiaddr_of, socket_addr_of},
};
use crate::base::rate_limit::{Bucket, Rate};

/// How often an address is dialled to prove it.
const PROOF_RATE: Rate = Rate { burst: 8, interval: Duration::from_secs(60) };
/// Addresses that wait to be proven.
const MAX_WAITING: usize = 128;
/// Peers whose addresses were tried, and are not tried again until so many others were.
const MAX_TRIED: usize = 512;
/// How often to look whether an address may be dialled.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The addresses to prove.
#[derive(Debug)]
pub(super) struct AddressProofs {
    waiting: HashMap<PeerId, SocketAddr>,
    tried: HashSet<(PeerId, SocketAddr)>,
    dialling: HashSet<ConnectionId>,
    rate: Bucket,
    look_at: Instant,
}

impl AddressProofs {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            waiting: HashMap::new(),
            tried: HashSet::new(),
            dialling: HashSet::new(),
            rate: Bucket::default(),
            look_at: now,
        }
    }

    /// Notes which addresses a peer with these connections states and nothing bears out.
    pub(super) fn stated(&mut self, peer: PeerId, connections: &[&DirectConnection], unproven: &[SocketAddr]) {
        self.waiting.remove(&peer);
        let is_known_family = |addr: &SocketAddr| {
            let remotes = connections.iter().map(|connection| &connection.remote);
            let wan = remotes.filter(|remote| AddressScope::of(remote) == Some(AddressScope::Wan));
            wan.filter_map(socket_addr_of).any(|remote| remote.is_ipv4() == addr.is_ipv4())
        };
        let wanted = unproven.iter().find(|addr| !is_known_family(addr));
        if let Some(addr) = wanted.filter(|addr| !self.tried.contains(&(peer, **addr)))
            && self.waiting.len() < MAX_WAITING
        {
            self.waiting.insert(peer, *addr);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.look_at)
    }

    /// Dials what may be dialled now.
    pub(super) fn tick(&mut self, swarm: &mut Swarm<Behaviour>, now: Instant) {
        for (peer, addr) in self.due(now) {
            let dial = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![multiaddr_of(addr)]);
            let dial = dial.build();
            self.dialling.insert(dial.connection_id());
            // If it cannot even begin, the swarm says that it has failed.
            let _ = swarm.dial(dial);
        }
    }

    /// Notes that a dial has led to its peer; true if it was to prove an address.
    pub(super) fn on_connected(&mut self, id: ConnectionId) -> bool {
        self.dialling.remove(&id)
    }

    /// Notes that a dial has failed; true if it was to prove an address.
    pub(super) fn on_failed(&mut self, id: ConnectionId) -> bool {
        self.dialling.remove(&id)
    }

    fn due(&mut self, now: Instant) -> Vec<(PeerId, SocketAddr)> {
        if self.look_at > now {
            return Vec::new();
        }
        self.look_at = now + LOOK_EVERY;
        let mut due = Vec::new();
        while let Some((peer, addr)) = self.waiting.iter().next().map(|(peer, addr)| (*peer, *addr))
            && self.rate.take(PROOF_RATE, now)
        {
            self.waiting.remove(&peer);
            if self.tried.len() >= MAX_TRIED {
                self.tried.clear();
            }
            self.tried.insert((peer, addr));
            due.push((peer, addr));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_is_tried_once_and_few_in_a_minute_whatever_peers_make_up() {
        let start = Instant::now();
        let mut proofs = AddressProofs::new(start);
        let honest = PeerId::random();
        for number in 0..1000_u16 {
            proofs.stated(PeerId::random(), &[], &[addr("203.0.113.1:1"), addr(&format!("[2001:db8::{number}]:1"))]);
        }
        assert_eq!(proofs.waiting.len(), MAX_WAITING);
        assert_eq!(proofs.due(start).len(), PROOF_RATE.burst as usize);
        assert!(proofs.due(start + LOOK_EVERY).is_empty());
        assert_eq!(proofs.due(start + PROOF_RATE.interval).len(), 1);

        let mut proofs = AddressProofs::new(start);
        for _ in 0..3 {
            proofs.stated(honest, &[], &[addr("203.0.113.1:1")]);
            proofs.due(start + LOOK_EVERY * 9);
        }
        assert!(proofs.waiting.is_empty());
        assert_eq!(proofs.tried.len(), 1);
    }
}
