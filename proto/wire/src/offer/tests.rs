use proptest::prelude::*;

use super::*;
use keyferry_net::time::UtcDay;

use crate::{codec, identity::NodeSecret};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn secret() -> NodeSecret {
    NodeSecret::from_bytes(&[7; 32])
}

fn candidate() -> Candidate {
    Candidate::host_passive("192.0.2.1:4040".parse().unwrap(), 1)
}

fn offer() -> Offer {
    let (ufrag, password) = ice_credentials(&[0xa5; 20]);
    Offer {
        ufrag,
        password,
        candidates: vec![candidate()],
        signalling: vec!["/ip4/192.0.2.9/tcp/4040".parse().unwrap()],
        sequence: 5,
        expires: NOW.plus(MAX_LIFETIME),
    }
}

fn sealed() -> SealedOffer {
    let signed = SignedOffer::sign(offer(), &secret()).unwrap();
    seal(&signed, &secret(), NOW.day(), [3; 24]).unwrap()
}

#[test]
fn an_offer_that_was_sealed_opens_as_what_was_signed() {
    let signed = SignedOffer::sign(offer(), &secret()).unwrap();
    let node = secret().public();
    let key = record_key(&node, NOW.day());
    let found = SealedOffer::parse(sealed().as_bytes(), &key, NOW).unwrap();
    assert_eq!((found.key(), found.sequence(), found.expires()), (key, 5, offer().expires));
    assert_eq!(found.open(&node, NOW), Ok(signed));
}

#[test]
fn a_record_shows_nothing_of_its_owner() {
    let sealed = sealed();
    let shows = |needle: &[u8]| sealed.as_bytes().windows(needle.len()).any(|window| window == needle);
    assert!(!shows(secret().public().as_bytes()));
    assert!(!shows(&[192, 0, 2, 1]) && !shows(&[192, 0, 2, 9]));
    assert!(!shows(offer().ufrag.as_bytes()));
}

#[test]
fn records_of_two_days_of_one_node_share_no_bytes_but_sequence_expiry_and_nonce() {
    let signed = SignedOffer::sign(offer(), &secret()).unwrap();
    let today = seal(&signed, &secret(), NOW.day(), [3; 24]).unwrap();
    let tomorrow = seal(&signed, &secret(), UtcDay(NOW.day().0 + 1), [3; 24]).unwrap();
    assert_ne!(today.key(), tomorrow.key());
    let [today, tomorrow] = [&today, &tomorrow].map(|sealed| sealed.as_bytes());
    assert!(today[..32].iter().zip(&tomorrow[..32]).filter(|(one, other)| one == other).count() < 8);
    assert!(today[84..].windows(8).zip(tomorrow[84..].windows(8)).all(|(one, other)| one != other));
}

#[test]
fn the_size_of_a_record_does_not_tell_one_candidate_from_two() {
    let length = |count| {
        let signed = SignedOffer::sign(Offer { candidates: vec![candidate(); count], ..offer() }, &secret()).unwrap();
        seal(&signed, &secret(), NOW.day(), [3; 24]).unwrap().as_bytes().len()
    };
    assert_eq!(length(1), length(2));
}

#[test]
fn signing_refuses_what_no_reader_would_accept() {
    let hosts: Vec<Multiaddr> = vec!["/ip4/192.0.2.9/tcp/4040".parse().unwrap(); 5];
    let long: Multiaddr = "/ip4/192.0.2.9/tcp/1".repeat(40).parse().unwrap();
    let sign = |offer| SignedOffer::sign(offer, &secret()).unwrap_err();
    assert_eq!(
        sign(Offer { candidates: vec![candidate(); 10_000], ..offer() }),
        OfferError::Candidates { got: 10_000 }
    );
    assert_eq!(sign(Offer { signalling: hosts, ..offer() }), OfferError::Signalling { got: 5 });
    assert_eq!(sign(Offer { signalling: vec![long], ..offer() }), OfferError::SignallingAddr { index: 0 });
    assert_eq!(
        sign(Offer { ufrag: "a b c".into(), ..offer() }),
        OfferError::Credential { field: "ufrag", min: 4, max: 32, got: 5 }
    );
}

#[test]
fn ten_thousand_candidates_are_refused_by_their_size_before_anything_is_parsed() {
    let body = codec::encode(&("ufrag", "password", vec![candidate(); 10_000], [0_u64; 3]));
    let signature = secret().sign(&body);
    let bytes = [secret().public().as_bytes(), &body[..], &signature].concat();
    let got = bytes.len();
    assert_eq!(SignedOffer::decode(&bytes, NOW), Err(OfferError::TooLong { got, limit: MAX_SIGNED_LEN }));
    let key = record_key(&secret().public(), NOW.day());
    assert_eq!(SealedOffer::parse(&bytes, &key, NOW), Err(RecordError::TooLong { got, limit: MAX_SEALED_LEN }));
}

#[test]
fn sealing_with_another_secret_than_that_which_signed_is_refused() {
    let signed = SignedOffer::sign(offer(), &secret()).unwrap();
    let other = NodeSecret::from_bytes(&[8; 32]);
    assert_eq!(seal(&signed, &other, NOW.day(), [3; 24]), Err(OfferError::BadSignature));
}

