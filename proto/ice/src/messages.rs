//! The STUN messages of ICE (RFC 8445 §7, RFC 8489): checks, and the answers to them.
//!
//! ```text
//! check     Binding request: USERNAME peer:own | PRIORITY u32 | ICE-CONTROLLING or ICE-CONTROLLED u64 | USE-CANDIDATE?
//! answer    success: XOR-MAPPED-ADDRESS           error: ERROR-CODE | UNKNOWN-ATTRIBUTES?
//! all       MESSAGE-INTEGRITY (SHA-1, the password of the side that answers; not on 400 and 401) | FINGERPRINT
//! ```
//! What it is not: a decision on what a message means for a connection.

use std::net::SocketAddr;

use stun_types::{
    attribute::{
        Attribute, AttributeStaticType, AttributeType, ErrorCode, MessageIntegrity, MessageIntegritySha256,
        RawAttribute, UnknownAttributes, Username, XorMappedAddress,
    },
    message::{
        BINDING, IntegrityAlgorithm, Message, MessageClass, MessageHeader, MessageIntegrityCredentials, MessageType,
        MessageWrite, MessageWriteExt, MessageWriteVec, ShortTermCredentials, TransactionId,
    },
};

use super::{Credentials, Priority, Role};

/// RFC 8445 §16.1.
const PRIORITY: AttributeType = AttributeType::new(0x0024);
const USE_CANDIDATE: AttributeType = AttributeType::new(0x0025);
const ICE_CONTROLLED: AttributeType = AttributeType::new(0x8029);
const ICE_CONTROLLING: AttributeType = AttributeType::new(0x802a);

/// The attributes that an agent must understand (RFC 8489 §14), and that this one does.
const COMPREHENDED: [AttributeType; 5] =
    [Username::TYPE, MessageIntegrity::TYPE, MessageIntegritySha256::TYPE, PRIORITY, USE_CANDIDATE];

/// Attributes that an error answer lists as unknown, at most.
const MAX_UNKNOWN_LISTED: usize = 16;

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Check {
    /// The priority of the peer-reflexive candidate that it may reveal (RFC 8445 §7.1.1).
    pub(super) priority: Priority,
    /// The role of its sender, with its tie-breaker. Agents before RFC 5245 left it out.
    pub(super) role: Option<(Role, u64)>,
    /// Whether it nominates.
    pub(super) nominates: bool,
}

/// Why a request is refused, with the code of the answer (RFC 8489 §6.3, §9.1.3; RFC 8445 §7.3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CheckRefusal {
    #[error("400 Bad Request")]
    BadRequest,
    #[error("401 Unauthenticated")]
    Unauthenticated,
    #[error("420 Unknown Attribute")]
    UnknownAttribute,
    #[error("487 Role Conflict")]
    RoleConflict,
}

impl CheckRefusal {
    fn code(self) -> u16 {
        match self {
            Self::BadRequest => ErrorCode::BAD_REQUEST,
            Self::Unauthenticated => ErrorCode::UNAUTHORIZED,
            Self::UnknownAttribute => ErrorCode::UNKNOWN_ATTRIBUTE,
            Self::RoleConflict => ErrorCode::ROLE_CONFLICT,
        }
    }
}

/// A whole message that may belong to ICE.
#[derive(Debug)]
pub(super) enum Incoming<'a> {
    /// A Binding request: see [`BindingRequest::check`].
    Request(BindingRequest<'a>),
    /// An answer to a Binding request: see [`Answer::outcome`].
    Answer(Answer<'a>),
    /// An indication, which needs no answer.
    Indication,
}

/// A Binding request whose sender is not proven yet.
#[derive(Debug)]
pub(super) struct BindingRequest<'a>(Message<'a>);

/// An answer whose sender is not proven yet.
#[derive(Debug)]
pub(super) struct Answer<'a>(Message<'a>);

/// What an authentic answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerOutcome {
    /// The check has succeeded; the peer saw this address.
    Success { mapped: SocketAddr },
    /// The peer has the same role (487).
    RoleConflict,
    /// Any other error.
    Error { code: u16 },
}

/// Bytes that are no STUN message of the Binding method, or an answer that is not authentic. The peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BindingError {
    #[error("the peer sent something that is no Binding message")]
    Garbage,
    #[error("the peer's answer does not prove that it knows the password")]
    Unauthentic,
}

/// The username fragment of the agent that a check is meant for, by which a listener finds the agent; `None` when the
/// message is no check. Proves nothing.
pub fn addressed_ufrag(message: &[u8]) -> Option<String> {
    let message = parse(message).ok()?;
    if !message.has_class(MessageClass::Request) {
        return None;
    }
    let username = message.attribute::<Username>().ok()?;
    let (ufrag, _) = username.username().split_once(':')?;
    Some(ufrag.to_owned())
}

