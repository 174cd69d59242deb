//! What ends by itself: connections that ask for nothing, allocations, connects, and peers that nobody takes.
//!
//! What it is not: permissions and nonces, whose time is checked when they are used.

use std::time::Instant;

use super::{ServerOutput, peers::PeerState, request::TurnRefusal, state::Server};

impl Server {
    /// Ends what is over by now.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_due.is_none_or(|due| now < due) {
            return;
        }
        self.expire_peers(now);
        for (allocation, client) in self.allocations.expired(now) {
            self.delete(allocation);
            self.reopen(now, client);
        }
        for client in self.clients.expired(now) {
            self.outputs.counters.half_open += 1;
            self.close(client);
        }
        let due = [self.peers.next_due(), self.allocations.next_due(), self.clients.next_due()];
        self.next_due = due.into_iter().flatten().min();
    }

    fn expire_peers(&mut self, now: Instant) {
        for peer in self.peers.expired(now) {
            let Some(known) = self.forget_peer(peer) else { continue };
            self.outputs.push(ServerOutput::ClosePeer { peer });
            match (known.state, self.allocations.client(known.allocation)) {
                (PeerState::Connecting { ticket, .. }, Some(client)) => {
                    self.refuse(client, &ticket, &TurnRefusal::ConnectFailed);
                }
                _ => self.outputs.counters.unbound += 1,
            }
        }
    }
}
