//! What a server sends: answers, and the indication that a peer has connected (RFC 6062 §4.4, §6.2.3).
//!
//! ```text
//! Allocate success             XOR-RELAYED-ADDRESS | XOR-MAPPED-ADDRESS | LIFETIME
//! Refresh success              LIFETIME
//! Connect success              CONNECTION-ID
//! error                        ERROR-CODE | a challenge with 401 and 438 | ALTERNATE-SERVER with 300
//! ConnectionAttempt 0x001c     CONNECTION-ID | XOR-PEER-ADDRESS      (an indication: nothing proves it but its connection)
//! ```
//! What it is not: a decision on what an answer means.

use std::{net::SocketAddr, time::Duration};

use keyferry_net::ip::Class;
use stun_types::{
    attribute::{
        AlternateServer, Attribute, AttributeFromRaw, AttributeStaticType, AttributeType, ErrorCode, XorMappedAddress,
    },
    message::{Message, MessageClass, MessageHeader, Method, TransactionId},
};
use turn_types::{
    attribute::{ConnectionId, Lifetime, XorPeerAddress, XorRelayedAddress},
    message::CONNECTION_ATTEMPT,
};

use super::{Allocated, RequestError};
use crate::long_term::{Authorization, Challenge};

/// The last of the attribute types that the receiver has to understand.
const LAST_REQUIRED: u16 = 0x7fff;
/// Those that servers are known to send: STUN's and TURN's of RFC 8489 §18.3, RFC 8656 §18.2, RFC 6062 §6.2, and RESERVATION-TOKEN.
const COMPREHENDED: [u16; 20] = [
    0x0001, 0x0006, 0x0008, 0x0009, 0x000a, 0x000c, 0x000d, 0x0012, 0x0013, 0x0014, 0x0015, 0x0016, 0x0017, 0x0019,
    0x001c, 0x001d, 0x001e, 0x0020, 0x0022, 0x002a,
];

/// A whole message of the server.
#[derive(Debug)]
pub(super) enum ServerMessage<'a> {
    Response(Response<'a>),
    /// A peer has connected to the relayed address.
    Attempt {
        connection: u32,
        peer: SocketAddr,
    },
    /// Anything else that is STUN.
    Other,
}

/// An answer that nobody has looked into yet.
#[derive(Debug)]
pub(super) struct Response<'a>(Message<'a>);

/// Bytes that are no STUN message. The server's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbage;

/// Makes out what a message is.
pub(super) fn read(message: &[u8]) -> Result<ServerMessage<'_>, Garbage> {
    let header = MessageHeader::from_bytes(message).map_err(|_| Garbage)?;
    if message.len() != MessageHeader::LENGTH + usize::from(header.data_length()) {
        return Err(Garbage);
    }
    let message = Message::from_bytes(message).map_err(|_| Garbage)?;
    Ok(match message.class() {
        MessageClass::Success | MessageClass::Error => ServerMessage::Response(Response(message)),
        MessageClass::Indication if message.has_method(CONNECTION_ATTEMPT) => attempt(&message),
        MessageClass::Indication | MessageClass::Request => ServerMessage::Other,
    })
}

fn attempt<'a>(message: &Message<'_>) -> ServerMessage<'a> {
    match (message.attribute::<ConnectionId>(), message.attribute::<XorPeerAddress>()) {
        (Ok(connection), Ok(peer)) => {
            ServerMessage::Attempt { connection: connection.id(), peer: peer.addr(message.transaction_id()) }
        }
        _ => ServerMessage::Other,
    }
}

impl Response<'_> {
    /// The request that it answers.
    pub(super) fn transaction_id(&self) -> TransactionId {
        self.0.transaction_id()
    }

    /// The error code, or `None` for a success. `method` is that of the request.
    pub(super) fn code(&self, method: Method) -> Result<Option<u16>, RequestError> {
        if !self.0.has_method(method) {
            return Err(RequestError::Malformed("it is of another method"));
        }
        if self.0.iter_attributes().any(|(_, attribute)| !is_comprehended(attribute.get_type())) {
            return Err(RequestError::Malformed("it has an unknown attribute that has to be understood"));
        }
        match self.0.class() {
            MessageClass::Error => self.attribute::<ErrorCode>("it has no error code").map(|error| Some(error.code())),
            _ => Ok(None),
        }
    }

    /// The error that an error code stands for, where it ends the request.
    pub(super) fn error(&self, code: u16) -> RequestError {
        match code {
            ErrorCode::TRY_ALTERNATE => {
                let server = self.0.attribute::<AlternateServer>().ok().map(|alternate| alternate.server());
                RequestError::TryAlternate { server }
            }
            ErrorCode::UNAUTHORIZED | ErrorCode::WRONG_CREDENTIALS => RequestError::WrongCredentials,
            ErrorCode::FORBIDDEN => RequestError::Forbidden,
            ErrorCode::ALLOCATION_MISMATCH => RequestError::AllocationMismatch,
            ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED | ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH => {
                RequestError::AddressFamily { code }
            }
            ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL => RequestError::TransportUnsupported,
            ErrorCode::CONNECTION_ALREADY_EXISTS => RequestError::ConnectionExists,
            ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE => RequestError::PeerUnreachable,
            ErrorCode::ALLOCATION_QUOTA_REACHED => RequestError::QuotaReached,
            ErrorCode::INSUFFICIENT_CAPACITY => RequestError::InsufficientCapacity,
            code => RequestError::Other { code },
        }
    }

    /// The challenge of a 401 or 438.
    pub(super) fn challenge(&self) -> Result<Challenge, RequestError> {
        Ok(Challenge::read(&self.0)?)
    }

    /// Whether the server knows the password.
    pub(super) fn is_proven(&self, authorization: &Authorization) -> bool {
        authorization.proves(&self.0)
    }

    /// What an Allocate success gives.
    pub(super) fn allocated(&self) -> Result<Allocated, RequestError> {
        let relayed = self.attribute::<XorRelayedAddress>("it has no relayed address")?.addr(self.transaction_id());
        let mapped = self.attribute::<XorMappedAddress>("it has no mapped address")?.addr(self.transaction_id());
        if relayed.port() == 0 || Class::of(relayed.ip()) == Class::NoHost {
            return Err(RequestError::Malformed("its relayed address is none"));
        }
        match self.lifetime()? {
            Duration::ZERO => Err(RequestError::Malformed("its lifetime is 0")),
            lifetime => Ok(Allocated { relayed, mapped, lifetime }),
        }
    }

    /// The lifetime that an Allocate or Refresh success gives.
    pub(super) fn lifetime(&self) -> Result<Duration, RequestError> {
        let lifetime = self.attribute::<Lifetime>("it has no lifetime")?;
        Ok(Duration::from_secs(lifetime.seconds().into()))
    }

    /// The connection that a Connect success gives.
    pub(super) fn connection(&self) -> Result<u32, RequestError> {
        self.attribute::<ConnectionId>("it has no connection id").map(|connection| connection.id())
    }

    fn attribute<'s, A: AttributeFromRaw<'s> + AttributeStaticType>(
        &'s self,
        missing: &'static str,
    ) -> Result<A, RequestError> {
        self.0.attribute::<A>().map_err(|_| RequestError::Malformed(missing))
    }
}

fn is_comprehended(kind: AttributeType) -> bool {
    kind.value() > LAST_REQUIRED || COMPREHENDED.contains(&kind.value())
}
