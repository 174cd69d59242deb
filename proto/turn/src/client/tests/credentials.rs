//! Challenges, stale nonces, proofs.

use std::{net::SocketAddr, time::Duration};

use stun_types::{
    attribute::XorMappedAddress,
    message::{Message, Method},
};
use turn_types::{
    attribute::{ConnectionId, XorRelayedAddress},
    message::{ALLOCATE, CONNECT, CONNECTION_BIND, CREATE_PERMISSION, REFRESH},
};

use super::{
    super::{Allocated, Client, ClientOutput, Config, Ending, RequestError},
    exchange::{Exchange, LIFETIME, PASSWORD, mapped, peer, relayed, seconds},
};
use crate::long_term::{ChallengeError, PasswordAlgorithm};

#[test]
fn allocates_once_it_has_been_challenged() {
    use PasswordAlgorithm::{Md5, Sha256};
    let offers: [Option<&[PasswordAlgorithm]>; 3] = [None, Some(&[Sha256, Md5]), Some(&[Md5])];
    for algorithms in offers {
        let mut exchange = Exchange::with(Some(PASSWORD), Config::default(), algorithms);
        exchange.deny(401);
        exchange.grant_allocation(LIFETIME);
        let allocated = Allocated { relayed: relayed(), mapped: mapped(), lifetime: LIFETIME };
        assert_eq!(exchange.tell(), ClientOutput::Allocated(allocated));
        exchange.assert_quiet();
    }
}

#[test]
fn an_open_server_sees_no_user_name() {
    let mut exchange = Exchange::with(None, Config::default(), None);
    exchange.grant_allocation(LIFETIME);
    assert!(matches!(exchange.tell(), ClientOutput::Allocated(_)));
}

#[test]
fn a_wrong_password_ends_it_at_once() {
    let mut exchange = Exchange::new();
    exchange.deny(401);
    exchange.deny(401);
    exchange.assert_ended(Ending::Failed(RequestError::WrongCredentials));
}

#[test]
fn a_challenge_without_credentials_ends_it_at_once() {
    let mut exchange = Exchange::with(None, Config::default(), None);
    exchange.deny(401);
    exchange.assert_ended(Ending::Failed(RequestError::CredentialsNeeded));
}

#[test]
fn a_stripped_challenge_ends_it_at_once() {
    let mut exchange = Exchange::with(Some(PASSWORD), Config::default(), Some(&[PasswordAlgorithm::Sha256]));
    exchange.challenge.algorithms = None;
    exchange.deny(401);
    exchange.assert_ended(Ending::Failed(RequestError::Challenge(ChallengeError::BidDown)));
}

#[test]
fn a_stale_nonce_is_replaced_in_every_state() {
    let mut exchange = Exchange::new();
    exchange.deny(401);
    exchange.call_stale();
    exchange.grant_allocation(LIFETIME);
    exchange.with_client(|client, now| client.permit(now, peer().ip()).unwrap());
    exchange.call_stale();
    exchange.grant(CREATE_PERMISSION, &[]);
    exchange.with_client(|client, now| _ = client.connect(now, peer()).unwrap());
    exchange.call_stale();
    exchange.grant(CONNECT, &[&ConnectionId::new(7)]);
    assert!(matches!(exchange.tell(), ClientOutput::Allocated(_)));
    assert!(matches!(exchange.tell(), ClientOutput::Permitted { .. }));
    let ClientOutput::OpenData { data } = exchange.tell() else { panic!("no data connection") };
    exchange.with_client(|client, now| client.data_connected(now, data));
    exchange.call_stale();
    exchange.grant(CONNECTION_BIND, &[]);
    assert!(matches!(exchange.tell(), ClientOutput::Bound { .. }));
    while exchange.sent.is_empty() {
        exchange.wait();
    }
    let permission = exchange.take(CREATE_PERMISSION);
    exchange.grant_this(&permission, &[]);
    while exchange.sent.is_empty() {
        exchange.wait();
    }
    exchange.call_stale();
    exchange.grant(REFRESH, &[&seconds(LIFETIME)]);
    exchange.with_client(Client::release);
    exchange.call_stale();
    exchange.grant(REFRESH, &[&seconds(Duration::ZERO)]);
    exchange.assert_ended(Ending::Released);
    assert_eq!(exchange.client.counters().stale_nonces, 6);
}