/// Reads what a message is.
pub(super) fn read(message: &[u8]) -> Result<Incoming<'_>, BindingError> {
    let message = parse(message)?;
    Ok(match message.class() {
        MessageClass::Request => Incoming::Request(BindingRequest(message)),
        MessageClass::Indication => Incoming::Indication,
        MessageClass::Success | MessageClass::Error => Incoming::Answer(Answer(message)),
    })
}

/// A Binding message that is exactly as long as it says.
fn parse(message: &[u8]) -> Result<Message<'_>, BindingError> {
    let header = MessageHeader::from_bytes(message).map_err(|_| BindingError::Garbage)?;
    let is_whole = message.len() == MessageHeader::LENGTH + usize::from(header.data_length());
    if !is_whole || !message.len().is_multiple_of(4) || !header.get_type().has_method(BINDING) {
        return Err(BindingError::Garbage);
    }
    Message::from_bytes(message).map_err(|_| BindingError::Garbage)
}

/// Writes a check of this side.
pub(super) fn check(id: TransactionId, check: &Check, own: &Credentials, peer: &Credentials) -> Vec<u8> {
    let request = MessageType::from_class_method(MessageClass::Request, BINDING);
    let mut message = Message::builder(request, id, MessageWriteVec::new());
    add_username(&mut message, &format!("{}:{}", peer.ufrag, own.ufrag));
    add(&mut message, PRIORITY, &u32::from(check.priority).to_be_bytes());
    if let Some((role, tie_breaker)) = check.role {
        let attribute = if role == Role::Controlling { ICE_CONTROLLING } else { ICE_CONTROLLED };
        add(&mut message, attribute, &tie_breaker.to_be_bytes());
    }
    if check.nominates {
        add(&mut message, USE_CANDIDATE, &[]);
    }
    seal(message, Some(&peer.password))
}

impl BindingRequest<'_> {
    /// What the request says, if it proves that its sender knows this side's password.
    pub(super) fn check(&self, own: &Credentials) -> Result<Check, CheckRefusal> {
        let username = self.0.attribute::<Username>().map_err(|_| CheckRefusal::BadRequest)?;
        if !has_integrity(&self.0) {
            return Err(CheckRefusal::BadRequest);
        }
        let is_ours = username.username().split_once(':').is_some_and(|(ufrag, _)| ufrag == own.ufrag);
        if !is_ours || !is_authentic(&self.0, &own.password) {
            return Err(CheckRefusal::Unauthenticated);
        }
        if self.unknown().next().is_some() {
            return Err(CheckRefusal::UnknownAttribute);
        }
        let number = self.number(PRIORITY)?.ok_or(CheckRefusal::BadRequest)?;
        let priority = Priority::try_from(u32::from_be_bytes(number)).map_err(|_| CheckRefusal::BadRequest)?;
        let role = match (self.number(ICE_CONTROLLING)?, self.number(ICE_CONTROLLED)?) {
            (Some(_), Some(_)) => return Err(CheckRefusal::BadRequest),
            (Some(tie_breaker), None) => Some((Role::Controlling, u64::from_be_bytes(tie_breaker))),
            (None, Some(tie_breaker)) => Some((Role::Controlled, u64::from_be_bytes(tie_breaker))),
            (None, None) => None,
        };
        let nominates = self.0.raw_attribute(USE_CANDIDATE).is_some();
        Ok(Check { priority, role, nominates })
    }

    /// The answer that the check has arrived, from this address.
    pub(super) fn success(&self, from: SocketAddr, own: &Credentials) -> Vec<u8> {
        let mut message = Message::builder_success(&self.0, MessageWriteVec::new());
        let mapped = XorMappedAddress::new(from, self.0.transaction_id());
        let added = message.add_attribute(&mapped);
        debug_assert!(added.is_ok(), "an address fits: {added:?}");
        seal(message, Some(&own.password))
    }

    /// The answer that it is refused.
    pub(super) fn refusal(&self, refusal: CheckRefusal, own: &Credentials) -> Vec<u8> {
        let mut message = Message::builder_error(&self.0, MessageWriteVec::new());
        let reason = ErrorCode::default_reason_for_code(refusal.code());
        if let Ok(code) = ErrorCode::new(refusal.code(), reason) {
            let added = message.add_attribute(&code);
            debug_assert!(added.is_ok(), "a short text fits: {added:?}");
        }
        if refusal == CheckRefusal::UnknownAttribute {
            let unknown: Vec<AttributeType> = self.unknown().take(MAX_UNKNOWN_LISTED).collect();
            let added = message.add_attribute(&UnknownAttributes::new(&unknown));
            debug_assert!(added.is_ok(), "a short list fits: {added:?}");
        }
        let is_unproven = matches!(refusal, CheckRefusal::BadRequest | CheckRefusal::Unauthenticated);
        seal(message, (!is_unproven).then_some(own.password.as_str()))
    }

    fn unknown(&self) -> impl Iterator<Item = AttributeType> {
        let types = self.0.iter_attributes().map(|(_, attribute)| attribute.get_type());
        types.filter(|kind| kind.comprehension_required() && !COMPREHENDED.contains(kind))
    }

    /// The value of an attribute that has a fixed length, if it is there.
    fn number<const N: usize>(&self, kind: AttributeType) -> Result<Option<[u8; N]>, CheckRefusal> {
        let Some(attribute) = self.0.raw_attribute(kind) else { return Ok(None) };
        attribute.value.to_vec().try_into().map(Some).map_err(|_| CheckRefusal::BadRequest)
    }
}

