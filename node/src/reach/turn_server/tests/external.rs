//! A relay behind a NAT that maps all ports to it: clients are told the address outside.

use std::net::IpAddr;

use keyferry_ice::ConnectFailure;
use keyferry_turn::{
    client::{Ending, RequestError},
    long_term::UserCredentials,
    server::Config,
};
use tokio::net::TcpListener;

use super::bench::{self, Bench, between, exchange, in_time, listener};
use crate::reach::{
    turn_client::{AddressFamily, Allocation, TurnError},
    turn_server::{PortRange, Relay, RelayConfig, RelayError},
};

const OUTSIDE_V4: &str = "203.0.113.1";
const OUTSIDE_V6: &str = "2001:db8::1";

/// Nothing but what the relay itself gives out may be reached.
fn config() -> RelayConfig {
    let external = [OUTSIDE_V4, OUTSIDE_V6].map(|ip| ip.parse().unwrap()).to_vec();
    RelayConfig { external, allow_peers: Vec::new(), ..bench::config() }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_one_relay_reach_each_other_by_the_addresses_that_they_are_told() {
    let bench = Bench::new(config()).await;
    for (family, outside) in [(AddressFamily::V4, OUTSIDE_V4), (AddressFamily::V6, OUTSIDE_V6)] {
        let outside: IpAddr = outside.parse().unwrap();
        let ada = in_time(Allocation::make(&bench.server(false, "ada", "lovelace"), family)).await.unwrap();
        let mut bob = in_time(Allocation::make(&bench.server(true, "bob", "builder"), family)).await.unwrap();
        assert_eq!((ada.relayed().ip(), bob.relayed().ip()), (outside, outside));
        assert!(ada.mapped().ip().is_loopback(), "the address of the client is its own");

        let (mut adas, mut bobs, from) = between(&ada, &mut bob).await;

        assert_eq!(from.ip(), outside, "permitted, and told, by the address outside");
        exchange(&mut adas, &mut bobs, 100_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_permission_for_the_address_outside_a_client_of_the_same_relay_is_not_let_in() {
    let bench = Bench::new(config()).await;
    let ada = bench.allocation(false).await;
    let bob = bench.allocation_of(false, "bob", "builder").await;
    // Where the relay sees Ada's connection come from, which is no peer's address.
    bob.permit("127.0.0.1".parse().unwrap());
    bench.until(|counters| counters.peer_relay, |count| count == 1).await;

    let (connector, addr) = (ada.connector(), bob.relayed());
    let connected = in_time(connector.connect(addr)).await;

    bench.until(|counters| counters.unpermitted, |count| count == 1).await;
    drop(connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_at_the_address_outside_is_reached() {
    let bench = Bench::new(config()).await;
    let allocation = bench.allocation(false).await;
    let (_listener, local) = listener().await;
    let outside: IpAddr = OUTSIDE_V4.parse().unwrap();
    for port in [bench.addr.port(), local.port(), allocation.relayed().port()] {
        let error = in_time(allocation.connector().connect((outside, port).into())).await.unwrap_err();
        assert_eq!(error, ConnectFailure::Refused);
    }
    assert_eq!(bench.count(|counters| counters.peer_relay), 3);
}

#[cfg(target_os = "linux")] // others have only one address of loopback
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_the_nat_lets_in_is_told_as_it_comes() {
    let allow_peers = vec!["127.0.0.2".parse().unwrap()];
    let bench = Bench::new(RelayConfig { allow_peers, ..config() }).await;
    let mut allocation = bench.allocation(false).await;
    let inside = ("127.0.0.1".parse::<IpAddr>().unwrap(), allocation.relayed().port());
    allocation.permit("127.0.0.2".parse().unwrap());
    let (mut client, mut peer, from) = in_time(async {
        loop {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            let peer = socket.connect(inside.into()).await.unwrap();
            let mut byte = [0];
            tokio::select! {
                accepted = allocation.accept() => {
                    let (client, from) = accepted.expect("an allocation that stands");
                    break (client, peer, from);
                }
                // The permission is given a moment after it is asked for.
                _ = peer.peek(&mut byte) => {}
            }
        }
    })
    .await;
    assert_eq!(from, peer.local_addr().unwrap());
    exchange(&mut client, &mut peer, 1000).await;

    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let (connector, addr) = (allocation.connector(), listener.local_addr().unwrap());
    let (connected, accepted) = in_time(async { tokio::join!(connector.relay_to(addr), listener.accept()) }).await;
    let ((mut peer, from), mut client) = (accepted.unwrap(), connected.unwrap());
    assert_eq!(from.port(), allocation.relayed().port(), "the NAT makes it the relayed address");
    exchange(&mut client, &mut peer, 1000).await;
}

#[cfg(target_os = "linux")] // others have only one address of loopback
#[tokio::test(flavor = "multi_thread")]
async fn a_port_outside_is_given_once_whatever_address_a_client_has_reached() {
    let (free, addr) = listener().await;
    drop(free);
    let ports = PortRange { first: addr.port(), last: addr.port() };
    let listen = ["127.0.0.1:0", "127.0.0.2:0"];
    let bench = Bench::with(RelayConfig { ports, ..config() }, Config::default(), &listen).await;
    let first = bench.allocation(false).await;
    assert_eq!(first.relayed(), (OUTSIDE_V4.parse::<IpAddr>().unwrap(), addr.port()).into());

    let credentials = UserCredentials::new("bob", "builder").unwrap();
    let server = bench.server_at("127.0.0.2", false).with_credentials(credentials);
    let error = in_time(Allocation::make(&server, AddressFamily::V4)).await.unwrap_err();

    let no_room = Ending::Failed(RequestError::InsufficientCapacity);
    assert!(matches!(&error, TurnError::Ended(ending) if *ending == no_room), "{error}");
}

#[tokio::test]
async fn what_cannot_be_an_address_outside_is_refused_with_one_line() {
    let home = tempfile::tempdir().unwrap();
    let external = vec![OUTSIDE_V4.parse().unwrap(), "203.0.113.2".parse().unwrap()];
    let config = RelayConfig { external, ..config() };

    let error = Relay::start(config, &[], home.path().to_owned()).unwrap_err();

    assert!(matches!(error, RelayError::External(_)));
    let error = error.to_string();
    assert!(error.contains("203.0.113.2") && error.lines().count() == 1, "{error}");
}
