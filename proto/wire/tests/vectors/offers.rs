//! The vectors of `docs/vectors`: identity, addresses, offers and catalogue entries, as an independent program made them.

use keyferry_ice::{Candidate, CandidateKind, TcpType};
use keyferry_net::time::{UnixTime, UtcDay};
use keyferry_proto::{
    address::{Address, AddressTarget},
    catalogue::{CatalogueEntry, SignedEntry},
    hash::ContentHash,
    identity::{NodeKey, NodeSecret},
    offer::{Offer, RecordKey, SEALED_LEN, SealedOffer, SignedOffer, content_record_key, record_key, seal, supersedes},
};
use serde_json::Value;

use crate::cases::{array, assert_refused, bytes, cases, number, text, vectors};

fn secret(case: &Value) -> NodeSecret {
    NodeSecret::from_bytes(&array(case, "secret"))
}

fn node(case: &Value) -> NodeKey {
    NodeKey::from_bytes(&array(case, "node")).expect("a node key")
}

fn now(case: &Value) -> UnixTime {
    UnixTime(number(case, "now"))
}

fn day(case: &Value) -> UtcDay {
    UtcDay(u32::try_from(number(case, "day")).expect("a day"))
}

fn key(case: &Value) -> RecordKey {
    RecordKey::from_bytes(array(case, "key"))
}

#[test]
fn identity_keys_texts_and_signatures() {
    let vectors = vectors("identity");
    for case in cases(&vectors, "/valid") {
        let key = secret(case).public();
        assert_eq!(key.as_bytes(), &array::<32>(case, "public"));
        assert_eq!(key.to_string(), text(case, "text"));
        assert_eq!(text(case, "text").parse(), Ok(key));
        let message = bytes(case, "message");
        assert_eq!(secret(case).sign(&message), array::<64>(case, "signature"));
        assert!(key.verifies(&message, &array(case, "signature")));
    }
    for case in cases(&vectors, "/accepted_keys") {
        assert!(NodeKey::from_bytes(&array(case, "public")).is_ok(), "{case}");
    }
    for case in cases(&vectors, "/invalid_text") {
        assert_refused(text(case, "text").parse::<NodeKey>(), case);
    }
    for case in cases(&vectors, "/invalid_public") {
        assert!(NodeKey::from_bytes(&array(case, "public")).is_err(), "{case}");
    }
    for case in cases(&vectors, "/invalid_signature") {
        let key = NodeKey::from_bytes(&array(case, "public")).expect("a node key");
        assert!(!key.verifies(&bytes(case, "message"), &array(case, "signature")), "{case}");
    }
}

#[test]
fn addresses_parse_print_and_are_refused() {
    let vectors = vectors("address");
    for case in cases(&vectors, "/valid") {
        let address: Address = text(case, "text").parse().unwrap_or_else(|error| panic!("{error} in {case}"));
        assert_eq!(address.to_string(), text(case, "text"));
        assert_eq!(address.node().map(|node| node.to_string()).as_deref(), case["node"].as_str());
        let expected = match (case["name"].as_str(), case["content"].as_str()) {
            (Some(name), None) => AddressTarget::Name(name.parse().expect("a name")),
            (None, Some(hash)) => AddressTarget::Content(hash.parse().expect("a hash")),
            _ => AddressTarget::Catalogue,
        };
        assert_eq!(*address.target(), expected);
        let path = case["path"].is_string().then(|| bytes(case, "path"));
        assert_eq!(address.path().map(|path| path.as_bytes().to_vec()), path);
        let hints: Vec<Value> = address.hints().iter().map(|hint| hint.to_string().into()).collect();
        assert_eq!(Value::from(hints), case["hints"]);
    }
    for case in cases(&vectors, "/invalid") {
        assert_refused(text(case, "text").parse::<Address>(), case);
    }
}

#[test]
fn blinded_keys_and_record_keys() {
    let vectors = vectors("offer");
    for case in cases(&vectors, "/blinding") {
        assert_eq!(record_key(&secret(case).public(), day(case)), key(case));
    }
    for case in cases(&vectors, "/blinding_of_mixed_order") {
        assert_eq!(record_key(&node(case), day(case)), key(case));
    }
    for case in cases(&vectors, "/content_keys") {
        assert_eq!(content_record_key(&ContentHash::from_bytes(array(case, "hash"))), key(case));
    }
}

fn candidate(case: &Value) -> Candidate {
    let kind = match text(case, "kind") {
        "host" => CandidateKind::Host,
        "server_reflexive" => CandidateKind::ServerReflexive,
        "port_mapped" => CandidateKind::PortMapped,
        "relayed" => CandidateKind::Relayed,
        other => panic!("{other}"),
    };
    let tcp_type = match text(case, "tcp_type") {
        "active" => TcpType::Active,
        "passive" => TcpType::Passive,
        "simultaneous_open" => TcpType::SimultaneousOpen,
        other => panic!("{other}"),
    };
    let priority = u32::try_from(number(case, "priority")).expect("a number of 32 bits");
    Candidate {
        kind,
        tcp_type,
        addr: text(case, "addr").parse().expect("an address"),
        priority: priority.try_into().expect("a priority"),
    }
}