impl Answer<'_> {
    /// The request that is answered.
    pub(super) fn transaction_id(&self) -> TransactionId {
        self.0.transaction_id()
    }

    /// What the answer says, if it proves that its sender knows its own password.
    pub(super) fn outcome(&self, peer: &Credentials) -> Result<AnswerOutcome, BindingError> {
        if !is_authentic(&self.0, &peer.password) {
            return Err(BindingError::Unauthentic);
        }
        if self.0.has_class(MessageClass::Success) {
            let mapped = self.0.attribute::<XorMappedAddress>().map_err(|_| BindingError::Garbage)?;
            return Ok(AnswerOutcome::Success { mapped: mapped.addr(self.transaction_id()) });
        }
        let error = self.0.attribute::<ErrorCode>().map_err(|_| BindingError::Garbage)?;
        Ok(match error.code() {
            ErrorCode::ROLE_CONFLICT => AnswerOutcome::RoleConflict,
            code => AnswerOutcome::Error { code },
        })
    }
}

fn key(password: &str) -> MessageIntegrityCredentials {
    ShortTermCredentials::new(password.to_owned()).into()
}

fn has_integrity(message: &Message<'_>) -> bool {
    message.has_attribute(MessageIntegrity::TYPE) || message.has_attribute(MessageIntegritySha256::TYPE)
}

fn is_authentic(message: &Message<'_>, password: &str) -> bool {
    message.validate_integrity(&key(password)).is_ok()
}

fn add_username(message: &mut MessageWriteVec, username: &str) {
    let added = Username::new(username).and_then(|username| message.add_attribute(&username));
    debug_assert!(added.is_ok(), "two ufrags fit: {added:?}");
}

fn add(message: &mut MessageWriteVec, kind: AttributeType, value: &[u8]) {
    let added = message.add_attribute(&RawAttribute::new(kind, value));
    debug_assert!(added.is_ok(), "a number fits: {added:?}");
}

