//! A router that maps ports: a real miniupnpd.

use super::{
    lab::{Lab, in_namespace},
    *,
};

const PROGRAMS: &[&str] = &["miniupnpd", "nft", "nsenter", "ss"];

/// Maps a port in the protocols that the router is made to speak, lets somebody in by it, and gives it back.
async fn maps_lets_in_and_gives_back(pcp_and_nat_pmp: bool, upnp: bool, expected: MappingProtocol) {
    let mut lab = Lab::new("masquerade");
    lab.start_port_mapping(pcp_and_nat_pmp, upnp);
    let mut node = Node::start(GatherConfig { port_mapping: true, ..GatherConfig::default() }).await;
    let gathered = node.until(|gathered| matches!(gathered.port_mapping, PortMapping::Mapped { .. })).await;
    let PortMapping::Mapped { by, local, external, .. } = gathered.port_mapping else { unreachable!() };
    assert_eq!(by, expected);
    assert_eq!(local.to_string(), "192.168.1.2:4600");
    assert_eq!(external.to_string(), "100.128.10.1:4600");
    assert_eq!(addrs_of(&gathered, CandidateKind::PortMapped), ["100.128.10.1:4600"]);
    assert!(lab.forwarded_ports().contains("192.168.1.2:4600"), "{}", lab.forwarded_ports());

    assert!(lab.connect_from_internet("100.128.10.1:4600"));
    let accepted = tokio::time::timeout(Duration::from_secs(5), node.sessions.recv()).await.unwrap().unwrap();
    assert_eq!(accepted.remote.ip().to_string(), "100.128.10.254");

    node.gatherer.shutdown().await;
    assert_eq!(lab.forwarded_ports(), "");
    drop(node.port);
}

#[tokio::test]
async fn a_port_is_mapped_by_pcp_and_given_back() {
    if in_namespace("reach::gather::tests::router::a_port_is_mapped_by_pcp_and_given_back", PROGRAMS) {
        maps_lets_in_and_gives_back(true, true, MappingProtocol::Pcp).await;
    }
}

#[tokio::test]
async fn a_port_is_mapped_by_upnp_and_given_back() {
    if in_namespace("reach::gather::tests::router::a_port_is_mapped_by_upnp_and_given_back", PROGRAMS) {
        maps_lets_in_and_gives_back(false, true, MappingProtocol::Upnp).await;
    }
}

#[tokio::test]
async fn what_the_router_speaks_is_known_beside_the_protocol_that_maps() {
    if !in_namespace(
        "reach::gather::tests::router::what_the_router_speaks_is_known_beside_the_protocol_that_maps",
        PROGRAMS,
    ) {
        return;
    }
    let mut lab = Lab::new("masquerade");
    lab.start_port_mapping(true, true);
    let node = Node::start(GatherConfig { port_mapping: true, ..GatherConfig::default() }).await;
    let all = RouterProtocols { pcp: true, nat_pmp: true, upnp: true };
    node.until(|gathered| matches!(gathered.port_mapping, PortMapping::Mapped { protocols, .. } if protocols == all))
        .await;
}

#[tokio::test]
async fn a_router_that_maps_nothing_is_told_so_in_words() {
    if !in_namespace("reach::gather::tests::router::a_router_that_maps_nothing_is_told_so_in_words", PROGRAMS) {
        return;
    }
    let _lab = Lab::new("masquerade");
    let node = Node::start(GatherConfig { port_mapping: true, ..GatherConfig::default() }).await;
    let gathered = node.until(|gathered| matches!(gathered.port_mapping, PortMapping::NoAnswer { .. })).await;
    let PortMapping::NoAnswer { reason } = &gathered.port_mapping else { unreachable!() };
    assert!(reason.contains("192.168.1.1"), "{reason}");
    assert!(addrs_of(&gathered, CandidateKind::PortMapped).is_empty());
}

#[tokio::test]
async fn no_router_is_asked_where_port_mapping_is_off() {
    if !in_namespace("reach::gather::tests::router::no_router_is_asked_where_port_mapping_is_off", PROGRAMS) {
        return;
    }
    let mut lab = Lab::new("masquerade");
    lab.start_port_mapping(true, true);
    let node = Node::start(GatherConfig::default()).await;
    let gathered = node.until(|gathered| gathered.complete).await;
    assert_eq!(gathered.port_mapping, PortMapping::Off);
    assert_eq!(lab.forwarded_ports(), "");
}
