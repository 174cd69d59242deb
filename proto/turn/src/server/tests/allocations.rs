//! Allocations, their lifetime and their permissions.

use std::time::Duration;

use stun_types::attribute::{AttributeType, RawAttribute, XorMappedAddress};
use turn_types::{
    attribute::{EvenPort, Lifetime, RequestedTransport},
    message::{ALLOCATE, CHANNEL_BIND, REFRESH},
};

use super::relay::{CLIENT_IP, PEER, Relay, User, addr, request, tcp};
use crate::server::{AllocationId, ClientId, Config, ListenFailure, RelayLimits, ServerOutput};
use stun_types::message::MessageWrite;

fn family(number: u8) -> RawAttribute<'static> {
    RawAttribute::new(AttributeType::new(0x0017), &[number, 0, 0, 0]).into_owned()
}

/// A client whose allocation waits for its port.
fn waiting_for_a_port() -> (Relay, User, ClientId, AllocationId) {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.client();
    relay.greet(client, &mut user);
    let unix = relay.unix();
    relay.server.message(relay.now, unix, client, &user.request(ALLOCATE, &[&tcp()]));
    let Some(ServerOutput::Listen { allocation, .. }) = relay.server.poll_output() else { panic!("no listen") };
    (relay, user, client, allocation)
}

#[test]
fn an_allocation_tells_its_relayed_address_its_lifetime_and_where_the_client_is() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.client();
    relay.greet(client, &mut user);
    let answer = relay.ask(client, &user.request(ALLOCATE, &[&tcp()]));
    assert_eq!(answer.relayed(), addr("203.0.113.9:50000"));
    assert_eq!(answer.lifetime(), 600);
    let mapped = answer.get::<XorMappedAddress>().addr(answer.message().transaction_id());
    assert_eq!(mapped, addr(&format!("{CLIENT_IP}:40000")));
    assert_eq!(relay.server.counters().allocations, 1);
}

#[test]
fn both_families_are_given_and_no_other() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let v6 = relay.client();
    relay.greet(v6, &mut user);
    assert!(relay.ask(v6, &user.request(ALLOCATE, &[&tcp(), &family(2)])).relayed().is_ipv6());
    let v4 = relay.client();
    assert!(relay.ask(v4, &user.request(ALLOCATE, &[&tcp(), &family(1)])).relayed().is_ipv4());
    let other = relay.client();
    assert_eq!(relay.ask(other, &user.request(ALLOCATE, &[&tcp(), &family(3)])).code(), 440);
}

#[test]
fn only_tcp_is_relayed() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.client();
    relay.greet(client, &mut user);
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    assert_eq!(relay.ask(client, &user.request(ALLOCATE, &[&udp])).code(), 442);
    assert_eq!(relay.ask(client, &user.request(ALLOCATE, &[])).code(), 400);
    assert_eq!(relay.ask(client, &user.request(ALLOCATE, &[&tcp(), &EvenPort::new(false)])).code(), 400);
    assert_eq!(relay.ask(client, &user.request(CHANNEL_BIND, &[])).code(), 400);
    assert_eq!(relay.ask(client, &user.request(ALLOCATE, &[&tcp()])).code(), 0, "the connection is still good");
}

#[test]
fn a_connection_has_one_allocation_at_a_time() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.allocated(&mut user);
    assert_eq!(relay.ask(client, &user.request(ALLOCATE, &[&tcp()])).code(), 437);
    assert_eq!(relay.refresh(client, &user, 0).lifetime(), 0);
    relay.assert_empty();
    assert_eq!(relay.ask(client, &user.request(ALLOCATE, &[&tcp()])).code(), 0, "given back, it can have another");
    let other = relay.client();
    assert_eq!(relay.refresh(other, &user, 600).code(), 437, "no allocation here");
    assert_eq!(relay.permit(other, &user, &[PEER]).code(), 437);
}

#[test]
fn a_family_or_a_port_that_is_not_there_is_told_by_its_code() {
    for (failure, code) in [(ListenFailure::NoSuchFamily, 440), (ListenFailure::NoPort, 508)] {
        let (mut relay, user, client, allocation) = waiting_for_a_port();
        let unix = relay.unix();
        relay.server.message(relay.now, unix, client, &user.request(REFRESH, &[]));
        relay.drain();
        assert_eq!(relay.answer(client).unwrap().code(), 437, "it does not stand yet");
        relay.server.listening(relay.now, allocation, Err(failure));
        relay.drain();
        assert_eq!(relay.answer(client).unwrap().code(), code);
        relay.assert_empty();
    }
}

#[test]
fn a_lifetime_is_granted_within_bounds() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.client();
    relay.greet(client, &mut user);
    let long = user.request(ALLOCATE, &[&tcp(), &Lifetime::new(u32::MAX)]);
    assert_eq!(relay.ask(client, &long).lifetime(), 3600);
    assert_eq!(relay.refresh(client, &user, 1).lifetime(), 600);
    assert_eq!(relay.refresh(client, &user, 1000).lifetime(), 1000);
}

