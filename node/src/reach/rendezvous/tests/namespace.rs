//! Tests that need a network of their own: multicast, and addresses that count as public. Each runs in a network namespace with one pair
//! of interfaces.

use std::process::Command as Process;

use super::{hostile::Hostile, *};
use crate::{base::namespace, net::trouble::LEAST_PATIENCE};

const SET_UP: &str = "ip link set lo up && ip link add v0 type veth peer name v1 && \
    for addr in 10.77.0.1 203.0.113.1 203.0.113.2 203.0.113.3; do ip addr add $addr/24 dev v0 || exit 1; done && \
    ip addr add fd77::1/64 dev v0 nodad && ip link set v1 up && ip link set v0 up && exec \"$0\" \"$@\"";

/// The same with addresses of IPv6 that count as public.
const SET_UP_BOTH: &str = "ip link set lo up && ip link add v0 type veth peer name v1 && \
    for addr in 203.0.113.1 203.0.113.2 203.0.113.3; do ip addr add $addr/24 dev v0 || exit 1; done && \
    for addr in 2001:db8:1::1 2001:db8:2::1; do ip addr add $addr/64 dev v0 nodad || exit 1; done && \
    ip link set v1 up && ip link set v0 up && exec \"$0\" \"$@\"";

/// Runs the test of this name again in a namespace, and returns whether this is that second run.
fn in_namespace(name: &str) -> bool {
    in_namespace_of(SET_UP, &[], &format!("namespace::{name}"))
}

/// Runs a test again in a namespace that is set up in a certain way with these programs, and returns whether this is that second run.
pub(super) fn in_namespace_of(set_up: &str, programs: &[&str], name: &str) -> bool {
    namespace::in_namespace(&format!("reach::rendezvous::tests::{name}"), programs, set_up)
}

#[tokio::test]
async fn nodes_of_one_network_find_each_other_by_multicast() {
    if !in_namespace("nodes_of_one_network_find_each_other_by_multicast") {
        return;
    }
    // Over each family alone.
    for everywhere in ["0.0.0.0:0", "[::]:0"] {
        let everywhere = everywhere.parse().unwrap();
        let config = || RendezvousConfig { mdns: true, ..quiet_config(&[]) };
        let first = start_on(everywhere, config()).await;
        first.publish(&secret(1), 1).await;
        let second = start_on(everywhere, config()).await;
        assert!(second.resolve(key_of(&secret(1))).await.is_some());
        second.until(|status| status.lan_peers == 1).await;
    }
}

#[tokio::test]
async fn an_address_that_a_peer_states_besides_is_named_to_others_once_the_peer_was_there() {
    let name = "an_address_that_a_peer_states_besides_is_named_to_others_once_the_peer_was_there";
    if !in_namespace_of(SET_UP_BOTH, &[], &format!("namespace::{name}")) {
        return;
    }
    let public = |bootstrap: &[&Node]| RendezvousConfig { public: true, ..quiet_config(bootstrap) };
    let both = |v4: &str, v6: &str| [format!("{v4}:0"), format!("[{v6}]:0")].map(|addr| addr.parse().unwrap());
    let steady = start_on_all(&both("203.0.113.1", "2001:db8:1::1"), public(&[])).await;
    let other = start_on_all(&both("203.0.113.2", "2001:db8:2::1"), public(&[&steady])).await;
    let mut asker = Hostile::at("203.0.113.3", AddressScope::Wan, &steady).await;
    let peer = other.rendezvous.status().borrow().peer;
    let hosts = soon(async {
        loop {
            let hosts: Vec<_> = asker.ask_for(peer).await.iter().map(|addr| addr.ip().to_string()).collect();
            if hosts.len() > 1 {
                return hosts;
            }
        }
    });
    assert_eq!(hosts.await, ["203.0.113.2", "2001:db8:2::1"]);
}

