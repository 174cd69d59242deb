//! A relay on loopback, as a node has it, and peers for its clients.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use keyferry_proto::turn::long_term::Credentials;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

use crate::{
    gather::Gathered,
    ice::IceHost,
    path::PathStream,
    port::Port,
    relay::{Relay, RelayConfig},
    stun::Front,
    turn::{AddressFamily, Allocation, Trust, TurnServer},
};

/// Anything here is done by then, or has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Bench {
    pub(super) relay: Relay,
    pub(super) addr: SocketAddr,
    _port: Port,
    _front: Front,
    _tls: AbortHandle,
    pub(super) home: tempfile::TempDir,
}

pub(super) fn config() -> RelayConfig {
    RelayConfig {
        users: vec!["ada:lovelace".parse().unwrap(), "bob:builder".parse().unwrap()],
        secret: Some("north".to_owned()),
        allow_peers: vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
        ..RelayConfig::default()
    }
}

impl Bench {
    pub(super) async fn new(config: RelayConfig) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (port, incoming) = Port::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
        let addr = port.local_addrs()[0];
        let relay = Relay::start(config, port.local_addrs(), home.path().to_owned()).unwrap();
        let ice = IceHost::new(watch::channel(Gathered::default()).1, Default::default());
        let front = Front::spawn(incoming.stun, Arc::clone(&ice), true, Some(relay.entrance()));
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
        let trust = self.relay.pin().map_or(Trust::System, Trust::Pinned);
        TurnServer::new("127.0.0.1", self.addr.port(), secure)
            .with_credentials(Credentials::new(user, password).unwrap())
            .with_trust(trust)
    }

    pub(super) async fn allocation(&self, secure: bool) -> Allocation {
        self.allocation_of(secure, "ada", "lovelace").await
    }

    pub(super) async fn allocation_of(&self, secure: bool, user: &str, password: &str) -> Allocation {
        let server = self.server(secure, user, password);
        in_time(Allocation::make(&server, AddressFamily::V4)).await.unwrap()
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        self.relay.counters()[name]
    }

    /// Waits for a counter.
    pub(super) async fn until(&self, name: &str, is_so: impl Fn(u64) -> bool) {
        in_time(async {
            while !is_so(self.count(name)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// A peer that accepts.
pub(super) async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A relayed connection: the client's end and the peer's.
pub(super) async fn relayed(allocation: &Allocation) -> (PathStream, TcpStream) {
    let (listener, addr) = listener().await;
    let connector = allocation.connector();
    let (client, peer) = in_time(async { tokio::join!(connector.relay_to(addr), listener.accept()) }).await;
    (client.unwrap_or_else(|error| panic!("{error}")), peer.unwrap().0)
}

/// Sends bytes both ways at once and looks that they arrive.
pub(super) async fn exchange(client: &mut PathStream, peer: &mut TcpStream, len: usize) {
    let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
    let (mut from_client, mut from_peer) = (vec![0; len], vec![0; len]);
    let (mut client_reads, mut client_writes) = tokio::io::split(client);
    let (mut peer_reads, mut peer_writes) = peer.split();
    in_time(async {
        tokio::try_join!(
            async {
                client_writes.write_all(&bytes).await?;
                client_writes.flush().await
            },
            peer_writes.write_all(&bytes),
            client_reads.read_exact(&mut from_peer),
            peer_reads.read_exact(&mut from_client),
        )
    })
    .await
    .unwrap();
    assert!(from_client == bytes && from_peer == bytes);
}

pub(super) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}