#[test]
fn an_allocation_ends_when_it_is_not_refreshed() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.allocated(&mut user);
    let data = relay.joined(client, &user, PEER);
    relay.pass(Duration::from_secs(500));
    assert_eq!(relay.refresh(client, &user, 600).code(), 0);
    relay.pass(Duration::from_secs(599));
    assert!(!relay.closed(data));
    relay.pass(Duration::from_secs(1));
    assert!(relay.closed(data), "with the allocation end its connections");
    assert!(relay.outputs.iter().any(|output| matches!(output, ServerOutput::StopListening { .. })));
    relay.assert_empty();
    relay.pass(Duration::from_secs(60));
    assert!(relay.closed(client), "and then the connection that asks for nothing more");
}

#[test]
fn an_allocation_ends_with_its_control_connection() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.allocated(&mut user);
    let data = relay.joined(client, &user, PEER);
    let waiting = relay.connect(client, &user, "192.0.2.6:4600").0;
    let connecting = relay.begin_connect(client, &user, "192.0.2.7:4600").unwrap();
    relay.server.closed(relay.now, client);
    relay.drain();
    assert!(relay.closed(data));
    for peer in [waiting, connecting] {
        assert!(relay.outputs.contains(&ServerOutput::ClosePeer { peer }));
    }
    relay.assert_empty();
}

#[test]
fn permissions_are_given_for_several_hosts_and_run_out() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.allocated(&mut user);
    let allocation = relay.allocation_of(client);
    assert_eq!(relay.peer(allocation, PEER), None, "none yet");
    assert_eq!(relay.permit(client, &user, &["192.0.2.5:0", "192.0.2.6:9"]).code(), 0);
    assert!(relay.peer(allocation, PEER).is_some(), "any port of it");
    assert!(relay.peer(allocation, "192.0.2.6:1").is_some());
    assert_eq!(relay.peer(allocation, "192.0.2.7:1"), None);
    relay.pass(Duration::from_secs(299));
    assert!(relay.peer(allocation, "192.0.2.5:1").is_some());
    relay.pass(Duration::from_secs(1));
    assert_eq!(relay.peer(allocation, "192.0.2.5:2"), None, "they have run out");
    assert_eq!(relay.permit(client, &user, &["192.0.2.5:0"]).code(), 0);
    assert!(relay.peer(allocation, "192.0.2.5:2").is_some());
    assert_eq!(relay.server.counters().unpermitted, 3);
}

#[test]
fn a_permission_for_what_may_not_be_reached_gives_none_at_all() {
    let mut relay = Relay::new();
    let mut user = User::ada();
    let client = relay.allocated(&mut user);
    let allocation = relay.allocation_of(client);
    assert_eq!(relay.permit(client, &user, &[PEER, "10.0.0.1:1"]).code(), 403);
    assert_eq!(relay.permit(client, &user, &[PEER, "[2600::1]:1"]).code(), 443, "of the other family");
    assert_eq!(relay.permit(client, &user, &[]).code(), 400);
    assert_eq!(relay.peer(allocation, PEER), None);
}

#[test]
fn permissions_of_one_allocation_are_bounded_and_those_that_have_run_out_make_room() {
    let limits = RelayLimits { permissions: 2, ..RelayLimits::default() };
    let mut relay = Relay::with(Config { limits, ..Config::default() }, Default::default());
    let mut user = User::ada();
    let client = relay.allocated(&mut user);
    assert_eq!(relay.permit(client, &user, &["192.0.2.1:1", "192.0.2.2:1", "192.0.2.1:2"]).code(), 0);
    assert_eq!(relay.permit(client, &user, &["192.0.2.3:1"]).code(), 508);
    assert_eq!(relay.permit(client, &user, &["192.0.2.2:1"]).code(), 0, "one that is there is refreshed");
    relay.pass(Duration::from_secs(300));
    assert_eq!(relay.permit(client, &user, &["192.0.2.3:1"]).code(), 0);
}

#[test]
fn a_port_that_is_found_after_the_client_has_gone_is_closed_again() {
    let (mut relay, _, client, allocation) = waiting_for_a_port();
    relay.server.closed(relay.now, client);
    assert_eq!(relay.server.poll_output(), Some(ServerOutput::StopListening { allocation }));
    relay.server.listening(relay.now, allocation, Ok(addr("203.0.113.9:50000")));
    assert_eq!(relay.server.poll_output(), None);
    relay.assert_empty();
}

#[test]
fn requests_are_plain_messages_to_standard_clients_too() {
    // The form of a request that knows nothing of RFC 8489: no algorithms, MD5, no fingerprint.
    let mut relay = Relay::new();
    let mut user = User::bob().with_md5();
    let client = relay.client();
    relay.greet(client, &mut user);
    assert_eq!(relay.ask(client, &user.sign(request(ALLOCATE, &[&tcp()]), false)).code(), 0);
    assert_eq!(request(ALLOCATE, &[]).finish().len(), 20);
}
