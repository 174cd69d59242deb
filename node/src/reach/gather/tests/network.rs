//! NATs as STUN servers see them (coturn), and addresses that come and go.

use super::{
    lab::{Lab, in_namespace, sh},
    *,
};

const STUN: &[&str] = &["turnserver", "nft", "nsenter", "bash"];

fn two_servers() -> GatherConfig {
    let stun = ["192.0.2.1:3478", "192.0.2.2:3478"].map(|text| text.parse().unwrap()).to_vec();
    GatherConfig { stun, ..GatherConfig::default() }
}

fn answered(gathered: &Gathered) -> usize {
    gathered.stun.iter().filter(|report| matches!(report.state, StunState::Answered { .. })).count()
}

#[tokio::test]
async fn a_nat_that_keeps_ports_maps_by_no_destination() {
    if !in_namespace("reach::gather::tests::network::a_nat_that_keeps_ports_maps_by_no_destination", STUN) {
        return;
    }
    let mut lab = Lab::new("masquerade");
    lab.start_stun();
    let node = Node::start(two_servers()).await;
    let gathered = node.until(|gathered| answered(gathered) == 2).await;
    assert_eq!(gathered.mapping, Mapping::EndpointIndependent);
    assert_eq!(addrs_of(&gathered, CandidateKind::ServerReflexive), ["100.128.10.1:4600"]);
    assert_eq!(addrs_of(&gathered, CandidateKind::Host), ["192.168.1.2:4600"]);
}

#[tokio::test]
async fn a_nat_with_a_port_for_each_destination_is_seen_as_such() {
    if !in_namespace("reach::gather::tests::network::a_nat_with_a_port_for_each_destination_is_seen_as_such", STUN) {
        return;
    }
    let mut lab = Lab::new("masquerade random,fully-random");
    lab.start_stun();
    let node = Node::start(two_servers()).await;
    let gathered = node.until(|gathered| answered(gathered) == 2).await;
    assert_eq!(gathered.mapping, Mapping::EndpointDependent);
    assert_eq!(addrs_of(&gathered, CandidateKind::ServerReflexive).len(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told_with_its_reason() {
    if !in_namespace("reach::gather::tests::network::a_server_that_does_not_answer_is_told_with_its_reason", STUN) {
        return;
    }
    let _lab = Lab::new("masquerade");
    let node = Node::start(two_servers()).await;
    let failed = |report: &StunReport| matches!(&report.state, StunState::Failed { reason } if !reason.is_empty());
    let gathered = node.until(|gathered| gathered.complete && gathered.stun.iter().all(failed)).await;
    assert_eq!(gathered.stun.len(), 2);
    assert_eq!(gathered.mapping, Mapping::Unknown);
}

#[tokio::test]
async fn candidates_follow_addresses_that_come_and_go() {
    if !in_namespace("reach::gather::tests::network::candidates_follow_addresses_that_come_and_go", STUN) {
        return;
    }
    let mut lab = Lab::new("masquerade");
    lab.start_stun();
    let node = Node::start(two_servers()).await;
    let mut network = node.gatherer.network();
    node.until(|gathered| answered(gathered) == 2).await;
    assert_eq!(network.borrow_and_update().generation, 0);

    // Another address at home, as after a new lease: connections from the old one are dead.
    sh(
        "ip addr del 192.168.1.2/24 dev home; ip addr add 192.168.1.3/24 dev home; ip route add default via 192.168.1.1",
    );
    let gathered = node
        .until(|gathered| {
            addrs_of(gathered, CandidateKind::Host).contains(&"192.168.1.3:4600".to_owned())
                && gathered.observations.len() == 2
                && gathered.observations.iter().all(|one| one.local.ip().to_string() == "192.168.1.3")
        })
        .await;
    // From a fresh port: the router still holds the mappings of the old one, and each is in the way of a new one.
    assert_eq!(gathered.mapping, Mapping::EndpointIndependent);
    let departing = node.port.departing_addrs()[0].port();
    assert_ne!(departing, 4600);
    assert_eq!(addrs_of(&gathered, CandidateKind::ServerReflexive), [format!("100.128.10.1:{departing}")]);
    let bases: Vec<String> = gathered.candidates.iter().map(|own| own.base.ip().to_string()).collect();
    assert!(bases.iter().all(|base| base == "192.168.1.3"), "{bases:?}");
    let change =
        network.wait_for(|change| change.added.iter().any(|ip| ip.to_string() == "192.168.1.3")).await.unwrap();
    assert!(change.generation >= 1);
}

#[tokio::test]
async fn after_a_sign_of_trouble_everybody_is_asked_anew_from_a_fresh_port_and_then_the_others_hear_of_it() {
    let name = "after_a_sign_of_trouble_everybody_is_asked_anew_from_a_fresh_port_and_then_the_others_hear_of_it";
    if !in_namespace(&format!("reach::gather::tests::network::{name}"), STUN) {
        return;
    }
    let mut lab = Lab::new("masquerade");
    lab.start_stun();
    let node = Node::start(two_servers()).await;
    let mut network = node.gatherer.network();
    node.until(|gathered| answered(gathered) == 2).await;

    node.troubles.tell(Trouble::SilentSession);
    let change = network.wait_for(|change| change.generation == 1).await.unwrap().clone();
    assert!(change.added.is_empty() && change.removed.is_empty());
    let departing = node.port.departing_addrs()[0].port();
    assert_ne!(departing, 4600);
    node.troubles.tell(Trouble::UnansweredCall);
    let gathered = node
        .until(|gathered| gathered.observations.iter().filter(|one| one.local.port() == departing).count() == 2)
        .await;
    assert_eq!(gathered.mapping, Mapping::EndpointIndependent);
    assert_eq!(network.borrow().generation, 1, "a second sign says nothing new");
}

#[tokio::test]
async fn an_address_that_others_still_hang_on_keeps_its_connections() {
    if !in_namespace("reach::gather::tests::network::an_address_that_others_still_hang_on_keeps_its_connections", STUN)
    {
        return;
    }
    let mut lab = Lab::new("masquerade");
    lab.start_stun();
    let node = Node::start(two_servers()).await;
    let before = node.until(|gathered| answered(gathered) == 2).await;
    sh("ip addr add 10.9.9.9/24 dev home");
    let after = node.until(|gathered| addrs_of(gathered, CandidateKind::Host).len() == 2).await;
    assert_eq!(before.stun, after.stun, "no server is asked again, so none has another time");
}
