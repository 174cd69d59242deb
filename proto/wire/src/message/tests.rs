use proptest::prelude::*;

use super::*;
use crate::transfer::units::MAX_WIRE_RANGES;

fn hello() -> impl Strategy<Value = Hello> {
    (any::<u16>(), any::<u64>(), "[ -~]{0,128}").prop_map(|(version, features, agent)| Hello {
        version,
        features,
        agent,
    })
}

fn ranges() -> impl Strategy<Value = UnitRanges> {
    prop::collection::vec((any::<u64>(), 1..1000_u64), 1..20).prop_map(|list| {
        list.into_iter().map(|(start, len)| start.min(u64::MAX - 1)..start.saturating_add(len).max(1)).collect()
    })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop::sample::select(vec![
        Refusal::NotFound,
        Refusal::Busy,
        Refusal::Changed,
        Refusal::Policy,
        Refusal::Gone,
        Refusal::Unreadable,
    ])
}

fn entry() -> impl Strategy<Value = SignedEntry> {
    prop::collection::vec(any::<u8>(), 64..MAX_SIGNED_ENTRY_LEN)
        .prop_map(|bytes| SignedEntry::from_bytes(bytes).unwrap())
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        hello().prop_map(Request::Control),
        Just(Request::Catalogue),
        "[a-z]{1,40}".prop_map(|name| Request::Resolve(name.parse().unwrap())),
        (any::<[u8; 32]>(), ranges(), content_part()).prop_map(|(root, ranges, part)| {
            Request::Content(ContentRequest { root: ContentHash::from_bytes(root), ranges, part })
        }),
        "[a-z0-9._/-]{1,64}".prop_map(|name| Request::Protocol(name.parse().unwrap())),
    ]
}

fn content_part() -> impl Strategy<Value = ContentPart> {
    prop::sample::select(vec![ContentPart::Groups, ContentPart::Root, ContentPart::Parents])
}

fn control() -> impl Strategy<Value = ControlMessage> {
    let reasons = vec![Goodbye::Finished, Goodbye::Stopping, Goodbye::Busy, Goodbye::Protocol, Goodbye::Idle];
    prop_oneof![
        hello().prop_map(ControlMessage::Hello),
        any::<u64>().prop_map(ControlMessage::Ping),
        any::<u64>().prop_map(ControlMessage::Pong),
        prop::sample::select(reasons).prop_map(ControlMessage::Goodbye),
    ]
}

fn content_reply() -> impl Strategy<Value = ContentReply> {
    let formats = prop::sample::select(vec![ContentFormat::Blob, ContentFormat::Collection]);
    prop_oneof![
        (formats, 0..=MAX_BLOB_SIZE).prop_map(|(format, size)| ContentReply::Header(ContentHeader { format, size })),
        refusal().prop_map(ContentReply::Refused),
    ]
}

/// Bytes that look enough like messages to get past their first fields.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let likely = prop_oneof![4 => Just(0_u8), 2 => 0..4_u8, 1 => any::<u8>()];
    (0..5_u8, prop::collection::vec(likely, 0..120))
        .prop_map(|(variant, rest)| [&[variant, 0, 0, 0], &rest[..]].concat())
}

fn canonical<M: Message>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        assert_eq!(message.encode(), bytes);
    }
}

