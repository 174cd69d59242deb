//! What a client hears, at once, when the relay refuses.

use keyferry_ice::ConnectFailure;
use keyferry_net::time::UnixTime;
use keyferry_turn::{
    client::{Ending, RequestError},
    long_term::UserCredentials,
    rest_credentials::Secret,
    server::ServerCounters,
};
use tokio::net::TcpSocket;

use super::bench::{Bench, check_first, config, exchange, in_time, relayed};
use crate::{
    base::clock,
    reach::turn_client::{AddressFamily, Allocation, PeerConnectError, TurnError},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_refuses_is_told_at_once() {
    for secure in [false, true] {
        let bench = Bench::new(config()).await;
        let allocation = bench.allocation(secure).await;
        // A port that somebody has, and does not listen on.
        let nobody = TcpSocket::new_v4().unwrap();
        nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = nobody.local_addr().unwrap();

        let error = in_time(allocation.connector().relay_to(addr)).await.unwrap_err();

        assert_eq!(error, PeerConnectError::Failed(RequestError::PeerUnreachable));
        assert_eq!(ConnectFailure::from(error), ConnectFailure::Refused);
        assert_eq!(bench.count(|counters| counters.connect_failed), 1);
        assert_eq!(bench.count(|counters| counters.connections), 0);
        // That harms nobody else.
        let (mut client, mut peer) = relayed(&allocation).await;
        exchange(&mut client, &mut peer, 1000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_with_one_address_of_a_peer_is_refused_while_the_first_stands() {
    let bench = Bench::new(config()).await;
    let allocation = bench.allocation(false).await;
    let (client, peer) = relayed(&allocation).await;
    let addr = peer.local_addr().unwrap();

    let error = in_time(allocation.connector().relay_to(addr)).await.unwrap_err();

    assert_eq!(error, PeerConnectError::Failed(RequestError::ConnectionExists));
    assert_eq!(ConnectFailure::from(error), ConnectFailure::AddrInUse);
    assert_eq!(bench.count(|counters| counters.connected_already), 1);
    drop((client, peer));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_unknown_expired_and_no_credentials_say_so_at_once() {
    let now = clock::now();
    let issue = |secret: &[u8], expiry| Secret::new(secret).issue("carol", UnixTime(expiry)).unwrap();
    let (expired, elsewhere) = (issue(b"north", now.0 - 1), issue(b"south", now.0 + 3600));
    type Counted = fn(ServerCounters) -> u64;
    let cases: [(_, _, Counted); 5] = [
        (None, RequestError::CredentialsNeeded, |counters| counters.unauthenticated),
        (Some(("ada", "wrong")), RequestError::WrongCredentials, |counters| counters.forged),
        (Some(("nobody", "lovelace")), RequestError::WrongCredentials, |counters| counters.forged),
        (Some((expired.username(), expired.password())), RequestError::WrongCredentials, |counters| counters.expired),
        (Some((elsewhere.username(), elsewhere.password())), RequestError::WrongCredentials, |counters| {
            counters.forged
        }),
    ];
    for secure in [false, true] {
        for (user, expected, counter) in &cases {
            let bench = Bench::new(config()).await;
            let mut server = bench.server_at("127.0.0.1", secure);
            if let Some((name, password)) = user {
                server = server.with_credentials(UserCredentials::new(*name, *password).unwrap());
            }

            let made = in_time(Allocation::make(&server, AddressFamily::V4)).await;

            match made.unwrap_err() {
                TurnError::Ended(Ending::Failed(error)) => assert_eq!(error, *expected, "{user:?}"),
                other => panic!("{user:?}: {other}"),
            }
            assert_eq!((bench.count(counter), bench.count(|counters| counters.allocated)), (1, 0), "{user:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_made_elsewhere_with_the_relays_secret_are_good_until_they_run_out() {
    let bench = Bench::new(config()).await;
    let expiry = UnixTime(clock::now().0 + 3600);
    let issued = Secret::new(b"north").issue("carol", expiry).unwrap();

    let allocation = bench.allocation_of(false, issued.username(), issued.password()).await;

    let (mut client, mut peer) = relayed(&allocation).await;
    check_first(&mut client, &mut peer).await;
    exchange(&mut client, &mut peer, 1000).await;
}
