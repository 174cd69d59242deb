//! What the driver calls, and how a message finds its way.
//!
//! What it is not: what comes of a request; see `allocation` and `connect`.

use std::time::Instant;

use keyferry_net::time::UnixTime;
use stun_types::message::{BINDING, Message, MessageClass, MessageHeader};

use super::{
    Arrival, ClientId, MAX_MESSAGE_LEN, ServerCounters, ServerOutput,
    answer::Ticket,
    quota::Holder,
    request::{self, TurnRefusal, TurnRequest},
    state::{ClientConn, ClientStage, Server},
    users::{At, ProvenUser},
};
use crate::{
    binding::{self, BindingReply},
    peer_policy::PeerPolicy,
};

impl Server {
    /// Takes new rules for peers, when the addresses of this machine have changed.
    pub fn set_policy(&mut self, policy: PeerPolicy) {
        self.policy = policy;
    }

    /// Tells that a client has connected. Older connections that ask for nothing may have to give way.
    pub fn connected(&mut self, now: Instant, arrival: Arrival) -> ClientId {
        let client = ClientId(self.next_id());
        let stage = ClientStage::HalfOpen { until: now + self.config.half_open_timeout };
        self.clients.insert(client, ClientConn { arrival, stage, challenged: 0 });
        self.enter_half_open(now, client);
        client
    }

    /// Takes one whole message of a client. Drain [`Server::poll_output`] before the next is read: after
    /// [`ServerOutput::Join`] there are no messages any more.
    pub fn message(&mut self, now: Instant, unix: UnixTime, client: ClientId, bytes: &[u8]) {
        self.expire(now);
        let Some(known) = self.clients.get(&client) else { return };
        if matches!(known.stage, ClientStage::Data(_)) {
            return;
        }
        let arrival = known.arrival;
        let Some(message) = whole(bytes) else { return self.close_malformed(client) };
        match message.class() {
            // The only one that a client may send here holds its NAT's mapping; all others are for UDP.
            MessageClass::Indication => {}
            MessageClass::Success | MessageClass::Error => self.close_malformed(client),
            MessageClass::Request if message.has_method(BINDING) => match binding::reply(bytes, arrival.remote) {
                BindingReply::Answer(message) => self.outputs.push_back(ServerOutput::Send { client, message }),
                BindingReply::Nothing | BindingReply::NotBinding | BindingReply::Malformed => {
                    self.close_malformed(client)
                }
            },
            MessageClass::Request => self.request(At { now, unix, host: arrival.remote.ip() }, client, &message),
        }
    }

    /// Tells that a client's connection has ended, or that its bytes are no STUN messages.
    pub fn closed(&mut self, now: Instant, client: ClientId) {
        self.expire(now);
        self.forget_client(client);
    }

    /// Tells how many bytes were relayed for somebody on a joined connection, in both directions together, even if it has ended since.
    /// Ends the connection if a quota is used up.
    pub fn relayed(&mut self, now: Instant, client: ClientId, holder: &Holder, bytes: u64) {
        self.counters.bytes = self.counters.bytes.saturating_add(bytes);
        let is_used_up = self.usage.charge(now, holder, bytes).is_err();
        if is_used_up && self.clients.get(&client).is_some_and(|known| matches!(known.stage, ClientStage::Data(_))) {
            self.counters.quota_bytes += 1;
            self.close(client);
        }
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
    }

    /// What to do next; `None` until the next call.
    pub fn poll_output(&mut self) -> Option<ServerOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`Server::handle_timeout`].
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
        let ProvenUser { identity, key } = proven;
        let ticket = ticket.signed(key);
        let done = request::read(message).and_then(|request| match request {
            TurnRequest::Allocate { family, lifetime } => {
                self.allocate(at, client, identity, &ticket, family, lifetime)
            }
            TurnRequest::Refresh { family, lifetime } => self.refresh(at, client, &identity, &ticket, family, lifetime),
            TurnRequest::CreatePermission { peers } => self.permit(at, client, &identity, &ticket, &peers),
            TurnRequest::Connect { peer } => self.connect(at, client, &identity, &ticket, peer),
            TurnRequest::ConnectionBind { connection } => self.bind(client, &identity, &ticket, connection),
        });
        if let Err(refusal) = done {
            self.refuse(client, &ticket, &refusal);
        }
    }

    /// Answers that a request is refused, and how to authenticate where that is the matter.
    fn refuse_at(&mut self, at: At, client: ClientId, ticket: &Ticket, refusal: &TurnRefusal) {
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

    fn close_malformed(&mut self, client: ClientId) {
        self.counters.malformed += 1;
        self.close(client);
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
