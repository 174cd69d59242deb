use std::net::IpAddr;

use super::*;
use crate::net::port::{IncomingConnections, Port};

async fn loopback_port() -> (Port, IncomingConnections, SocketAddr) {
    let (port, incoming) = Port::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
    let addr = port.local_addrs()[0];
    (port, incoming, addr)
}

async fn connect(source: Source, remote: SocketAddr, method: ConnectMethod) -> Result<TcpStream, ConnectFailure> {
    Connecting::start(source, remote, method)?.established().await
}

fn any_port(remote: SocketAddr) -> Source {
    Source::AnyPort(remote.ip())
}

#[tokio::test]
async fn a_connection_leaves_from_the_port_or_from_another_as_asked() {
    let (_port, _incoming, local) = loopback_port().await;
    let (_other, _other_incoming, remote) = loopback_port().await;
    let from_port = connect(Source::Port(local), remote, ConnectMethod::Plain).await.unwrap();
    let from_any = connect(any_port(remote), remote, ConnectMethod::Plain).await.unwrap();
    assert_eq!(from_port.local_addr().unwrap(), local);
    assert_ne!(from_any.local_addr().unwrap(), local);
    assert!(from_port.nodelay().unwrap() && from_any.nodelay().unwrap());
}

#[tokio::test]
async fn the_same_connection_twice_is_an_answer_and_no_reason_for_another_port() {
    let (_port, _incoming, local) = loopback_port().await;
    let (_other, _other_incoming, remote) = loopback_port().await;
    let _first = connect(Source::Port(local), remote, ConnectMethod::Plain).await.unwrap();
    let second = connect(Source::Port(local), remote, ConnectMethod::Plain).await;
    assert_eq!(second.unwrap_err(), ConnectFailure::AddrInUse);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let (_port, _incoming, local) = loopback_port().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let not_ours = Source::AnyPort(IpAddr::from([192, 0, 2, 1]));
    let cases = [
        (connect(any_port(nobody), nobody, ConnectMethod::Plain).await, ConnectFailure::Refused),
        (connect(Source::Port(local), local, ConnectMethod::Plain).await, ConnectFailure::Refused),
        (connect(not_ours, nobody, ConnectMethod::Plain).await, ConnectFailure::Unreachable),
    ];
    for (result, expected) in cases {
        assert_eq!(result.unwrap_err(), expected);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_opening_connection_has_the_usual_limits_again_once_it_stands() {
    let (_port, _incoming, local) = loopback_port().await;
    let (_other, _other_incoming, remote) = loopback_port().await;
    let stream = connect(Source::Port(local), remote, ConnectMethod::Opening { ttl: 2 }).await.unwrap();
    let plain = connect(any_port(remote), remote, ConnectMethod::Plain).await.unwrap();
    let hops = |stream: &TcpStream| socket2::SockRef::from(stream).ttl_v4().unwrap();
    assert_eq!(hops(&stream), hops(&plain));
}

/// The opening SYN behind two routers that answer unsolicited SYNs with RST.
#[cfg(target_os = "linux")]
mod behind_routers {
    use std::{sync::mpsc, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;
    use crate::net::port::nat_lab::{Host, NatLab};

    const PORT: u16 = 40_000;
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Connects from the port of `family`, and greets.
    async fn greet(connecting: Connecting) -> Result<[u8; 5], ConnectFailure> {
        let connected = timeout(PATIENCE, connecting.established()).await;
        let mut stream = connected.unwrap_or(Err(ConnectFailure::TimedOut))?;
        stream.write_all(b"hello").await.unwrap();
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).await.unwrap();
        Ok(greeting)
    }

    fn start(from: Host, to: Host, family: usize, method: ConnectMethod) -> Result<Connecting, ConnectFailure> {
        let source = Source::Port(SocketAddr::new(from.inner()[family], PORT));
        Connecting::start(source, SocketAddr::new(to.outer()[family], PORT), method)
    }

    fn a_plain_connect_is_refused(lab: &NatLab, family: usize) {
        let refused =
            lab.on(Host::B, move || async move { greet(start(Host::B, Host::A, family, ConnectMethod::Plain)?).await });
        assert_eq!(refused.join().unwrap(), Err(ConnectFailure::Refused));
    }

    fn an_opening_syn_lets_the_other_side_in(family: usize) {
        let Some(lab) = NatLab::build() else { return };
        a_plain_connect_is_refused(&lab, family);
        let (opened, is_open) = mpsc::channel();
        let opener = lab.on(Host::A, move || async move {
            let connecting = start(Host::A, Host::B, family, ConnectMethod::Opening { ttl: 2 }).unwrap();
            let connecting = connecting.opened().await.unwrap();
            assert_ne!(connecting.hearing, Hearing::Nothing, "the peer's SYN would be lost");
            opened.send(()).unwrap();
            greet(connecting).await
        });
        is_open.recv_timeout(PATIENCE).unwrap();
        let connector =
            lab.on(Host::B, move || async move { greet(start(Host::B, Host::A, family, ConnectMethod::Plain)?).await });
        assert_eq!(connector.join().unwrap(), Ok(*b"hello"));
        assert_eq!(opener.join().unwrap(), Ok(*b"hello"));
    }

    #[test]
    fn an_opening_syn_lets_the_other_side_in_through_two_nats() {
        an_opening_syn_lets_the_other_side_in(0);
    }

    #[test]
    fn an_opening_syn_lets_the_other_side_in_through_two_ipv6_firewalls() {
        an_opening_syn_lets_the_other_side_in(1);
    }

    #[test]
    fn an_opening_syn_that_reaches_the_other_router_is_refused() {
        for family in [0, 1] {
            let Some(lab) = NatLab::build() else { return };
            let opener = lab.on(Host::A, move || async move {
                greet(start(Host::A, Host::B, family, ConnectMethod::Opening { ttl: 16 })?).await
            });
            assert_eq!(opener.join().unwrap(), Err(ConnectFailure::Refused));
        }
    }
}
