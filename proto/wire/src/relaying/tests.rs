use std::time::Duration;

use proptest::prelude::*;

use super::*;
use keyferry_net::time::UnixTime;

use crate::{
    codec::{self, CodecError},
    frame::{FrameDecoder, encode_frame},
    identity::{NodeKey, NodeSecret},
};

const CHANNEL: RelayChannel = RelayChannel { relay: [0xca; 32], requester: [0xce; 32] };
const NOW: UnixTime = UnixTime(1_800_000_000);
const SEED: [u8; 64] = [9; 64];

fn secret(seed: u8) -> NodeSecret {
    NodeSecret::from_bytes(&[seed; 32])
}

fn request() -> Vec<u8> {
    node_request(&secret(1), &secret(2).public(), CHANNEL, NOW, &SEED)
}

fn verified(message: &[u8]) -> Result<Option<NodeKey>, RelayingError> {
    verify_request(message, &secret(2), CHANNEL, NOW)
}

fn issued() -> RelayCredentials {
    RelayCredentials {
        realm: "keyferry".to_owned(),
        username: "1800003600:someone".to_owned(),
        password: "c2VjcmV0".to_owned(),
        expires: UnixTime(NOW.0 + 3600),
        addrs: vec!["192.0.2.1:4600".parse().unwrap(), "[2001:db8::1]:4600".parse().unwrap()],
        tls_pin: Some([7; 32]),
    }
}

#[test]
fn a_relay_knows_who_asks_if_it_is_told() {
    assert_eq!(verified(&request()), Ok(Some(secret(1).public())));
    assert_eq!(verified(&anonymous_request()), Ok(None));
    assert_eq!((request().len(), anonymous_request().len()), (MAX_REQUEST_LEN, 4));
}

#[test]
fn nobody_but_the_relay_that_is_meant_can_read_who_asks() {
    let posing = verify_request(&request(), &secret(3), CHANNEL, NOW);
    assert_eq!(posing, Err(RelayingError::Sealed));
    let bytes = request();
    let key = *secret(1).public().as_bytes();
    assert!(bytes.windows(32).all(|window| window != key));
}

#[test]
fn a_request_that_is_passed_on_over_another_connection_is_refused() {
    let swapped = RelayChannel { relay: CHANNEL.requester, requester: CHANNEL.relay };
    for channel in [swapped, RelayChannel { relay: [0; 32], ..CHANNEL }, RelayChannel { requester: [0; 32], ..CHANNEL }]
    {
        let moved = verify_request(&request(), &secret(2), channel, NOW);
        assert_eq!(moved, Err(RelayingError::BadSignature));
    }
}