fn offer(case: &Value) -> Offer {
    Offer {
        candidates: case["candidates"].as_array().expect("a list").iter().map(candidate).collect(),
        signalling: case["signalling"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|addr| addr.as_str().expect("text").parse().expect("a multiaddr"))
            .collect(),
        sequence: number(case, "sequence"),
        expires: UnixTime(number(case, "expires")),
    }
}

#[test]
fn signed_offers() {
    let vectors = vectors("offer");
    for case in cases(&vectors, "/signed/valid") {
        let expected = offer(&case["offer"]);
        let signed = SignedOffer::sign(expected.clone(), &secret(case)).expect("a sound offer");
        assert_eq!(signed.as_bytes(), bytes(case, "bytes"));
        let decoded = SignedOffer::decode(&bytes(case, "bytes"), now(case)).expect("a sound offer");
        assert_eq!((decoded.offer(), decoded.node()), (&expected, node(case)));
        assert_eq!(decoded, signed);
    }
    for case in cases(&vectors, "/signed/valid_at") {
        assert!(SignedOffer::decode(&bytes(case, "bytes"), now(case)).is_ok(), "{case}");
    }
    for case in cases(&vectors, "/signed/invalid") {
        assert_refused(SignedOffer::decode(&bytes(case, "bytes"), now(case)), case);
    }
}

#[test]
fn sealed_offers() {
    let vectors = vectors("offer");
    for case in cases(&vectors, "/sealed/valid") {
        let signed = SignedOffer::decode(&bytes(case, "signed"), now(case)).expect("a sound offer");
        let sealed = seal(&signed, &secret(case), day(case), array(case, "nonce")).expect("its own secret");
        assert_eq!(sealed.as_bytes(), bytes(case, "bytes"));
        assert_eq!(sealed.as_bytes().len(), SEALED_LEN);
        let parsed = SealedOffer::parse(&bytes(case, "bytes"), &key(case), now(case)).expect("a sound record");
        assert_eq!((parsed.key(), parsed.day(), &parsed), (key(case), day(case), &sealed));
        assert_eq!(record_key(&node(case), day(case)), key(case));
        assert_eq!(parsed.open(&node(case), now(case)), Ok(signed));
    }
    for case in cases(&vectors, "/sealed/refused_by_anyone") {
        assert_refused(SealedOffer::parse(&bytes(case, "bytes"), &key(case), now(case)), case);
    }
    for case in cases(&vectors, "/sealed/refused_on_opening") {
        // What a storing node saw may lie before what the opener's clock says.
        let stored_at = UnixTime(now(case).0 - 3600);
        let sealed = [stored_at, now(case)]
            .into_iter()
            .find_map(|at| SealedOffer::parse(&bytes(case, "bytes"), &key(case), at).ok())
            .unwrap_or_else(|| panic!("{} is refused before it is opened", case["why"]));
        assert_refused(sealed.open(&node(case), now(case)), case);
    }
}

#[test]
fn sequences_and_expiries_are_veiled_for_each_day() {
    let vectors = vectors("offer");
    let veils = cases(&vectors, "/veils");
    let secrets: Vec<NodeSecret> = cases(&vectors, "/blinding").iter().map(secret).collect();
    for case in veils {
        let secret = secrets.iter().find(|secret| secret.public() == node(case)).expect("a known node");
        let of_case = Offer {
            candidates: vec![],
            signalling: vec![],
            sequence: number(case, "sequence"),
            expires: UnixTime(number(case, "expires")),
        };
        let signed = SignedOffer::sign(of_case, secret).expect("a sound offer");
        let sealed = seal(&signed, secret, day(case), [0; 24]).expect("its own secret");
        let expected = (number(case, "record_sequence"), UnixTime(number(case, "record_expires")));
        assert_eq!((sealed.sequence(), sealed.expires()), expected);
    }
}

#[test]
fn of_two_records_the_greater_sequence_counts() {
    for case in cases(&vectors("offer"), "/sealed/order") {
        let [new, old] = ["new", "old"]
            .map(|field| SealedOffer::parse(&bytes(case, field), &key(case), now(case)).expect("a sound record"));
        assert_eq!(supersedes(&new, &old), case["supersedes"].as_bool().expect("a bool"), "{}", case["why"]);
    }
}

#[test]
fn catalogue_entries() {
    let vectors = vectors("catalogue");
    for case in cases(&vectors, "/valid") {
        let entry: CatalogueEntry = CatalogueEntry {
            name: text(&case["entry"], "name").parse().expect("a name"),
            hash: text(&case["entry"], "hash").parse().expect("a hash"),
            format: serde_json::from_value(case["entry"]["format"].clone()).expect("a format"),
            size: number(&case["entry"], "size"),
            files: number(&case["entry"], "files"),
            attributes: serde_json::from_value(case["entry"]["attributes"].clone()).expect("attributes"),
        };
        let signed = SignedEntry::sign(&entry, &secret(case));
        assert_eq!(signed.as_bytes(), bytes(case, "bytes"));
        assert_eq!(SignedEntry::from_bytes(bytes(case, "bytes")).and_then(|it| it.verify(&node(case))), Ok(entry));
    }
    for case in cases(&vectors, "/invalid") {
        assert_refused(SignedEntry::from_bytes(bytes(case, "bytes")).and_then(|it| it.verify(&node(case))), case);
    }
}
