//! What the server knows: clients, allocations and peers, and how what hangs together ends together.
//!
//! What it is not: what requests ask for, or when they come.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use keyferry_net::random::Random;

use super::{
    AddressFamily, AllocationId, Arrival, ClientId, Config, PeerId, ServerCounters, ServerOutput, Users,
    answer::Ticket,
    half_open::HalfOpen,
    nonce::Nonces,
    quota::{Holder, Thing, Usage},
    request::TurnRefusal,
};
use crate::peer_policy::PeerPolicy;

/// The state machine of a relay. After every call, drain [`Server::poll_output`].
#[derive(Debug)]
pub struct Server {
    pub(super) config: Config,
    pub(super) users: Users,
    pub(super) policy: PeerPolicy,
    pub(super) nonces: Nonces,
    pub(super) random: Random,
    pub(super) clients: BTreeMap<ClientId, ClientConn>,
    pub(super) half_open: HalfOpen,
    pub(super) allocations: BTreeMap<AllocationId, ServerAllocation>,
    /// The relayed addresses of all allocations: the only addresses of this machine that are peers.
    pub(super) relayed: BTreeMap<SocketAddr, AllocationId>,
    pub(super) peers: BTreeMap<PeerId, PeerConnection>,
    /// The peers that wait for their client, by CONNECTION-ID.
    pub(super) waiting: BTreeMap<u32, PeerId>,
    pub(super) usage: Usage,
    pub(super) outputs: VecDeque<ServerOutput>,
    pub(super) counters: ServerCounters,
    /// Something may be due at this time, and nothing before.
    pub(super) next_due: Option<Instant>,
    last_id: u64,
}

/// A connection from a client.
#[derive(Debug)]
pub(super) struct ClientConn {
    pub(super) arrival: Arrival,
    pub(super) stage: ClientStage,
    /// How often in a row the server told it to authenticate.
    pub(super) challenged: u8,
}

/// What a client's connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientStage {
    /// Neither of the others; not for longer than this.
    HalfOpen { until: Instant },
    /// The control connection of an allocation, which may still be in the making.
    Control(AllocationId),
    /// Joined with a peer.
    Data(PeerId),
}

/// An allocation.
#[derive(Debug)]
pub(super) struct ServerAllocation {
    pub(super) client: ClientId,
    pub(super) holder: Holder,
    pub(super) family: AddressFamily,
    pub(super) state: AllocationState,
    /// The peers that may connect, each until its time.
    pub(super) permissions: BTreeMap<IpAddr, Instant>,
    pub(super) peers: BTreeSet<PeerId>,
}

/// How far an allocation is.
#[derive(Debug)]
pub(super) enum AllocationState {
    /// The driver looks for a port; then the client gets its answer.
    Opening { ticket: Ticket, lifetime: Duration },
    /// It stands.
    Standing { relayed: SocketAddr, expires: Instant },
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

impl Server {
    /// A server that nobody uses yet. `seed` must be random: nonces and connection ids come from it.
    pub fn new(config: Config, users: Users, policy: PeerPolicy, seed: [u8; 32], now: Instant) -> Self {
        let nonce_key = blake3::derive_key("keyferry 2026 turn server nonce", &seed);
        Self {
            nonces: Nonces::new(nonce_key, now, config.nonce_lifetime),
            random: Random::new(seed),
            half_open: HalfOpen::new(config.limits.half_open_per_host, config.limits.half_open),
            usage: Usage::new(config.limits.clone(), now),
            config,
            users,
            policy,
            clients: BTreeMap::new(),
            allocations: BTreeMap::new(),
            relayed: BTreeMap::new(),
            peers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            outputs: VecDeque::new(),
            counters: ServerCounters::default(),
            next_due: None,
            last_id: 0,
        }
    }

    pub(super) fn succeed(&mut self, client: ClientId, message: Vec<u8>) {
        self.counters.answered += 1;
        if let Some(known) = self.clients.get_mut(&client) {
            known.challenged = 0;
        }
        self.outputs.push_back(ServerOutput::Send { client, message });
    }

