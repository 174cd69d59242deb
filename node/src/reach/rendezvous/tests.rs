#[cfg(target_os = "linux")]
mod circuits;
mod crawler;
#[cfg(target_os = "linux")]
mod evil_relay;
mod floods;
#[cfg(target_os = "linux")]
mod hiding;
mod hostile;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
mod relay_finding;
mod turn;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use keyferry_ice::Candidate;
use keyferry_proto::{
    hash::ContentHash,
    identity::NodeSecret,
    offer::{Offer, RecordKey, SealedOffer, SignedOffer, content_record_key, record_key, seal},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use zeroize::Zeroizing;

use super::{actor::RendezvousCommand, announce::PublishReport, *};
use crate::{
    base::clock,
    net::port::{Accepted, Port},
};

/// A node of the tests: a port and a rendezvous on loopback.
struct Node {
    rendezvous: Rendezvous,
    addr: SocketAddr,
    task: JoinHandle<()>,
    _sessions: mpsc::Receiver<Accepted>,
}

/// An offer of a node for today, with an hour to live.
pub(super) fn sealed(secret: &NodeSecret, sequence: u64) -> SealedOffer {
    sealed_for(secret, sequence, Duration::from_secs(3600))
}

fn sealed_for(secret: &NodeSecret, sequence: u64, lifetime: Duration) -> SealedOffer {
    let now = clock::now();
    let offer = Offer {
        candidates: vec![Candidate::host_passive("127.0.0.1:7".parse().unwrap(), 0)],
        signalling: vec![],
        sequence,
        expires: now.plus(lifetime),
    };
    let signed = SignedOffer::sign(offer, secret).unwrap();
    seal(&signed, secret, now.day(), rand::random()).unwrap()
}

fn sequence_in(secret: &NodeSecret, sealed: &SealedOffer) -> u64 {
    sealed.open(&secret.public(), clock::now()).unwrap().offer().sequence
}

fn secret(seed: u8) -> NodeSecret {
    NodeSecret::from_bytes(&[seed; 32])
}

fn key_of(secret: &NodeSecret) -> RecordKey {
    record_key(&secret.public(), clock::now().day())
}

fn quiet_config(bootstrap: &[&Node]) -> RendezvousConfig {
    RendezvousConfig {
        bootstrap: bootstrap.iter().map(|node| multiaddr_of(node.addr)).collect(),
        mdns: false,
        local_bootstrap: false,
        memory_limit: usize::MAX,
        ..RendezvousConfig::new(Zeroizing::new(rand::random()))
    }
}

async fn start(config: RendezvousConfig) -> Node {
    start_on("127.0.0.1:0".parse().unwrap(), config).await
}

async fn start_on(listen: SocketAddr, config: RendezvousConfig) -> Node {
    start_on_all(&[listen], config).await
}

async fn start_on_all(listen: &[SocketAddr], config: RendezvousConfig) -> Node {
    let (port, incoming) = Port::bind(listen).await.unwrap();
    let addr = port.local_addrs()[0];
    let (rendezvous, task) = Rendezvous::spawn(config, Arc::new(port), incoming.libp2p).unwrap();
    Node { rendezvous, addr, task, _sessions: incoming.sessions }
}

/// A network whose nodes all know the first one.
async fn network(size: usize) -> Vec<Node> {
    let mut nodes = vec![start(quiet_config(&[])).await];
    for _ in 1..size {
        nodes.push(start(quiet_config(&[&nodes[0]])).await);
    }
    for node in &nodes[1..] {
        node.until(|status| status.lan_peers > 0).await;
    }
    nodes
}

/// Long enough for whatever peers on this machine do.
const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

impl Node {
    async fn until(&self, reached: impl Fn(&RendezvousStatus) -> bool) -> RendezvousStatus {
        soon(self.rendezvous.status().wait_for(|status| reached(status)))
            .await
            .unwrap_or_else(|_| panic!("ended"))
            .clone()
    }

    async fn resolve(&self, key: RecordKey) -> Option<SealedOffer> {
        soon(self.rendezvous.resolve(key).recv()).await
    }

    async fn publish(&self, secret: &NodeSecret, sequence: u64) -> PublishReport {
        soon(self.rendezvous.publish(sealed(secret, sequence))).await.unwrap()
    }
}

#[tokio::test]
async fn of_two_nodes_one_finds_what_the_other_published() {
    let nodes = network(2).await;
    nodes[0].until(|status| status.lan_peers == 1).await;
    let report = nodes[1].publish(&secret(1), 1).await;
    let found = nodes[0].resolve(key_of(&secret(1))).await.expect("an offer");
    assert_eq!(report, PublishReport { lan: 1, wan: 0 });
    assert_eq!(found.open(&secret(1).public(), clock::now()).unwrap().offer().sequence, 1);
}

#[tokio::test]
async fn what_is_published_alone_reaches_the_first_peer_that_comes() {
    let first = start(quiet_config(&[])).await;
    assert_eq!(first.publish(&secret(1), 1).await, PublishReport::default());
    let second = start(quiet_config(&[&first])).await;
    second.until(|status| status.records == 1).await;
}

#[tokio::test]
async fn a_lookup_begun_before_there_is_any_peer_waits_for_one() {
    let first = start(quiet_config(&[])).await;
    first.publish(&secret(1), 1).await;
    let second = start(quiet_config(&[])).await;
    let mut results = second.rendezvous.resolve(key_of(&secret(1)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    second.rendezvous.add_bootstrap(multiaddr_of(first.addr)).await;
    assert!(soon(results.recv()).await.is_some());
}

#[tokio::test]
async fn a_lookup_that_finds_nothing_at_first_goes_on_until_the_offer_is_there() {
    let nodes = network(3).await;
    let mut results = nodes[2].rendezvous.resolve(key_of(&secret(1)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    nodes[1].publish(&secret(1), 1).await;
    assert!(soon(results.recv()).await.is_some());
    assert!(soon(results.recv()).await.is_none(), "the channel closes when the lookup has ended");
}

#[tokio::test]
async fn a_bootstrap_address_with_the_peer_of_an_earlier_start_still_works() {
    let first = start(quiet_config(&[])).await;
    let stale = multiaddr_of(first.addr).with_p2p(PeerId::random()).unwrap();
    let second = start(RendezvousConfig { bootstrap: vec![stale], ..quiet_config(&[]) }).await;
    second.until(|status| status.lan_peers == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_network_of_ten_every_node_finds_every_offer() {
    let nodes = network(10).await;
    for (seed, node) in nodes.iter().enumerate() {
        assert!(node.publish(&secret(seed as u8), 1).await.lan >= 1);
    }
    for node in &nodes {
        for seed in 0..nodes.len() {
            let found = node.resolve(key_of(&secret(seed as u8))).await;
            assert!(found.is_some_and(|offer| offer.open(&secret(seed as u8).public(), clock::now()).is_ok()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_outlives_the_node_that_published_it() {
    let mut nodes = network(5).await;
    let publisher = nodes.pop().unwrap();
    publisher.publish(&secret(1), 1).await;
    soon(publisher.rendezvous.shutdown()).await;
    soon(publisher.task).await.unwrap();
    assert!(nodes[1].resolve(key_of(&secret(1))).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_offer_is_the_last_one_that_a_lookup_gives() {
    let nodes = network(4).await;
    nodes[1].publish(&secret(1), 1).await;
    nodes[1].publish(&secret(1), 2).await;
    let mut results = nodes[2].rendezvous.resolve(key_of(&secret(1)));
    let mut last = 0;
    while let Some(offer) = soon(results.recv()).await {
        let sequence = sequence_in(&secret(1), &offer);
        assert!(sequence > last);
        last = sequence;
    }
    assert_eq!(last, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_offer_of_the_same_node_is_refused_everywhere() {
    let nodes = network(3).await;
    nodes[1].publish(&secret(1), 5).await;
    // Another instance with the same node key, such as a restored backup, or somebody who replays what was once public.
    nodes[2].publish(&secret(1), 4).await;
    assert_eq!(sequence_in(&secret(1), &nodes[0].resolve(key_of(&secret(1))).await.unwrap()), 5);
    let own = nodes[1].rendezvous.publish(sealed(&secret(1), 3)).await;
    assert!(matches!(own, Err(PublishError::Older { published, got }) if published - got == 2));
}

#[tokio::test]
async fn an_offer_that_has_expired_is_not_published() {
    let node = start(quiet_config(&[])).await;
    let refused = node.rendezvous.publish(sealed_for(&secret(1), 1, Duration::ZERO)).await;
    assert!(matches!(refused, Err(PublishError::Expired { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_of_a_content_are_found_with_their_addresses_until_they_stop() {
    let nodes = network(5).await;
    let key = content_record_key(&ContentHash::of(b"content"));
    for provider in [&nodes[1], &nodes[2]] {
        provider.rendezvous.provide(key).await.unwrap();
    }
    let mut found = Vec::new();
    // The announcements run in the background.
    soon(async {
        while found.len() < 2 {
            found.clear();
            let mut results = nodes[4].rendezvous.providers(key);
            while let Some(provider) = results.recv().await {
                found.push(provider.addrs);
            }
        }
    })
    .await;
    found.sort();
    let mut expected = vec![vec![nodes[1].addr], vec![nodes[2].addr]];
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_restart_keeps_the_records_of_others() {
    let folder = tempfile::tempdir().unwrap();
    // Open all the time: sled gives its lock back a moment after it was closed.
    let database = sled::open(folder.path()).unwrap();
    let tree = || database.open_tree("records").unwrap();
    let keeper = start(RendezvousConfig { records: Some(tree()), ..quiet_config(&[]) }).await;
    let publisher = start(quiet_config(&[&keeper])).await;
    publisher.until(|status| status.lan_peers == 1).await;
    publisher.publish(&secret(1), 1).await;
    soon(publisher.rendezvous.shutdown()).await;
    keeper.until(|status| status.records == 1).await;
    soon(keeper.rendezvous.shutdown()).await;
    soon(keeper.task).await.unwrap();

    let again = start(RendezvousConfig { records: Some(tree()), ..quiet_config(&[]) }).await;
    assert_eq!(again.rendezvous.status().borrow().records, 1);
    assert!(again.resolve(key_of(&secret(1))).await.is_some());
}

#[tokio::test]
async fn damaged_records_on_disk_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let tree = sled::open(folder.path()).unwrap().open_tree("records").unwrap();
    let offer = sealed(&secret(1), 1);
    let mut damaged = offer.as_bytes().to_vec();
    damaged[100] ^= 1;
    tree.insert([&[0], &offer.key().as_bytes()[..]].concat(), damaged).unwrap();
    tree.insert(b"nonsense", b"nonsense").unwrap();
    let node = start(RendezvousConfig { records: Some(tree.clone()), ..quiet_config(&[]) }).await;
    assert_eq!(node.rendezvous.status().borrow().records, 0);
    assert!(tree.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_all_its_peers_joins_again_by_itself() {
    let first = start(quiet_config(&[])).await;
    let second = start(quiet_config(&[&first])).await;
    second.until(|status| status.lan_peers == 1).await;
    let addr = first.addr;
    soon(first.rendezvous.shutdown()).await;
    drop(first);
    second.until(|status| status.connected == 0).await;
    let again = start_on(addr, quiet_config(&[])).await;
    again.publish(&secret(1), 1).await;
    second.until(|status| status.connected == 1).await;
    assert!(second.resolve(key_of(&secret(1))).await.is_some());
}

/// Waits until all have the connections that they want: for a while, none comes or goes.
async fn has_settled(nodes: &[Node]) {
    let connections = || nodes.iter().map(|node| node.rendezvous.status().borrow().connected).sum::<usize>();
    let mut before = 0;
    while before != connections() {
        before = connections();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// The times are printed and not judged: fifty nodes in one unoptimised process make a busy machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_fifty_answers_members_and_newcomers() {
    let before = resident_kib();
    let nodes = network(50).await;
    has_settled(&nodes).await;
    let per_node = (resident_kib() - before) / nodes.len();
    let began = Instant::now();
    let report = nodes[7].publish(&secret(1), 1).await;
    let publishing = began.elapsed();
    let began = Instant::now();
    assert!(nodes[33].resolve(key_of(&secret(1))).await.is_some());
    let warm = began.elapsed();
    let began = Instant::now();
    let newcomer = start(quiet_config(&[&nodes[20]])).await;
    assert!(newcomer.resolve(key_of(&secret(1))).await.is_some());
    let cold = began.elapsed();
    println!("50 nodes: {per_node} KiB a node, publish {publishing:?} to {report:?}, warm {warm:?}, cold {cold:?}");
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
