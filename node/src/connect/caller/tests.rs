//! Calls between two whole nodes on loopback, which are connected by libp2p, with a relay of the test's own.

use keyferry_ice::{Candidate, CandidateKind, Config, LocalCandidate, TcpType};
use libp2p::PeerId;
use tempfile::TempDir;

use super::*;
use crate::{
    net::path::{PathKind, RelayMode, RelayReason},
    node::{Node, NodeConfig},
    reach::{
        rendezvous::multiaddr_of,
        turn_client::test_relay::{no_relays, silent_relay, test_relay},
    },
};

struct Peer {
    node: Arc<Node>,
    _home: TempDir,
}

impl Peer {
    async fn start(bootstrap: Option<&Self>, relay_mode: RelayMode) -> Self {
        let home = TempDir::new().unwrap();
        let config = NodeConfig {
            mdns: false,
            port_mapping: false,
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            bootstrap: bootstrap.iter().map(|peer| multiaddr_of(peer.node.local_addrs()[0])).collect(),
            announce: true,
            relay_mode,
            ..NodeConfig::default()
        };
        Self { node: Node::open(home.path().to_owned(), None, config).await.unwrap(), _home: home }
    }

    fn caller(&self) -> Caller {
        self.node.online.as_ref().unwrap().finder.caller.clone()
    }

    fn sessions(&self) -> Vec<PathKind> {
        let online = self.node.online.as_ref().unwrap();
        online.sessions.kinds()
    }

    /// An address that leads to the node if it is connected: the relay in it is nobody.
    fn circuit(&self) -> Multiaddr {
        let relay: Multiaddr = "/ip4/203.0.113.1/tcp/9".parse().unwrap();
        let peer = self.node.online.as_ref().unwrap().rendezvous.status().borrow().peer;
        relay.with(Protocol::P2p(PeerId::random())).with(Protocol::P2pCircuit).with(Protocol::P2p(peer))
    }
}

/// A callee of this mode, and a caller that is connected to it.
async fn two_nodes(callee: RelayMode) -> (Peer, Peer) {
    let callee = Peer::start(None, callee).await;
    let caller = Peer::start(Some(&callee), RelayMode::Both).await;
    let mut status = caller.node.online.as_ref().unwrap().rendezvous.status();
    soon(status.wait_for(|status| status.lan_peers == 1)).await.unwrap();
    (caller, callee)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("in time")
}

