use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const LOOPBACK: &str = "127.0.0.1:0";
const MULTISTREAM: &[u8] = b"\x13/multistream/1.0.0\n\x07/noise\n";
const CLIENT_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01];
const STUN: &[u8] = &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

async fn loopback_port() -> (Port, IncomingConnections, SocketAddr) {
    let (port, incoming) = Port::bind(&[LOOPBACK.parse().unwrap()]).await.unwrap();
    let addr = port.local_addrs()[0];
    (port, incoming, addr)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
}

#[tokio::test]
async fn each_protocol_reaches_its_owner_with_all_of_its_bytes() {
    let (port, mut incoming, addr) = loopback_port().await;
    for bytes in [MULTISTREAM, CLIENT_HELLO, STUN] {
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(bytes).await.unwrap();
        let owner = match bytes[0] {
            0x13 => &mut incoming.libp2p,
            0x16 => &mut incoming.sessions,
            _ => &mut incoming.stun,
        };
        let mut accepted = soon(owner.recv()).await.unwrap();
        let mut got = vec![0; bytes.len()];
        accepted.stream.read_exact(&mut got).await.unwrap();
        assert_eq!(got, bytes);
        assert_eq!(accepted.remote, client.local_addr().unwrap());
        assert_eq!(accepted.local, addr);
    }
    assert_eq!(port.counters().sessions.get(), 1);
}

#[tokio::test]
async fn connections_leave_from_a_fresh_port_on_demand_and_the_node_listens_at_both() {
    let (port, mut incoming, addr) = loopback_port().await;
    assert!(port.departs_from(addr));
    let (mut before, server) = (addr, std::net::TcpListener::bind(LOOPBACK).unwrap());
    for _ in 0..3 {
        port.depart_afresh().unwrap();
        let departing = port.departing_addrs()[0];
        assert!(port.departs_from(departing) && !port.departs_from(before));
        let left = port.connect(server.local_addr().unwrap()).await.unwrap();
        assert_eq!(left.local_addr().unwrap(), departing);

        for listening in [addr, departing] {
            let mut client = TcpStream::connect(listening).await.unwrap();
            client.write_all(STUN).await.unwrap();
            assert_eq!(soon(incoming.stun.recv()).await.unwrap().local, listening);
        }
        before = departing;
    }
    assert_eq!(port.number(), addr.port(), "others still find it there");
}

#[tokio::test]
async fn first_bytes_that_trickle_in_are_waited_for() {
    let (_port, mut incoming, addr) = loopback_port().await;
    let mut client = TcpStream::connect(addr).await.unwrap();
    for byte in MULTISTREAM {
        client.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(soon(incoming.libp2p.recv()).await.is_some());
}

#[tokio::test]
async fn garbage_is_closed_at_once_and_counted() {
    let (port, _incoming, addr) = loopback_port().await;
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(1), client.read(&mut [0; 8])).await.expect("closed at once");
    assert!(matches!(ended, Ok(0) | Err(_)));
    assert_eq!(port.counters().unknown.get(), 1);
}

#[tokio::test]
async fn a_silent_connection_is_closed_after_the_time_to_decide() {
    let (port, _incoming, addr) = loopback_port().await;
    let mut silent = TcpStream::connect(addr).await.unwrap();
    let mut teasing = TcpStream::connect(addr).await.unwrap();
    teasing.write_all(b"\x13/multi").await.unwrap();
    let limit = DECIDE_TIMEOUT + Duration::from_secs(2);
    for client in [&mut silent, &mut teasing] {
        let ended = tokio::time::timeout(limit, client.read(&mut [0; 8])).await.expect("closed in bounded time");
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
    assert_eq!(port.counters().silent.get(), 2);
}

#[tokio::test]
async fn five_hundred_half_open_connections_do_not_stop_a_real_one() {
    let (port, mut incoming, addr) = loopback_port().await;
    let mut half_open = Vec::new();
    for _ in 0..500 {
        half_open.push(TcpStream::connect(addr).await.unwrap());
    }
    let mut real = TcpStream::connect(addr).await.unwrap();
    real.write_all(CLIENT_HELLO).await.unwrap();
    let accepted = tokio::time::timeout(Duration::from_secs(1), incoming.sessions.recv()).await;
    assert!(accepted.expect("the real one is served at once").is_some());
    assert!(port.counters().pushed_out.get() >= 400);
}

#[tokio::test]
async fn a_full_queue_closes_further_connections_instead_of_growing() {
    let (port, incoming, addr) = loopback_port().await;
    let mut clients = Vec::new();
    for _ in 0..MAX_WAITING + 10 {
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(CLIENT_HELLO).await.unwrap();
        clients.push(client);
    }
    soon(async {
        while port.counters().queue_full.get() < 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(incoming.sessions.len(), MAX_WAITING);
}

#[tokio::test]
async fn connections_leave_from_the_port_and_a_second_one_from_another() {
    let (port, _incoming, addr) = loopback_port().await;
    let (_other, _other_incoming, other_addr) = loopback_port().await;
    let first = port.connect(other_addr).await.unwrap();
    let second = port.connect(other_addr).await.unwrap();
    assert_eq!(first.local_addr().unwrap(), addr);
    assert_ne!(second.local_addr().unwrap(), addr);
    assert!(first.nodelay().unwrap() && second.nodelay().unwrap());
}

#[tokio::test]
async fn a_connection_that_was_closed_can_be_made_from_the_port_again_at_once() {
    let (port, _incoming, addr) = loopback_port().await;
    let (_other, _other_incoming, other_addr) = loopback_port().await;
    drop(port.connect(other_addr).await.unwrap());
    let again = port.connect(other_addr).await.unwrap();
    assert_eq!(again.local_addr().unwrap(), addr);
}

#[tokio::test]
async fn the_port_does_not_connect_to_itself() {
    let (port, _incoming, addr) = loopback_port().await;
    assert_eq!(port.connect(addr).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_port_that_another_listens_on_is_refused_with_advice() {
    let (_port, _incoming, addr) = loopback_port().await;
    let refused = Port::bind(&[addr]).await.unwrap_err();
    assert!(matches!(refused, PortError::InUse { addr: busy } if busy == addr));
    assert!(refused.to_string().contains("--listen"));
}

#[tokio::test]
async fn both_families_get_one_port_number() {
    let listen = ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    if keyferry_needs::lacks_ipv6() {
        return;
    }
    let (port, _incoming) = Port::bind(&listen).await.unwrap();
    let numbers: Vec<_> = port.local_addrs().iter().map(SocketAddr::port).collect();
    assert!(numbers.iter().all(|number| *number == port.number() && *number != 0));
}
