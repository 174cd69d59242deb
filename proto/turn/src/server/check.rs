//! What a connection begins with that is to become a path between two ICE agents: a check (RFC 8445 §7, framed by RFC 4571).
//!
//! A relay for everybody that joined whatever comes would be a proxy to the whole web under its operator's address. A server of the web
//! does not answer a check with a check, and an agent does.
//!
//! What it is not: proof of who the agents are; whoever wants to be reached can answer.

use stun_types::message::{BINDING, Message, MessageHeader};

/// The longest message that counts as a check: what fits into a datagram on every path (RFC 8489 §6.1), for which agents make theirs.
pub const MAX_CHECK_LEN: usize = 548;

/// Whether a message, without its RFC 4571 length, is a check or an answer to one: a Binding message of STUN, all of it and no more.
pub fn is_check(message: &[u8]) -> bool {
    let Ok(header) = MessageHeader::from_bytes(message) else { return false };
    message.len() == MessageHeader::LENGTH + usize::from(header.data_length())
        && message.len() <= MAX_CHECK_LEN
        && Message::from_bytes(message).is_ok_and(|message| message.has_method(BINDING))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stun_types::{
        attribute::{AttributeType, RawAttribute, Username},
        message::{MessageWrite, MessageWriteExt, MessageWriteVec, Method},
    };
    use turn_types::message::ALLOCATE;

    use super::*;

    fn request(method: Method, padding: usize) -> Vec<u8> {
        let mut message = Message::builder_request(method, MessageWriteVec::new());
        message.add_attribute(&Username::new("peer:own").unwrap()).unwrap();
        message.add_attribute(&RawAttribute::new(AttributeType::new(0x8022), &vec![b'x'; padding])).unwrap();
        message.finish()
    }

    #[test]
    fn checks_and_their_answers_are_and_other_messages_are_not() {
        let check = request(BINDING, 4);
        assert!(is_check(&check));
        let asked = Message::from_bytes(&check).unwrap();
        assert!(is_check(&Message::builder_success(&asked, MessageWriteVec::new()).finish()));
        assert!(is_check(&Message::builder_indication(BINDING, MessageWriteVec::new()).finish()));
        assert!(!is_check(&request(ALLOCATE, 4)));
        assert!(!is_check(&check[..check.len() - 4]), "not whole");
        assert!(!is_check(&[&check[..], b"GET "].concat()), "more than whole");
        assert!(!is_check(&request(BINDING, MAX_CHECK_LEN)), "too long");
        for other in [&b""[..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0x16; 100], b"SSH-2.0-OpenSSH_9.9\r\n"] {
            assert!(!is_check(other));
        }
    }

    proptest! {
        #[test]
        fn nothing_without_the_cookie_is_a_check(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(byte) = bytes.get_mut(4) {
                *byte = b'H';
            }
            prop_assert!(!is_check(&bytes));
        }
    }
}
