//! A relay on loopback, as a node has it, and peers for its clients.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use keyferry_turn::{
    long_term::UserCredentials,
    server::{Config, ServerCounters},
};
use stun_types::{
    message::{BINDING, Message, MessageWriteVec},
    prelude::*,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

use crate::{
    connect::{demux::stun::Front, ice::IceHost},
    net::{path::PathStream, port::Port},
    reach::{
        gather::Gathered,
        turn_client::{AddressFamily, Allocation, Trust, TurnServer},
        turn_server::{Relay, RelayConfig},
    },
};

/// Where a relay listens: on both families.
pub(super) const LISTEN: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];
/// Anything here is done by then, or has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Bench {
    pub(super) relay: Relay,
    /// Its IPv4 address; the port is that of all its addresses.
    pub(super) addr: SocketAddr,
    _port: Port,
    _front: Front,
    _tls: AbortHandle,
    pub(super) home: tempfile::TempDir,
}

pub(super) fn config() -> RelayConfig {
    RelayConfig {
        users: vec!["ada:lovelace".parse().unwrap(), "bob:builder".parse().unwrap()],
        secret: Some("north".into()),
        allow_peers: vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
        ..RelayConfig::default()
    }
}

impl Bench {
    pub(super) async fn new(config: RelayConfig) -> Self {
        Self::with(config, Config::default(), &LISTEN).await
    }

    /// One whose server has these timers, and which listens on these addresses, the first of which is IPv4.
    pub(super) async fn with(config: RelayConfig, timers: Config, listen: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let listen: Vec<SocketAddr> = listen.iter().map(|addr| addr.parse().unwrap()).collect();
        let (port, incoming) = Port::bind(&listen).await.unwrap();
        let addr = port.local_addrs()[0];
        let relay = Relay::start_with(config, timers, port.local_addrs(), home.path().to_owned()).unwrap();
        let ice = IceHost::new(watch::channel(Gathered::default()).1, Default::default());
        let front = Front::spawn(incoming.stun, Arc::clone(&ice), true, Some(relay.entrance()), &port);
        let entrance = relay.entrance();
        let mut sessions = incoming.sessions;
        let tls = tokio::spawn(async move {
            while let Some(accepted) = sessions.recv().await {
                entrance.tls(accepted.stream, accepted.remote, accepted.local);
            }
        });
        Self { relay, addr, _port: port, _front: front, _tls: tls.abort_handle(), home }
    }

    pub(super) fn server(&self, secure: bool, user: &str, password: &str) -> TurnServer {
        self.server_at("127.0.0.1", secure).with_credentials(UserCredentials::new(user, password).unwrap())
    }

    /// The relay at one of its addresses, for nobody yet.
    pub(super) fn server_at(&self, host: &str, secure: bool) -> TurnServer {
        let trust = self.relay.pin().map_or(Trust::System, Trust::Pinned);
        TurnServer::new(host, self.addr.port(), secure).with_trust(trust)
    }

    pub(super) async fn allocation(&self, secure: bool) -> Allocation {
        self.allocation_of(secure, "ada", "lovelace").await
    }

    pub(super) async fn allocation_of(&self, secure: bool, user: &str, password: &str) -> Allocation {
        let server = self.server(secure, user, password);
        in_time(Allocation::make(&server, AddressFamily::V4)).await.unwrap()
    }

    pub(super) fn count(&self, counter: impl Fn(ServerCounters) -> u64) -> u64 {
        counter(self.relay.counters())
    }

