//! What people will try, one by one.

use std::time::Duration;

use stun_types::{
    attribute::{AttributeType, RawAttribute},
    message::{BINDING, MessageWrite},
};
use turn_types::{
    attribute::ConnectionId,
    message::{ALLOCATE, CONNECTION_BIND},
};

use super::relay::{PEER, Relay, User, request, tcp};
use crate::{
    AddressFamily,
    server::{ClientId, Config, Quota, RelayLimits, ServerOutput},
};

/// Relayed by an IPv4 allocation, and by an IPv6 one.
fn forbidden(family: AddressFamily) -> &'static [&'static str] {
    match family {
        AddressFamily::V4 => &[
            "127.0.0.1:4600",
            "127.9.9.9:4600",
            "0.0.0.0:4600",
            "0.1.2.3:4600",
            "10.0.0.1:4600",
            "172.16.0.1:4600",
            "192.168.1.1:4600",
            "169.254.1.1:4600",
            "169.254.169.254:80",
            "100.64.0.1:4600",
            "224.0.0.251:5353",
            "255.255.255.255:4600",
            "240.0.0.1:4600",
            "203.0.113.9:41414",
            "203.0.113.9:4600",
            "192.0.2.5:25",
            "192.0.2.5:0",
        ],
        AddressFamily::V6 => &[
            "[::1]:4600",
            "[::]:4600",
            "[fe80::1]:4600",
            "[fd00:ec2::254]:80",
            "[fc00::1]:4600",
            "[fec0::1]:4600",
            "[ff02::1]:4600",
            "[::127.0.0.1]:4600",
            "[64:ff9b::7f00:1]:4600",
            "[64:ff9b::a9fe:a9fe]:80",
            "[64:ff9b:1::a00:1]:4600",
            "[2002:7f00:1::1]:4600",
            "[2002:a00:1::1]:4600",
            "[2001:0:1::f5ff:fffe]:4600",
            "[2001:db8:9::9]:41414",
            "[2001:db8:9::9]:4600",
        ],
    }
}

#[test]
fn no_address_of_the_inside_is_reached_in_whatever_form() {
    for family in [AddressFamily::V4, AddressFamily::V6] {
        let mut relay = Relay::new();
        let mut user = User::ada();
        let control = relay.client();
        relay.greet(control, &mut user);
        let number = if family == AddressFamily::V4 { 1 } else { 2 };
        let asked = RawAttribute::new(AttributeType::new(0x0017), &[number, 0, 0, 0]).into_owned();
        assert_eq!(relay.ask(control, &user.request(ALLOCATE, &[&tcp(), &asked])).code(), 0);
        for peer in forbidden(family) {
            assert_eq!(relay.begin_connect(control, &user, peer).unwrap_err().code(), 403, "{peer}");
        }
        let counted = relay.server.counters();
        let refused = counted.peer_relay
            + counted.peer_loopback
            + counted.peer_link_local
            + counted.peer_not_public
            + counted.peer_port;
        assert_eq!(refused, forbidden(family).len() as u64);
        assert_eq!(counted.connections, 0);
    }
}

#[test]
fn an_address_that_is_mapped_into_ipv6_is_an_ipv4_address() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    for peer in ["[::ffff:127.0.0.1]:4600", "[::ffff:10.0.0.1]:4600", "[::ffff:203.0.113.9]:41414"] {
        assert_eq!(relay.begin_connect(control, &user, peer).unwrap_err().code(), 403, "{peer}");
    }
    let code = relay.permit(control, &user, &["[::ffff:10.0.0.1]:1"]).code();
    assert!([403, 443].contains(&code), "{code}");
}

#[test]
fn no_permission_is_given_for_the_inside() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    let hosts = forbidden(AddressFamily::V4)
        .iter()
        .filter(|peer| !peer.starts_with("192.0.2") && !peer.starts_with("203.0.113"));
    for peer in hosts {
        assert_eq!(relay.permit(control, &user, &[peer]).code(), 403, "{peer}");
    }
}

