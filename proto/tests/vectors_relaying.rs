//! The vectors of `docs/vectors/relaying.json`: requests to relays and their replies, as an independent program made them.

use std::fmt::Debug;

use keyferry_proto::{
    identity::{NodeKey, NodeSecret},
    offer::{RecordKey, relay_record_key, relay_record_key_of},
    relaying::{Channel, Issued, Refusal, RelayingError, Reply, anonymous_request, node_request, verify_request},
    time::{UnixTime, UtcDay},
};
use serde_json::Value;

struct Vectors {
    all: Value,
    relay: NodeSecret,
    requester: NodeSecret,
    channel: Channel,
    now: UnixTime,
}

fn vectors() -> Vectors {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/vectors/relaying.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).expect(path)).expect(path);
    Vectors {
        relay: NodeSecret::from_bytes(&array(&all, "relay_secret")),
        requester: NodeSecret::from_bytes(&array(&all, "requester_secret")),
        channel: Channel { relay: array(&all, "relay_rendezvous"), requester: array(&all, "requester_rendezvous") },
        now: UnixTime(number(&all, "now")),
        all,
    }
}

/// The cases under a path of keys, of which there must be some.
fn cases<'a>(vectors: &'a Vectors, path: &str) -> &'a [Value] {
    let list = vectors.all.pointer(path).and_then(Value::as_array).expect(path);
    assert!(!list.is_empty(), "{path}");
    list
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_else(|| panic!("{field} in {case}"))
}

fn number(case: &Value, field: &str) -> u64 {
    case[field].as_u64().unwrap_or_else(|| panic!("{field} in {case}"))
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    hex(text(case, field))
}

fn array<const LEN: usize>(case: &Value, field: &str) -> [u8; LEN] {
    bytes(case, field).try_into().unwrap_or_else(|_| panic!("{field} of {LEN} bytes in {case}"))
}

fn node(case: &Value) -> NodeKey {
    NodeKey::from_bytes(&array(case, "node")).expect("a node key")
}

fn issued(case: &Value) -> Reply {
    let addrs = case["addrs"].as_array().expect("addresses");
    let addr = |addr: &Value| addr.as_str().and_then(|text| text.parse().ok()).expect("an address");
    Reply::Issued(Issued {
        realm: text(case, "realm").to_owned(),
        username: text(case, "username").to_owned(),
        password: text(case, "password").to_owned(),
        expires: UnixTime(number(case, "expires")),
        addrs: addrs.iter().map(addr).collect(),
        tls_pin: case["tls_pin"].as_str().map(|pin| hex(pin).try_into().expect("32 bytes")),
    })
}

/// Asserts that a result is the error whose `Debug` form begins as the case says.
#[track_caller]
fn assert_refused<T: Debug, E: Debug>(result: Result<T, E>, case: &Value) {
    let expected = text(case, "error");
    match result {
        Ok(value) => panic!("{}: accepted as {value:?}", case["why"]),
        Err(error) => {
            let got = format!("{error:?}");
            assert!(got.starts_with(expected), "{}: expected {expected}, got {got}", case["why"]);
        }
    }
}

impl Vectors {
    fn verify(&self, message: &[u8]) -> Result<Option<NodeKey>, RelayingError> {
        verify_request(message, &self.relay, self.channel, self.now)
    }
}

#[test]
fn requests_are_made_and_read_as_the_vectors_have_them() {
    let vectors = vectors();
    let anonymous = bytes(&vectors.all["requests"], "anonymous");
    assert_eq!(anonymous_request(), anonymous);
    assert_eq!(vectors.verify(&anonymous), Ok(None));
    for case in cases(&vectors, "/requests/valid") {
        let (message, time) = (bytes(case, "message"), UnixTime(number(case, "time")));
        let relay = vectors.relay.public();
        let made = node_request(&vectors.requester, &relay, vectors.channel, time, &array(case, "seed"));
        assert_eq!(made, message, "{}", case["why"]);
        assert_eq!(vectors.verify(&message), Ok(Some(vectors.requester.public())), "{}", case["why"]);
    }
    let mixed = &vectors.all["requests"]["sealed_to_a_key_of_mixed_order"];
    let seed = array(&cases(&vectors, "/requests/valid")[0], "seed");
    let made = node_request(&vectors.requester, &node(mixed), vectors.channel, vectors.now, &seed);
    assert_eq!(made, bytes(mixed, "message"));
}

#[test]
fn corrupted_requests_are_refused_for_the_stated_reason() {
    let vectors = vectors();
    for case in cases(&vectors, "/requests/invalid") {
        assert_refused(vectors.verify(&bytes(case, "message")), case);
    }
}

#[test]
fn replies_are_made_and_read_as_the_vectors_have_them() {
    let vectors = vectors();
    for case in cases(&vectors, "/replies/issued") {
        let message = bytes(case, "message");
        assert_eq!(issued(case).encode(vectors.now), Ok(message.clone()), "{}", case["why"]);
        assert_eq!(Reply::parse(&message, vectors.now), Ok(issued(case)), "{}", case["why"]);
    }
    for case in cases(&vectors, "/replies/refused") {
        let refused = Reply::Refused(if text(case, "why") == "policy" { Refusal::Policy } else { Refusal::Busy });
        assert_eq!(refused.encode(vectors.now), Ok(bytes(case, "message")));
        assert_eq!(Reply::parse(&bytes(case, "message"), vectors.now), Ok(refused));
    }
}

#[test]
fn corrupted_replies_are_refused_for_the_stated_reason() {
    let vectors = vectors();
    for case in cases(&vectors, "/replies/invalid") {
        assert_refused(Reply::parse(&bytes(case, "message"), vectors.now), case);
    }
}

#[test]
fn relays_are_found_under_the_keys_of_the_vectors() {
    let vectors = vectors();
    let everyone = RecordKey::from_bytes(array(&vectors.all["record_keys"], "everyone"));
    assert_eq!(relay_record_key(), everyone);
    for case in cases(&vectors, "/record_keys/of_nodes") {
        let day = UtcDay(u32::try_from(number(case, "day")).expect("a day"));
        assert_eq!(relay_record_key_of(&node(case), day), RecordKey::from_bytes(array(case, "key")));
    }
}
