//! Answers to Binding requests over TCP (RFC 8489 §6.3.1): from which address the other side's connection comes.
//!
//! What it is not: reading or limiting them.

use std::net::SocketAddr;

use stun_types::{
    attribute::{
        AttributeType, ErrorCode, MessageIntegrity, MessageIntegritySha256, UnknownAttributes, Username,
        XorMappedAddress,
    },
    message::{BINDING, Message, MessageClass, MessageWriteVec},
    prelude::*,
};

/// What to do about a plain STUN message.
#[derive(Debug, PartialEq, Eq)]
pub enum BindingReply {
    /// Send this.
    Answer(Vec<u8>),
    /// Send nothing: it was a Binding indication, with which some clients keep their mapping alive (RFC 8489 §3).
    Nothing,
    /// It is not a Binding message.
    NotBinding,
    /// It is no STUN message at all.
    Malformed,
}

/// Attributes that a request may have although they have to be understood: nobody has to prove anything here.
const UNDERSTOOD: [AttributeType; 3] = [Username::TYPE, MessageIntegrity::TYPE, MessageIntegritySha256::TYPE];

/// Decides what to say to `message`, which came from `remote`.
pub fn reply(message: &[u8], remote: SocketAddr) -> BindingReply {
    let Ok(message) = Message::from_bytes(message) else { return BindingReply::Malformed };
    if !message.has_method(BINDING) {
        return BindingReply::NotBinding;
    }
    match message.class() {
        MessageClass::Request => answer(&message, remote).map_or(BindingReply::Malformed, BindingReply::Answer),
        MessageClass::Indication => BindingReply::Nothing,
        MessageClass::Success | MessageClass::Error => BindingReply::NotBinding,
    }
}

fn answer(request: &Message<'_>, remote: SocketAddr) -> Option<Vec<u8>> {
    let types = request.iter_attributes().map(|(_, attribute)| attribute.get_type());
    let mut unknown: Vec<_> =
        types.filter(|kind| kind.comprehension_required() && !UNDERSTOOD.contains(kind)).collect();
    if unknown.is_empty() {
        let mut answer = Message::builder_success(request, MessageWriteVec::new());
        answer.add_attribute(&XorMappedAddress::new(remote, request.transaction_id())).ok()?;
        return Some(answer.finish());
    }
    // A stranger must not make the answer long by inventing attributes.
    unknown.truncate(MAX_UNKNOWN);
    let mut answer = Message::builder_error(request, MessageWriteVec::new());
    answer.add_attribute(&ErrorCode::new(420, "Unknown Attribute").ok()?).ok()?;
    answer.add_attribute(&UnknownAttributes::new(&unknown)).ok()?;
    Some(answer.finish())
}

/// How many unknown attributes an error response names.
const MAX_UNKNOWN: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stun_types::attribute::RawAttribute;

    use super::*;

    const REMOTE: &str = "192.0.2.7:4242";

    fn request(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut request = Message::builder_request(BINDING, MessageWriteVec::new());
        for (kind, value) in attributes {
            request.add_attribute(&RawAttribute::new(AttributeType::new(*kind), value)).unwrap();
        }
        request.finish()
    }

    fn answer_to(request: &[u8]) -> Vec<u8> {
        match reply(request, REMOTE.parse().unwrap()) {
            BindingReply::Answer(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_binding_request_is_told_where_it_comes_from_and_nothing_else() {
        let request = request(&[]);
        let answer = answer_to(&request);
        let (request, answer) = (Message::from_bytes(&request).unwrap(), Message::from_bytes(&answer).unwrap());
        assert!(answer.has_class(MessageClass::Success));
        assert_eq!(answer.transaction_id(), request.transaction_id());
        let mapped = answer.attribute::<XorMappedAddress>().unwrap();
        assert_eq!(mapped.addr(answer.transaction_id()), REMOTE.parse().unwrap());
        assert_eq!(answer.iter_attributes().count(), 1);
    }

    #[test]
    fn an_attribute_that_must_be_understood_and_is_not_gets_code_420() {
        // CHANGE-REQUEST of RFC 5780: an answer from another address, which this node does not give.
        let answer = answer_to(&request(&[(0x0003, &[0, 0, 0, 6])]));
        let answer = Message::from_bytes(&answer).unwrap();
        assert_eq!(answer.attribute::<ErrorCode>().unwrap().code(), 420);
        assert!(answer.attribute::<UnknownAttributes>().unwrap().has_attribute(AttributeType::new(3)));
        let optional = answer_to(&request(&[(0x8022, b"test")]));
        assert!(Message::from_bytes(&optional).unwrap().has_class(MessageClass::Success));
    }

    #[test]
    fn what_is_no_binding_request_gets_no_answer() {
        let remote = REMOTE.parse().unwrap();
        let allocate = Message::builder_request(stun_types::message::Method::new(3), MessageWriteVec::new()).finish();
        let indication = Message::builder_indication(BINDING, MessageWriteVec::new()).finish();
        assert_eq!(reply(&allocate, remote), BindingReply::NotBinding);
        assert_eq!(reply(&answer_to(&request(&[])), remote), BindingReply::NotBinding);
        assert_eq!(reply(&indication, remote), BindingReply::Nothing);
        assert_eq!(reply(b"GET / HTTP/1.1\r\n\r\n and more", remote), BindingReply::Malformed);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_or_answer_much(mut bytes in prop::collection::vec(any::<u8>(), 20..1280), as_request: bool) {
            if as_request {
                let len = u16::try_from(bytes.len() - 20).unwrap().to_be_bytes();
                bytes[..8].copy_from_slice(&[0, 1, len[0], len[1], 0x21, 0x12, 0xa4, 0x42]);
            }
            if let BindingReply::Answer(answer) = reply(&bytes, REMOTE.parse().unwrap()) {
                prop_assert!(answer.len() <= 100);
            }
        }
    }
}