#[test]
fn a_request_that_is_changed_anywhere_is_refused() {
    for at in 0..request().len() {
        let mut changed = request();
        changed[at] ^= 1;
        assert!(verified(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn a_request_holds_for_as_long_as_clocks_may_differ() {
    let at = |now: u64| verify_request(&request(), &secret(2), CHANNEL, UnixTime(now));
    let skew = MAX_CLOCK_SKEW.as_secs();
    assert!(at(NOW.0 - skew).is_ok() && at(NOW.0 + skew).is_ok());
    for now in [0, NOW.0 - skew - 1, NOW.0 + skew + 1, u64::MAX] {
        assert_eq!(at(now), Err(RelayingError::Time { got: NOW, now: UnixTime(now) }));
    }
}

#[test]
fn what_is_no_request_is_refused_by_its_length_or_kind() {
    for len in (0..200).filter(|len| ![4, MAX_REQUEST_LEN].contains(len)) {
        assert_eq!(verified(&vec![0; len]), Err(RelayingError::RequestLength { got: len }));
    }
    for (kind, len) in [(1, 4), (0, 156), (2, 4), (2, 156)] {
        let message = [&u32::to_le_bytes(kind)[..], &vec![0; len - 4]].concat();
        assert_eq!(verified(&message), Err(RelayingError::Kind { got: kind, len }));
    }
}

#[test]
fn keys_of_small_order_and_the_relays_own_are_refused() {
    let mut small = request();
    small[4..36].fill(0);
    small[4] = 1;
    assert_eq!(verified(&small), Err(RelayingError::EphemeralKey));
    let own = node_request(&secret(2), &secret(2).public(), CHANNEL, NOW, &SEED);
    assert_eq!(verified(&own), Err(RelayingError::RequesterKey));
}

#[test]
fn replies_arrive_as_they_were_sent() {
    for reply in [Reply::Issued(issued()), Reply::Refused(RelayRefusal::Policy), Reply::Refused(RelayRefusal::Busy)] {
        assert_eq!(Reply::parse(&reply.encode(NOW).unwrap(), NOW), Ok(reply));
    }
}

#[test]
fn the_greatest_reply_is_as_long_as_a_reply_may_be() {
    let addr = |port| format!("[2001:db8::1]:{port}").parse().unwrap();
    let most = RelayCredentials {
        realm: "r".repeat(MAX_REALM_LEN),
        username: "u".repeat(MAX_USERNAME_LEN),
        password: "p".repeat(MAX_PASSWORD_LEN),
        expires: NOW.plus(MAX_LIFETIME),
        addrs: (1..=MAX_ADDRS).map(addr).collect(),
        tls_pin: Some([7; 32]),
    };
    let bytes = Reply::Issued(most).encode(NOW).unwrap();
    assert_eq!(bytes.len(), MAX_REPLY_LEN);
    let longer = [&bytes[..], &[0]].concat();
    let too_long = CodecError::TooLong { got: MAX_REPLY_LEN + 1, limit: MAX_REPLY_LEN };
    assert_eq!(Reply::parse(&longer, NOW), Err(too_long.into()));
}

#[test]
fn what_is_beyond_the_limits_is_neither_sent_nor_taken() {
    let refused = |change: fn(&mut RelayCredentials)| {
        let mut changed = issued();
        change(&mut changed);
        let reply = Reply::Issued(changed);
        let error = reply.encode(NOW).unwrap_err();
        let parsed = Reply::parse(&codec::encode(&reply), NOW).unwrap_err();
        assert!(parsed == error || matches!(parsed, RelayingError::Codec(_)), "{parsed}");
        error
    };
    let credential = |field, got, limit| RelayingError::Credential { field, got, limit };
    assert_eq!(refused(|it| it.realm.clear()), credential("realm", 0, 128));
    assert_eq!(refused(|it| it.realm = "r".repeat(129)), credential("realm", 129, 128));
    assert_eq!(refused(|it| it.username = "a b".into()), credential("username", 3, 256));
    assert_eq!(refused(|it| it.username = "ü".into()), credential("username", 2, 256));
    assert_eq!(refused(|it| it.password = "\"".into()), credential("password", 1, 128));
    assert_eq!(refused(|it| it.password = "a\nb".into()), credential("password", 3, 128));
    let ports = |count: u16| (1..=count).map(|port| ([192, 0, 2, 1], port).into()).collect();
    assert!(Reply::Issued(RelayCredentials { addrs: ports(8), ..issued() }).encode(NOW).is_ok());
    let nine = Reply::Issued(RelayCredentials { addrs: ports(9), ..issued() });
    assert_eq!(nine.encode(NOW), Err(RelayingError::Addrs { got: 9, limit: 8 }));
    assert!(matches!(Reply::parse(&codec::encode(&nine), NOW), Err(RelayingError::Codec(_))));
    assert_eq!(refused(|it| it.addrs[1] = "192.0.2.1:0".parse().unwrap()), RelayingError::Addr { index: 1 });
    assert_eq!(refused(|it| it.addrs[1] = it.addrs[0]), RelayingError::Addr { index: 1 });
    assert_eq!(refused(|it| it.addrs[0] = "[::ffff:192.0.2.9]:1".parse().unwrap()), RelayingError::Addr { index: 0 });
    let expires = NOW;
    assert_eq!(refused(|it| it.expires = NOW), RelayingError::Expired { expires, now: NOW });
    let expires = UnixTime(NOW.plus(MAX_LIFETIME).plus(MAX_CLOCK_SKEW).0 + 1);
    assert_eq!(
        Reply::Issued(RelayCredentials { expires, ..issued() }).encode(NOW),
        Err(RelayingError::FromTheFuture { expires, now: NOW })
    );
}

#[test]
fn passwords_are_not_printed() {
    assert!(!format!("{:?}", Reply::Issued(issued())).contains("c2VjcmV0"));
}

fn any_issued() -> impl Strategy<Value = RelayCredentials> {
    let text = |limit| prop::collection::vec(prop_oneof![b'a'..=b'z', b'0'..=b':'], 1..=limit);
    let text = move |limit| text(limit).prop_map(|bytes| String::from_utf8(bytes).expect("ASCII"));
    let addr = (any::<[u8; 4]>(), any::<[u8; 15]>(), any::<bool>()).prop_map(|(v4, v6, is_v4)| match is_v4 {
        true => std::net::IpAddr::from(v4),
        // Never a mapped one.
        false => <[u8; 16]>::try_from([&[0x20], &v6[..]].concat()).expect("16 bytes").into(),
    });
    let addrs = prop::collection::btree_set((addr, 1_u16..), 0..=MAX_ADDRS);
    let addrs = addrs.prop_map(|addrs| addrs.into_iter().map(Into::into).collect());
    let lifetime = 1..=MAX_LIFETIME.as_secs();
    (text(MAX_REALM_LEN), text(MAX_USERNAME_LEN), text(MAX_PASSWORD_LEN), lifetime, addrs, any::<Option<[u8; 32]>>())
        .prop_map(|(realm, username, password, lifetime, addrs, tls_pin)| RelayCredentials {
            realm,
            username,
            password,
            expires: NOW.plus(Duration::from_secs(lifetime)),
            addrs,
            tls_pin,
        })
}

proptest! {
    #[test]
    fn every_reply_arrives_whatever_the_pieces_of_the_stream(issued in any_issued(), cuts in prop::collection::vec(1_usize..97, 1..20)) {
        let reply = Reply::Issued(issued);
        let mut stream = Vec::new();
        encode_frame(&reply.encode(NOW).unwrap(), &mut stream);
        let mut decoder = FrameDecoder::new(MAX_REPLY_LEN);
        let (mut rest, mut bodies) = (&stream[..], Vec::new());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (mut piece, behind) = rest.split_at((*cut).min(rest.len()));
            rest = behind;
            bodies.extend(decoder.accept(&mut piece).unwrap());
        }
        prop_assert_eq!(bodies.len(), 1);
        prop_assert_eq!(Reply::parse(&bodies[0], NOW), Ok(reply));
    }

    #[test]
    fn every_node_is_known_by_its_own_request(node in 3_u8..60, seed in any::<[u8; 32]>(), ahead in 0..600_u64) {
        let seed = [seed, seed].concat().try_into().expect("64 bytes");
        let message = node_request(&secret(node), &secret(2).public(), CHANNEL, UnixTime(NOW.0 + ahead), &seed);
        prop_assert_eq!(verified(&message), Ok(Some(secret(node).public())));
    }

    #[test]
    fn decoding_any_reply_never_panics_and_is_the_inverse_of_encoding(
        kind in 0_u8..3,
        rest in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(32), any::<u8>()], 0..160),
    ) {
        let bytes = [&[kind, 0, 0, 0], &rest[..]].concat();
        if let Ok(reply) = Reply::parse(&bytes, NOW) {
            prop_assert_eq!(codec::encode(&reply), bytes);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), sealed in any::<[u8; 152]>()) {
        drop(verified(&bytes));
        prop_assert!(verified(&[&[1, 0, 0, 0], &sealed[..]].concat()).is_err());
        drop(Reply::parse(&bytes, NOW));
    }
}

#[test]
fn a_seal_is_bound_to_its_ephemeral_key_as_that_stands_there() {
    let mut sealed: [u8; sealing::SEALED_LEN] =
        sealing::seal(&secret(2).public(), &SEED, &[5; sealing::CLAIM_LEN]).try_into().expect("its length");
    assert_eq!(sealing::open(&secret(2), &sealed), Ok([5; sealing::CLAIM_LEN]));
    // Another key with the same shared point: the cofactor clears what a part of small order adds.
    let ephemeral = NodeKey::from_bytes(sealed.first_chunk().expect("long enough")).unwrap();
    let mixed = ephemeral.point() + curve25519_dalek::constants::EIGHT_TORSION[1];
    sealed[..32].copy_from_slice(&mixed.compress().to_bytes());
    assert_eq!(sealing::open(&secret(2), &sealed), Err(RelayingError::Sealed));
}
