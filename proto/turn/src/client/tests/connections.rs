//! Connections to peers and of peers.

use std::net::SocketAddr;

use turn_types::{
    attribute::ConnectionId,
    message::{CONNECT, CONNECTION_BIND, CREATE_PERMISSION},
};

use super::{
    super::{Client, ClientOutput, Config, ConnectId, ConnectRefusal, DataId, DataOrigin, RequestError},
    exchange::{Exchange, peer},
};

fn connect(exchange: &mut Exchange) -> ConnectId {
    let mut connect = None;
    exchange.with_client(|client, now| connect = Some(client.connect(now, peer()).unwrap()));
    connect.unwrap()
}

fn opened(exchange: &mut Exchange) -> DataId {
    match exchange.tell() {
        ClientOutput::OpenData { data } => data,
        other => panic!("no data connection but {other:?}"),
    }
}

/// With a permission for [`peer`].
fn permitted(config: Config) -> Exchange {
    let mut exchange = Exchange::standing_with(config);
    exchange.with_client(|client, now| client.permit(now, peer().ip()).unwrap());
    exchange.grant(CREATE_PERMISSION, &[]);
    exchange.tell();
    exchange
}

#[test]
fn a_wish_ends_in_a_bound_connection() {
    let mut exchange = Exchange::standing();
    let connect = connect(&mut exchange);
    exchange.grant(CONNECT, &[&ConnectionId::new(7)]);
    let data = opened(&mut exchange);
    exchange.with_client(|client, now| client.data_connected(now, data));
    exchange.grant(CONNECTION_BIND, &[]);
    assert_eq!(exchange.tell(), ClientOutput::Bound { data, origin: DataOrigin::Connect { connect, peer: peer() } });
    exchange.assert_quiet();
    assert_eq!(exchange.client.counters().bound, 1);
}

#[test]
fn a_wish_that_the_server_refuses_says_why() {
    let cases = [
        (403, RequestError::Forbidden),
        (443, RequestError::AddressFamily { code: 443 }),
        (446, RequestError::ConnectionExists),
        (447, RequestError::PeerUnreachable),
        (486, RequestError::QuotaReached),
    ];
    for (code, error) in cases {
        let mut exchange = Exchange::standing();
        let connect = connect(&mut exchange);
        exchange.deny(code);
        assert_eq!(exchange.tell(), ClientOutput::ConnectFailed { connect, error });
        exchange.assert_quiet();
    }
}

#[test]
fn a_wish_waits_longer_than_other_requests_and_not_for_ever() {
    let mut exchange = Exchange::standing();
    let connect = connect(&mut exchange);
    assert_eq!(exchange.wait(), Config::default().connect_timeout);
    assert_eq!(exchange.tell(), ClientOutput::ConnectFailed { connect, error: RequestError::Silent });
    assert!(!exchange.client.has_ended());
}

#[test]
fn a_connection_of_a_peer_is_bound() {
    let mut exchange = permitted(Config::default());
    exchange.attempt(9, peer());
    let data = opened(&mut exchange);
    exchange.with_client(|client, now| client.data_connected(now, data));
    exchange.grant(CONNECTION_BIND, &[]);
    assert_eq!(exchange.tell(), ClientOutput::Bound { data, origin: DataOrigin::Attempt { peer: peer() } });
}

#[test]
fn a_connection_of_a_peer_without_permission_is_ignored_and_counted() {
    let mut exchange = permitted(Config::default());
    let stranger: SocketAddr = "192.0.2.77:1234".parse().unwrap();
    exchange.attempt(9, stranger);
    exchange.assert_quiet();
    assert_eq!(exchange.client.counters().attempts_without_permission, 1);
}

#[test]
fn a_connection_that_is_told_twice_is_opened_once() {
    let mut exchange = permitted(Config::default());
    exchange.attempt(9, peer());
    exchange.attempt(9, peer());
    opened(&mut exchange);
    exchange.assert_quiet();
    assert_eq!(exchange.client.counters().ignored, 1);
}

