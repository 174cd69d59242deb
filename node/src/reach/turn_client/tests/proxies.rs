//! Through a proxy of either protocol: small ones that speak as much of it as the connection needs.

use std::net::SocketAddr;

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::{
    super::{AddressFamily, Allocation, Proxy, ProxyError, TurnError},
    coturn::{Coturn, exchange, is_missing},
    relaying::{accept, connect, listener},
};

async fn serve<F>(handshake: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = Option<(TcpStream, SocketAddr)>> + Send + 'static,
{
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = proxy.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = proxy.accept().await {
            let handshake = handshake(stream);
            tokio::spawn(async move {
                let Some((mut client, target)) = handshake.await else { return };
                let mut server = TcpStream::connect(target).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    addr
}

/// HTTP CONNECT for `user:p@ss`.
async fn http(mut client: TcpStream) -> Option<(TcpStream, SocketAddr)> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await.ok()?);
    }
    let request = String::from_utf8(request).unwrap();
    let target = request.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().parse().unwrap();
    let proof = format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode("user:p@ss"));
    if !request.contains(&proof) {
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
        return None;
    }
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    Some((client, target))
}

/// SOCKS5 for `user:p@ss`, to IPv4 addresses.
async fn socks5(mut client: TcpStream) -> Option<(TcpStream, SocketAddr)> {
    let methods = {
        assert_eq!(client.read_u8().await.ok()?, 5);
        let mut methods = vec![0; client.read_u8().await.unwrap().into()];
        client.read_exact(&mut methods).await.unwrap();
        methods
    };
    if !methods.contains(&2) {
        client.write_all(&[5, 0xff]).await.unwrap();
        return None;
    }
    client.write_all(&[5, 2]).await.unwrap();
    let mut login = [0; 11];
    client.read_exact(&mut login).await.unwrap();
    assert_eq!(&login, b"\x01\x04user\x04p@ss");
    client.write_all(&[1, 0]).await.unwrap();
    let mut request = [0; 10];
    client.read_exact(&mut request).await.unwrap();
    assert_eq!(request[..4], [5, 1, 0, 1]);
    let ip: [u8; 4] = request[4..8].try_into().unwrap();
    client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 9]).await.unwrap();
    Some((client, (ip, u16::from_be_bytes([request[8], request[9]])).into()))
}

#[tokio::test]
async fn relays_both_ways_through_either_proxy() {
    if is_missing() {
        return;
    }
    let coturn = Coturn::start(&[]);
    for (scheme, addr) in [("http", serve(http).await), ("socks5", serve(socks5).await)] {
        let proxy = Proxy::parse(&format!("{scheme}://user:p%40ss@{addr}")).unwrap();
        let server = coturn.server().with_proxy(Some(proxy));
        let mut allocation = Allocation::make(&server, AddressFamily::V4).await.unwrap();
        let (mut relayed, mut peer) = connect(&allocation, &listener(AddressFamily::V4).await).await;
        exchange(&mut relayed, &mut peer, 100_000).await;
        let (mut accepted, mut peer) = accept(&mut allocation).await;
        exchange(&mut accepted, &mut peer, 100_000).await;
    }
}

#[tokio::test]
async fn a_proxy_that_is_away_or_wants_a_password_says_so() {
    if is_missing() {
        return;
    }
    let coturn = Coturn::start(&[]);
    let cases = [("http", serve(http).await), ("socks5", serve(socks5).await)];
    for (scheme, addr) in cases {
        let server = coturn.server().with_proxy(Some(Proxy::parse(&format!("{scheme}://{addr}")).unwrap()));
        let error = Allocation::make(&server, AddressFamily::V4).await.unwrap_err();
        assert!(matches!(&error, TurnError::Proxy(ProxyError::Refused { .. })), "{error}");
        let away = coturn.server().with_proxy(Some(Proxy::parse(&format!("{scheme}://127.0.0.1:1")).unwrap()));
        let error = Allocation::make(&away, AddressFamily::V4).await.unwrap_err();
        assert!(matches!(&error, TurnError::Proxy(ProxyError::Connect { .. })), "{error}");
    }
}
