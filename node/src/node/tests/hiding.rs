//! Whole nodes around one that hides where it is, in a network namespace: what it shares and fetches goes through relays of others, and
//! the packet filter notes to whom it connects.

use std::{collections::BTreeSet, net::SocketAddr, process::Command as Process};

use super::*;
use crate::{base::namespace, net::twins::TwinEncounter, reach::turn_server::RelayConfig};

/// Hosts 1 and 2 are public and relay, 12 is a friend's, 13 hides. Nobody can connect to the last two.
const SET_UP: &str = "ip link set lo up && ip link add v0 type veth peer name v1 && \
    for host in 1 2 12 13; do ip addr add 203.0.113.$host/24 dev v0 || exit 1; done && \
    ip link set v1 up && ip link set v0 up && nft add table inet f && \
    nft 'add chain inet f input { type filter hook input priority 0; }' && \
    nft 'add rule inet f input ip daddr { 203.0.113.12, 203.0.113.13 } tcp flags & (syn | ack) == syn drop' && \
    nft 'add set inet f dialled { type ipv4_addr; flags dynamic; size 1024; }' && \
    nft 'add set inet f answered { type ipv4_addr; flags dynamic; size 1024; }' && \
    nft 'add chain inet f output { type filter hook output priority 0; }' && \
    nft 'add rule inet f output ip saddr 203.0.113.13 tcp flags & (syn | ack) == syn add @dialled { ip daddr }' && \
    nft 'add rule inet f output ip saddr 203.0.113.13 add @answered { ip daddr }' && exec \"$0\" \"$@\"";

async fn node_at(host: u8, bootstrap: &[&Peer], change: impl FnOnce(NodeConfig) -> NodeConfig) -> Peer {
    node_in(TempDir::new().unwrap(), host, bootstrap, change).await
}

async fn node_in(home: TempDir, host: u8, bootstrap: &[&Peer], change: impl FnOnce(NodeConfig) -> NodeConfig) -> Peer {
    let config = NodeConfig {
        mdns: false,
        port_mapping: false,
        listen: vec![SocketAddr::from(([203, 0, 113, host], 0))],
        bootstrap: bootstrap.iter().flat_map(|peer| peer.addrs()).collect(),
        ..NodeConfig::default()
    };
    let node = Node::open(home.path().to_owned(), None, change(config)).await.unwrap();
    Peer { home, node }
}

async fn relay_at(host: u8, bootstrap: &[&Peer]) -> Peer {
    // All hosts of this network are the relay's own machine, where it would connect to nobody.
    let relay = RelayConfig { allow_peers: vec!["203.0.113.0/24".parse().unwrap()], ..RelayConfig::default() };
    node_at(host, bootstrap, |config| NodeConfig { public: true, relay: Some(relay), ..config }).await
}

async fn hidden_at(host: u8, bootstrap: &[&Peer]) -> Peer {
    node_at(host, bootstrap, |config| NodeConfig { relay_mode: RelayMode::RelayOnly, ..config }).await
}

/// The hosts in a set of the packet filter.
fn hosts_in(set: &str) -> BTreeSet<u8> {
    let listed = Process::new("nft").args(["list", "set", "inet", "f", set]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let hosts = text.split("203.0.113.").skip(1);
    hosts.map(|host| host.split(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse().unwrap()).collect()
}

async fn is_called_at_circuits(peer: &Peer) {
    let mut status = peer.node.online.as_ref().unwrap().rendezvous.status();
    let circuits = tokio::time::timeout(Duration::from_secs(40), status.wait_for(|status| !status.circuits.is_empty()));
    circuits.await.expect("circuits in time").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hidden_node_shares_and_fetches_shows_its_address_to_relays_and_the_dht_alone() {
    let name =
        "node::tests::hiding::what_a_hidden_node_shares_and_fetches_shows_its_address_to_relays_and_the_dht_alone";
    if !namespace::in_namespace(name, &["nft"], SET_UP) {
        return;
    }
    let first = relay_at(1, &[]).await;
    let second = relay_at(2, &[&first]).await;
    let friend = node_at(12, &[&first, &second], |config| config).await;
    let hidden = hidden_at(13, &[&first, &second]).await;
    let folder = TempDir::new().unwrap();
    let (theirs, own) = (folder.path().join("theirs"), folder.path().join("own"));
    fs::write(&theirs, vec![1; 300_000]).unwrap();
    fs::write(&own, vec![2; 300_000]).unwrap();
    is_called_at_circuits(&friend).await;
    is_called_at_circuits(&hidden).await;

    let shared = friend.share(&theirs).await;
    // Its hints lead to the friend's host, and so does its offer.
    hidden.get(&shared.address_with_hints, &folder.path().join("got by hidden")).await.unwrap();
    let shared = hidden.share(&own).await;
    friend.get(&shared.address, &folder.path().join("got from hidden")).await.unwrap();

    assert_eq!(fs::read(folder.path().join("got by hidden/theirs")).unwrap(), vec![1; 300_000]);
    assert_eq!(fs::read(folder.path().join("got from hidden/own")).unwrap(), vec![2; 300_000]);
    assert_eq!(hosts_in("dialled"), BTreeSet::from([1, 2]));
    assert_eq!(hosts_in("answered"), BTreeSet::from([1, 2]), "nobody else has had a packet of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_key_that_nobody_can_dial_meet_by_a_call() {
    let name = "node::tests::hiding::two_nodes_with_one_key_that_nobody_can_dial_meet_by_a_call";
    if !namespace::in_namespace(name, &["nft"], SET_UP) {
        return;
    }
    let first = relay_at(1, &[]).await;
    let second = relay_at(2, &[&first]).await;
    let node = node_at(12, &[&first, &second], |config| config).await;
    // Its offer says where it can be called.
    is_called_at_circuits(&node).await;
    let finder = &second.node.online.as_ref().unwrap().finder;
    finder.connect(node.node.key(), &[], &crate::connect::trace::Trace::Silent).await.unwrap();
    let copied = TempDir::new().unwrap();
    fs::copy(node.home.path().join("identity.key"), copied.path().join("identity.key")).unwrap();

    let hidden = |config| NodeConfig { relay_mode: RelayMode::RelayOnly, ..config };
    let twin = node_in(copied, 13, &[&first, &second], hidden).await;

    for peer in [&node, &twin] {
        let twins = peer.node.online.as_ref().unwrap().tls.twins();
        let met = tokio::time::timeout(Duration::from_secs(15), twins.untold()).await.expect("told in time");
        assert_eq!(met.by, TwinEncounter::Called);
    }
    assert!(hosts_in("dialled").is_subset(&BTreeSet::from([1, 2])));
}
