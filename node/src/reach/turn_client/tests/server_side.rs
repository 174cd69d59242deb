//! What a server does to an allocation in the course of time: nonces, lifetimes, its own end.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use keyferry_turn::client::Ending;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    super::{AddressFamily, Allocation},
    coturn::{Coturn, exchange, is_missing},
    relaying::{PATIENCE, accept, connect, listener},
};

#[tokio::test]
async fn stale_nonces_and_short_lifetimes_are_survived() {
    if is_missing() {
        return;
    }
    // Both in seconds.
    let coturn = Coturn::start(&["--stale-nonce=1", "--max-allocate-lifetime", "3"]);
    let mut allocation = Allocation::make(&coturn.server(), AddressFamily::V4).await.unwrap();
    let started = Instant::now();
    let (mut held, mut held_peer) = connect(&allocation, &listener(AddressFamily::V4).await).await;
    while started.elapsed() < Duration::from_secs(9) {
        sleep(Duration::from_millis(1500)).await;
        // There can be one connection to an address of a peer (446).
        let (mut relayed, mut peer) = connect(&allocation, &listener(AddressFamily::V4).await).await;
        exchange(&mut relayed, &mut peer, 1000).await;
    }
    let (mut accepted, mut peer) = accept(&mut allocation).await;
    exchange(&mut accepted, &mut peer, 1000).await;
    exchange(&mut held, &mut held_peer, 1000).await;
}

#[tokio::test]
async fn a_server_that_is_killed_in_mid_transfer_is_noticed_at_once() {
    if is_missing() {
        return;
    }
    let mut coturn = Coturn::start(&[]);
    let mut allocation = Allocation::make(&coturn.server(), AddressFamily::V4).await.unwrap();
    let (mut relayed, mut peer) = connect(&allocation, &listener(AddressFamily::V4).await).await;
    tokio::spawn(async move { while peer.write_all(&[7; 4096]).await.is_ok() {} });
    relayed.read_exact(&mut [0; 100_000]).await.unwrap();
    coturn.kill();
    let killed = Instant::now();
    let read_to_end = async { while relayed.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} };
    timeout(PATIENCE, read_to_end).await.expect("the stream ends");
    assert!(timeout(PATIENCE, allocation.accept()).await.expect("the allocation ends").is_none());
    assert_eq!(allocation.lease().ended().await, Ending::Closed);
    assert!(killed.elapsed() < PATIENCE, "{:?}", killed.elapsed());
    assert!(allocation.connector().connect("127.0.0.1:9".parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn an_allocation_is_given_back_when_the_last_lease_is_dropped() {
    if is_missing() {
        return;
    }
    let coturn = Coturn::start(&[]);
    let allocation = Allocation::make(&coturn.server(), AddressFamily::V4).await.unwrap();
    let relayed = allocation.relayed();
    let (mut stream, mut peer) = connect(&allocation, &listener(AddressFamily::V4).await).await;
    let lease = allocation.lease();
    drop(allocation);
    exchange(&mut stream, &mut peer, 1000).await;
    assert!(is_open(relayed).await);
    drop(lease);
    let closed = async {
        while is_open(relayed).await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, closed).await.expect("the relayed address is given back");
    // With all its connections.
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0])).await.expect("in time").unwrap_or(0), 0);
}

/// Whether the server listens there. It resets connections of those without permission.
async fn is_open(relayed: SocketAddr) -> bool {
    !TcpStream::connect(relayed).await.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}