    /// Waits for a counter.
    pub(super) async fn until(&self, counter: impl Fn(ServerCounters) -> u64, is_so: impl Fn(u64) -> bool) {
        in_time(async {
            while !is_so(self.count(&counter)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// A peer that accepts.
pub(super) async fn listener() -> (TcpListener, SocketAddr) {
    listener_of(AddressFamily::V4).await
}

/// A peer of this family that accepts.
pub(super) async fn listener_of(family: AddressFamily) -> (TcpListener, SocketAddr) {
    let local = if family == AddressFamily::V4 { "127.0.0.1:0" } else { "[::1]:0" };
    let listener = TcpListener::bind(local).await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A relayed connection to a peer: the client's end and the peer's.
pub(super) async fn relayed(allocation: &Allocation) -> (PathStream, TcpStream) {
    let (listener, addr) = listener_of(AddressFamily::of(allocation.relayed().ip())).await;
    let connector = allocation.connector();
    let (client, peer) = in_time(async { tokio::join!(connector.relay_to(addr), listener.accept()) }).await;
    (client.unwrap_or_else(|error| panic!("{error}")), peer.unwrap().0)
}

/// A relayed connection of a peer: the client's end and the peer's. Until the permission has reached the relay, that closes the peer's
/// connections, and tells nobody.
pub(super) async fn accepted(allocation: &mut Allocation) -> (PathStream, TcpStream) {
    let relayed = allocation.relayed();
    allocation.permit(relayed.ip());
    in_time(async {
        loop {
            let peer = TcpStream::connect(relayed).await.unwrap();
            let mut byte = [0];
            tokio::select! {
                accepted = allocation.accept() => {
                    let (client, from) = accepted.expect("an allocation that stands");
                    assert_eq!(from, peer.local_addr().unwrap());
                    return (client, peer);
                }
                _ = peer.peek(&mut byte) => {}
            }
        }
    })
    .await
}

/// A connection between two clients of one relay: both ends, and the address that the second is told it comes from. Until the
/// permission has reached the relay, the connection ends at once, and the second hears nothing of it.
pub(super) async fn between(from: &Allocation, to: &mut Allocation) -> (PathStream, PathStream, SocketAddr) {
    to.permit(from.relayed().ip());
    let (connector, addr) = (from.connector(), to.relayed());
    in_time(async {
        loop {
            let Ok(mut connecting) = connector.connect(addr).await else {
                tokio::task::yield_now().await;
                continue;
            };
            let mut byte = [0];
            tokio::select! {
                accepted = to.accept() => {
                    let (accepting, remote) = accepted.expect("an allocation that stands");
                    return (connecting, accepting, remote);
                }
                _ = connecting.read(&mut byte) => {}
            }
        }
    })
    .await
}

/// Sends bytes both ways at once, and checks that they arrive.
pub(super) async fn exchange(client: &mut PathStream, peer: &mut (impl AsyncRead + AsyncWrite + Unpin), len: usize) {
    let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
    let (mut from_client, mut from_peer) = (vec![0; len], vec![0; len]);
    let (mut client_reads, mut client_writes) = tokio::io::split(client);
    let (mut peer_reads, mut peer_writes) = tokio::io::split(peer);
    in_time(async {
        tokio::try_join!(
            async {
                client_writes.write_all(&bytes).await?;
                client_writes.flush().await
            },
            async {
                peer_writes.write_all(&bytes).await?;
                peer_writes.flush().await
            },
            client_reads.read_exact(&mut from_peer),
            peer_reads.read_exact(&mut from_client),
        )
    })
    .await
    .unwrap();
    assert!(from_client == bytes && from_peer == bytes);
}

/// Has both sides begin with a check, as the relay wants it of clients whom its operator does not know.
pub(super) async fn check_first(client: &mut PathStream, peer: &mut TcpStream) {
    let check = Message::builder_request(BINDING, MessageWriteVec::new()).finish();
    let check = keyferry_ice::frame(&check).unwrap();
    let mut got = vec![0; check.len()];
    in_time(async {
        client.write_all(&check).await?;
        client.flush().await?;
        peer.read_exact(&mut got).await?;
        peer.write_all(&check).await?;
        client.read_exact(&mut got).await
    })
    .await
    .unwrap();
    assert_eq!(got, check);
}

/// Reads one STUN message.
pub(super) async fn message(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 20];
    in_time(stream.read_exact(&mut header)).await.unwrap();
    let mut rest = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]]))];
    in_time(stream.read_exact(&mut rest)).await.unwrap();
    [&header[..], &rest].concat()
}

pub(super) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}
