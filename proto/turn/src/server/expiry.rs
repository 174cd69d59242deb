//! What ends by itself: connections that ask for nothing, allocations, connects, and peers that nobody takes.
//!
//! What it is not: permissions and nonces, whose time is checked when they are used.

use std::time::Instant;

use super::{
    AllocationId, ClientId, PeerId, ServerOutput,
    request::TurnRefusal,
    state::{AllocationState, ClientStage, PeerState, Server},
};

impl Server {
    /// Ends what is over by now.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_due.is_none_or(|due| now < due) {
            return;
        }
        self.expire_peers(now);
        self.expire_allocations(now);
        self.expire_clients(now);
        self.next_due = self.deadlines().min();
    }

    fn expire_peers(&mut self, now: Instant) {
        let is_over = |state: &PeerState| deadline(state).is_some_and(|until| until <= now);
        let over: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| is_over(&peer.state)).map(|(peer, _)| *peer).collect();
        for peer in over {
            let Some(known) = self.forget_peer(peer) else { continue };
            self.outputs.push_back(ServerOutput::ClosePeer { peer });
            match (known.state, self.allocations.get(&known.allocation).map(|allocation| allocation.client)) {
                (PeerState::Connecting { ticket, .. }, Some(client)) => {
                    self.refuse(client, &ticket, &TurnRefusal::ConnectFailed);
                }
                _ => self.counters.unbound += 1,
            }
        }
    }

    fn expire_allocations(&mut self, now: Instant) {
        let over: Vec<(AllocationId, ClientId)> = self
            .allocations
            .iter()
            .filter(|(_, known)| matches!(known.state, AllocationState::Standing { expires, .. } if expires <= now))
            .map(|(allocation, known)| (*allocation, known.client))
            .collect();
        for (allocation, client) in over {
            self.delete(allocation);
            self.enter_half_open(now, client);
        }
    }

    fn expire_clients(&mut self, now: Instant) {
        let over: Vec<ClientId> = self
            .clients
            .iter()
            .filter(|(_, known)| matches!(known.stage, ClientStage::HalfOpen { until } if until <= now))
            .map(|(client, _)| *client)
            .collect();
        for client in over {
            self.counters.half_open += 1;
            self.close(client);
        }
    }

    fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let peers = self.peers.values().filter_map(|peer| deadline(&peer.state));
        let allocations = self.allocations.values().filter_map(|known| match known.state {
            AllocationState::Standing { expires, .. } => Some(expires),
            AllocationState::Opening { .. } => None,
        });
        let clients = self.clients.values().filter_map(|known| match known.stage {
            ClientStage::HalfOpen { until } => Some(until),
            ClientStage::Control(_) | ClientStage::Data(_) => None,
        });
        peers.chain(allocations).chain(clients)
    }
}

fn deadline(state: &PeerState) -> Option<Instant> {
    match state {
        PeerState::Connecting { until, .. } | PeerState::Waiting { until, .. } => Some(*until),
        PeerState::Joined { .. } => None,
    }
}