#[test]
fn the_new_nonce_of_a_data_connection_is_that_of_all_requests() {
    let mut exchange = Exchange::standing();
    exchange.with_client(|client, now| _ = client.connect(now, peer()).unwrap());
    exchange.grant(CONNECT, &[&ConnectionId::new(7)]);
    let ClientOutput::OpenData { data } = exchange.tell() else { panic!("no data connection") };
    exchange.with_client(|client, now| client.data_connected(now, data));
    exchange.call_stale();
    exchange.with_client(|client, now| client.permit(now, peer().ip()).unwrap());
    exchange.grant(CONNECTION_BIND, &[]);
    // Whose nonce is checked as well.
    exchange.grant(CREATE_PERMISSION, &[]);
}

#[test]
fn a_server_that_calls_all_its_nonces_stale_is_given_up() {
    let mut exchange = Exchange::new();
    exchange.deny(401);
    for _ in 0..=Config::default().max_stale_nonces {
        exchange.call_stale();
    }
    exchange.assert_ended(Ending::Failed(RequestError::StaleNonces));
}

#[test]
fn an_allocation_without_proof_is_refused() {
    let mut exchange = Exchange::new();
    exchange.deny(401);
    let id = Message::from_bytes(&exchange.sent[0].message).unwrap().transaction_id();
    let (relayed, mapped) = (XorRelayedAddress::new(relayed(), id), XorMappedAddress::new(mapped(), id));
    exchange.grant_unproven(ALLOCATE, &[&relayed, &mapped, &seconds(LIFETIME)]);
    exchange.assert_ended(Ending::Failed(RequestError::Unproven));
    assert_eq!(exchange.client.counters().unproven, 1);
}

#[test]
fn a_connection_without_proof_is_refused() {
    let mut exchange = Exchange::standing();
    exchange.with_client(|client, now| _ = client.connect(now, peer()).unwrap());
    exchange.grant_unproven(CONNECT, &[&ConnectionId::new(7)]);
    assert!(matches!(exchange.tell(), ClientOutput::ConnectFailed { error: RequestError::Unproven, .. }));
    exchange.assert_quiet();
}

#[test]
fn each_error_of_allocate_ends_it_and_says_why() {
    let other: SocketAddr = peer();
    let cases = [
        (300, RequestError::TryAlternate { server: Some(other) }),
        (403, RequestError::Forbidden),
        (437, RequestError::AllocationMismatch),
        (440, RequestError::AddressFamily { code: 440 }),
        (441, RequestError::WrongCredentials),
        (442, RequestError::TransportUnsupported),
        (486, RequestError::QuotaReached),
        (500, RequestError::Other { code: 500 }),
        (508, RequestError::InsufficientCapacity),
    ];
    for (code, error) in cases {
        let mut exchange = Exchange::new();
        exchange.deny(401);
        exchange.deny(code);
        exchange.assert_ended(Ending::Failed(error));
        assert!(error.to_string().contains(|character: char| character.is_ascii_digit()) || code == 441);
    }
}

#[test]
fn an_answer_of_another_method_is_refused() {
    let mut exchange = Exchange::new();
    let mut sent = exchange.take(ALLOCATE);
    // The type's low byte: Allocate is 3, Refresh 4.
    assert_eq!(Method::value(&sent.method()), 3);
    sent.message[1] = 4;
    exchange.grant_this(&sent, &[&seconds(LIFETIME)]);
    assert!(matches!(exchange.tell(), ClientOutput::Ended(Ending::Failed(RequestError::Malformed(_)))));
}