    pub(super) fn refuse(&mut self, client: ClientId, ticket: &Ticket, refusal: &TurnRefusal) {
        self.counters.count(refusal);
        self.outputs.push_back(ServerOutput::Send { client, message: ticket.refused(refusal) });
    }

    pub(super) fn set_stage(&mut self, client: ClientId, stage: ClientStage) {
        let Some(known) = self.clients.get_mut(&client) else { return };
        if matches!(known.stage, ClientStage::HalfOpen { .. }) {
            self.half_open.leave(known.arrival.remote.ip(), client);
        }
        known.stage = stage;
    }

    /// Makes a connection one that has to show what it is for. An older one may have to give way.
    pub(super) fn enter_half_open(&mut self, now: Instant, client: ClientId) {
        let Some(remote) = self.clients.get(&client).map(|known| known.arrival.remote.ip()) else { return };
        if let Some(pushed_out) = self.half_open.make_room(remote) {
            self.counters.pushed_out += 1;
            self.close(pushed_out);
        }
        let until = now + self.config.half_open_timeout;
        if let Some(known) = self.clients.get_mut(&client) {
            known.stage = ClientStage::HalfOpen { until };
            self.half_open.enter(remote, client);
            self.due(until);
        }
    }

    /// Closes a client's connection and all that hangs on it.
    pub(super) fn close(&mut self, client: ClientId) {
        if self.forget_client(client) {
            self.outputs.push_back(ServerOutput::Close { client });
        }
    }

    /// Forgets a client's connection and all that hangs on it. Returns whether there was one.
    pub(super) fn forget_client(&mut self, client: ClientId) -> bool {
        let Some(ClientConn { arrival, stage, .. }) = self.clients.remove(&client) else { return false };
        match stage {
            ClientStage::HalfOpen { .. } => self.half_open.leave(arrival.remote.ip(), client),
            ClientStage::Control(allocation) => self.delete(allocation),
            // The driver closes it with the client's.
            ClientStage::Data(peer) => drop(self.forget_peer(peer)),
        }
        true
    }

    /// Forgets an allocation, and closes what hangs on it but for the control connection (RFC 6062 §5).
    pub(super) fn delete(&mut self, allocation: AllocationId) {
        let peers = self.allocations.get(&allocation).map(|known| known.peers.clone()).unwrap_or_default();
        for peer in peers {
            self.close_peer(peer);
        }
        let Some(known) = self.allocations.remove(&allocation) else { return };
        if let AllocationState::Standing { relayed, .. } = known.state {
            self.relayed.remove(&relayed);
        }
        self.usage.give_back(&known.holder, Thing::Allocation);
        self.outputs.push_back(ServerOutput::StopListening { allocation });
    }

    /// Closes a peer's connection, whatever its state, and its client's if they are joined.
    pub(super) fn close_peer(&mut self, peer: PeerId) {
        match self.forget_peer(peer).map(|known| known.state) {
            Some(PeerState::Joined { client }) => {
                self.clients.remove(&client);
                self.outputs.push_back(ServerOutput::Close { client });
            }
            Some(PeerState::Connecting { .. } | PeerState::Waiting { .. }) => {
                self.outputs.push_back(ServerOutput::ClosePeer { peer });
            }
            None => {}
        }
    }

    pub(super) fn forget_peer(&mut self, peer: PeerId) -> Option<PeerConnection> {
        let known = self.peers.remove(&peer)?;
        if let PeerState::Waiting { connection, .. } = known.state {
            self.waiting.remove(&connection);
        }
        if let Some(allocation) = self.allocations.get_mut(&known.allocation) {
            allocation.peers.remove(&peer);
            self.usage.give_back(&allocation.holder, Thing::Connection);
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

impl ServerAllocation {
    pub(super) fn has_permission(&self, now: Instant, ip: IpAddr) -> bool {
        self.permissions.get(&ip.to_canonical()).is_some_and(|until| now < *until)
    }
}
