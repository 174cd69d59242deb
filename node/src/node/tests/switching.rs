//! A `get` whose path to the node changes while it runs: from a relay to a direct path, and back when that dies.
//!
//! Both nodes are on this machine; a session counts as relayed because the test says so, and goes a way that is slow enough
//! for a transfer to be in the middle when the path changes.

use std::net::{IpAddr, SocketAddr};

use keyferry_ice::FailureReason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    net::{
        path::{Path as ConnectedPath, PathKind, PathReport, PathScope, RelayWay},
        session::Session,
    },
    node::api::PathClass,
};

const GROUP: u64 = 64 * 1024;
const LEN: u64 = 256 * GROUP;
/// What is read beside the content: what proves it, and for each change of the path the group that it was at.
const SLACK: u64 = 5 * GROUP;

/// Forwards connections to a node, at about 3 MB/s towards whoever connects, until it is cut.
struct SlowWay {
    addr: SocketAddr,
    cut: CancellationToken,
}

impl SlowWay {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, cut) = (listener.local_addr().unwrap(), CancellationToken::new());
        let until = cut.clone();
        tokio::spawn(until.clone().run_until_cancelled_owned(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(target).await.unwrap();
                tokio::spawn(until.clone().run_until_cancelled_owned(forward(near, far)));
            }
        }));
        Self { addr, cut }
    }
}

async fn forward(near: TcpStream, far: TcpStream) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let slowly = async move {
        let mut piece = vec![0; GROUP as usize];
        while let Ok(len @ 1..) = far_read.read(&mut piece).await {
            if near_write.write_all(&piece[..len]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = slowly => {}
        _ = tokio::io::copy(&mut near_read, &mut far_write) => {}
    }
}

impl Peer {
    /// Makes a session with another node that counts as relayed.
    async fn relayed_session(&self, way: &SlowWay, other: &Peer) -> Session {
        let online = self.node.online.as_ref().unwrap();
        let by: IpAddr = "203.0.113.1".parse().unwrap();
        let kind = PathKind::Relayed { by, how: RelayWay::ToTheirs, why: None };
        let report = PathReport { remote: way.addr, kind, scope: PathScope::Internet, took: Duration::ZERO };
        let stream = TcpStream::connect(way.addr).await.unwrap().into();
        let path = ConnectedPath { stream, report };
        let (session, inbound) =
            Session::dial(path, &online.tls, keyferry_proto::dialling::Sought::Node(other.node.key())).await.unwrap();
        (online.finder.on_session)(session.clone(), inbound);
        session
    }

    /// Fetches, and gives the paths that were told meanwhile.
    async fn get_and_tell(&self, address: keyferry_proto::address::Address, out: &Path) -> (Vec<PathClass>, Fetched) {
        let command = Command::get(address, out.to_owned());
        let mut events = self.run(command).await.unwrap();
        let Some(Event::Fetched(fetched)) = events.pop() else { panic!("{events:?}") };
        let path = |event| match event {
            Event::Connected(path) => Some(path.path),
            _ => None,
        };
        (events.into_iter().filter_map(path).collect(), fetched)
    }
}

/// A node that shares a file, and the content of that.
async fn sharer(files: &TempDir) -> (Peer, Shared, Vec<u8>) {
    let peer = Peer::start(Vec::new()).await;
    let content: Vec<u8> = (0..LEN).map(|at| (at / GROUP * 7 + at % 251) as u8).collect();
    let file = files.path().join("thing");
    fs::write(&file, &content).unwrap();
    let shared = peer.share(&file).await;
    (peer, shared, content)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_that_starts_over_a_relay_goes_on_directly_and_lets_the_relay_go() {
    let (files, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (sharer, shared, content) = sharer(&files).await;
    let getter = Peer::start(Vec::new()).await;
    let way = SlowWay::to(sharer.node.local_addrs()[0]).await;
    let relayed = getter.relayed_session(&way, &sharer).await;
    let ended = relayed.closed();
    let until_used = async move {
        while relayed.traffic().received() < 4 * GROUP {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(relayed);
    };

    let getting = getter.get_and_tell(shared.address_with_hints, out.path());
    let ((told, fetched), ()) = tokio::join!(getting, until_used);

    assert_eq!(fs::read(&fetched.path).unwrap(), content);
    assert_eq!(told, [PathClass::Relay, PathClass::Direct]);
    assert!(fetched.received_bytes < LEN + SLACK, "fetched twice: {}", fetched.received_bytes);
    let mut gave: Vec<PathClass> = fetched.from.iter().map(|source| source.path.path).collect();
    gave.sort_by_key(|class| *class == PathClass::Direct);
    assert_eq!(gave, [PathClass::Relay, PathClass::Direct]);
    assert_eq!(fetched.from.iter().map(|source| source.bytes).sum::<u64>(), LEN);
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("nobody uses the relay any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_tells_again_of_a_relayed_path_when_it_is_known_why_it_is_relayed() {
    let (files, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (sharer, shared, _) = sharer(&files).await;
    let getter = Peer::start(Vec::new()).await;
    let way = SlowWay::to(sharer.node.local_addrs()[0]).await;
    let relayed = getter.relayed_session(&way, &sharer).await;
    let explaining = async move {
        while relayed.traffic().received() < 4 * GROUP {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        relayed.explain_relay(FailureReason::BothMapByDestination.into());
    };
    let command = Command::get(shared.address_with_hints, out.path().to_owned());

    let (events, ()) = tokio::join!(getter.run(command), explaining);

    let events = events.unwrap();
    let Some(Event::Fetched(fetched)) = events.last() else { panic!("{events:?}") };
    let path = |event: &Event| match event {
        Event::Connected(path) => Some((path.path, path.why.clone())),
        _ => None,
    };
    let told: Vec<_> = events.iter().filter_map(path).collect();
    let why = Some("both NATs map by destination".to_owned());
    let of_relay = [(PathClass::Relay, None), (PathClass::Relay, why.clone()), (PathClass::Direct, None)];
    assert_eq!(told, of_relay);
    let given_by_relay = fetched.from.iter().find(|source| source.path.path == PathClass::Relay).unwrap();
    assert_eq!(given_by_relay.path.why, why);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_falls_back_to_a_relay_when_the_direct_path_dies() {
    let (files, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (sharer, shared, content) = sharer(&files).await;
    let getter = Peer::start(Vec::new()).await;
    let target = sharer.node.local_addrs()[0];
    let (relay, direct) = (SlowWay::to(target).await, SlowWay::to(target).await);
    let _relayed = getter.relayed_session(&relay, &sharer).await;
    let hint = crate::reach::rendezvous::multiaddr_of(direct.addr);
    let address = format!("{}?via={hint}", shared.address);
    let cutting = async {
        while getter
            .node
            .online
            .as_ref()
            .unwrap()
            .sessions
            .best(&sharer.node.key())
            .is_none_or(|session| session.path().kind.is_relayed() || session.traffic().received() < 16 * GROUP)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        direct.cut.cancel();
    };

    let ((told, fetched), ()) = tokio::join!(getter.get_and_tell(address.parse().unwrap(), out.path()), cutting);

    assert_eq!(fs::read(&fetched.path).unwrap(), content);
    assert_eq!(told, [PathClass::Relay, PathClass::Direct, PathClass::Relay]);
    assert!(fetched.received_bytes < LEN + SLACK, "fetched twice: {}", fetched.received_bytes);
}
