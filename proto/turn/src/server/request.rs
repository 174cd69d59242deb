//! What a client asks for, out of a STUN message, and why it may be refused.
//!
//! ```text
//! Allocate          REQUESTED-TRANSPORT (6: TCP), REQUESTED-ADDRESS-FAMILY?, LIFETIME?       RFC 8656 §7.2, RFC 6062 §5.1
//! Refresh           LIFETIME? (0: give back), REQUESTED-ADDRESS-FAMILY?                      RFC 8656 §8.2
//! CreatePermission  XOR-PEER-ADDRESS, one or more                                            RFC 8656 §10.2
//! Connect           XOR-PEER-ADDRESS                                                         RFC 6062 §5.2
//! ConnectionBind    CONNECTION-ID                                                            RFC 6062 §5.4
//! ```
//! What it is not: who asks ([`super::users`]), and what comes of it.

use std::{net::SocketAddr, time::Duration};

use stun_types::{
    attribute::{
        Attribute, AttributeFromRaw, AttributeStaticType, AttributeType, ErrorCode, MessageIntegrity,
        MessageIntegritySha256, Nonce, PasswordAlgorithm, Realm, Username,
    },
    message::Message,
};
use turn_types::{
    attribute::{
        ConnectionId, DontFragment, EvenPort, Lifetime, RequestedAddressFamily, RequestedTransport, ReservationToken,
        XorPeerAddress,
    },
    message::{ALLOCATE, CONNECT, CONNECTION_BIND, CREATE_PERMISSION, REFRESH},
};

use crate::{AddressFamily, peer_policy::PeerRefusal};

/// How many unknown attributes an error response names, so that a stranger cannot make it long by inventing some.
const MAX_UNKNOWN_LISTED: usize = 8;

/// The attributes that have to be understood, and are.
const COMPREHENDED: [AttributeType; 14] = [
    Username::TYPE,
    MessageIntegrity::TYPE,
    MessageIntegritySha256::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    PasswordAlgorithm::TYPE,
    Lifetime::TYPE,
    XorPeerAddress::TYPE,
    RequestedAddressFamily::TYPE,
    RequestedTransport::TYPE,
    ConnectionId::TYPE,
    // Understood, and refused: they have no meaning for TCP (RFC 6062 §5.1).
    EvenPort::TYPE,
    DontFragment::TYPE,
    ReservationToken::TYPE,
];

/// Why a request is refused, with the code of the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TurnRefusal {
    #[error("400: the client's request makes no sense")]
    BadRequest,
    #[error("400: there is no such connection for this client to bind")]
    BadBind,
    #[error("401: the client has not said who it is")]
    Unauthenticated,
    #[error("401: the client's credentials have run out")]
    Expired,
    #[error("401: the client's credentials are nobody's")]
    Forged,
    #[error("403: {0}")]
    Peer(PeerRefusal),
    #[error("420: unknown attributes")]
    UnknownAttributes(Vec<AttributeType>),
    #[error("437: the client has no allocation, or has one already")]
    Mismatch,
    #[error("438: the nonce has run out")]
    StaleNonce,
    #[error("440: no such address family here")]
    Family,
    #[error("441: the allocation is somebody else's")]
    WrongCredentials,
    #[error("442: only TCP is relayed")]
    Transport,
    #[error("443: the peer is of another address family than the relayed address")]
    PeerFamilyMismatch,
    #[error("446: there is a connection with that peer")]
    ConnectedAlready,
    #[error("447: the peer cannot be connected to")]
    ConnectFailed,
    #[error("486: a quota is used up")]
    Quota,
    #[error("508: no port or no room")]
    Capacity,
}

impl TurnRefusal {
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::BadRequest | Self::BadBind => ErrorCode::BAD_REQUEST,
            Self::Unauthenticated | Self::Expired | Self::Forged => ErrorCode::UNAUTHORIZED,
            Self::Peer(_) => ErrorCode::FORBIDDEN,
            Self::UnknownAttributes(_) => ErrorCode::UNKNOWN_ATTRIBUTE,
            Self::Mismatch => ErrorCode::ALLOCATION_MISMATCH,
            Self::StaleNonce => ErrorCode::STALE_NONCE,
            Self::Family => ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED,
            Self::WrongCredentials => ErrorCode::WRONG_CREDENTIALS,
            Self::Transport => ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL,
            Self::PeerFamilyMismatch => ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH,
            Self::ConnectedAlready => ErrorCode::CONNECTION_ALREADY_EXISTS,
            Self::ConnectFailed => ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE,
            Self::Quota => ErrorCode::ALLOCATION_QUOTA_REACHED,
            Self::Capacity => ErrorCode::INSUFFICIENT_CAPACITY,
        }
    }

    /// Whether the answer tells the client how to authenticate (RFC 8489 §9.2.4).
    pub(super) fn challenges(&self) -> bool {
        matches!(self, Self::Unauthenticated | Self::Expired | Self::Forged | Self::StaleNonce)
    }
}