/// Adds what proves and marks a message, and finishes it.
fn seal(mut message: MessageWriteVec, password: Option<&str>) -> Vec<u8> {
    if let Some(password) = password {
        let added = message.add_message_integrity(&key(password), IntegrityAlgorithm::Sha1);
        debug_assert!(added.is_ok(), "there is none yet: {added:?}");
    }
    let added = message.add_fingerprint();
    debug_assert!(added.is_ok(), "there is none yet: {added:?}");
    message.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: u128 = 0x0102_0304_0506_0708_090a_0b0c;

    fn credentials(name: &str) -> Credentials {
        Credentials { ufrag: format!("{name}frag"), password: format!("{name}-password-of-22-chars").replace('-', "+") }
    }

    fn a_check() -> Check {
        Check { priority: Priority::LEAST, role: Some((Role::Controlling, 1 << 60)), nominates: true }
    }

    fn check_bytes() -> Vec<u8> {
        check(ID.into(), &a_check(), &credentials("own"), &credentials("peer"))
    }

    fn request(bytes: &[u8]) -> BindingRequest<'_> {
        match read(bytes).unwrap() {
            Incoming::Request(request) => request,
            other => panic!("not a request: {other:?}"),
        }
    }

    fn answer(bytes: &[u8]) -> Answer<'_> {
        match read(bytes).unwrap() {
            Incoming::Answer(answer) => answer,
            other => panic!("not an answer: {other:?}"),
        }
    }

    /// A request of this side with whatever attributes.
    fn with_attributes(username: &str, password: Option<&str>, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
        let mut message = Message::builder(kind, ID.into(), MessageWriteVec::new());
        add_username(&mut message, username);
        attributes.iter().for_each(|(kind, value)| add(&mut message, AttributeType::new(*kind), value));
        seal(message, password)
    }

    #[test]
    fn a_check_says_to_its_addressee_what_it_was_given() {
        let bytes = check_bytes();
        assert_eq!(addressed_ufrag(&bytes).as_deref(), Some("peerfrag"));
        assert_eq!(request(&bytes).check(&credentials("peer")), Ok(a_check()));
    }

    #[test]
    fn an_answer_says_from_where_the_check_came() {
        for from in ["192.0.2.7:1", "[2001:db8::7]:65535"] {
            let (bytes, from) = (check_bytes(), from.parse().unwrap());
            let success = request(&bytes).success(from, &credentials("peer"));
            assert_eq!(answer(&success).transaction_id(), ID.into());
            assert_eq!(answer(&success).outcome(&credentials("peer")), Ok(AnswerOutcome::Success { mapped: from }));
            assert_eq!(answer(&success).outcome(&credentials("own")), Err(BindingError::Unauthentic));
        }
    }

    #[test]
    fn a_check_for_somebody_else_or_with_another_password_is_refused() {
        let bytes = check_bytes();
        assert_eq!(request(&bytes).check(&credentials("own")), Err(CheckRefusal::Unauthenticated));
        let other = Credentials { password: credentials("own").password, ..credentials("peer") };
        assert_eq!(request(&bytes).check(&other), Err(CheckRefusal::Unauthenticated));
    }

    #[test]
    fn a_check_without_integrity_or_priority_is_a_bad_request() {
        let own = credentials("peer");
        let bytes = with_attributes("peerfrag:own", None, &[(0x24, &[0, 0, 0, 1])]);
        assert_eq!(request(&bytes).check(&own), Err(CheckRefusal::BadRequest));
        let no_candidate_has_it: [&[(u16, &[u8])]; 3] =
            [&[(0x24, &[0; 4])], &[(0x24, &[0x80, 0, 0, 0])], &[(0x24, &[0xff; 4])]];
        let malformed: [&[(u16, &[u8])]; 3] = [&[], &[(0x24, &[0, 1])], &[(0x24, &[0, 0, 0, 1]), (0x8029, &[1])]];
        for attributes in malformed.into_iter().chain(no_candidate_has_it) {
            let bytes = with_attributes("peerfrag:own", Some(&own.password), attributes);
            assert_eq!(request(&bytes).check(&own), Err(CheckRefusal::BadRequest), "{attributes:?}");
        }
    }

    #[test]
    fn an_unknown_attribute_is_refused_by_name_if_it_must_be_understood() {
        let own = credentials("peer");
        let bytes =
            with_attributes("peerfrag:own", Some(&own.password), &[(0x24, &[0, 0, 0, 1]), (0xc001, b"gladly ignored")]);
        assert!(request(&bytes).check(&own).is_ok());
        let bytes = with_attributes("peerfrag:own", Some(&own.password), &[(0x24, &[0, 0, 0, 1]), (0x7ffe, b"vital")]);
        assert_eq!(request(&bytes).check(&own), Err(CheckRefusal::UnknownAttribute));
        let refusal = request(&bytes).refusal(CheckRefusal::UnknownAttribute, &own);
        assert_eq!(answer(&refusal).outcome(&own), Ok(AnswerOutcome::Error { code: 420 }));
        let unknown = answer(&refusal).0.attribute::<UnknownAttributes>().unwrap();
        assert!(unknown.has_attribute(AttributeType::new(0x7ffe)));
    }

    #[test]
    fn refusals_are_proven_as_soon_as_the_asker_is() {
        let (bytes, own) = (check_bytes(), credentials("peer"));
        let conflict = request(&bytes).refusal(CheckRefusal::RoleConflict, &own);
        assert_eq!(answer(&conflict).outcome(&own), Ok(AnswerOutcome::RoleConflict));
        for refusal in [CheckRefusal::BadRequest, CheckRefusal::Unauthenticated] {
            let refused = request(&bytes).refusal(refusal, &own);
            assert_eq!(answer(&refused).outcome(&own), Err(BindingError::Unauthentic));
        }
    }

    #[test]
    fn what_is_longer_or_shorter_than_it_says_is_garbage() {
        let bytes = check_bytes();
        assert_eq!(read(&bytes[..bytes.len() - 4]).unwrap_err(), BindingError::Garbage);
        assert_eq!(read(&[bytes.as_slice(), &[0; 4]].concat()).unwrap_err(), BindingError::Garbage);
        assert_eq!(read(&[]).unwrap_err(), BindingError::Garbage);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (read(&bytes).is_ok(), addressed_ufrag(&bytes));
        }

        #[test]
        fn a_check_of_which_a_byte_has_changed_is_never_taken(index in 0_usize..1000, change in 1_u8..) {
            let mut bytes = check_bytes();
            // The fingerprint at the end is no secret, and may be left out.
            let index = index % (bytes.len() - 8);
            bytes[index] ^= change;
            if let Ok(Incoming::Request(request)) = read(&bytes) {
                prop_assert!(request.check(&credentials("peer")).is_err());
                let _ = request.refusal(CheckRefusal::UnknownAttribute, &credentials("peer"));
            }
        }
    }
}
