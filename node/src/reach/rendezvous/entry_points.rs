//! Where the DHTs can be entered: the bootstrap addresses, when they are dialled, and when again.
//!
//! What it is not: the routing tables. Once those have peers, nobody here is needed.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, PeerId, Swarm,
    multiaddr::Protocol,
    swarm::{ConnectionId, DialError, dial_opts::DialOpts},
};

use super::behaviour::Behaviour;

/// Bootstrap addresses that are remembered.
const MAX_BOOTSTRAP: usize = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(60);

struct EntryPoint {
    addr: Multiaddr,
    state: EntryState,
    pause: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryState {
    /// To be dialled at this moment; the first time in any case, later only if peers are needed.
    Due {
        at: Instant,
        first: bool,
    },
    Dialling(ConnectionId),
    Connected(PeerId),
}

/// All addresses where the DHTs can be entered.
#[derive(Default)]
pub(super) struct EntryPoints(Vec<EntryPoint>);

impl EntryPoints {
    /// Remembers an address and dials it at the next tick. False if there are too many.
    pub(super) fn add(&mut self, mut addr: Multiaddr, now: Instant) -> bool {
        // The peer behind an address has a new rendezvous key after each start.
        if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
            addr.pop();
        }
        let due = EntryState::Due { at: now, first: true };
        if let Some(known) = self.0.iter_mut().find(|entry| entry.addr == addr) {
            if matches!(known.state, EntryState::Due { .. }) {
                known.state = due;
            }
            return true;
        }
        if self.0.len() >= MAX_BOOTSTRAP {
            return false;
        }
        self.0.push(EntryPoint { addr, state: due, pause: FIRST_PAUSE });
        true
    }

    /// Notes that a dial has led to a peer. Returns whether it was one of these.
    pub(super) fn on_connected(&mut self, id: ConnectionId, peer: PeerId) -> bool {
        let Some(entry) = self.dialled_as(id) else { return false };
        entry.state = EntryState::Connected(peer);
        entry.pause = FIRST_PAUSE;
        true
    }

    /// Notes that a dial has failed; forgets the address if it is our own.
    pub(super) fn on_failed(&mut self, id: ConnectionId, error: &DialError) {
        let Some(entry) = self.dialled_as(id) else { return };
        entry.pause_a_while(false);
        let addr = entry.addr.clone();
        if matches!(error, DialError::LocalPeerId { .. }) {
            self.0.retain(|entry| entry.addr != addr);
        }
    }

    /// Notes that the last connection with a peer is gone.
    pub(super) fn on_disconnected(&mut self, peer: PeerId) {
        for entry in self.0.iter_mut().filter(|entry| entry.state == EntryState::Connected(peer)) {
            entry.pause_a_while(false);
        }
    }

    /// Makes all addresses due at once: the network has changed.
    pub(super) fn hurry(&mut self, now: Instant) {
        for entry in &mut self.0 {
            if let EntryState::Due { first, .. } = entry.state {
                entry.state = EntryState::Due { at: now, first };
                entry.pause = FIRST_PAUSE;
            }
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next_due(&self, peers_needed: bool) -> Option<Instant> {
        self.0.iter().filter_map(|entry| entry.due(peers_needed)).min()
    }

    /// Dials what is due.
    pub(super) fn tick(&mut self, swarm: &mut Swarm<Behaviour>, peers_needed: bool, now: Instant) {
        for entry in &mut self.0 {
            if entry.due(peers_needed).is_none_or(|at| at > now) {
                continue;
            }
            let dial = DialOpts::unknown_peer_id().address(entry.addr.clone()).build();
            let id = dial.connection_id();
            match swarm.dial(dial) {
                Ok(()) => entry.state = EntryState::Dialling(id),
                Err(error) => {
                    tracing::debug!(%error, "a bootstrap address cannot be dialled");
                    entry.pause_a_while(false);
                }
            }
        }
    }

    fn dialled_as(&mut self, id: ConnectionId) -> Option<&mut EntryPoint> {
        self.0.iter_mut().find(|entry| entry.state == EntryState::Dialling(id))
    }
}

impl EntryPoint {
    fn due(&self, peers_needed: bool) -> Option<Instant> {
        match self.state {
            EntryState::Due { at, first } if first || peers_needed => Some(at),
            _ => None,
        }
    }

    /// Puts the next dial off, longer each time, and by a random part, so that not all nodes dial at one moment.
    fn pause_a_while(&mut self, first: bool) {
        let jitter = self.pause.mul_f64(rand::random_range(0.0..0.25));
        self.state = EntryState::Due { at: Instant::now() + self.pause + jitter, first };
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }
}
