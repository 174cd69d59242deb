//! Connections to peers and of peers.

use std::{net::SocketAddr, time::Duration};

use keyferry_ice::ConnectFailure;
use keyferry_turn::client::{Ending, RequestError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use super::{
    super::{AddressFamily, Allocation, PeerConnectError, TurnError, TurnServer},
    coturn::{Coturn, credentials, exchange, exchange_in_turn, is_missing},
};
use crate::net::path::PathStream;

/// How long anything may take here.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const LEN: usize = 1 << 20;

pub(super) async fn listener(family: AddressFamily) -> TcpListener {
    TcpListener::bind(if family == AddressFamily::V4 { "127.0.0.1:0" } else { "[::1]:0" }).await.unwrap()
}

/// Connects through the relay to a peer.
pub(super) async fn connect(allocation: &Allocation, peers: &TcpListener) -> (PathStream, TcpStream) {
    let connector = allocation.connector();
    let peer = peers.local_addr().unwrap();
    let relayed = timeout(PATIENCE, connector.relay_to(peer)).await.expect("in time").unwrap();
    let (at_peer, from) = timeout(PATIENCE, peers.accept()).await.expect("in time").unwrap();
    assert_eq!(from.ip(), allocation.relayed().ip());
    (relayed, at_peer)
}

/// Lets a peer connect to the relayed address. Until the permission has reached the relay, that closes the peer's connections.
pub(super) async fn accept(allocation: &mut Allocation) -> (PathStream, TcpStream) {
    let relayed = allocation.relayed();
    allocation.permit(relayed.ip());
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < end, "not in time");
        let Ok(peer) = TcpStream::connect(relayed).await else { continue };
        let mut byte = [0];
        tokio::select! {
            accepted = allocation.accept() => {
                let (stream, from) = accepted.expect("an allocation that stands");
                assert_eq!(from, peer.local_addr().unwrap());
                return (stream, peer);
            }
            _ = peer.peek(&mut byte) => {}
        }
    }
}

async fn make(server: &TurnServer, family: AddressFamily) -> Allocation {
    timeout(PATIENCE, Allocation::make(server, family)).await.expect("in time").unwrap()
}

#[tokio::test]
async fn both_ways_round_and_both_families() {
    if is_missing() {
        return;
    }
    let coturn = Coturn::start(&[]);
    for family in [AddressFamily::V4, AddressFamily::V6] {
        let mut allocation = make(&coturn.server(), family).await;
        assert_eq!(AddressFamily::of(allocation.relayed().ip()), family);
        assert!(allocation.mapped().ip().is_loopback());
        let peers = listener(family).await;
        let (mut relayed, mut peer) = connect(&allocation, &peers).await;
        exchange_in_turn(&mut relayed, &mut peer, LEN).await;
        let (mut accepted, mut other_peer) = accept(&mut allocation).await;
        exchange_in_turn(&mut accepted, &mut other_peer, LEN).await;
        // The first is still there.
        exchange(&mut relayed, &mut peer, 10_000).await;
    }
}

#[tokio::test]
async fn what_a_peer_sends_before_its_connection_is_bound_is_kept() {
    if is_missing() {
        return;
    }
    let coturn = Coturn::start(&[]);
    let mut allocation = make(&coturn.server(), AddressFamily::V4).await;
    // So that the permission stands.
    accept(&mut allocation).await;
    for _ in 0..10 {
        let mut peer = TcpStream::connect(allocation.relayed()).await.unwrap();
        peer.write_all(b"at once").await.unwrap();
        let (mut accepted, _) = timeout(PATIENCE, allocation.accept()).await.expect("in time").unwrap();
        let mut got = [0; 7];
        timeout(PATIENCE, accepted.read_exact(&mut got)).await.expect("in time").unwrap();
        assert_eq!(&got, b"at once");
    }
}

#[tokio::test]
async fn a_server_over_ipv6_relays_from_ipv4() {
    if is_missing() {
        return;
    }
    let coturn = Coturn::start(&[]);
    let mut server = coturn.server();
    server.host = "::1".to_owned();
    let allocation = make(&server, AddressFamily::V4).await;
    let (mut relayed, mut peer) = connect(&allocation, &listener(AddressFamily::V4).await).await;
    exchange_in_turn(&mut relayed, &mut peer, LEN).await;
}

#[tokio::test]
async fn a_peer_that_refuses_is_told_at_once() {
    if is_missing() {
        return;
    }
    let coturn = Coturn::start(&[]);
    let allocation = make(&coturn.server(), AddressFamily::V4).await;
    // A port on which nobody listens any more.
    let nobody = listener(AddressFamily::V4).await.local_addr().unwrap();
    let error = timeout(PATIENCE, allocation.connector().relay_to(nobody)).await.expect("in time").unwrap_err();
    assert_eq!(error, PeerConnectError::Failed(RequestError::PeerUnreachable));
    assert_eq!(ConnectFailure::from(error), ConnectFailure::Refused);
    // That harms nobody else.
    connect(&allocation, &listener(AddressFamily::V4).await).await;
}

#[tokio::test]
async fn a_peer_of_the_other_family_is_not_asked_for() {
    if is_missing() {
        return;
    }
    let coturn = Coturn::start(&[]);
    let allocation = make(&coturn.server(), AddressFamily::V4).await;
    let peer: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
    assert_eq!(allocation.connector().connect(peer).await.unwrap_err(), ConnectFailure::Unreachable);
}

#[tokio::test]
async fn a_wrong_password_and_none_say_so_at_once() {
    if is_missing() {
        return;
    }
    let coturn = Coturn::start(&[]);
    let wrong = coturn.server().with_credentials(credentials("wrong"));
    let mut none = coturn.server();
    none.credentials = None;
    for (server, expected) in [(wrong, RequestError::WrongCredentials), (none, RequestError::CredentialsNeeded)] {
        let made = timeout(PATIENCE, Allocation::make(&server, AddressFamily::V4)).await.expect("in time");
        match made.unwrap_err() {
            TurnError::Ended(Ending::Failed(error)) => assert_eq!(error, expected),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_turn_server_is_found_out() {
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = web.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = web.accept().await.unwrap();
        stream.writable().await.unwrap();
        stream.try_write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").unwrap();
        // Until the node has had enough.
        let _ = stream.readable().await;
        tokio::time::sleep(PATIENCE).await;
    });
    let server = TurnServer::new("127.0.0.1", addr.port(), false);
    let made = timeout(PATIENCE, Allocation::make(&server, AddressFamily::V4)).await.expect("in time");
    assert!(matches!(made.unwrap_err(), TurnError::Ended(Ending::Garbage)));
}