proptest! {
    #[test]
    fn messages_round_trip(
        request in request(), control in control(), content in content_reply(), entry in entry(), refusal in refusal(),
        count in any::<u64>(),
    ) {
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        prop_assert_eq!(ControlMessage::decode(&control.encode()), Ok(control));
        prop_assert_eq!(ContentReply::decode(&content.encode()), Ok(content));
        for reply in [ProtocolReply::Accepted, ProtocolReply::Refused(refusal)] {
            prop_assert_eq!(ProtocolReply::decode(&reply.encode()), Ok(reply));
        }
        for reply in [ResolveReply::Found(entry.clone()), ResolveReply::NotFound, ResolveReply::Refused(refusal)] {
            prop_assert_eq!(ResolveReply::decode(&reply.encode()), Ok(reply));
        }
        for reply in [CatalogueReply::Entry(entry), CatalogueReply::End { count }, CatalogueReply::Refused(refusal)] {
            prop_assert_eq!(CatalogueReply::decode(&reply.encode()), Ok(reply));
        }
    }

    #[test]
    fn any_bytes_give_an_error_or_the_one_message_with_that_encoding(bytes in bytes()) {
        canonical::<Request>(&bytes);
        canonical::<ControlMessage>(&bytes);
        canonical::<ResolveReply>(&bytes);
        canonical::<CatalogueReply>(&bytes);
        canonical::<ContentReply>(&bytes);
        canonical::<ProtocolReply>(&bytes);
    }

    #[test]
    fn truncated_and_prolonged_messages_are_refused(request in request(), cut in any::<prop::sample::Index>()) {
        let mut bytes = request.encode();
        prop_assert!(Request::decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(Request::decode(&bytes).is_err());
    }
}

#[test]
fn a_request_with_the_most_ranges_fits_its_limit() {
    let ranges: UnitRanges = (0..MAX_WIRE_RANGES as u64).map(|at| at * 2..at * 2 + 1).collect();
    let request = Request::Content(ContentRequest::groups(ContentHash::EMPTY, ranges));
    assert_eq!(Request::decode(&request.encode()), Ok(request));
}

#[test]
fn a_request_for_nothing_is_refused() {
    let request = Request::Content(ContentRequest::groups(ContentHash::EMPTY, UnitRanges::empty()));
    assert_eq!(Request::decode(&request.encode()), Err(MessageError::NoRanges));
}

#[test]
fn claims_of_more_than_any_blob_has_are_refused() {
    for got in [MAX_BLOB_SIZE + 1, u64::MAX] {
        let reply = ContentReply::Header(ContentHeader { format: ContentFormat::Blob, size: got });
        assert_eq!(ContentReply::decode(&reply.encode()), Err(MessageError::Size { got }));
    }
}

#[test]
fn program_names_that_are_long_or_would_play_with_a_terminal_are_refused() {
    let long = "x".repeat(MAX_AGENT_LEN + 1);
    for agent in ["\u{1b}[2Jx", "a\nb", "é", &long] {
        let hello = Hello { version: VERSION, features: 0, agent: agent.to_owned() };
        let expected = MessageError::Agent { got: agent.len() };
        assert_eq!(Request::decode(&Request::Control(hello.clone()).encode()), Err(expected.clone()));
        assert_eq!(ControlMessage::decode(&ControlMessage::Hello(hello).encode()), Err(expected));
    }
}

#[test]
fn names_of_protocols_that_are_none_are_refused() {
    for text in ["", "Chat", "a b", "a\u{1b}", "é", &"x".repeat(ProtocolName::MAX_LEN + 1)] {
        assert!(text.parse::<ProtocolName>().is_err(), "{text:?}");
        let bytes = [&[4, 0, 0, 0][..], &(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        assert!(matches!(Request::decode(&bytes), Err(MessageError::Codec(_))), "{text:?}");
    }
    let longest = Request::Protocol("x".repeat(ProtocolName::MAX_LEN).parse().unwrap());
    assert_eq!(Request::decode(&longest.encode()), Ok(longest));
}

#[test]
fn a_count_of_ranges_far_beyond_the_bytes_is_refused_without_memory_for_it() {
    for count in [MAX_WIRE_RANGES as u64 + 1, 1 << 40, u64::MAX] {
        let bytes = [&[3, 0, 0, 0][..], &[0; 32], &count.to_le_bytes()].concat();
        assert!(matches!(Request::decode(&bytes), Err(MessageError::Codec(_))));
    }
}

#[test]
fn an_over_long_message_is_refused_before_it_is_parsed() {
    let bytes = vec![0; Request::LIMIT + 1];
    let too_long = CodecError::TooLong { got: Request::LIMIT + 1, limit: Request::LIMIT };
    assert_eq!(Request::decode(&bytes), Err(MessageError::Codec(too_long)));
}

#[test]
fn every_status_byte_is_one_status_or_refused() {
    for byte in 0..=u8::MAX {
        match ItemStatus::from_byte(byte) {
            Ok(status) => assert_eq!(status.to_byte(), byte),
            Err(error) => assert_eq!((error, byte > 6), (MessageError::Status { got: byte }, true)),
        }
    }
}