/// A request, as far as it can be understood by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TurnRequest {
    Allocate { family: AddressFamily, lifetime: Option<Duration> },
    Refresh { family: Option<AddressFamily>, lifetime: Option<Duration> },
    CreatePermission { peers: Vec<SocketAddr> },
    Connect { peer: SocketAddr },
    ConnectionBind { connection: u32 },
}

/// Makes out what a request asks for. Call it for authenticated requests only: others learn no more than that they have to authenticate.
pub(super) fn read(message: &Message<'_>) -> Result<TurnRequest, TurnRefusal> {
    let types = message.iter_attributes().map(|(_, attribute)| attribute.get_type());
    let unknown: Vec<_> = types
        .filter(|kind| kind.comprehension_required() && !COMPREHENDED.contains(kind))
        .take(MAX_UNKNOWN_LISTED)
        .collect();
    if !unknown.is_empty() {
        return Err(TurnRefusal::UnknownAttributes(unknown));
    }
    match message.method() {
        ALLOCATE => allocate(message),
        REFRESH => Ok(TurnRequest::Refresh { family: family(message)?, lifetime: lifetime(message)? }),
        CREATE_PERMISSION => {
            let peers = peers(message)?;
            if peers.is_empty() { Err(TurnRefusal::BadRequest) } else { Ok(TurnRequest::CreatePermission { peers }) }
        }
        CONNECT => match peers(message)?[..] {
            [peer] => Ok(TurnRequest::Connect { peer }),
            _ => Err(TurnRefusal::BadRequest),
        },
        CONNECTION_BIND => match optional::<ConnectionId>(message)? {
            Some(connection) => Ok(TurnRequest::ConnectionBind { connection: connection.id() }),
            None => Err(TurnRefusal::BadRequest),
        },
        _ => Err(TurnRefusal::BadRequest),
    }
}

fn allocate(message: &Message<'_>) -> Result<TurnRequest, TurnRefusal> {
    let transport = optional::<RequestedTransport>(message)?.ok_or(TurnRefusal::BadRequest)?;
    if transport.protocol() != RequestedTransport::TCP {
        return Err(TurnRefusal::Transport);
    }
    let meaningless = [EvenPort::TYPE, DontFragment::TYPE, ReservationToken::TYPE];
    if meaningless.iter().any(|kind| message.has_attribute(*kind)) {
        return Err(TurnRefusal::BadRequest);
    }
    let family = family(message)?.unwrap_or(AddressFamily::V4);
    Ok(TurnRequest::Allocate { family, lifetime: lifetime(message)? })
}

/// An attribute that may be missing, but not malformed.
fn optional<'a, A: AttributeFromRaw<'a> + AttributeStaticType>(
    message: &'a Message<'_>,
) -> Result<Option<A>, TurnRefusal> {
    match message.has_attribute(A::TYPE) {
        true => message.attribute::<A>().map(Some).map_err(|_| TurnRefusal::BadRequest),
        false => Ok(None),
    }
}

/// REQUESTED-ADDRESS-FAMILY (RFC 8656 §18.6); a family that nobody knows is not a malformed one.
fn family(message: &Message<'_>) -> Result<Option<AddressFamily>, TurnRefusal> {
    let Some(attribute) = message.raw_attribute(RequestedAddressFamily::TYPE) else { return Ok(None) };
    match attribute.value[..] {
        [1, _, _, _] => Ok(Some(AddressFamily::V4)),
        [2, _, _, _] => Ok(Some(AddressFamily::V6)),
        [_, _, _, _] => Err(TurnRefusal::Family),
        _ => Err(TurnRefusal::BadRequest),
    }
}

fn lifetime(message: &Message<'_>) -> Result<Option<Duration>, TurnRefusal> {
    Ok(optional::<Lifetime>(message)?.map(|lifetime| Duration::from_secs(lifetime.seconds().into())))
}

fn peers(message: &Message<'_>) -> Result<Vec<SocketAddr>, TurnRefusal> {
    let attributes = message.iter_attributes().filter(|(_, attribute)| attribute.get_type() == XorPeerAddress::TYPE);
    let parsed = attributes.map(|(_, attribute)| XorPeerAddress::from_raw_ref(&attribute));
    parsed
        .map(|peer| peer.map(|peer| peer.addr(message.transaction_id())).map_err(|_| TurnRefusal::BadRequest))
        .collect()
}
