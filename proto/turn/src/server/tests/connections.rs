//! Connections with peers: RFC 6062 §5.2 to §5.4.

use std::time::Duration;

use stun_types::message::MessageClass;
use turn_types::{
    attribute::{ConnectionId, XorPeerAddress},
    message::{CONNECT, CONNECTION_ATTEMPT, CONNECTION_BIND},
};

use super::relay::{PEER, Relay, User, addr};
use crate::server::{ConnectFailed, ServerOutput};

#[test]
fn a_connect_ends_in_a_joined_connection() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    relay.send(control, &Relay::connect_request(&user, PEER));
    let allocation = relay.allocation_of(control);
    let Some(ServerOutput::Connect { peer, allocation: from, to }) = relay.outputs.pop_back() else {
        panic!("no connect")
    };
    assert_eq!((from, to), (allocation, addr(PEER)));
    let connection = relay.peer_connected(control, peer, Ok(())).connection();
    let (client, answer) = relay.bind(&user, connection);
    assert_eq!(answer.code(), 0);
    assert!(answer.integrity(&user).is_some());
    let joined = relay.outputs.pop_back();
    assert_eq!(
        joined,
        Some(ServerOutput::Join { client, peer, holder: user.holder(), checks_first: false }),
        "after the answer"
    );
    let counters = relay.server.counters();
    assert_eq!((counters.joined, counters.connections), (1, 1));
    relay.server.closed(relay.now, client);
    relay.drain();
    assert_eq!(relay.server.counters().connections, 0);
    assert!(!relay.closed(control), "the allocation stands");
}

#[test]
fn a_peer_that_connects_is_told_of_by_an_indication() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    let allocation = relay.allocation_of(control);
    relay.permit(control, &user, &[PEER]);
    let peer = relay.peer(allocation, "192.0.2.5:1234").expect("a peer");
    let indication = relay.indication(control).expect("an indication");
    let message = indication.message();
    assert!(message.has_class(MessageClass::Indication) && message.has_method(CONNECTION_ATTEMPT));
    assert_eq!(indication.bytes[..2], [0x00, 0x1c], "the type that coturn sends");
    assert_eq!(message.attribute::<XorPeerAddress>().unwrap().addr(message.transaction_id()), addr("192.0.2.5:1234"));
    let (client, answer) = relay.bind(&user, indication.connection());
    assert_eq!(answer.code(), 0);
    assert!(
        matches!(relay.outputs.pop_back(), Some(ServerOutput::Join { client: c, peer: p, .. }) if (c, p) == (client, peer))
    );
}

#[test]
fn a_peer_that_does_not_answer_is_447_at_once_or_after_30_seconds() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    let refused = relay.begin_connect(control, &user, PEER).unwrap();
    assert_eq!(relay.peer_connected(control, refused, Err(ConnectFailed)).code(), 447);
    let silent = relay.begin_connect(control, &user, PEER).expect("it may be tried again");
    relay.pass(Duration::from_millis(29_999));
    assert!(relay.answer(control).is_none());
    relay.pass(Duration::from_millis(1));
    assert_eq!(relay.answer(control).unwrap().code(), 447);
    assert!(relay.outputs.contains(&ServerOutput::ClosePeer { peer: silent }), "the attempt is given up");
    relay.server.peer_connected(relay.now, silent, Ok(()));
    relay.drain();
    assert!(relay.answer(control).is_none(), "too late");
    assert_eq!(relay.server.counters().connections, 0);
}

#[test]
fn there_is_one_connection_with_each_address_of_a_peer() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    let connecting = relay.begin_connect(control, &user, PEER).unwrap();
    assert_eq!(relay.begin_connect(control, &user, PEER).unwrap_err().code(), 446, "while it is being made");
    let connection = relay.peer_connected(control, connecting, Ok(())).connection();
    assert_eq!(relay.begin_connect(control, &user, PEER).unwrap_err().code(), 446, "while it waits");
    let (client, _) = relay.bind(&user, connection);
    assert_eq!(relay.begin_connect(control, &user, PEER).unwrap_err().code(), 446, "while it is joined");
    assert!(relay.begin_connect(control, &user, "192.0.2.5:4601").is_ok(), "another port is another peer");
    relay.server.closed(relay.now, client);
    assert!(relay.begin_connect(control, &user, PEER).is_ok());
}