fn quotas(identity: Quota, host: Quota, all: Quota) -> Relay {
    let limits = RelayLimits { identity, host, all, period: Duration::from_secs(1000), ..RelayLimits::default() };
    Relay::with(Config { limits, ..Config::default() }, Default::default())
}

const MANY: Quota = Quota { allocations: 100, connections: 100, bytes: None };

#[test]
fn allocations_are_limited_by_identity_by_host_and_in_all() {
    let two = Quota { allocations: 2, ..MANY };
    for relay in [quotas(two.clone(), MANY, MANY), quotas(MANY, two.clone(), MANY), quotas(MANY, MANY, two)] {
        let mut relay = relay;
        let mut user = User::ada();
        let first = relay.allocated(&mut user);
        relay.allocated(&mut user);
        let third = relay.client();
        assert_eq!(relay.ask(third, &user.request(ALLOCATE, &[&tcp()])).code(), 486);
        assert_eq!(relay.server.counters().quota, 1);
        relay.server.closed(relay.now, first);
        assert_eq!(relay.ask(third, &user.request(ALLOCATE, &[&tcp()])).code(), 0, "one was given back");
    }
}

#[test]
fn the_limit_of_one_is_not_that_of_another() {
    let mut relay = quotas(Quota { allocations: 1, ..MANY }, MANY, MANY);
    relay.allocated(&mut User::ada());
    relay.allocated(&mut User::bob());
    relay.allocated(&mut User::issued("ada"));
    assert_eq!(relay.server.counters().allocations, 3);
}

#[test]
fn a_host_with_many_identities_has_the_limit_of_a_host() {
    let mut relay = quotas(MANY, Quota { allocations: 2, ..MANY }, MANY);
    relay.allocated(&mut User::issued("a"));
    relay.allocated(&mut User::issued("b"));
    let mut third = User::issued("c");
    let client = relay.client();
    relay.greet(client, &mut third);
    assert_eq!(relay.ask(client, &third.request(ALLOCATE, &[&tcp()])).code(), 486);
}

#[test]
fn connections_are_limited_those_that_wait_among_them() {
    let mut relay = quotas(Quota { connections: 3, ..MANY }, MANY, MANY);
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    let allocation = relay.allocation_of(control);
    relay.permit(control, &user, &["192.0.2.9:1"]);
    let joined = relay.joined(control, &user, PEER);
    relay.begin_connect(control, &user, "192.0.2.6:4600").unwrap();
    assert!(relay.peer(allocation, "192.0.2.9:1").is_some());
    assert_eq!(relay.begin_connect(control, &user, "192.0.2.7:4600").unwrap_err().code(), 486);
    assert_eq!(relay.peer(allocation, "192.0.2.9:2"), None);
    let mut other = relay.allocated(&mut user);
    assert_eq!(relay.begin_connect(other, &user, PEER).unwrap_err().code(), 486, "of all its allocations together");
    relay.server.closed(relay.now, joined);
    other = relay.joined(other, &user, PEER);
    assert!(!relay.closed(other));
}

#[test]
fn bytes_are_limited_by_identity_by_host_and_in_all() {
    let few = Quota { bytes: Some(1000), ..MANY };
    for relay in [quotas(few.clone(), MANY, MANY), quotas(MANY, few.clone(), MANY), quotas(MANY, MANY, few)] {
        let mut relay = relay;
        let mut user = User::ada();
        let control = relay.allocated(&mut user);
        let data = relay.joined(control, &user, PEER);
        relay.server.relayed(relay.now, data, &user.holder(), 1000);
        relay.drain();
        assert!(!relay.closed(data));
        relay.server.relayed(relay.now, data, &user.holder(), 1);
        relay.drain();
        assert!(relay.closed(data));
        assert_eq!(relay.server.counters().quota_bytes, 1);
        assert_eq!(relay.begin_connect(control, &user, PEER).unwrap_err().code(), 486);
        relay.pass(Duration::from_secs(500));
        relay.refresh(control, &user, 3600);
        relay.pass(Duration::from_secs(500));
        assert!(relay.begin_connect(control, &user, PEER).is_ok(), "in the next period");
    }
}

