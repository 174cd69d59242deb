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
    state::Server,
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
        self.make_room(arrival.remote);
        let until = self.clients.insert(now, client, arrival);
        self.due(until);
        client
    }

    /// Takes one whole message of a client. Drain [`Server::poll_output`] before the next is read: after
    /// [`ServerOutput::Join`] there are no messages any more.
    pub fn message(&mut self, now: Instant, unix: UnixTime, client: ClientId, bytes: &[u8]) {
        self.expire(now);
        let Some(known) = self.clients.get(client) else { return };
        let arrival = known.arrival;
        if self.clients.is_joined(client) {
            return;
        }
        let Some(message) = whole(bytes) else { return self.close_malformed(client) };
        match message.class() {
            // The only one that a client may send here holds its NAT's mapping; all others are for UDP.
            MessageClass::Indication => {}
            MessageClass::Success | MessageClass::Error => self.close_malformed(client),
            MessageClass::Request if message.has_method(BINDING) => match binding::reply(bytes, arrival.remote) {
                BindingReply::Answer(message) => self.outputs.push(ServerOutput::Send { client, message }),
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
        self.outputs.counters.bytes = self.outputs.counters.bytes.saturating_add(bytes);
        let is_used_up = self.usage.charge(now, holder, bytes).is_err();
        if is_used_up && self.clients.is_joined(client) {
            self.outputs.counters.quota_bytes += 1;
            self.close(client);
        }
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
    }

    /// What to do next; `None` until the next call.
    pub fn poll_output(&mut self) -> Option<ServerOutput> {
        self.outputs.pop()
    }

    /// When to call [`Server::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_due
    }

    /// What has been counted.
    pub fn counters(&self) -> ServerCounters {
        let (allocations, connections) = self.usage.in_use();
        ServerCounters { allocations: allocations as u64, connections: connections as u64, ..self.outputs.counters }
    }

    fn request(&mut self, at: At, client: ClientId, message: &Message<'_>) {
        let ticket = Ticket::of(message);
        let proven = match self.authenticator.prove(message, at) {
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
        self.outputs.counters.count(refusal);
        let message = ticket.challenged(refusal, self.authenticator.realm(), &self.authenticator.nonce(at));
        self.outputs.push(ServerOutput::Send { client, message });
        if self.clients.challenge(client) >= self.config.limits.challenges {
            self.outputs.counters.unproven += 1;
            self.close(client);
        }
    }

    fn close_malformed(&mut self, client: ClientId) {
        self.outputs.counters.malformed += 1;
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
