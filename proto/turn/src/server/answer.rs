//! What the server says: answers to requests, and the indication of a peer's connection.
//!
//! ```text
//! success   what was asked for | MESSAGE-INTEGRITY(-SHA256)
//! error     ERROR-CODE | UNKNOWN-ATTRIBUTES? | REALM, NONCE, PASSWORD-ALGORITHMS? | MESSAGE-INTEGRITY(-SHA256) or FINGERPRINT
//! ConnectionAttempt indication (RFC 6062 §5.3)   CONNECTION-ID | XOR-PEER-ADDRESS | FINGERPRINT
//! ```
//! An answer is signed as its request was, if that was signed by somebody known (RFC 8489 §9.2.4).
//!
//! What it is not: a decision.

use std::{net::SocketAddr, time::Duration};

use stun_types::{
    attribute::{AttributeWrite, ErrorCode, UnknownAttributes, XorMappedAddress},
    message::{
        Message, MessageClass, MessageType, MessageWrite, MessageWriteExt, MessageWriteVec, Method, TransactionId,
    },
};
use turn_types::{
    attribute::{ConnectionId, Lifetime, XorPeerAddress, XorRelayedAddress},
    message::CONNECTION_ATTEMPT,
};

use super::{request::TurnRefusal, users::algorithms};
use crate::long_term::{Challenge, Key};

/// What an answer needs to know of its request. It outlives the message when the answer comes later.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    method: Method,
    transaction: TransactionId,
    key: Option<Key>,
}

impl Ticket {
    /// The ticket of a request that nobody has proven yet.
    pub(super) fn of(request: &Message<'_>) -> Self {
        Self { method: request.method(), transaction: request.transaction_id(), key: None }
    }

    /// The ticket of a request whose sender is known.
    pub(super) fn signed(self, key: Key) -> Self {
        Self { key: Some(key), ..self }
    }

    /// An allocation (RFC 8656 §7.2).
    pub(super) fn allocated(&self, relayed: SocketAddr, mapped: SocketAddr, lifetime: Duration) -> Vec<u8> {
        let mut message = self.begin(MessageClass::Success);
        add(&mut message, &XorRelayedAddress::new(relayed, self.transaction));
        add(&mut message, &XorMappedAddress::new(mapped, self.transaction));
        add(&mut message, &Lifetime::new(seconds(lifetime)));
        self.seal(message)
    }

    /// A refreshed allocation (RFC 8656 §8.2).
    pub(super) fn refreshed(&self, lifetime: Duration) -> Vec<u8> {
        let mut message = self.begin(MessageClass::Success);
        add(&mut message, &Lifetime::new(seconds(lifetime)));
        self.seal(message)
    }

    /// A connection with a peer (RFC 6062 §5.2).
    pub(super) fn connected(&self, connection: u32) -> Vec<u8> {
        let mut message = self.begin(MessageClass::Success);
        add(&mut message, &ConnectionId::new(connection));
        self.seal(message)
    }

    /// Success, with nothing to add.
    pub(super) fn done(&self) -> Vec<u8> {
        self.seal(self.begin(MessageClass::Success))
    }

    /// A refusal that tells no more than its code.
    pub(super) fn refused(&self, refusal: &TurnRefusal) -> Vec<u8> {
        self.seal(self.error(refusal))
    }

    /// A refusal that tells how to authenticate (RFC 8489 §9.2.4).
    pub(super) fn challenged(&self, refusal: &TurnRefusal, realm: &str, nonce: &str) -> Vec<u8> {
        let mut message = self.error(refusal);
        let challenge = Challenge { realm: realm.to_owned(), nonce: nonce.to_owned(), algorithms: Some(algorithms()) };
        let added = challenge.add_to(&mut message);
        debug_assert!(added.is_ok(), "realm and nonce are short: {added:?}");
        self.seal(message)
    }

    fn error(&self, refusal: &TurnRefusal) -> MessageWriteVec {
        let mut message = self.begin(MessageClass::Error);
        let reason = ErrorCode::default_reason_for_code(refusal.code());
        if let Ok(code) = ErrorCode::new(refusal.code(), reason) {
            add(&mut message, &code);
        }
        if let TurnRefusal::UnknownAttributes(unknown) = refusal {
            add(&mut message, &UnknownAttributes::new(unknown));
        }
        message
    }

    fn begin(&self, class: MessageClass) -> MessageWriteVec {
        let kind = MessageType::from_class_method(class, self.method);
        Message::builder(kind, self.transaction, MessageWriteVec::new())
    }

    fn seal(&self, message: MessageWriteVec) -> Vec<u8> {
        match &self.key {
            Some(key) => key.sign(message),
            None => finish(message),
        }
    }
}

/// Tells a client that a peer has connected.
pub(super) fn connection_attempt(transaction: u128, connection: u32, peer: SocketAddr) -> Vec<u8> {
    let transaction = TransactionId::from(transaction);
    let kind = MessageType::from_class_method(MessageClass::Indication, CONNECTION_ATTEMPT);
    let mut message = Message::builder(kind, transaction, MessageWriteVec::new());
    add(&mut message, &ConnectionId::new(connection));
    add(&mut message, &XorPeerAddress::new(peer, transaction));
    finish(message)
}

fn finish(mut message: MessageWriteVec) -> Vec<u8> {
    let added = message.add_fingerprint();
    debug_assert!(added.is_ok(), "there is none yet: {added:?}");
    message.finish()
}

fn add(message: &mut MessageWriteVec, attribute: &dyn AttributeWrite) {
    let added = message.add_attribute(attribute);
    debug_assert!(added.is_ok(), "a few short attributes fit: {added:?}");
}

fn seconds(lifetime: Duration) -> u32 {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)
}
