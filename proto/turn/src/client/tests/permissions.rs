//! Peers that are let in.

use std::{net::IpAddr, time::Duration};

use turn_types::message::{CREATE_PERMISSION, REFRESH};

use super::{
    super::{ClientOutput, Config, Ending, PermitRefusal, RequestError},
    exchange::{Exchange, LIFETIME, peer, seconds},
};

fn ip(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

#[test]
fn permissions_are_asked_for_once_the_allocation_stands() {
    let mut exchange = Exchange::new();
    exchange.with_client(|client, now| client.permit(now, ip(1)).unwrap());
    exchange.with_client(|client, now| client.permit(now, ip(2)).unwrap());
    exchange.deny(401);
    exchange.grant_allocation(LIFETIME);
    exchange.tell();
    exchange.grant(CREATE_PERMISSION, &[]);
    exchange.grant(CREATE_PERMISSION, &[]);
    assert_eq!(exchange.tell(), ClientOutput::Permitted { peer: ip(1) });
    assert_eq!(exchange.tell(), ClientOutput::Permitted { peer: ip(2) });
    exchange.assert_quiet();
}

#[test]
fn a_permission_is_refreshed_before_it_ends() {
    let mut exchange = Exchange::standing();
    exchange.with_client(|client, now| client.permit(now, ip(1)).unwrap());
    exchange.grant(CREATE_PERMISSION, &[]);
    exchange.tell();
    let asked_at = exchange.now;
    let mut refreshed = 0;
    while refreshed < 3 {
        exchange.wait();
        let sent = exchange.sent.pop_front().expect("something is due");
        if sent.method() == REFRESH {
            exchange.grant_this(&sent, &[&seconds(LIFETIME)]);
        } else {
            refreshed += 1;
            assert!(exchange.now - asked_at <= Duration::from_secs(270) * refreshed, "{refreshed}");
            exchange.grant_this(&sent, &[]);
        }
    }
    exchange.assert_quiet();
}

#[test]
fn permitting_twice_asks_once() {
    let mut exchange = Exchange::standing();
    exchange.with_client(|client, now| client.permit(now, ip(1)).unwrap());
    exchange.with_client(|client, now| client.permit(now, ip(1)).unwrap());
    exchange.grant(CREATE_PERMISSION, &[]);
    exchange.tell();
    exchange.with_client(|client, now| client.permit(now, ip(1)).unwrap());
    exchange.assert_quiet();
}

#[test]
fn a_refused_permission_is_told_and_may_be_asked_for_again() {
    let mut exchange = Exchange::standing();
    exchange.with_client(|client, now| client.permit(now, ip(1)).unwrap());
    exchange.deny(403);
    let refused = ClientOutput::PermissionRefused { peer: ip(1), error: RequestError::Forbidden };
    assert_eq!(exchange.tell(), refused);
    exchange.with_client(|client, now| client.permit(now, ip(1)).unwrap());
    exchange.grant(CREATE_PERMISSION, &[]);
    assert_eq!(exchange.tell(), ClientOutput::Permitted { peer: ip(1) });
}

#[test]
fn there_is_a_limit_and_a_family() {
    let config = Config { max_permissions: 2, ..Config::default() };
    let mut exchange = Exchange::standing_with(config);
    exchange.with_client(|client, now| {
        assert_eq!(client.permit(now, "2001:db8::1".parse().unwrap()), Err(PermitRefusal::Family));
        client.permit(now, ip(1)).unwrap();
        client.permit(now, ip(2)).unwrap();
        assert_eq!(client.permit(now, ip(3)), Err(PermitRefusal::TooMany { limit: 2 }));
    });
    assert_eq!(exchange.sent.len(), 2);
}

#[test]
fn a_server_that_knows_of_no_allocation_ends_it() {
    let mut exchange = Exchange::standing();
    exchange.with_client(|client, now| client.permit(now, peer().ip()).unwrap());
    exchange.deny(437);
    exchange.assert_ended(Ending::Failed(RequestError::AllocationMismatch));
}
