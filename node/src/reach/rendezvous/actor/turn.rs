//! What the actor does about TURN relays: asking them, answering for this node's own, and announcing it.
//!
//! What it is not: the messages and their limits; see [`crate::reach::rendezvous::turn`].

use std::{collections::HashMap, io, net::SocketAddr};

use keyferry_proto::frame::FrameError;
use libp2p::{
    PeerId,
    core::upgrade::NegotiationError,
    kad,
    request_response::{Event, InboundFailure, Message, OutboundFailure},
    swarm::ConnectionId,
};

use super::Actor;
use crate::{
    base::clock,
    reach::rendezvous::{
        scope::{Scope, multiaddr_of, socket_addr_of},
        turn::{self, AskRelayError, AskReply, Decided, MAX_ASKED, MAX_DIALLED, RelayAnswer},
    },
};

impl Actor {
    /// Sends a request to a relay: over a connection that stands, or over one that is made to one of `addrs`.
    pub(super) fn ask_relay(&mut self, relay: PeerId, addrs: &[SocketAddr], message: Vec<u8>, reply: AskReply) {
        self.turn.asked.retain(|_, waiting| !waiting.is_closed());
        let addrs: Vec<_> = addrs.iter().filter(|addr| Scope::of_ip(addr.ip()).is_some() && addr.port() != 0).collect();
        let is_connected = self.connections.contains_key(&relay);
        let refusal = if self.turn.asked.len() >= MAX_ASKED {
            Some(AskRelayError::TooMany)
        } else if !is_connected && self.swarm.is_connected(&relay) {
            // libp2p would not dial it, and wait for the dial.
            Some(AskRelayError::Unreachable("it is connected through another relay only".to_owned()))
        } else if !is_connected && addrs.is_empty() {
            Some(AskRelayError::Address)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let _ = reply.send(Err(refusal));
            return;
        }
        let addrs = addrs.into_iter().take(MAX_DIALLED).map(|addr| multiaddr_of(*addr)).collect();
        let turn = &mut self.swarm.behaviour_mut().turn.inner;
        let id = turn.send_request_with_addresses(&relay, Ok(message), addrs);
        self.turn.asked.insert(id, reply);
    }

    pub(super) fn on_turn(&mut self, event: Event<Result<Vec<u8>, FrameError>, Vec<u8>>) {
        match event {
            Event::Message { peer, connection_id, message: Message::Request { request, channel, .. } } => {
                let Some(remote) = self.remote_of(peer, connection_id) else { return };
                let own = *self.swarm.local_peer_id();
                if let Err(counter) = self.turn.on_request(request, (own, peer, remote.ip()), channel) {
                    self.count(counter);
                }
            }
            Event::Message { peer, connection_id, message: Message::Response { request_id, response } } => {
                let Some(reply) = self.turn.asked.remove(&request_id) else { return };
                let answer = match self.remote_of(peer, connection_id) {
                    Some(via) => {
                        let is_dialled = self.dialled.contains(&connection_id);
                        Ok(RelayAnswer { message: response, via, is_dialled })
                    }
                    None => Err(AskRelayError::Unreachable("its connection has closed".to_owned())),
                };
                let _ = reply.send(answer);
            }
            Event::OutboundFailure { request_id, error, .. } => {
                let Some(reply) = self.turn.asked.remove(&request_id) else { return };
                let _ = reply.send(Err(match error {
                    OutboundFailure::UnsupportedProtocols => AskRelayError::NotARelay,
                    OutboundFailure::Io(error) if is_of_no_such_protocol(&error) => AskRelayError::NotARelay,
                    other => AskRelayError::Unreachable(other.to_string()),
                }));
            }
            Event::InboundFailure { error, .. } => match error {
                // It was refused, and has been counted.
                InboundFailure::ResponseOmission => {}
                error => {
                    tracing::debug!(%error, "a request for relaying was not answered");
                    self.count(|counters| &counters.turn_request_failed);
                }
            },
            Event::ResponseSent { .. } => {}
        }
    }

    /// Announces this node's relay under the keys of now while it serves the wide-area DHT, and no longer under others.
    pub(super) fn announce_relay(&mut self) {
        let Some(service) = &self.turn.service else { return };
        let is_server = self.swarm.behaviour_mut().wan.inner.mode() == kad::Mode::Server;
        let keys = if is_server { service.record_keys(clock::now()) } else { Vec::new() };
        self.announcer.set_relays(self.swarm.behaviour_mut(), keys);
    }

    /// Answers a request that has been decided on.
    pub(super) fn on_decided(&mut self, Decided { channel, decision }: Decided) {
        let (message, counter) = turn::answer(decision, || self.reached_at());
        self.count(counter);
        // Without an answer the stream is closed.
        if let Some(message) = message
            && self.swarm.behaviour_mut().turn.inner.send_response(channel, message).is_err()
        {
            self.count(|counters| &counters.turn_requester_gone);
        }
    }

    /// The addresses at which others have reached this node, or its operator says that they can.
    fn reached_at(&self) -> Vec<SocketAddr> {
        let mut addrs: Vec<SocketAddr> = Vec::new();
        let stated = self.swarm.external_addresses().filter(|addr| Scope::of(addr) == Some(Scope::Wan));
        for addr in stated.filter_map(socket_addr_of) {
            let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        addrs
    }

    /// The other end of a connection that is no circuit.
    fn remote_of(&self, peer: PeerId, id: ConnectionId) -> Option<SocketAddr> {
        self.connections.get(&peer).and_then(|own: &HashMap<_, _>| own.get(&id)).and_then(socket_addr_of)
    }
}

/// Whether a stream has failed because the peer does not speak the protocol: with lazy negotiation that comes with the first read.
fn is_of_no_such_protocol(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(NegotiationError::Failed))
}
