//! The vectors of `docs/vectors/relaying.json`: requests to relays and their replies, as an independent program made them.

use keyferry_net::time::{UnixTime, UtcDay};
use keyferry_proto::{
    identity::{NodeKey, NodeSecret},
    offer::{RecordKey, relay_record_key, relay_record_key_of},
    relaying::{
        RelayChannel, RelayCredentials, RelayRefusal, RelayingError, Reply, anonymous_request, node_request,
        verify_request,
    },
};
use serde_json::Value;

use crate::cases::{self, array, assert_refused, bytes, cases, hex, number, text};

struct RelayingVectors {
    all: Value,
    relay: NodeSecret,
    requester: NodeSecret,
    channel: RelayChannel,
    now: UnixTime,
}

fn vectors() -> RelayingVectors {
    let all = cases::vectors("relaying");
    RelayingVectors {
        relay: NodeSecret::from_bytes(&array(&all, "relay_secret")),
        requester: NodeSecret::from_bytes(&array(&all, "requester_secret")),
        channel: RelayChannel {
            relay: array(&all, "relay_rendezvous"),
            requester: array(&all, "requester_rendezvous"),
        },
        now: UnixTime(number(&all, "now")),
        all,
    }
}

fn node(case: &Value) -> NodeKey {
    NodeKey::from_bytes(&array(case, "node")).expect("a node key")
}

fn issued(case: &Value) -> Reply {
    let addrs = case["addrs"].as_array().expect("addresses");
    let addr = |addr: &Value| addr.as_str().and_then(|text| text.parse().ok()).expect("an address");
    Reply::Issued(RelayCredentials {
        realm: text(case, "realm").to_owned(),
        username: text(case, "username").to_owned(),
        password: text(case, "password").to_owned(),
        expires: UnixTime(number(case, "expires")),
        addrs: addrs.iter().map(addr).collect(),
        tls_pin: case["tls_pin"].as_str().map(|pin| hex(pin).try_into().expect("32 bytes")),
    })
}

impl RelayingVectors {
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
    for case in cases(&vectors.all, "/requests/valid") {
        let (message, time) = (bytes(case, "message"), UnixTime(number(case, "time")));
        let relay = vectors.relay.public();
        let made = node_request(&vectors.requester, &relay, vectors.channel, time, &array(case, "seed"));
        assert_eq!(made, message, "{}", case["why"]);
        assert_eq!(vectors.verify(&message), Ok(Some(vectors.requester.public())), "{}", case["why"]);
    }
    let mixed = &vectors.all["requests"]["sealed_to_a_key_of_mixed_order"];
    let seed = array(&cases(&vectors.all, "/requests/valid")[0], "seed");
    let made = node_request(&vectors.requester, &node(mixed), vectors.channel, vectors.now, &seed);
    assert_eq!(made, bytes(mixed, "message"));
}

#[test]
fn corrupted_requests_are_refused_for_the_stated_reason() {
    let vectors = vectors();
    for case in cases(&vectors.all, "/requests/invalid") {
        assert_refused(vectors.verify(&bytes(case, "message")), case);
    }
}

#[test]
fn replies_are_made_and_read_as_the_vectors_have_them() {
    let vectors = vectors();
    for case in cases(&vectors.all, "/replies/issued") {
        let message = bytes(case, "message");
        assert_eq!(issued(case).encode(vectors.now), Ok(message.clone()), "{}", case["why"]);
        assert_eq!(Reply::parse(&message, vectors.now), Ok(issued(case)), "{}", case["why"]);
    }
    for case in cases(&vectors.all, "/replies/refused") {
        let refused =
            Reply::Refused(if text(case, "why") == "policy" { RelayRefusal::Policy } else { RelayRefusal::Busy });
        assert_eq!(refused.encode(vectors.now), Ok(bytes(case, "message")));
        assert_eq!(Reply::parse(&bytes(case, "message"), vectors.now), Ok(refused));
    }
}

#[test]
fn corrupted_replies_are_refused_for_the_stated_reason() {
    let vectors = vectors();
    for case in cases(&vectors.all, "/replies/invalid") {
        assert_refused(Reply::parse(&bytes(case, "message"), vectors.now), case);
    }
}

#[test]
fn relays_are_found_under_the_keys_of_the_vectors() {
    let vectors = vectors();
    let everyone = RecordKey::from_bytes(array(&vectors.all["record_keys"], "everyone"));
    assert_eq!(relay_record_key(), everyone);
    for case in cases(&vectors.all, "/record_keys/of_nodes") {
        let day = UtcDay(u32::try_from(number(case, "day")).expect("a day"));
        assert_eq!(relay_record_key_of(&node(case), day), RecordKey::from_bytes(array(case, "key")));
    }
}
