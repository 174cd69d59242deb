//! The state machine: what its driver calls, and how a message finds its way.
//!
//! What it is not: what comes of a request; see `allocation` and `connect`.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use stun_types::message::{BINDING, Message, MessageClass, MessageHeader};

use super::{
    AllocationId, Arrival, ClientId, Config, MAX_MESSAGE_LEN, PeerId, ServerCounters, ServerOutput, Users,
    allocation::Allocation,
    answer::Ticket,
    connect::Peer,
    half_open::HalfOpen,
    nonce::Nonces,
    quota::{Holder, Usage},
    request::{self, Refusal, Request},
    users::{At, Proven},
};
use keyferry_net::{random::Random, time::UnixTime};

use crate::{
    binding::{self, Reply},
    peer_policy::PeerPolicy,
};

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
    pub(super) allocations: BTreeMap<AllocationId, Allocation>,
    /// The relayed addresses of all allocations: the only addresses of this machine that are peers.
    pub(super) relayed: BTreeMap<SocketAddr, AllocationId>,
    pub(super) peers: BTreeMap<PeerId, Peer>,
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
    pub(super) stage: Stage,
    /// How often in a row it was told to authenticate.
    challenged: u8,
}

/// What a client's connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Neither of the others; not for longer than this.
    HalfOpen { until: Instant },
    /// The control connection of an allocation, which may still be in the making.
    Control(AllocationId),
    /// Joined with a peer.
    Data(PeerId),
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

    /// Tells the addresses of this machine, when they have changed.
    pub fn set_policy(&mut self, policy: PeerPolicy) {
        self.policy = policy;
    }

    /// A client has connected. Older connections that ask for nothing may give way.
    pub fn connected(&mut self, now: Instant, arrival: Arrival) -> ClientId {
        let client = ClientId(self.next_id());
        let stage = Stage::HalfOpen { until: now + self.config.half_open_timeout };
        self.clients.insert(client, ClientConn { arrival, stage, challenged: 0 });
        self.enter_half_open(now, client);
        client
    }

    /// One whole message has come from a client. Drain [`Server::poll_output`] before the next is read: after
    /// [`ServerOutput::Join`] there are no messages any more.
    pub fn message(&mut self, now: Instant, unix: UnixTime, client: ClientId, bytes: &[u8]) {
        self.expire(now);
        let Some(known) = self.clients.get(&client) else { return };
        if matches!(known.stage, Stage::Data(_)) {
            return;
        }
        let arrival = known.arrival;
        let Some(message) = whole(bytes) else { return self.close_malformed(client) };
        match message.class() {
            // The only one that a client may send here holds its NAT's mapping; all others are for UDP.
            MessageClass::Indication => {}
            MessageClass::Success | MessageClass::Error => self.close_malformed(client),
            MessageClass::Request if message.has_method(BINDING) => match binding::reply(bytes, arrival.remote) {
                Reply::Answer(message) => self.outputs.push_back(ServerOutput::Send { client, message }),
                Reply::Nothing | Reply::NotBinding | Reply::Malformed => self.close_malformed(client),
            },
            MessageClass::Request => self.request(At { now, unix, host: arrival.remote.ip() }, client, &message),
        }
    }

    /// A client's connection has ended, or broke its framing.
    pub fn closed(&mut self, now: Instant, client: ClientId) {
        self.expire(now);
        self.forget_client(client);
    }

    /// Bytes were relayed for somebody on a joined connection, both directions together; or on one that has ended since. Ends it when
    /// somebody has had enough.
    pub fn relayed(&mut self, now: Instant, client: ClientId, holder: &Holder, bytes: u64) {
        self.counters.bytes = self.counters.bytes.saturating_add(bytes);
        let is_used_up = self.usage.charge(now, holder, bytes).is_err();
        if is_used_up && self.clients.get(&client).is_some_and(|known| matches!(known.stage, Stage::Data(_))) {
            self.counters.quota_bytes += 1;
            self.close(client);
        }
    }

    /// The time of [`Server::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<ServerOutput> {
        self.outputs.pop_front()
    }

    /// When [`Server::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_due
    }

    /// What has been counted.
    pub fn counters(&self) -> ServerCounters {
        let (allocations, connections) = self.usage.in_use();
        ServerCounters { allocations: allocations as u64, connections: connections as u64, ..self.counters }
    }

    fn request(&mut self, at: At, client: ClientId, message: &Message<'_>) {
        let ticket = Ticket::of(message);
        let proven = match self.users.prove(message, &self.config.realm, &self.nonces, at) {
            Ok(proven) => proven,
            Err(refusal) => return self.refuse_at(at, client, &ticket, &refusal),
        };
        let Proven { identity, key } = proven;
        let ticket = ticket.signed(key);
        let done = request::read(message).and_then(|request| match request {
            Request::Allocate { family, lifetime } => self.allocate(at, client, identity, &ticket, family, lifetime),
            Request::Refresh { family, lifetime } => self.refresh(at, client, &identity, &ticket, family, lifetime),
            Request::CreatePermission { peers } => self.permit(at, client, &identity, &ticket, &peers),
            Request::Connect { peer } => self.connect(at, client, &identity, &ticket, peer),
            Request::ConnectionBind { connection } => self.bind(client, &identity, &ticket, connection),
        });
        if let Err(refusal) = done {
            self.refuse(client, &ticket, &refusal);
        }
    }

    /// Answers that a request is refused, and how to authenticate where that is the matter.
    fn refuse_at(&mut self, at: At, client: ClientId, ticket: &Ticket, refusal: &Refusal) {
        if !refusal.challenges() {
            return self.refuse(client, ticket, refusal);
        }
        self.counters.count(refusal);
        let nonce = self.nonces.make(at.now, at.host);
        let message = ticket.challenged(refusal, &self.config.realm, &nonce);
        self.outputs.push_back(ServerOutput::Send { client, message });
        let Some(known) = self.clients.get_mut(&client) else { return };
        known.challenged = known.challenged.saturating_add(1);
        if known.challenged >= self.config.limits.challenges {
            self.counters.unproven += 1;
            self.close(client);
        }
    }

    pub(super) fn refuse(&mut self, client: ClientId, ticket: &Ticket, refusal: &Refusal) {
        self.counters.count(refusal);
        self.outputs.push_back(ServerOutput::Send { client, message: ticket.refused(refusal) });
    }

    pub(super) fn succeed(&mut self, client: ClientId, message: Vec<u8>) {
        self.counters.answered += 1;
        if let Some(known) = self.clients.get_mut(&client) {
            known.challenged = 0;
        }
        self.outputs.push_back(ServerOutput::Send { client, message });
    }

    fn close_malformed(&mut self, client: ClientId) {
        self.counters.malformed += 1;
        self.close(client);
    }

    /// Closes a client's connection and all that hangs on it.
    pub(super) fn close(&mut self, client: ClientId) {
        if self.forget_client(client) {
            self.outputs.push_back(ServerOutput::Close { client });
        }
    }

    /// Whether there was such a connection.
    fn forget_client(&mut self, client: ClientId) -> bool {
        let Some(ClientConn { arrival, stage, .. }) = self.clients.remove(&client) else { return false };
        match stage {
            Stage::HalfOpen { .. } => self.half_open.leave(arrival.remote.ip(), client),
            Stage::Control(allocation) => self.delete(allocation),
            // The driver closes it with the client's.
            Stage::Data(peer) => drop(self.forget_peer(peer)),
        }
        true
    }

    pub(super) fn set_stage(&mut self, client: ClientId, stage: Stage) {
        let Some(known) = self.clients.get_mut(&client) else { return };
        if matches!(known.stage, Stage::HalfOpen { .. }) {
            self.half_open.leave(known.arrival.remote.ip(), client);
        }
        known.stage = stage;
    }

    /// Makes a connection one that has to show what it is for. An older one may give way.
    pub(super) fn enter_half_open(&mut self, now: Instant, client: ClientId) {
        let Some(remote) = self.clients.get(&client).map(|known| known.arrival.remote.ip()) else { return };
        if let Some(pushed_out) = self.half_open.make_room(remote) {
            self.counters.pushed_out += 1;
            self.close(pushed_out);
        }
        let until = now + self.config.half_open_timeout;
        if let Some(known) = self.clients.get_mut(&client) {
            known.stage = Stage::HalfOpen { until };
            self.half_open.enter(remote, client);
            self.due(until);
        }
    }

    pub(super) fn due(&mut self, at: Instant) {
        self.next_due = Some(self.next_due.map_or(at, |next| next.min(at)));
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

/// A message that is exactly as long as it says, and no longer than any that a client has to send.
fn whole(bytes: &[u8]) -> Option<Message<'_>> {
    let header = MessageHeader::from_bytes(bytes).ok()?;
    let is_whole = bytes.len() == MessageHeader::LENGTH + usize::from(header.data_length());
    if !is_whole || !bytes.len().is_multiple_of(4) || bytes.len() > MAX_MESSAGE_LEN {
        return None;
    }
    Message::from_bytes(bytes).ok()
}
