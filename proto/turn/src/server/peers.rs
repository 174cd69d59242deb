//! Connections with peers: how far each is, and which of them wait for their client.
//!
//! What it is not: how they come about; see [`super::connect`].

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use keyferry_net::random::Random;

use super::{AllocationId, ClientId, PeerId, answer::Ticket};

/// All connections with peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: BTreeMap<PeerId, PeerConnection>,
    /// Those that wait for their client, by CONNECTION-ID.
    waiting: BTreeMap<u32, PeerId>,
}

/// A connection with a peer.
#[derive(Debug)]
pub(super) struct PeerConnection {
    pub(super) allocation: AllocationId,
    pub(super) addr: SocketAddr,
    pub(super) state: PeerState,
}

/// How far a connection with a peer is.
#[derive(Debug)]
pub(super) enum PeerState {
    /// The driver makes it; then the client gets its answer.
    Connecting { ticket: Ticket, until: Instant },
    /// It waits for the client's ConnectionBind.
    Waiting { connection: u32, until: Instant },
    /// It is joined.
    Joined { client: ClientId },
}

impl Peers {
    pub(super) fn get(&self, peer: PeerId) -> Option<&PeerConnection> {
        self.known.get(&peer)
    }

    /// The one that waits under this CONNECTION-ID.
    pub(super) fn waiting(&self, connection: u32) -> Option<PeerId> {
        self.waiting.get(&connection).copied()
    }

    /// Takes in one that is being connected to.
    pub(super) fn connect(
        &mut self,
        peer: PeerId,
        allocation: AllocationId,
        addr: SocketAddr,
        ticket: Ticket,
        until: Instant,
    ) {
        let state = PeerState::Connecting { ticket, until };
        self.known.insert(peer, PeerConnection { allocation, addr, state });
    }

    /// Takes in one that has connected by itself, and makes it wait; its CONNECTION-ID.
    pub(super) fn accept(
        &mut self,
        peer: PeerId,
        allocation: AllocationId,
        addr: SocketAddr,
        until: Instant,
        random: &mut Random,
    ) -> u32 {
        let connection = self.new_connection_id(random);
        let state = PeerState::Waiting { connection, until };
        self.known.insert(peer, PeerConnection { allocation, addr, state });
        self.waiting.insert(connection, peer);
        connection
    }

    /// Makes one wait for its client; its CONNECTION-ID.
    pub(super) fn wait(&mut self, peer: PeerId, until: Instant, random: &mut Random) -> u32 {
        let connection = self.new_connection_id(random);
        if let Some(known) = self.known.get_mut(&peer) {
            known.state = PeerState::Waiting { connection, until };
            self.waiting.insert(connection, peer);
        }
        connection
    }

    /// Joins one that waits with a connection of its client.
    pub(super) fn join(&mut self, connection: u32, client: ClientId) {
        if let Some(peer) = self.waiting.remove(&connection)
            && let Some(known) = self.known.get_mut(&peer)
        {
            known.state = PeerState::Joined { client };
        }
    }

    pub(super) fn remove(&mut self, peer: PeerId) -> Option<PeerConnection> {
        let known = self.known.remove(&peer)?;
        if let PeerState::Waiting { connection, .. } = known.state {
            self.waiting.remove(&connection);
        }
        Some(known)
    }

    /// Those that have taken too long.
    pub(super) fn expired(&self, now: Instant) -> Vec<PeerId> {
        let over = self.known.iter().filter(|(_, peer)| peer.state.until().is_some_and(|until| until <= now));
        over.map(|(peer, _)| *peer).collect()
    }

    /// When the first of them has taken too long.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.known.values().filter_map(|peer| peer.state.until()).min()
    }

    /// An id that no other has, and that nobody can guess.
    fn new_connection_id(&self, random: &mut Random) -> u32 {
        loop {
            let id = (random.next_u64() >> 32) as u32;
            if !self.waiting.contains_key(&id) {
                return id;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.known.len(), self.waiting.len())
    }
}

impl PeerState {
    fn until(&self) -> Option<Instant> {
        match self {
            Self::Connecting { until, .. } | Self::Waiting { until, .. } => Some(*until),
            Self::Joined { .. } => None,
        }
    }
}
