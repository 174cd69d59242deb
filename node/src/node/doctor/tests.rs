//! `doctor` behind real NATs: a router, and coturn on two addresses of the internet.

use tokio::sync::mpsc;

use super::*;
use crate::{
    node::{
        NodeConfig,
        api::{Command, MappingInfo, Reach},
        runner::Runner,
    },
    reach::gather::tests::lab::{Lab, in_namespace},
};

const PROGRAMS: &[&str] = &["turnserver", "miniupnpd", "nft", "nsenter", "bash", "ss"];
const KEEPS_PORTS: &str = "masquerade";
const PORT_FOR_EACH_DESTINATION: &str = "masquerade random,fully-random";

fn inside(name: &str) -> bool {
    in_namespace(&format!("node::doctor::tests::{name}"), PROGRAMS)
}

/// What `doctor` says on a node that asks both STUN servers and the router.
async fn diagnosis() -> Diagnosis {
    let home = tempfile::tempdir().unwrap();
    let config = NodeConfig {
        mdns: false,
        listen: vec!["0.0.0.0:4600".parse().unwrap()],
        stun: ["192.0.2.1:3478", "192.0.2.2:3478"].map(|text| text.parse().unwrap()).to_vec(),
        port_mapping: true,
        ..NodeConfig::default()
    };
    let node = Node::open(home.path().to_owned(), None, config).await.unwrap();
    let (events, mut told) = mpsc::channel(16);
    node.run(Command::Doctor, events, CancellationToken::new()).await.unwrap();
    node.shutdown().await;
    let mut last = None;
    while let Some(event) = told.recv().await {
        last = Some(event);
    }
    let Some(Event::Diagnosed(found)) = last else { panic!("{last:?}") };
    *found
}

#[tokio::test]
async fn a_port_of_the_router_makes_the_node_directly_reachable() {
    if !inside("a_port_of_the_router_makes_the_node_directly_reachable") {
        return;
    }
    let mut lab = Lab::new(KEEPS_PORTS);
    lab.start_stun();
    lab.start_port_mapping(true, true);
    let found = diagnosis().await;
    assert_eq!(found.verdict.reach, Reach::Direct, "{:?}", found.verdict);
    assert_eq!(found.port_mapping.by.as_deref(), Some("PCP"));
    assert_eq!(found.port_mapping.protocols, ["PCP", "NAT-PMP", "UPnP"]);
    assert_eq!(lab.forwarded_ports(), "", "given back at the end");
}

#[tokio::test]
async fn a_nat_that_keeps_ports_is_punched_and_what_nobody_tried_is_not_known() {
    if !inside("a_nat_that_keeps_ports_is_punched_and_what_nobody_tried_is_not_known") {
        return;
    }
    let mut lab = Lab::new(KEEPS_PORTS);
    lab.start_stun();
    let found = diagnosis().await;
    assert_eq!(found.verdict.reach, Reach::HolePunching, "{:?}", found.verdict);
    assert_eq!(found.ipv4.nat, Finding::Yes);
    assert_eq!(found.ipv4.mapping, MappingInfo::EndpointIndependent);
    assert_eq!(found.ipv4.filtering, FilteringInfo::NotKnown);
    assert_eq!(found.ipv4.seen, [SeenAddr { addr: "100.128.10.1:4600".parse().unwrap(), seen_by: 2 }]);
    assert_eq!(found.hairpin, Finding::No);
    assert!(found.stun.iter().all(|server| server.took_ms.is_some()), "{:?}", found.stun);
    assert_eq!(found.interfaces.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["home"]);
}

#[tokio::test]
async fn a_port_for_each_destination_is_told_with_advice() {
    if !inside("a_port_for_each_destination_is_told_with_advice") {
        return;
    }
    let mut lab = Lab::new(PORT_FOR_EACH_DESTINATION);
    lab.start_stun();
    let found = diagnosis().await;
    assert_eq!(found.ipv4.mapping, MappingInfo::EndpointDependent);
    assert_eq!(found.verdict.reach, Reach::HolePunchingWithSome, "{:?}", found.verdict);
    assert!(found.verdict.advice.iter().any(|advice| advice.contains("TCP port 4600")), "{:?}", found.verdict.advice);
}

#[tokio::test]
async fn a_router_that_leads_its_outer_address_back_inside_is_seen_to_hairpin() {
    if !inside("a_router_that_leads_its_outer_address_back_inside_is_seen_to_hairpin") {
        return;
    }
    let mut lab = Lab::new(KEEPS_PORTS);
    lab.start_stun();
    lab.in_router(
        "nft add rule inet filter prerouting_miniupnpd ip daddr 100.128.10.1 tcp dport 4600 dnat ip to 192.168.1.2:4600
         nft add rule inet filter postrouting_miniupnpd ip saddr 192.168.1.0/24 oifname lan masquerade",
    );
    assert_eq!(diagnosis().await.hairpin, Finding::Yes);
}

#[tokio::test]
async fn without_an_outside_nothing_is_claimed() {
    if !inside("without_an_outside_nothing_is_claimed") {
        return;
    }
    let _lab = Lab::new(KEEPS_PORTS);
    let found = diagnosis().await;
    assert_eq!(found.verdict.reach, Reach::NotKnown);
    assert_eq!((found.ipv4.nat, found.hairpin), (Finding::NotKnown, Finding::NotKnown));
    assert!(found.stun.iter().all(|server| server.reason.is_some()), "{:?}", found.stun);
    assert!(found.port_mapping.reason.is_some());
}
