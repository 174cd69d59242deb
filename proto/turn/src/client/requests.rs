//! The requests of the client (RFC 8656 §7.1, §8.1, §9.2; RFC 6062 §4.3, §4.4).
//!
//! ```text
//! Allocate           REQUESTED-TRANSPORT 6 (TCP) | REQUESTED-ADDRESS-FAMILY | LIFETIME
//! Refresh            LIFETIME, 0 to give the allocation back
//! CreatePermission   XOR-PEER-ADDRESS, of which the port does not count
//! Connect            XOR-PEER-ADDRESS
//! ConnectionBind     CONNECTION-ID
//! ```
//! What it is not: proof; see [`Authorization`](crate::long_term::Authorization).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use stun_types::message::{
    Message, MessageClass, MessageType, MessageWriteExt, MessageWriteVec, Method, StunWriteError, TransactionId,
};
use turn_types::{
    attribute::{ConnectionId, Lifetime, RequestedAddressFamily, RequestedTransport, XorPeerAddress},
    message::{ALLOCATE, CONNECT, CONNECTION_BIND, CREATE_PERMISSION, REFRESH},
};

use super::AddressFamily;

/// A request, without the proof of who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutgoingRequest {
    Allocate { family: AddressFamily, lifetime: Duration },
    Refresh { lifetime: Duration },
    CreatePermission { peer: IpAddr },
    Connect { peer: SocketAddr },
    ConnectionBind { connection: u32 },
}

impl OutgoingRequest {
    pub(super) fn method(self) -> Method {
        match self {
            Self::Allocate { .. } => ALLOCATE,
            Self::Refresh { .. } => REFRESH,
            Self::CreatePermission { .. } => CREATE_PERMISSION,
            Self::Connect { .. } => CONNECT,
            Self::ConnectionBind { .. } => CONNECTION_BIND,
        }
    }

    /// The message, not finished yet.
    pub(super) fn write(self, id: TransactionId) -> MessageWriteVec {
        let kind = MessageType::from_class_method(MessageClass::Request, self.method());
        let mut message = Message::builder(kind, id, MessageWriteVec::new());
        let added = self.add_to(&mut message, id);
        debug_assert!(added.is_ok(), "attributes of a few bytes fit: {added:?}");
        message
    }

    fn add_to(self, message: &mut MessageWriteVec, id: TransactionId) -> Result<(), StunWriteError> {
        match self {
            Self::Allocate { family, lifetime } => {
                message.add_attribute(&RequestedTransport::new(RequestedTransport::TCP))?;
                message.add_attribute(&RequestedAddressFamily::new(wire_family(family)))?;
                message.add_attribute(&lifetime_attribute(lifetime))
            }
            Self::Refresh { lifetime } => message.add_attribute(&lifetime_attribute(lifetime)),
            Self::CreatePermission { peer } => {
                message.add_attribute(&XorPeerAddress::new(SocketAddr::new(peer, 0), id))
            }
            Self::Connect { peer } => message.add_attribute(&XorPeerAddress::new(peer, id)),
            Self::ConnectionBind { connection } => message.add_attribute(&ConnectionId::new(connection)),
        }
    }
}

fn lifetime_attribute(lifetime: Duration) -> Lifetime {
    Lifetime::new(u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX))
}

fn wire_family(family: AddressFamily) -> turn_types::AddressFamily {
    match family {
        AddressFamily::V4 => turn_types::AddressFamily::IPV4,
        AddressFamily::V6 => turn_types::AddressFamily::IPV6,
    }
}