#[test]
fn connections_of_peers_have_a_limit_of_their_own() {
    let mut exchange = permitted(Config { max_unbound: 2, max_connects: 1, ..Config::default() });
    for connection in 0..3 {
        exchange.attempt(connection, peer());
    }
    opened(&mut exchange);
    opened(&mut exchange);
    exchange.assert_quiet();
    assert_eq!(exchange.client.counters().attempts_over_limit, 1);
    connect(&mut exchange);
    exchange.with_client(|client, now| {
        assert_eq!(client.connect(now, peer()), Err(ConnectRefusal::TooMany { limit: 1 }));
    });
}

#[test]
fn a_wish_of_another_family_is_not_tried() {
    let mut exchange = Exchange::standing();
    exchange.with_client(|client, now| {
        assert_eq!(client.connect(now, "[2001:db8::1]:5".parse().unwrap()), Err(ConnectRefusal::Family));
    });
    exchange.assert_quiet();
}

#[test]
fn a_data_connection_that_fails_ends_its_wish() {
    let mut exchange = Exchange::standing();
    let connect = connect(&mut exchange);
    exchange.grant(CONNECT, &[&ConnectionId::new(7)]);
    let data = opened(&mut exchange);
    exchange.with_client(|client, _| client.data_closed(data));
    assert_eq!(exchange.tell(), ClientOutput::ConnectFailed { connect, error: RequestError::DataConnection });
    exchange.assert_quiet();
}

#[test]
fn a_data_connection_that_is_never_bound_is_given_up() {
    for is_opened in [false, true] {
        let mut exchange = Exchange::standing();
        let connect = connect(&mut exchange);
        exchange.grant(CONNECT, &[&ConnectionId::new(7)]);
        let data = opened(&mut exchange);
        if is_opened {
            exchange.with_client(|client, now| client.data_connected(now, data));
        }
        exchange.sent.clear();
        assert_eq!(exchange.wait(), Config::default().bind_timeout);
        assert_eq!(exchange.tell(), ClientOutput::CloseData { data });
        assert_eq!(exchange.tell(), ClientOutput::ConnectFailed { connect, error: RequestError::Silent });
        exchange.assert_quiet();
    }
}

#[test]
fn a_refused_bind_closes_the_data_connection() {
    let mut exchange = permitted(Config::default());
    exchange.attempt(9, peer());
    let data = opened(&mut exchange);
    exchange.with_client(|client, now| client.data_connected(now, data));
    exchange.deny(400);
    assert_eq!(exchange.tell(), ClientOutput::CloseData { data });
    exchange.assert_quiet();
}

#[test]
fn an_answer_on_another_connection_does_not_count() {
    let mut exchange = permitted(Config::default());
    exchange.attempt(9, peer());
    let data = opened(&mut exchange);
    exchange.with_client(|client, now| client.data_connected(now, data));
    let mut bind = exchange.take(CONNECTION_BIND);
    assert_eq!(bind.data.take(), Some(data));
    exchange.grant_this(&bind, &[]);
    exchange.assert_quiet();
    assert_eq!(exchange.client.counters().ignored, 1);
}

#[test]
fn an_abandoned_wish_leaves_nothing_behind() {
    let mut exchange = Exchange::standing();
    let first = connect(&mut exchange);
    let asked = exchange.take(CONNECT);
    exchange.with_client(|client, _| client.abandon(first));
    exchange.grant_this(&asked, &[&ConnectionId::new(7)]);
    exchange.assert_quiet();
    let second = connect(&mut exchange);
    exchange.grant(CONNECT, &[&ConnectionId::new(8)]);
    let data = opened(&mut exchange);
    exchange.with_client(|client, _| client.abandon(second));
    assert_eq!(exchange.tell(), ClientOutput::CloseData { data });
    exchange.assert_quiet();
    assert_eq!(exchange.client.transactions.len(), 0);
}

#[test]
fn giving_back_closes_what_is_not_bound() {
    let mut exchange = permitted(Config::default());
    exchange.attempt(9, peer());
    let data = opened(&mut exchange);
    exchange.with_client(Client::release);
    assert_eq!(exchange.tell(), ClientOutput::CloseData { data });
}
