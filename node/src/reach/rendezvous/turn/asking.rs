//! Asking other nodes for leave to use their relays.
//!
//! What it is not: a choice of relays ([`crate::reach::turn_discovery`]).

use std::{collections::HashMap, io, net::SocketAddr, time::Duration};

use keyferry_proto::{
    identity::{NodeKey, NodeSecret},
    relaying::{RelayChannel, RelayCredentials, RelayRefusal, RelayingError, anonymous_request, node_request},
};
use libp2p::{
    PeerId,
    core::upgrade::NegotiationError,
    request_response::{OutboundFailure, OutboundRequestId},
};
use tokio::sync::oneshot;

use super::frames::TurnExchange;
use crate::{
    base::clock,
    reach::rendezvous::{
        call_stream::key_of_peer,
        scope::{AddressScope, multiaddr_of},
    },
};

/// How long asking may take, with the connection that is made for it.
pub(in super::super) const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Relays that may be asked at once.
const MAX_ASKED: usize = 16;
/// Addresses at which a relay is dialled to be asked.
const MAX_DIALLED: usize = 4;

/// As whom to ask a relay.
#[derive(Debug, Clone, Copy)]
pub enum AskAs<'a> {
    /// As nobody in particular.
    Anonymous,
    /// As this node, to be read by that one alone.
    Node {
        /// The node that asks.
        secret: &'a NodeSecret,
        /// The node that the relay is to be.
        relay: NodeKey,
    },
}

/// What a relay has issued.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The credentials. Their addresses are the relay's word.
    pub issued: RelayCredentials,
    /// The other end of the connection over which they came.
    pub via: SocketAddr,
    /// Whether this node has dialled `via`, so that the relay's port is there.
    pub is_dialled: bool,
}

/// Why a relay has issued nothing.
#[derive(Debug, thiserror::Error)]
pub enum AskRelayError {
    /// Its key is no ed25519 key.
    #[error("its key is not one of ours")]
    Key,
    /// It is not connected, and there is no address of it that may be dialled.
    #[error("it has no address that may be dialled")]
    Address,
    /// This node asks too many at the moment.
    #[error("{limit} relays are being asked already, which is the limit", limit = MAX_ASKED)]
    TooMany,
    /// It is not there, or does not answer.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It is there, and does not speak the protocol.
    #[error("it does not relay")]
    NotARelay,
    /// It has refused.
    #[error("{0}")]
    Refused(RelayRefusal),
    /// Its answer is not acceptable. The relay is at fault.
    #[error("its answer is wrong: {0}")]
    Reply(#[from] RelayingError),
    /// The rendezvous has ended.
    #[error("the rendezvous has ended")]
    Ended,
}

/// An answer as it came in.
#[derive(Debug)]
pub(in super::super) struct RelayAnswer {
    pub(in super::super) message: Vec<u8>,
    pub(in super::super) via: SocketAddr,
    pub(in super::super) is_dialled: bool,
}

/// Who waits for an answer.
pub(in super::super) type AskReply = oneshot::Sender<Result<RelayAnswer, AskRelayError>>;

/// How a relay that is to be asked is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum RelayLink {
    /// With no relay between.
    Direct,
    /// Through another relay, and not otherwise.
    Circuit,
    /// Not at all.
    Absent,
}

/// The requests of this node, and who waits for their answers.
#[derive(Default)]
pub(in super::super) struct CredentialRequests {
    waiting: HashMap<OutboundRequestId, AskReply>,
}

impl CredentialRequests {
    /// Sends a request to a relay: over a connection that stands, or over one that is made to one of `addrs`.
    pub(in super::super) fn ask(
        &mut self,
        exchange: &mut TurnExchange,
        (relay, link): (PeerId, RelayLink),
        addrs: &[SocketAddr],
        message: Vec<u8>,
        reply: AskReply,
    ) {
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        let addrs: Vec<_> =
            addrs.iter().filter(|addr| AddressScope::of_ip(addr.ip()).is_some() && addr.port() != 0).collect();
        let refusal = match link {
            _ if self.waiting.len() >= MAX_ASKED => Some(AskRelayError::TooMany),
            // libp2p would not dial it, and wait for the dial.
            RelayLink::Circuit => {
                Some(AskRelayError::Unreachable("it is connected through another relay only".to_owned()))
            }
            RelayLink::Absent if addrs.is_empty() => Some(AskRelayError::Address),
            RelayLink::Absent | RelayLink::Direct => None,
        };
        if let Some(refusal) = refusal {
            let _ = reply.send(Err(refusal));
            return;
        }
        let addrs = addrs.into_iter().take(MAX_DIALLED).map(|addr| multiaddr_of(*addr)).collect();
        let id = exchange.send_request_with_addresses(&relay, Ok(message), addrs);
        self.waiting.insert(id, reply);
    }

    /// Takes the answer of a relay. `via` is the other end of its connection, unless that has closed, and whether this node has
    /// dialled it.
    pub(in super::super) fn on_answer(
        &mut self,
        id: OutboundRequestId,
        message: Vec<u8>,
        via: Option<(SocketAddr, bool)>,
    ) {
        let Some(reply) = self.waiting.remove(&id) else { return };
        let _ = reply.send(match via {
            Some((via, is_dialled)) => Ok(RelayAnswer { message, via, is_dialled }),
            None => Err(AskRelayError::Unreachable("its connection has closed".to_owned())),
        });
    }

    /// Notes that a request has failed.
    pub(in super::super) fn on_failed(&mut self, id: OutboundRequestId, error: OutboundFailure) {
        let Some(reply) = self.waiting.remove(&id) else { return };
        let _ = reply.send(Err(match error {
            OutboundFailure::UnsupportedProtocols => AskRelayError::NotARelay,
            OutboundFailure::Io(error) if is_of_no_such_protocol(&error) => AskRelayError::NotARelay,
            other => AskRelayError::Unreachable(other.to_string()),
        }));
    }
}

/// The request to a relay.
pub(in super::super) fn request(own: &PeerId, relay: &PeerId, who: AskAs<'_>) -> Result<Vec<u8>, AskRelayError> {
    match who {
        AskAs::Anonymous => Ok(anonymous_request()),
        AskAs::Node { secret, relay: node } => {
            let requester = key_of_peer(own).ok_or(AskRelayError::Key)?;
            let relay = key_of_peer(relay).ok_or(AskRelayError::Key)?;
            let seed: [[u8; 32]; 2] = rand::random();
            let seed = std::array::from_fn(|at| seed[at / 32][at % 32]);
            Ok(node_request(secret, &node, RelayChannel { relay, requester }, clock::now(), &seed))
        }
    }
}

/// Whether a stream has failed because the peer does not speak the protocol: with lazy negotiation that comes with the first read.
fn is_of_no_such_protocol(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(NegotiationError::Failed))
}