async fn until(mut is: impl FnMut() -> bool) {
    soon(async {
        while !is() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn call(caller: &Caller, callee: &Peer) -> Result<Session, CallError> {
    let (circuits, to_come) = mpsc::channel(1);
    circuits.try_send(CircuitToCall { addr: callee.circuit(), not_before: Instant::now() }).unwrap();
    drop(circuits);
    let policy = AddressPolicy::for_listeners(&["127.0.0.1:1".parse().unwrap()]).unwrap();
    let (session, inbound) = soon(caller.call(callee.node.key(), to_come, policy, &Trace::Silent)).await?;
    caller.host.keep(session.clone(), inbound);
    Ok(session)
}

fn settings(mode: RelayMode, relay: Arc<dyn crate::reach::turn_client::RelayAllocator>) -> StreamSettings {
    StreamSettings { mode, relays: relay }
}

/// The candidates of a node that connects from loopback.
fn on_loopback() -> Gathered {
    let base = "127.0.0.1:0".parse().unwrap();
    let addr = "127.0.0.1:9".parse().unwrap();
    let candidate = Candidate::new(CandidateKind::Host, TcpType::Active, addr, 1);
    let candidates = vec![LocalCandidate { candidate, base }];
    Gathered { candidates, complete: true, ..Gathered::default() }
}

#[tokio::test]
async fn a_caller_that_hides_its_address_gets_a_session_through_its_relay() {
    let (peer, callee) = two_nodes(RelayMode::Both).await;
    let (ours, relay) = test_relay();
    let caller = Caller { streams: settings(RelayMode::RelayOnly, relay), ..peer.caller() };

    let session = call(&caller, &callee).await.unwrap();

    let kind = session.path().kind;
    assert!(matches!(kind, PathKind::Relayed { why: Some(RelayReason::RelayOnly), .. }), "{kind:?}");
    soon(session.ping()).await.unwrap();
    until(|| callee.sessions().iter().any(PathKind::is_relayed)).await;
    assert_eq!(ours.standing(), 1);
    let ended = session.closed();
    drop(session);
    soon(ended).await;
    until(|| ours.standing() == 0).await;
}

#[tokio::test]
async fn a_direct_path_that_comes_later_leads_to_a_second_session() {
    let (peer, callee) = two_nodes(RelayMode::Both).await;
    let (ours, relay) = test_relay();
    // This side has found none of its addresses yet.
    let (gathered, receiver) = watch::channel(Gathered::default());
    let ice = IceHost::new(receiver, Config::default());
    let caller = Caller { streams: settings(RelayMode::Both, relay), ice, ..peer.caller() };

    let relayed = call(&caller, &callee).await.unwrap();
    assert!(relayed.path().kind.is_relayed(), "{}", relayed.path());
    let arrival = caller.host.sessions.arrival(callee.node.key());
    gathered.send_replace(on_loopback());
    let direct = soon(arrival).await;

    assert!(matches!(direct.path().kind, PathKind::Punched(_)), "{}", direct.path());
    soon(direct.ping()).await.unwrap();
    soon(relayed.ping()).await.unwrap();
    until(|| callee.sessions().len() == 2).await;
    assert_eq!(ours.standing(), 1, "the relay is kept as long as its session");
    drop(relayed);
    until(|| ours.standing() == 0).await;
    soon(direct.ping()).await.unwrap();
}

#[tokio::test]
async fn a_relayed_session_learns_why_there_is_no_direct_one() {
    let (peer, callee) = two_nodes(RelayMode::Both).await;
    let (_ours, relay) = test_relay();
    // This side has no address of its own, as it finds out only later.
    let (gathered, receiver) = watch::channel(Gathered::default());
    let ice = IceHost::new(receiver, Config::default());
    let caller = Caller { streams: settings(RelayMode::Both, relay), ice, ..peer.caller() };

    let relayed = call(&caller, &callee).await.unwrap();
    let mut path = relayed.watch_path();
    assert!(matches!(path.borrow().kind, PathKind::Relayed { why: None, .. }), "{}", relayed.path());
    gathered.send_replace(Gathered { complete: true, ..Gathered::default() });

    soon(path.wait_for(|path| path.kind.is_settled())).await.unwrap();
    let at_callee = || callee.sessions().iter().all(PathKind::is_settled);
    until(at_callee).await;
}

#[tokio::test]
async fn where_the_direct_path_comes_first_the_relay_is_let_go() {
    let (peer, callee) = two_nodes(RelayMode::Both).await;
    let (waiting, relay) = silent_relay();
    let caller = Caller { streams: settings(RelayMode::Both, relay), ..peer.caller() };
    let session = call(&caller, &callee).await.unwrap();
    assert!(!session.path().kind.is_relayed(), "{}", session.path());
    until(|| waiting() == 0).await;
}

#[tokio::test]
async fn a_call_for_a_direct_path_leaves_the_relayed_session_alone() {
    let (peer, callee) = two_nodes(RelayMode::Both).await;
    let (_, relay) = test_relay();
    let hidden = Caller { streams: settings(RelayMode::RelayOnly, relay), ..peer.caller() };
    let relayed = call(&hidden, &callee).await.unwrap();
    let direct_only = Caller { streams: peer.caller().streams.direct_only(), ..peer.caller() };

    let direct = call(&direct_only, &callee).await.unwrap();

    assert!(!direct.path().kind.is_relayed());
    soon(relayed.ping()).await.unwrap();
    let (_, none) = mpsc::channel(1);
    let policy = AddressPolicy::for_listeners(&["127.0.0.1:1".parse().unwrap()]).unwrap();
    let refused = hidden.call_direct(callee.node.key(), none, policy, &Trace::Silent).await;
    assert!(matches!(refused, Err(CallError::NowhereToCall)), "a node that hides does not look for direct paths");
}

#[tokio::test]
async fn nodes_whose_settings_rule_each_other_out_say_so() {
    let (peer, callee) = two_nodes(RelayMode::NoRelay).await;
    let caller = Caller { streams: settings(RelayMode::RelayOnly, no_relays()), ..peer.caller() };
    let refused = call(&caller, &callee).await;
    let Err(CallError::Refused(why)) = refused else { panic!("{refused:?}") };
    assert_eq!(why, keyferry_proto::signalling::CallRefusal::NoCommonStream);
}