#[test]
fn bytes_that_are_told_after_the_end_count_too() {
    let mut relay = quotas(Quota { bytes: Some(1000), ..MANY }, MANY, MANY);
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    let data = relay.joined(control, &user, PEER);
    relay.refresh(control, &user, 0);
    assert!(relay.closed(data));
    relay.server.relayed(relay.now, data, &user.holder(), 1001);
    assert_eq!(relay.ask(control, &user.request(ALLOCATE, &[&tcp()])).code(), 486);
}

#[test]
fn somebody_elses_connection_is_not_bound() {
    let mut relay = Relay::new();
    let (mut ada, mut bob) = (User::ada(), User::bob());
    let control = relay.allocated(&mut ada);
    relay.allocated(&mut bob);
    let (_, connection) = relay.connect(control, &ada, PEER);
    let (thief, answer) = relay.bind(&bob, connection);
    assert_eq!(answer.code(), 400);
    assert!(!relay.outputs.iter().any(|output| matches!(output, ServerOutput::Join { .. })));
    assert_eq!(relay.bind_on(thief, &bob, connection.wrapping_add(1)).code(), 400, "a guess");
    assert_eq!(relay.bind(&ada, connection).1.code(), 0, "its owner still can");
    assert_eq!(relay.server.counters().bad_bind, 2);
}

#[test]
fn a_connection_is_bound_once_and_by_who_proves_to_be_its_owner() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    let (_, connection) = relay.connect(control, &user, PEER);
    let stranger = relay.client();
    let unsigned = request(CONNECTION_BIND, &[&ConnectionId::new(connection)]).finish();
    assert_eq!(relay.ask(stranger, &unsigned).code(), 401);
    let wrong = User { nonce: user.nonce.clone(), ..User::named("ada", "wrong") };
    assert_eq!(relay.bind_on(stranger, &wrong, connection).code(), 401);
    let (joined, answer) = relay.bind(&user, connection);
    assert_eq!(answer.code(), 0);
    assert_eq!(relay.bind(&user, connection).1.code(), 400, "twice");
    relay.server.closed(relay.now, joined);
    assert_eq!(relay.bind(&user, connection).1.code(), 400, "nor after it has ended");
}

#[test]
fn what_comes_on_a_joined_connection_is_not_read_as_messages() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    let data = relay.joined(control, &user, PEER);
    relay.outputs.clear();
    relay.send(data, &user.request(ALLOCATE, &[&tcp()]));
    relay.send(data, b"raw");
    assert!(relay.outputs.is_empty());
}

#[test]
fn a_flood_from_one_host_pushes_out_its_own() {
    let limits = RelayLimits { half_open_per_host: 4, half_open: 16, ..RelayLimits::default() };
    let mut relay = Relay::with(Config { limits, ..Config::default() }, Default::default());
    let honest = relay.client();
    let flood: Vec<ClientId> =
        (0..1000).map(|port| relay.client_from(&format!("198.51.100.66:{}", port + 1))).collect();
    assert!(!relay.closed(honest));
    assert_eq!(flood.iter().filter(|client| !relay.closed(**client)).count(), 4);
    assert_eq!(relay.server.counters().pushed_out, 996);
    assert_eq!(relay.server.clients.len(), 5);
}

#[test]
fn a_flood_from_many_hosts_is_bounded_and_spares_who_is_allocated() {
    let limits = RelayLimits { half_open_per_host: 4, half_open: 16, ..RelayLimits::default() };
    let mut relay = Relay::with(Config { limits, ..Config::default() }, Default::default());
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    for i in 0..1000 {
        relay.client_from(&format!("198.51.{}.{}:1", 100 + i / 250, i % 250 + 1));
    }
    assert_eq!(relay.server.clients.len(), 17);
    assert!(!relay.closed(control));
    assert_eq!(relay.refresh(control, &user, 600).code(), 0);
    relay.pass(Duration::from_secs(15));
    assert_eq!(relay.server.clients.len(), 1, "who asks for nothing is closed");
    assert_eq!(relay.server.counters().half_open, 16);
}

