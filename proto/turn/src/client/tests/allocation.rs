//! Refreshing, expiring, giving back; a server that is silent or sends garbage.

use std::time::Duration;

use stun_types::{
    attribute::{AttributeType, RawAttribute},
    message::{BINDING, Message, MessageWrite, MessageWriteVec},
};
use turn_types::message::{ALLOCATE, REFRESH};

use super::{
    super::{Client, ClientOutput, Config, Ending, RequestError},
    exchange::{Exchange, LIFETIME, peer, seconds},
};

const SHORT: Duration = Duration::from_secs(8);

#[test]
fn refreshes_before_the_lifetime_ends() {
    let mut exchange = Exchange::standing();
    for round in 1..=3 {
        let waited = exchange.wait();
        assert!(waited >= LIFETIME / 2 && waited < LIFETIME - Duration::from_secs(60), "{waited:?}");
        exchange.grant(REFRESH, &[&seconds(LIFETIME)]);
        assert_eq!(exchange.client.counters().refreshes, round);
    }
    exchange.assert_quiet();
}

#[test]
fn a_refresh_that_fails_is_tried_again_until_the_lifetime_ends() {
    let mut exchange = Exchange::new();
    exchange.deny(401);
    exchange.grant_allocation(LIFETIME);
    exchange.tell();
    let mut waited = exchange.wait();
    let mut tries = 0;
    while !exchange.sent.is_empty() {
        exchange.deny(508);
        waited += exchange.wait();
        tries += 1;
    }
    assert!((4..200).contains(&tries), "{tries}");
    assert_eq!(waited, LIFETIME);
    exchange.assert_ended(Ending::Expired);
}

#[test]
fn a_lifetime_of_a_second_makes_no_flood() {
    let mut exchange = Exchange::new();
    exchange.deny(401);
    exchange.grant_allocation(Duration::from_secs(1));
    exchange.tell();
    assert_eq!(exchange.wait(), Config::default().min_refresh_interval);
}

#[test]
fn an_endless_lifetime_is_refreshed_all_the_same() {
    let mut exchange = Exchange::new();
    exchange.deny(401);
    exchange.grant_allocation(Duration::from_secs(u32::MAX.into()));
    exchange.tell();
    assert!(exchange.wait() < Config::default().max_lifetime);
    exchange.take(REFRESH);
}

#[test]
fn an_allocation_that_the_server_has_lost_ends() {
    for (code, error) in [(437, RequestError::AllocationMismatch), (401, RequestError::WrongCredentials)] {
        let mut exchange = Exchange::standing();
        exchange.wait();
        exchange.deny(code);
        exchange.assert_ended(Ending::Failed(error));
    }
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let mut exchange = Exchange::new();
    assert_eq!(exchange.wait(), Config::default().request_timeout);
    exchange.take(ALLOCATE);
    exchange.assert_ended(Ending::Failed(RequestError::Silent));
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let mut exchange = Exchange::standing();
    exchange.with_client(|client, now| client.permit(now, peer().ip()).unwrap());
    exchange.sent.clear();
    assert_eq!(exchange.wait(), Config::default().request_timeout);
    exchange.assert_ended(Ending::Failed(RequestError::Silent));
}

#[test]
fn gives_the_allocation_back() {
    let mut exchange = Exchange::standing();
    exchange.with_client(Client::release);
    exchange.grant(REFRESH, &[&seconds(Duration::ZERO)]);
    exchange.assert_ended(Ending::Released);
}

#[test]
fn giving_back_does_not_wait_for_long() {
    let mut exchange = Exchange::standing();
    exchange.with_client(Client::release);
    exchange.take(REFRESH);
    assert_eq!(exchange.wait(), Config::default().release_timeout);
    exchange.assert_ended(Ending::Released);
}

#[test]
fn giving_back_before_there_is_anything_ends_it() {
    let mut exchange = Exchange::new();
    exchange.sent.clear();
    exchange.with_client(Client::release);
    exchange.assert_ended(Ending::Released);
}

#[test]
fn the_end_of_the_control_connection_is_the_end() {
    let mut exchange = Exchange::standing();
    exchange.with_client(|client, _| client.control_closed());
    exchange.assert_ended(Ending::Closed);
    exchange.with_client(|client, now| client.received(now, b"late"));
    exchange.with_client(|client, now| assert!(client.permit(now, peer().ip()).is_err()));
    exchange.with_client(|client, now| assert!(client.connect(now, peer()).is_err()));
    exchange.assert_quiet();
}

#[test]
fn what_is_no_stun_is_the_end() {
    let mut exchange = Exchange::standing();
    exchange.with_client(|client, now| client.received(now, b"HTTP/1.1 400 Bad Request\r\n"));
    exchange.assert_ended(Ending::Garbage);
}

#[test]
fn answers_that_nobody_asked_for_are_ignored() {
    let mut exchange = Exchange::new();
    let first = exchange.sent[0].clone();
    exchange.deny(401);
    exchange.deny_this(&first, 401);
    exchange.grant_this(&first, &[&seconds(LIFETIME)]);
    assert_eq!(exchange.client.counters().ignored, 2);
    exchange.grant_allocation(SHORT);
    assert!(matches!(exchange.tell(), ClientOutput::Allocated(_)));
    let request = Message::builder_request(BINDING, MessageWriteVec::new()).finish();
    let indication = Message::builder_indication(BINDING, MessageWriteVec::new()).finish();
    exchange.answer(None, &request);
    exchange.answer(None, &indication);
    assert_eq!(exchange.client.counters().ignored, 4);
    exchange.assert_quiet();
}

#[test]
fn an_answer_that_cannot_be_understood_ends_its_request() {
    let mut exchange = Exchange::new();
    exchange.deny(401);
    let unknown = RawAttribute::new(AttributeType::new(0x7abc), &[0; 4]);
    exchange.grant(ALLOCATE, &[&unknown]);
    assert!(matches!(exchange.tell(), ClientOutput::Ended(Ending::Failed(RequestError::Malformed(_)))));
    assert_eq!(exchange.client.counters().malformed, 1);
}
