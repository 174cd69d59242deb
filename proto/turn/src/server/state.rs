//! The server as a whole: its parts, and how what hangs together ends together.
//!
//! What it is not: what requests ask for, or when they come.

use std::{collections::VecDeque, net::SocketAddr, time::Instant};

use keyferry_net::random::Random;

use super::{
    AllocationId, ClientId, Config, PeerId, ServerCounters, ServerOutput, Users,
    allocations::Allocations,
    answer::Ticket,
    clients::{ClientStage, Clients},
    nonce::Nonces,
    peers::{PeerConnection, PeerState, Peers},
    quota::{Thing, Usage},
    request::TurnRefusal,
    users::Authenticator,
};
use crate::peer_policy::PeerPolicy;

/// The state machine of a relay. After every call, drain [`Server::poll_output`].
#[derive(Debug)]
pub struct Server {
    pub(super) config: Config,
    pub(super) authenticator: Authenticator,
    pub(super) policy: PeerPolicy,
    pub(super) random: Random,
    pub(super) clients: Clients,
    pub(super) allocations: Allocations,
    pub(super) peers: Peers,
    pub(super) usage: Usage,
    pub(super) outputs: Outputs,
    /// Something may be due at this time, and nothing before.
    pub(super) next_due: Option<Instant>,
    last_id: u64,
}

/// What the server wants done, in order, and what it counts on the way.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    queue: VecDeque<ServerOutput>,
    pub(super) counters: ServerCounters,
}

impl Server {
    /// A server that nobody uses yet. `seed` must be random: nonces and connection ids come from it.
    pub fn new(config: Config, users: Users, policy: PeerPolicy, seed: [u8; 32], now: Instant) -> Self {
        let nonce_key = blake3::derive_key("keyferry 2026 turn server nonce", &seed);
        let nonces = Nonces::new(nonce_key, now, config.nonce_lifetime);
        Self {
            authenticator: Authenticator::new(users, nonces, config.realm.clone()),
            random: Random::new(seed),
            clients: Clients::new(&config),
            usage: Usage::new(config.limits.clone(), now),
            config,
            policy,
            allocations: Allocations::default(),
            peers: Peers::default(),
            outputs: Outputs::default(),
            next_due: None,
            last_id: 0,
        }
    }

    pub(super) fn succeed(&mut self, client: ClientId, message: Vec<u8>) {
        self.outputs.counters.answered += 1;
        self.clients.prove(client);
        self.outputs.push(ServerOutput::Send { client, message });
    }

    pub(super) fn refuse(&mut self, client: ClientId, ticket: &Ticket, refusal: &TurnRefusal) {
        self.outputs.counters.count(refusal);
        self.outputs.push(ServerOutput::Send { client, message: ticket.refused(refusal) });
    }

    /// Makes room for one more connection that has shown no purpose yet: an older one may have to give way.
    pub(super) fn make_room(&mut self, remote: SocketAddr) {
        if let Some(pushed_out) = self.clients.make_room(remote) {
            self.outputs.counters.pushed_out += 1;
            self.close(pushed_out);
        }
    }

    /// Makes a control connection whose allocation has gone one that has to show its purpose anew.
    pub(super) fn reopen(&mut self, now: Instant, client: ClientId) {
        let Some(remote) = self.clients.mapped(client) else { return };
        self.make_room(remote);
        if let Some(until) = self.clients.reopen(now, client) {
            self.due(until);
        }
    }

    /// Closes a client's connection and all that hangs on it.
    pub(super) fn close(&mut self, client: ClientId) {
        if self.forget_client(client) {
            self.outputs.push(ServerOutput::Close { client });
        }
    }

    /// Forgets a client's connection and all that hangs on it. Returns whether there was one.
    pub(super) fn forget_client(&mut self, client: ClientId) -> bool {
        let Some(known) = self.clients.remove(client) else { return false };
        match known.stage {
            ClientStage::HalfOpen { .. } => {}
            ClientStage::Control(allocation) => self.delete(allocation),
            // The driver closes it with the client's.
            ClientStage::Data(peer) => drop(self.forget_peer(peer)),
        }
        true
    }

    /// Forgets an allocation, and closes what hangs on it but for the control connection (RFC 6062 §5).
    pub(super) fn delete(&mut self, allocation: AllocationId) {
        for peer in self.allocations.peers(allocation).collect::<Vec<_>>() {
            self.close_peer(peer);
        }
        let Some(known) = self.allocations.remove(allocation) else { return };
        self.usage.give_back(&known.holder, Thing::Allocation);
        self.outputs.push(ServerOutput::StopListening { allocation });
    }

    /// Closes a peer's connection, whatever its state, and its client's if they are joined.
    pub(super) fn close_peer(&mut self, peer: PeerId) {
        match self.forget_peer(peer).map(|known| known.state) {
            Some(PeerState::Joined { client }) => {
                self.clients.remove(client);
                self.outputs.push(ServerOutput::Close { client });
            }
            Some(PeerState::Connecting { .. } | PeerState::Waiting { .. }) => {
                self.outputs.push(ServerOutput::ClosePeer { peer });
            }
            None => {}
        }
    }

    pub(super) fn forget_peer(&mut self, peer: PeerId) -> Option<PeerConnection> {
        let known = self.peers.remove(peer)?;
        self.allocations.remove_peer(known.allocation, peer);
        if let Some(holder) = self.allocations.holder(known.allocation) {
            self.usage.give_back(holder, Thing::Connection);
        }
        Some(known)
    }

    pub(super) fn due(&mut self, at: Instant) {
        self.next_due = Some(self.next_due.map_or(at, |next| next.min(at)));
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl Outputs {
    pub(super) fn push(&mut self, output: ServerOutput) {
        self.queue.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<ServerOutput> {
        self.queue.pop_front()
    }
}