#[test]
fn who_gives_up_an_allocation_is_one_of_the_crowd_again() {
    let limits = RelayLimits { half_open_per_host: 4, half_open: 16, ..RelayLimits::default() };
    let mut relay = Relay::with(Config { limits, ..Config::default() }, Default::default());
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    let idle: Vec<ClientId> = (0..4).map(|_| relay.client()).collect();

    assert_eq!(relay.refresh(control, &user, 0).code(), 0);

    assert_eq!(relay.server.clients.half_open_count(), 4);
    assert!(relay.closed(idle[0]) && !relay.closed(control), "the oldest of its host gives way");
}

#[test]
fn passwords_are_not_guessed_for_long_on_one_connection() {
    let mut relay = Relay::new();
    let client = relay.client();
    let mut wrong = User::named("ada", "wrong");
    relay.greet(client, &mut wrong);
    for _ in 1..15 {
        assert_eq!(relay.ask(client, &wrong.request(ALLOCATE, &[&tcp()])).code(), 401);
    }
    assert!(!relay.closed(client));
    assert_eq!(relay.ask(client, &wrong.request(ALLOCATE, &[&tcp()])).code(), 401);
    assert!(relay.closed(client));
    assert_eq!(relay.server.counters().unproven, 1);
    relay.assert_empty();
}

#[test]
fn nonces_that_run_out_do_not_add_up_over_the_life_of_an_allocation() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    for _ in 0..200 {
        relay.pass(Duration::from_secs(599));
        let stale = relay.refresh(control, &user, 3600);
        if stale.code() == 438 {
            user.nonce = Some(stale.nonce());
            assert_eq!(relay.refresh(control, &user, 3600).code(), 0);
        }
    }
    assert!(!relay.closed(control));
}

#[test]
fn a_connection_that_only_asks_for_its_address_does_not_stay() {
    let mut relay = Relay::new();
    let client = relay.client();
    for _ in 0..15 {
        relay.ask(client, &request(BINDING, &[]).finish());
        relay.pass(Duration::from_secs(1));
    }
    assert!(relay.closed(client));
}

#[test]
fn what_is_no_message_closes_the_connection_with_all_that_hangs_on_it() {
    let good = request(ALLOCATE, &[&tcp()]).finish();
    let longer = RawAttribute::new(AttributeType::new(0x8000), &[0; 2048]).into_owned();
    let oversized = request(ALLOCATE, &[&longer]).finish();
    let mut no_cookie = good.clone();
    no_cookie[4] ^= 1;
    let mut response = good.clone();
    response[0] |= 1;
    let cut = good[..good.len() - 4].to_vec();
    let two = [good.clone(), good.clone()].concat();
    for bad in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), oversized, no_cookie, response, cut, two, Vec::new()] {
        let mut relay = Relay::new();
        let mut user = User::ada();
        let control = relay.allocated(&mut user);
        let data = relay.joined(control, &user, PEER);
        relay.send(control, &bad);
        assert!(relay.closed(control) && relay.closed(data), "{bad:?}");
        assert_eq!(relay.server.counters().malformed, 1);
        relay.assert_empty();
    }
}

#[test]
fn indications_change_nothing() {
    use stun_types::message::{Message, MessageWriteVec};
    use turn_types::message::{CONNECTION_ATTEMPT, SEND};
    let mut relay = Relay::new();
    let mut user = User::ada();
    let control = relay.allocated(&mut user);
    relay.outputs.clear();
    for method in [BINDING, SEND, CONNECTION_ATTEMPT] {
        relay.send(control, &Message::builder_indication(method, MessageWriteVec::new()).finish());
    }
    assert!(relay.outputs.is_empty());
}

#[test]
fn an_answer_to_a_stranger_is_short() {
    let mut relay = Relay::new();
    let client = relay.client();
    let unknown: Vec<_> =
        (0..60).map(|kind| RawAttribute::new(AttributeType::new(0x7000 + kind), &[0; 4]).into_owned()).collect();
    let unknown: Vec<&dyn stun_types::attribute::AttributeWrite> = unknown.iter().map(|one| one as _).collect();
    let answer = relay.ask(client, &request(ALLOCATE, &unknown).finish());
    assert!(answer.bytes.len() < 200, "{}", answer.bytes.len());
}