#[test]
fn a_connect_needs_one_peer_of_the_same_family() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    assert_eq!(relay.begin_connect(control, &user, "[2600::1]:4600").unwrap_err().code(), 443);
    assert_eq!(relay.ask(control, &user.request(CONNECT, &[])).code(), 400);
    let other = relay.client();
    assert_eq!(relay.begin_connect(other, &user, PEER).unwrap_err().code(), 437);
}

#[test]
fn a_connection_waits_30_seconds_for_its_client() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    let (peer, connection) = relay.connect(control, &user, PEER);
    relay.pass(Duration::from_millis(29_999));
    assert!(!relay.outputs.contains(&ServerOutput::ClosePeer { peer }));
    relay.pass(Duration::from_millis(1));
    assert!(relay.outputs.contains(&ServerOutput::ClosePeer { peer }));
    assert_eq!(relay.bind(&user, connection).1.code(), 400, "too late");
    assert_eq!(relay.server.counters().unbound, 1);
}

#[test]
fn clients_of_one_relay_reach_each_other_by_their_relayed_addresses_and_by_nothing_else_of_it() {
    let mut relay = Relay::new();
    let (mut ada, mut bob) = (User::ada(), User::bob());
    let adas = relay.client();
    let adas_addr = relay.allocate_on(adas, &mut ada).to_string();
    let bobs = relay.client();
    let bobs_addr = relay.allocate_on(bobs, &mut bob).to_string();
    assert_eq!(relay.permit(bobs, &bob, &[&adas_addr]).code(), 0, "hosts are permitted: the relay is one");
    assert!(relay.begin_connect(adas, &ada, &bobs_addr).is_ok());
    let allocation = relay.allocation_of(bobs);
    assert!(relay.peer(allocation, &adas_addr).is_some());
    assert_eq!(relay.begin_connect(adas, &ada, &adas_addr).unwrap_err().code(), 403, "not with oneself");
    assert_eq!(relay.begin_connect(adas, &ada, "203.0.113.9:50007").unwrap_err().code(), 403, "nobody's port");
    relay.refresh(bobs, &bob, 0);
    assert_eq!(relay.begin_connect(adas, &ada, &bobs_addr).unwrap_err().code(), 403, "nobody's any more");
}

#[test]
fn a_control_connection_is_no_data_connection() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    let (_, connection) = relay.connect(control, &user, PEER);
    assert_eq!(relay.bind_on(control, &user, connection).code(), 400);
    let data = relay.client();
    assert_eq!(relay.ask(data, &user.request(CONNECTION_BIND, &[])).code(), 400, "which one?");
    assert_eq!(relay.ask(data, &user.request(CONNECTION_BIND, &[&ConnectionId::new(connection)])).code(), 0);
}

#[test]
fn clients_whom_the_operator_does_not_know_begin_with_checks_but_among_themselves() {
    let mut relay = Relay::new();
    let joined = |relay: &mut Relay, user: &User, connection| {
        assert_eq!(relay.bind(user, connection).1.code(), 0);
        match relay.outputs.pop_back() {
            Some(ServerOutput::Join { client, checks_first, .. }) => (client, checks_first),
            other => panic!("not joined: {other:?}"),
        }
    };
    let (mut ada, mut carol, mut dave) = (User::ada(), User::issued("carol"), User::issued("dave"));
    let (adas, carols, daves) = (relay.allocated(&mut ada), relay.allocated(&mut carol), relay.client());
    let at_dave = relay.allocate_on(daves, &mut dave).to_string();

    let (_, known) = relay.connect(adas, &ada, PEER);
    assert!(!joined(&mut relay, &ada, known).1, "a user of the operator's");
    let (_, between) = relay.connect(carols, &carol, &at_dave);
    assert!(!joined(&mut relay, &carol, between).1, "two clients of this relay");
    relay.permit(carols, &carol, &["192.0.2.6:1"]);
    let allocation = relay.allocation_of(carols);
    relay.peer(allocation, "192.0.2.6:1234").expect("a peer");
    let accepted = relay.indication(carols).expect("an indication").connection();
    assert!(joined(&mut relay, &carol, accepted).1, "a peer that has connected");
    let (_, connected) = relay.connect(carols, &carol, PEER);
    let (client, checks_first) = joined(&mut relay, &carol, connected);
    assert!(checks_first, "any other");

    relay.server.not_checked(relay.now, client);
    relay.server.not_checked(relay.now, client);
    relay.drain();
    let counters = relay.server.counters();
    assert_eq!((counters.unchecked, counters.connections), (1, 3), "told once, and forgotten");
}
