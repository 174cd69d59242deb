//! ICE checks made by hand (RFC 8445 §7.1, RFC 8489), so that any part of them can be wrong.
//!
//! What it is not: `keyferry_ice::messages`, against which it is an independent witness.

use std::net::SocketAddr;

use keyferry_ice::Role;
use stun_types::{
    attribute::{AttributeType, ErrorCode, RawAttribute, Username, XorMappedAddress},
    message::{
        BINDING, IntegrityAlgorithm, Message, MessageClass, MessageIntegrityCredentials, MessageWriteVec,
        ShortTermCredentials,
    },
    prelude::*,
};

const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;

/// One Binding request of an ICE agent.
#[derive(Debug, Clone)]
pub struct Check {
    /// The username fragment of whom it is for.
    pub to: String,
    /// The username fragment of whom it is from.
    pub from: String,
    /// The password of whom it is for.
    pub password: String,
    /// The sender's role.
    pub role: Role,
    /// The sender's tie-breaker.
    pub tie_breaker: u64,
    /// Whether it nominates.
    pub nominates: bool,
}

impl Check {
    /// Its bytes, without the RFC 4571 length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut request = Message::builder_request(BINDING, MessageWriteVec::new());
        let username = format!("{}:{}", self.to, self.from);
        request.add_attribute(&Username::new(&username).expect("a short username")).expect("room for it");
        let role = if self.role == Role::Controlling { ICE_CONTROLLING } else { ICE_CONTROLLED };
        let mut add = |kind: u16, value: &[u8]| {
            request.add_attribute(&RawAttribute::new(AttributeType::new(kind), value)).expect("room for it");
        };
        add(PRIORITY, &(110_u32 << 24 | 8191 << 8 | 255).to_be_bytes());
        add(role, &self.tie_breaker.to_be_bytes());
        if self.nominates {
            add(USE_CANDIDATE, &[]);
        }
        signed(request, &self.password)
    }
}

/// A plain Binding request, as one sends to a STUN server.
pub fn bare_request() -> Vec<u8> {
    Message::builder_request(BINDING, MessageWriteVec::new()).finish()
}

/// The success response to a request that came from `remote`, signed with the password of whoever sends it.
pub fn success(request: &[u8], remote: SocketAddr, password: &str) -> Vec<u8> {
    let request = Message::from_bytes(request).expect("a request");
    let mut response = Message::builder_success(&request, MessageWriteVec::new());
    response.add_attribute(&XorMappedAddress::new(remote, request.transaction_id())).expect("room for it");
    signed(response, password)
}

/// An error response to a request, signed likewise.
pub fn error(request: &[u8], code: u16, password: &str) -> Vec<u8> {
    let request = Message::from_bytes(request).expect("a request");
    let mut response = Message::builder_error(&request, MessageWriteVec::new());
    response.add_attribute(&ErrorCode::new(code, "no").expect("a code of an error")).expect("room for it");
    signed(response, password)
}

/// What a message is; `None` if it is no STUN message.
pub fn class_of(message: &[u8]) -> Option<MessageClass> {
    Message::from_bytes(message).ok().map(|message| message.class())
}

/// Whether a request nominates its connection.
pub fn nominates(message: &[u8]) -> bool {
    Message::from_bytes(message).is_ok_and(|message| message.has_attribute(AttributeType::new(USE_CANDIDATE)))
}

/// The code of an error response.
pub fn code_of(message: &[u8]) -> Option<u16> {
    Message::from_bytes(message).ok()?.attribute::<ErrorCode>().ok().map(|error| error.code())
}

fn signed(mut message: MessageWriteVec, password: &str) -> Vec<u8> {
    let credentials = MessageIntegrityCredentials::ShortTerm(ShortTermCredentials::new(password.to_owned()));
    message.add_message_integrity(&credentials, IntegrityAlgorithm::Sha1).expect("room for it");
    message.add_fingerprint().expect("room for it");
    message.finish()
}