#[test]
fn a_clock_that_is_ten_minutes_wrong_either_way_is_borne_and_no_more() {
    let key = sealed().key();
    let parse_at = |now| SealedOffer::parse(sealed().as_bytes(), &key, UnixTime(now)).map(|_| ());
    assert_eq!(parse_at(NOW.0 - 600), Ok(()));
    assert!(matches!(parse_at(NOW.0 - 601), Err(RecordError::FromTheFuture { .. })));
    assert_eq!(parse_at(NOW.0 + 7199), Ok(()));
    assert!(matches!(parse_at(NOW.0 + 7200), Err(RecordError::Expired { .. })));
    for now in [0, u64::MAX] {
        assert!(parse_at(now).is_err());
    }
}

#[test]
fn debug_output_holds_no_password() {
    let signed = SignedOffer::sign(offer(), &secret()).unwrap();
    let printed = format!("{:?} {signed:?}", offer());
    assert!(printed.contains(&offer().ufrag) && !printed.contains(&offer().password));
}

fn any_offer() -> impl Strategy<Value = Offer> {
    let addr = any::<(std::net::IpAddr, u16)>().prop_map(std::net::SocketAddr::from);
    let kind = prop::sample::select(vec![
        keyferry_ice::candidate::CandidateKind::Host,
        keyferry_ice::candidate::CandidateKind::ServerReflexive,
        keyferry_ice::candidate::CandidateKind::PortMapped,
        keyferry_ice::candidate::CandidateKind::Relayed,
    ]);
    let tcp_type = prop::sample::select(vec![
        keyferry_ice::candidate::TcpType::Active,
        keyferry_ice::candidate::TcpType::Passive,
        keyferry_ice::candidate::TcpType::SimultaneousOpen,
    ]);
    let candidate = (kind, tcp_type, addr, any::<u32>()).prop_map(|(kind, tcp_type, addr, priority)| Candidate {
        kind,
        tcp_type,
        addr,
        priority,
    });
    let circuit = any::<std::net::Ipv4Addr>()
        .prop_map(|ip| format!("/ip4/{ip}/tcp/1/p2p-circuit").parse::<Multiaddr>().expect("a multiaddr"));
    (
        "[a-zA-Z0-9+/]{4,32}",
        "[a-zA-Z0-9+/]{22,64}",
        prop::collection::vec(candidate, 0..=MAX_CANDIDATES),
        prop::collection::vec(circuit, 0..=MAX_SIGNALLING),
        any::<u64>(),
        1..=MAX_LIFETIME.as_secs(),
    )
        .prop_map(|(ufrag, password, candidates, signalling, sequence, lifetime)| Offer {
            ufrag,
            password,
            candidates,
            signalling,
            sequence,
            expires: UnixTime(NOW.0 + lifetime),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_offer_survives_signing_sealing_parsing_and_opening(offer in any_offer(), nonce in any::<[u8; 24]>()) {
        let signed = SignedOffer::sign(offer.clone(), &secret()).unwrap();
        prop_assert_eq!(SignedOffer::decode(signed.as_bytes(), NOW), Ok(signed.clone()));
        let sealed = seal(&signed, &secret(), NOW.day(), nonce).unwrap();
        prop_assert!(sealed.as_bytes().len() <= MAX_SEALED_LEN);
        let parsed = SealedOffer::parse(sealed.as_bytes(), &sealed.key(), NOW);
        prop_assert_eq!(parsed.as_ref(), Ok(&sealed));
        prop_assert_eq!(sealed.open(&secret().public(), NOW).map(|opened| opened.offer().clone()), Ok(offer));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(SignedOffer::decode(&noise, NOW).is_err());
        prop_assert!(SealedOffer::parse(&noise, &sealed().key(), NOW).is_err());
        // The same behind a good signature: what a hostile owner can send.
        prop_assert!(SignedOffer::decode(&signed::sign_any(&noise, &secret()), NOW).is_err());
    }

    #[test]
    fn any_change_to_a_signed_body_is_refused_or_gives_another_canonical_offer(at in 0_usize..1000, to in any::<u8>()) {
        let signed = SignedOffer::sign(offer(), &secret()).unwrap();
        let mut body = signed.as_bytes()[32..signed.as_bytes().len() - 64].to_vec();
        let at = at % body.len();
        body[at] = to;
        if let Ok(changed) = SignedOffer::decode(&signed::sign_any(&body, &secret()), NOW) {
            prop_assert_eq!(SignedOffer::sign(changed.offer().clone(), &secret()), Ok(changed));
        }
    }

    #[test]
    fn any_change_to_a_record_is_refused(at in 0_usize..4096, bit in 0_u8..8) {
        let sealed = sealed();
        let mut bytes = sealed.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(SealedOffer::parse(&bytes, &sealed.key(), NOW).is_err());
        prop_assert!(SealedOffer::parse(&bytes[..at], &sealed.key(), NOW).is_err());
    }
}
