//! Where this node may be called while it cannot be reached by itself: its reservations on relays, and which peers are
//! asked for more.
//!
//! A relay is asked as soon as this node has connected to it, before identify has said whether it relays at all: that is a
//! round trip after the first connection. One that refuses is left alone for a time.
//!
//! A reservation is given up by forgetting it, never by removing libp2p's listener: a renewal that is under way when its
//! listener goes makes libp2p's relay client panic.
//!
//! Where too few of the connected peers relay, others of the wide-area DHT are dialled, ever more seldom.
//!
//! What it is not: the relay itself ([`super::circuit_relay`]), or whether reservations are needed.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    time::{Duration, Instant},
};

use keyferry_proto::offer::MAX_SIGNALLING;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::transport::ListenerId,
    identify, relay,
    swarm::{
        NetworkBehaviour,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{
    behaviour::Behaviour,
    circuit::RelayCircuit,
    connections::PeerConnections,
    scope::{AddressScope, socket_addr_of},
};

/// Reservations that are kept.
const WANTED: usize = 3;
/// Reservations that are held or asked for at once, whatever becomes of them.
const MAX_HELD: usize = 8;
/// How long a relay may take to answer before another one is asked too.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a relay that has refused is left alone.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// How long a relay that misbehaves is left alone.
const BANNED_PAUSE: Duration = Duration::from_secs(60 * 60);
/// A relay that wants its reservation renewed sooner than this is not one to be kept.
const MIN_RENEWAL: Duration = Duration::from_secs(30);
/// Relays that are remembered to be left alone.
const MAX_PAUSED: usize = 256;
/// Connected peers that are remembered as possible relays.
const MAX_RELAYS: usize = 64;
/// Peers that one round of the search for relays dials.
const MAX_SOUGHT: usize = 3;
/// How long the search for relays rests after its first round, and at most: there may be no relay in the whole network.
const FIRST_SEARCH_PAUSE: Duration = Duration::from_secs(5);
const MAX_SEARCH_PAUSE: Duration = Duration::from_secs(5 * 60);

/// The reservations.
pub(super) struct Reservations {
    own: PeerId,
    is_needed: bool,
    /// Connected peers that may relay, and where they are.
    relays: HashMap<PeerId, RelayCandidate>,
    paused: HashMap<PeerId, Pause>,
    held: Vec<Reservation>,
    /// Gives every node another order of relays, so that no relay gets all reservations.
    order: RandomState,
    /// When the next round of the search for relays may begin, and how long the search rests after it.
    search_at: Instant,
    search_pause: Duration,
}

#[derive(Debug, Clone, Copy)]
struct RelayCandidate {
    addr: SocketAddr,
    /// Whether it says itself that it relays.
    says_so: bool,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    /// Whether it was asked before it had said whether it relays.
    was_guess: bool,
}

struct Reservation {
    circuit: RelayCircuit,
    listener: ListenerId,
    asked: Instant,
    was_guess: bool,
    /// When the relay accepted or renewed it; none before that, and when the connection to the relay is gone.
    accepted: Option<Instant>,
    was_accepted: bool,
}

/// What to do about a relay that has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayVerdict {
    /// Nothing.
    Fine,
    /// Leave it: it makes work without end.
    Leave(PeerId),
}

impl Reservations {
    pub(super) fn new(own: PeerId, now: Instant) -> Self {
        Self {
            own,
            is_needed: false,
            relays: HashMap::new(),
            paused: HashMap::new(),
            held: Vec::new(),
            order: RandomState::new(),
            search_at: now,
            search_pause: FIRST_SEARCH_PAUSE,
        }
    }

    /// Says whether this node needs to be called through relays.
    pub(super) fn set_needed(&mut self, is_needed: bool) {
        self.is_needed = is_needed;
    }

    /// Notes that a peer of the wide area is connected at an address that this node has dialled: it may be a relay.
    pub(super) fn on_connected(&mut self, peer: PeerId, addr: SocketAddr) {
        if self.relays.len() < MAX_RELAYS {
            self.relays.entry(peer).or_insert(RelayCandidate { addr, says_so: false });
        }
    }

