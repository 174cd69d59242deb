//! The vectors of `docs/vectors/dialling.json`: what a dialler shows in its first flight, as an independent program made it.

use keyferry_net::time::UtcDay;
use keyferry_proto::{
    dialling::{DialProof, KeyShare, Sought},
    hash::ContentHash,
    identity::NodeKey,
};
use serde_json::Value;

use crate::cases::{array, cases, number, text, vectors};

fn sought(case: &Value) -> Sought {
    match case.get("node") {
        Some(_) => Sought::Node(NodeKey::from_bytes(&array(case, "node")).expect("a node key")),
        None => Sought::Content(ContentHash::from_bytes(array(case, "content"))),
    }
}

fn day(case: &Value) -> UtcDay {
    UtcDay(u32::try_from(number(case, "day")).expect("a day"))
}

fn share(case: &Value) -> KeyShare {
    KeyShare(array(case, "key_share"))
}

#[test]
fn proofs_are_made_and_understood() {
    for case in cases(&vectors("dialling"), "/proofs") {
        let (sought, day, share) = (sought(case), day(case), share(case));
        let made = DialProof::new(&sought, day, &share, array(case, "random"));
        assert_eq!(made.to_name(), text(case, "name"));
        assert!(DialProof::parse(text(case, "name")).expect("a proof").proves(&sought, day, &share));
    }
}

#[test]
fn what_is_wrong_proves_nothing() {
    for case in cases(&vectors("dialling"), "/wrong") {
        let proof = DialProof::parse(text(case, "name")).expect("a proof");
        assert!(!proof.proves(&sought(case), day(case), &share(case)), "{}", text(case, "why"));
    }
    for name in vectors("dialling")["no_proofs"].as_array().expect("names") {
        assert!(DialProof::parse(name.as_str().expect("a text")).is_err(), "{name}");
    }
}