#[tokio::test]
async fn connections_end_with_the_address_that_they_hung_on() {
    if !in_namespace("connections_end_with_the_address_that_they_hung_on") {
        return;
    }
    leave_from("203.0.113.2");
    let steady =
        start_on("203.0.113.1:0".parse().unwrap(), RendezvousConfig { public: true, ..quiet_config(&[]) }).await;
    let moving = start_on("0.0.0.0:0".parse().unwrap(), quiet_config(&[&steady])).await;
    moving.until(|status| status.connected == 1).await;
    let is_listening_on =
        |status: &RendezvousStatus, ip: &str| status.listen.iter().any(|addr| addr.ip().to_string() == ip);

    ip("addr del 203.0.113.3/24 dev v0");
    moving.rendezvous.interfaces_changed();
    let status = moving.until(|status| !is_listening_on(status, "203.0.113.3")).await;
    assert!(!status.counters.contains_key("closed_with_address"), "nothing hung on it");

    ip("addr del 203.0.113.2/24 dev v0");
    leave_from("10.77.0.1");
    moving.rendezvous.interfaces_changed();
    moving.until(|status| status.counters.get("closed_with_address").is_some_and(|count| *count == 1)).await;
    moving.until(|status| status.connected == 1).await;
}

#[tokio::test]
async fn of_connections_in_doubt_those_that_answer_stay_and_others_are_made_anew_at_once() {
    let name = "of_connections_in_doubt_those_that_answer_stay_and_others_are_made_anew_at_once";
    if !in_namespace_of(SET_UP, &["nft"], &format!("namespace::{name}")) {
        return;
    }
    let public = RendezvousConfig { public: true, ..quiet_config(&[]) };
    let steady = start_on("203.0.113.1:0".parse().unwrap(), public).await;
    let other = start_on("203.0.113.2:0".parse().unwrap(), quiet_config(&[&steady])).await;
    other.until(|status| status.connected == 1).await;

    // It answers sooner than another connection could be made.
    other.rendezvous.doubt();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let status = other.until(|status| status.connected == 1).await;
    assert!(!status.counters.contains_key("closed_in_doubt"), "{status:?}");

    // As behind a router that has forgotten the connection: what is sent over it is lost, and nobody says so.
    let port = other.addr.port();
    nft("add table ip lost");
    nft("add chain ip lost out { type filter hook output priority 0 ; }");
    nft(&format!("add rule ip lost out tcp sport {port} ip daddr 203.0.113.1 drop"));
    nft(&format!("add rule ip lost out tcp dport {port} ip saddr 203.0.113.1 drop"));
    let doubted = Instant::now();
    other.rendezvous.doubt();
    other.until(|status| status.counters.get("closed_in_doubt") == Some(&1)).await;
    assert!(doubted.elapsed() < LEAST_PATIENCE, "the new connection did not wait for the end of the old one");
    other.until(|status| status.connected == 1).await;
}

fn nft(rule: &str) {
    assert!(Process::new("nft").args(rule.split(' ')).status().unwrap().success(), "nft {rule}");
}

/// Has connections to the first of the public addresses leave from another one of this machine.
fn leave_from(source: &str) {
    ip(&format!("route replace local 203.0.113.1 dev v0 table local scope host src {source}"));
}

fn ip(arguments: &str) {
    assert!(Process::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

#[tokio::test]
async fn public_addresses_make_the_wide_area_dht_and_reachable_nodes_serve_it() {
    if !in_namespace("public_addresses_make_the_wide_area_dht_and_reachable_nodes_serve_it") {
        return;
    }
    let at = |host: u8| SocketAddr::from(([203, 0, 113, host], 0));
    let public = start_on(at(1), RendezvousConfig { public: true, ..quiet_config(&[]) }).await;
    let second = start_on(at(2), quiet_config(&[&public])).await;
    second.until(|status| status.wan_peers == 1).await;
    let word = Observation { observer: public.addr, local: second.addr, observed: second.addr };
    second.until(|status| status.observed == [word]).await;
    assert!(!second.rendezvous.status().borrow().public, "nobody has tested yet whether it is reachable");
    assert_eq!(second.publish(&secret(1), 1).await, PublishReport { lan: 0, wan: 1 });
    let third = start_on(at(3), quiet_config(&[&public])).await;
    assert!(third.resolve(key_of(&secret(1))).await.is_some());
    let tested = second.until(|status| status.public).await;
    assert_eq!(tested.external, [second.addr]);
    assert_eq!(tested.lan_peers, 0);
    // It serves now, and others learn of it.
    public.until(|status| status.wan_peers >= 1).await;
}