    /// Notes what a peer that is connected at `remote` says of itself: whether it relays, and where.
    pub(super) fn on_identified(&mut self, peer: PeerId, info: &identify::Info, remote: Option<SocketAddr>) {
        if !info.protocols.contains(&relay::HOP_PROTOCOL_NAME) {
            self.relays.remove(&peer);
            return;
        }
        // It may have begun to relay since it was asked.
        if self.paused.get(&peer).is_some_and(|pause| pause.was_guess) {
            self.paused.remove(&peer);
        }
        let stated = info.listen_addrs.iter().filter(|addr| AddressScope::of(addr) == Some(AddressScope::Wan));
        // One that has come to this node, or was dialled by name, is where it says to be, if the host is the same.
        let is_there = |addr: &SocketAddr| remote.is_none_or(|remote| remote.ip() == addr.ip());
        if let Some(addr) = stated.filter_map(socket_addr_of).find(is_there) {
            self.on_connected(peer, addr);
        }
        if let Some(relay) = self.relays.get_mut(&peer) {
            relay.says_so = true;
        }
    }

    /// Notes that no connection with a peer is left over which it could be asked.
    pub(super) fn on_disconnected(&mut self, peer: &PeerId) {
        self.relays.remove(peer);
    }

    /// Notes that no connection is left over which a relay could keep a reservation.
    pub(super) fn on_link_lost(&mut self, peer: &PeerId) {
        // libp2p closes its listener in a moment. Until then, nobody is to be told the circuit.
        for reservation in self.held.iter_mut().filter(|held| held.circuit.relay == *peer) {
            reservation.accepted = None;
        }
    }

    /// Notes what libp2p says of a reservation.
    pub(super) fn on_client_event(&mut self, event: &relay::client::Event, now: Instant) -> RelayVerdict {
        let relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal, .. } = event else {
            return RelayVerdict::Fine;
        };
        tracing::debug!(relay = %relay_peer_id, renewal, "a relay keeps a reservation");
        self.on_accepted(relay_peer_id, *renewal, now)
    }

    /// Notes that a relay has accepted or renewed a reservation.
    fn on_accepted(&mut self, relay: &PeerId, is_renewal: bool, now: Instant) -> RelayVerdict {
        if let Some(held) = self.held.iter_mut().find(|held| held.circuit.relay == *relay) {
            let last = held.accepted.replace(now);
            held.was_accepted = true;
            if is_renewal && last.is_some_and(|last| now.duration_since(last) < MIN_RENEWAL) {
                held.accepted = None;
                self.relays.remove(relay);
                self.pause(*relay, now + BANNED_PAUSE, false);
                return RelayVerdict::Leave(*relay);
            }
        }
        self.search_pause = FIRST_SEARCH_PAUSE;
        RelayVerdict::Fine
    }

    /// Notes that a listener has closed, and with it the reservation that it was for.
    pub(super) fn on_listener_closed(&mut self, listener: ListenerId, now: Instant) {
        let Some(at) = self.held.iter().position(|held| held.listener == listener) else { return };
        let lost = self.held.swap_remove(at);
        tracing::debug!(relay = %lost.circuit.relay, "a reservation is gone");
        if !lost.was_accepted {
            self.pause(lost.circuit.relay, now + REFUSED_PAUSE, lost.was_guess);
        }
    }

    /// Whether a peer is a relay that keeps a reservation of this node, or was asked for one.
    pub(super) fn has(&self, relay: &PeerId) -> bool {
        self.held.iter().any(|held| held.circuit.relay == *relay)
    }

    /// The circuits at which this node may be called, in the order in which they were made.
    pub(super) fn circuits(&self) -> Vec<Multiaddr> {
        let mut standing: Vec<_> = self.held.iter().filter(|held| self.is_needed && held.accepted.is_some()).collect();
        standing.sort_by_key(|held| held.asked);
        standing.iter().take(MAX_SIGNALLING).map(|held| held.circuit.addr()).collect()
    }

    /// When [`Self::ask`] or [`Self::look`] has something to do.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let search = self.lacks_relays(now).then_some(self.search_at);
        self.ask_due(now).into_iter().chain(search).min()
    }

    /// Looks for relays among the peers of the wide-area DHT where there are too few to ask.
    pub(super) fn look(&mut self, swarm: &mut Swarm<Behaviour>, connections: &PeerConnections, now: Instant) {
        if self.search_at <= now && self.lacks_relays(now) {
            self.search_at = now + self.search_pause;
            self.search_pause = (self.search_pause * 2).min(MAX_SEARCH_PAUSE);
            search(swarm, connections);
        }
    }

    /// Whether more reservations are wanted than there are peers to ask.
    fn lacks_relays(&self, now: Instant) -> bool {
        self.missing(now) > 0 && self.next_relay(now).is_none()
    }

    /// When [`Self::ask`] has something to do.
    fn ask_due(&self, now: Instant) -> Option<Instant> {
        if !self.is_needed || self.held.len() >= MAX_HELD {
            return None;
        }
        if self.missing(now) > 0 && self.next_relay(now).is_some() {
            return Some(now);
        }
        let answers = self.held.iter().filter(|held| held.accepted.is_none()).map(|held| held.asked + PATIENCE);
        let pauses = self.relays.keys().filter_map(|relay| self.paused.get(relay).map(|pause| pause.until));
        answers.chain(pauses).filter(|due| *due > now).min()
    }

    /// Asks relays until there are enough reservations, in the swarm whose peer they are for.
    pub(super) fn ask(&mut self, swarm: &mut Swarm<impl NetworkBehaviour>, now: Instant) {
        self.paused.retain(|_, pause| pause.until > now);
        for _ in 0..self.missing(now) {
            let Some((relay, RelayCandidate { addr, says_so })) = self.next_relay(now) else { return };
            let circuit = RelayCircuit { relay_addr: addr, relay, peer: self.own };
            match swarm.listen_on(circuit.listen_addr()) {
                Ok(listener) => self.held.push(Reservation {
                    circuit,
                    listener,
                    asked: now,
                    was_guess: !says_so,
                    accepted: None,
                    was_accepted: false,
                }),
                Err(error) => {
                    tracing::debug!(%error, "a relay cannot be asked");
                    self.pause(relay, now + REFUSED_PAUSE, false);
                }
            }
        }
    }

    /// How many more relays to ask now.
    fn missing(&self, now: Instant) -> usize {
        if !self.is_needed {
            return 0;
        }
        let counts = |held: &&Reservation| held.accepted.is_some() || now.duration_since(held.asked) < PATIENCE;
        WANTED.saturating_sub(self.held.iter().filter(counts).count()).min(MAX_HELD - self.held.len())
    }

    /// A relay to ask: on another host than those that are held, if there is one.
    fn next_relay(&self, now: Instant) -> Option<(PeerId, RelayCandidate)> {
        let held: HashSet<_> = self.held.iter().map(|held| held.circuit.relay).collect();
        let hosts: HashSet<_> = self.held.iter().map(|held| held.circuit.relay_addr.ip()).collect();
        let is_free =
            |relay: &PeerId| !held.contains(relay) && self.paused.get(relay).is_none_or(|pause| pause.until <= now);
        let free = self.relays.iter().filter(|(relay, _)| is_free(relay));
        let best = free.min_by_key(|(relay, known)| (hosts.contains(&known.addr.ip()), self.order.hash_one(relay)))?;
        Some((*best.0, *best.1))
    }

    /// Leaves a relay alone for a time, so that it is not asked again at once.
    fn pause(&mut self, relay: PeerId, until: Instant, was_guess: bool) {
        if self.paused.len() >= MAX_PAUSED
            && let Some(first) = self.paused.iter().min_by_key(|(_, pause)| pause.until).map(|(relay, _)| *relay)
        {
            self.paused.remove(&first);
        }
        self.paused.insert(relay, Pause { until, was_guess });
    }
}

