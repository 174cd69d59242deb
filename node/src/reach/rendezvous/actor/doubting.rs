//! What the task does about connections that may be dead.
//!
//! What it is not: which of them are doubted at the moment ([`crate::reach::rendezvous::doubts`]).

use std::net::SocketAddr;

use libp2p::{
    PeerId,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::Actor;
use crate::reach::rendezvous::{
    connections::DirectConnection,
    doubts::{self, MAX_REDIALLED},
    probe::Probed,
};

impl Actor {
    /// Probes the connections that this node has dialled, and dials the peers again whom it needs most: those that keep
    /// reservations.
    pub(super) fn doubt_connections(&mut self) {
        let own: Vec<_> = self.reachability.listening_addrs().iter().map(SocketAddr::ip).collect();
        // Those whose address is gone are closed anyway.
        let stands = |known: &DirectConnection| known.local.is_none_or(|local| own.contains(&local.ip()));
        let standing = self.connections.dialled().filter(|(.., known)| stands(known));
        let mut doubted: Vec<_> =
            standing.map(|(peer, id, known)| (peer, id, known.remote.clone(), known.round_trip)).collect();
        doubted.sort_by_key(|(peer, ..)| !self.reservations.has(peer));
        doubted.retain(|(_, id, ..)| self.doubts.begin(*id));
        tracing::debug!(connections = doubted.len(), "connections are doubted");
        if let Some(line) = &mut self.hidden_line {
            line.doubt();
        }
        // Connections leave from elsewhere, perhaps.
        self.status.changed();
        for (index, (peer, id, remote, round_trip)) in doubted.into_iter().enumerate() {
            self.swarm.behaviour_mut().prober.inner.probe(peer, id, doubts::patience(round_trip));
            if index >= MAX_REDIALLED || self.connections.others_of(&peer, id).nth(1).is_some() {
                continue;
            }
            let again = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![remote]).build();
            let again_id = again.connection_id();
            match self.swarm.dial(again) {
                Ok(()) => self.doubts.made_in_stead(id, again_id),
                Err(error) => tracing::debug!(%error, "a peer cannot be dialled again"),
            }
        }
    }

    /// If this is the second connection of a peer, the peer may have lost the first: it must not be called over that one.
    pub(super) fn on_connected_again(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(earlier) = self.doubts.replaced_by(id) {
            self.close_dead(earlier);
        }
        let earlier: Vec<_> = self.connections.others_of(&peer, id).map(|(id, known)| (id, known.round_trip)).collect();
        for (earlier, round_trip) in earlier {
            if self.doubts.begin(earlier) {
                let patience = doubts::patience_with_replaced(round_trip);
                self.swarm.behaviour_mut().prober.inner.probe(peer, earlier, patience);
            }
        }
    }

    pub(super) fn on_probed(&mut self, probed: Probed) {
        if self.doubts.on_probed(probed.connection, probed.is_alive) {
            self.close_dead(probed.connection);
        }
    }

    fn close_dead(&mut self, id: ConnectionId) {
        tracing::debug!(connection = %id, "a connection is dead");
        self.doubts.on_dead(id);
        self.swarm.close_connection(id);
        self.status.count(|counters| &counters.closed_in_doubt);
    }
}