/// Dials a few peers of the wide-area DHT that are not connected.
fn search(swarm: &mut Swarm<Behaviour>, connections: &PeerConnections) {
    let mut unconnected = Vec::new();
    for bucket in swarm.behaviour_mut().kad(AddressScope::Wan).kbuckets() {
        let peers = bucket.iter().map(|entry| (*entry.node.key.preimage(), entry.node.value.clone().into_vec()));
        unconnected.extend(peers.filter(|(peer, _)| !connections.contains(peer)));
    }
    for _ in 0..MAX_SOUGHT.min(unconnected.len()) {
        let (peer, addrs) = unconnected.swap_remove(rand::random_range(0..unconnected.len()));
        let dial = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).addresses(addrs);
        let _ = swarm.dial(dial.build());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_left_alone_however_many_others_are() {
        let (mut reservations, now) = (Reservations::new(PeerId::random(), Instant::now()), Instant::now());
        (0..2 * MAX_PAUSED).for_each(|_| reservations.pause(PeerId::random(), now + REFUSED_PAUSE, false));
        let last = PeerId::random();
        reservations.set_needed(true);
        reservations.on_connected(last, SocketAddr::from(([203, 0, 113, 1], 4600)));
        assert_eq!(reservations.ask_due(now), Some(now));

        reservations.pause(last, now + BANNED_PAUSE, false);
        assert_eq!(reservations.ask_due(now), Some(now + BANNED_PAUSE));
        assert_eq!(reservations.paused.len(), MAX_PAUSED);
    }
}
