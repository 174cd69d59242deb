//! Scenes with names: each kind of router against each other, and what else has gone wrong on the internet.

use std::time::Duration;

use super::{
    driver::Ended,
    nat::{Filtering, MappingBehaviour, NatKind, Unsolicited},
    pair::{Outcome, Scene},
    theory::{Allowed, Reach, allowed},
    topology::{Place, Together, Topology, V6},
};
use crate::{FailureReason, Selected, Strategy};

use Filtering as Filter;
use MappingBehaviour as Map;
use Unsolicited::{Drop, Reset};

const LATENCY: Duration = Duration::from_millis(20);
/// A negotiation that needs a relay says so within this time, at 40 ms from side to side.
const SOON: Duration = Duration::from_secs(3);

/// The routers that stand against each other.
fn kinds(unsolicited: Unsolicited) -> Vec<(&'static str, Place)> {
    let nat = |mapping, filtering| NatKind::new(mapping, filtering, unsolicited);
    let full_cone = nat(Map::EndpointIndependent, Filter::EndpointIndependent);
    let by_addr = nat(Map::EndpointIndependent, Filter::AddressDependent);
    let by_port = nat(Map::EndpointIndependent, Filter::AddressAndPortDependent);
    let symmetric = nat(Map::AddressAndPortDependent, Filter::AddressAndPortDependent);
    let symmetric_by_addr = nat(Map::AddressDependent, Filter::AddressDependent);
    vec![
        ("public", Place::public()),
        ("filters nothing", Place::behind(&[full_cone])),
        ("filters by address", Place::behind(&[by_addr])),
        ("filters by port", Place::behind(&[by_port])),
        ("maps by destination", Place::behind(&[symmetric])),
        ("maps by address", Place::behind(&[symmetric_by_addr])),
        ("carrier", Place::behind(&[by_port, by_port])),
        ("mapped port", Place::behind(&[by_port]).with_mapped_port()),
    ]
}

fn strict(unsolicited: Unsolicited) -> NatKind {
    NatKind::new(Map::EndpointIndependent, Filter::AddressAndPortDependent, unsolicited)
}

fn by_destination(unsolicited: Unsolicited) -> NatKind {
    NatKind::new(Map::AddressAndPortDependent, Filter::AddressAndPortDependent, unsolicited)
}

fn run(first: Place, second: Place) -> Outcome {
    Scene::new(Topology::apart(first, second), LATENCY).run()
}

/// Both sides have selected; what the controlling side says of it.
fn selected(outcome: &Outcome) -> [Selected; 2] {
    assert_eq!(outcome.faults, Vec::<String>::new());
    let [Ended::Selected(first), Ended::Selected(second)] = &outcome.ended else {
        panic!("no path: {:?}", outcome.ended);
    };
    [first.clone(), second.clone()]
}

/// Both sides have failed; why, says the controlling side.
fn failed(outcome: &Outcome) -> [FailureReason; 2] {
    assert_eq!(outcome.faults, Vec::<String>::new());
    let [Ended::Failed(first), Ended::Failed(second)] = outcome.ended else {
        panic!("not failed: {:?}", outcome.ended);
    };
    [first, second]
}

fn is_plain(strategy: Strategy) -> bool {
    matches!(strategy, Strategy::Connected | Strategy::Accepted)
}

/// What went wrong in a scene, if anything did, by theory.
fn complaint(scene: &Scene) -> Option<String> {
    let outcome = scene.run();
    let allowed = allowed(&scene.topology);
    let right = match (&outcome.ended, allowed) {
        _ if !outcome.faults.is_empty() => false,
        ([Ended::Failed(_), Ended::Failed(_)], Allowed::Not) => outcome.took <= SOON,
        ([Ended::Failed(_), Ended::Failed(_)], Allowed::Perhaps) => true,
        ([Ended::Selected(_), Ended::Selected(_)], Allowed::Punched | Allowed::Perhaps) => true,
        // An opened way between reflexive addresses is as good as a plain one.
        ([Ended::Selected(_), Ended::Selected(_)], Allowed::Plainly(Reach::Reflexive)) => true,
        ([Ended::Selected(first), Ended::Selected(second)], Allowed::Plainly(_)) => {
            is_plain(first.strategy) || is_plain(second.strategy)
        }
        _ => false,
    };
    (!right).then(|| format!("{allowed:?}, but {outcome:?}"))
}

fn each_against_each(unsolicited: [Unsolicited; 2], latency: Duration) {
    let [first, second] = unsolicited.map(kinds);
    let mut complaints = Vec::new();
    for (a, place_a) in &first {
        for (b, place_b) in &second {
            let scene = Scene::new(Topology::apart(place_a.clone(), place_b.clone()), latency);
            complaints.extend(complaint(&scene).map(|complaint| format!("{a} × {b}: {complaint}\n")));
        }
    }
    assert!(complaints.is_empty(), "{} of 64:\n{}", complaints.len(), complaints.concat());
}

#[test]
fn routers_that_drop_allow_what_theory_allows() {
    for latency_ms in [0, 20, 100] {
        each_against_each([Drop, Drop], Duration::from_millis(latency_ms));
    }
}

#[test]
fn routers_that_answer_with_rst_allow_what_theory_allows() {
    for latency_ms in [0, 20, 100] {
        each_against_each([Reset, Reset], Duration::from_millis(latency_ms));
    }
}

#[test]
fn routers_that_drop_and_routers_that_answer_with_rst_get_along() {
    each_against_each([Drop, Reset], LATENCY);
    each_against_each([Reset, Drop], LATENCY);
}

#[test]
fn a_public_side_is_connected_to_in_the_first_round_trips() {
    let outcome = run(Place::behind(&[strict(Reset)]), Place::public());
    let [first, second] = selected(&outcome);
    assert_eq!((first.strategy, second.strategy), (Strategy::Connected, Strategy::Accepted));
    // Description 30 ms and answer 30 ms, TCP 40 ms, checks of both sides 80 ms, the nomination 40 ms.
    assert!(outcome.took <= Duration::from_millis(200), "{:?}", outcome.took);
}

#[test]
fn an_opening_syn_wins_where_both_routers_answer_with_rst() {
    let outcome = run(Place::behind(&[strict(Reset)]), Place::behind(&[strict(Reset)]));
    let [first, second] = selected(&outcome);
    // The callee knows enough before the caller does, and opens first.
    assert_eq!((first.strategy, second.strategy), (Strategy::OpenedByPeer { ttl: 2 }, Strategy::OpenedHere { ttl: 2 }));
    assert!(outcome.took <= Duration::from_millis(240), "{:?}", outcome.took);
}

#[test]
fn candidates_that_come_late_still_lead_to_a_path() {
    let place = || Place::behind(&[strict(Reset)]);
    let mut scene = Scene::new(Topology::apart(place(), place()), LATENCY);
    scene.trickle = Some(Duration::from_secs(2));
    let outcome = scene.run();
    selected(&outcome);
    assert!(outcome.took <= Duration::from_millis(2240), "{:?}", outcome.took);
}

#[test]
fn a_reflexive_address_that_was_called_reachable_and_is_not_does_no_harm() {
    for unsolicited in [Drop, Reset] {
        let by_addr = NatKind::new(Map::EndpointIndependent, Filter::AddressDependent, unsolicited);
        let place = || Place { falsely_confirmed: true, ..Place::behind(&[by_addr]) };
        let outcome = run(place(), place());
        selected(&outcome);
        assert!(outcome.took <= Duration::from_millis(240), "{:?}", outcome.took);
    }
}

#[test]
fn signals_that_are_lost_after_the_descriptions_cost_no_more_than_the_opening() {
    let mut scene = Scene::new(Topology::apart(Place::behind(&[strict(Reset)]), Place::public()), LATENCY);
    scene.signalling.breaks_after = Some(0);
    selected(&scene.run());
    let place = || Place::behind(&[strict(Reset)]);
    let mut scene = Scene::new(Topology::apart(place(), place()), LATENCY);
    scene.signalling.breaks_after = Some(0);
    failed(&scene.run());
}

#[test]
fn a_greater_ttl_opens_two_carriers_that_answer_with_rst() {
    let carrier = || Place::behind(&[strict(Reset), strict(Reset)]);
    let outcome = run(carrier(), carrier());
    let [first, _] = selected(&outcome);
    assert_eq!(first.strategy, Strategy::OpenedByPeer { ttl: 3 });
    assert!(outcome.took <= SOON, "{:?}", outcome.took);
}

#[test]
fn one_side_that_can_open_is_enough() {
    let place = || Place::behind(&[strict(Reset)]);
    let outcome = run(place().without_opening(), place());
    assert_eq!(selected(&outcome)[1].strategy, Strategy::OpenedHere { ttl: 2 });
    let mut scene = Scene::new(Topology::apart(place(), place().without_opening()), LATENCY);
    // Signals are too slow for SYNs that cross.
    scene.signalling.latency = LATENCY * 5;
    assert_eq!(selected(&scene.run())[0].strategy, Strategy::OpenedHere { ttl: 2 });
}

#[test]
fn crossing_syns_win_where_nobody_can_open() {
    for unsolicited in [Drop, Reset] {
        let place = || Place::behind(&[strict(unsolicited)]).without_opening();
        // Signals that take exactly as long as packets can be timed exactly.
        let mut scene = Scene::new(Topology::apart(place(), place()), LATENCY);
        scene.signalling.latency = LATENCY;
        let [first, second] = selected(&scene.run());
        assert_eq!((first.strategy, second.strategy), (Strategy::Crossing, Strategy::Crossing));
    }
}

#[test]
fn two_routers_that_map_by_destination_need_a_relay_and_say_so_soon() {
    for unsolicited in [Drop, Reset] {
        let place = || Place::behind(&[by_destination(unsolicited)]);
        let outcome = run(place(), place());
        assert_eq!(failed(&outcome), [FailureReason::BothMapByDestination; 2]);
        assert!(outcome.took <= SOON, "{:?}", outcome.took);
    }
}

#[test]
fn mapping_by_destination_against_a_filter_by_port_needs_a_relay_and_says_so_soon() {
    for unsolicited in [Drop, Reset] {
        let outcome = run(Place::behind(&[by_destination(unsolicited)]), Place::behind(&[strict(unsolicited)]));
        assert_eq!(failed(&outcome), [FailureReason::MapsByDestination, FailureReason::PeerMapsByDestination]);
        assert!(outcome.took <= SOON, "{:?}", outcome.took);
    }
}

#[test]
fn two_hosts_of_one_house_meet_at_home() {
    for hairpin in [false, true] {
        let nat = NatKind { hairpin, ..strict(Reset) };
        let mut topology = Topology::apart(Place::behind(&[nat]), Place::behind(&[nat]));
        topology.together = Together::OneLan;
        let outcome = Scene::new(topology, LATENCY).run();
        let [first, _] = selected(&outcome);
        assert_eq!(Reach::from(first.remote_kind), Reach::Host, "{outcome:?}");
        assert!(is_plain(first.strategy));
    }
}

#[test]
fn two_houses_of_one_carrier_meet_where_it_turns_segments_round() {
    for (hairpin, expected) in [(true, Allowed::Punched), (false, Allowed::Not)] {
        let carrier = NatKind { hairpin, ..strict(Drop) };
        let place = || Place::behind(&[strict(Drop), carrier]);
        let topology = Topology { places: [place(), place()], together: Together::OneCarrier };
        let scene = Scene::new(topology, LATENCY);
        assert_eq!(allowed(&scene.topology), expected);
        let outcome = scene.run();
        match expected {
            Allowed::Punched => drop(selected(&outcome)),
            _ => assert_eq!(failed(&outcome), [FailureReason::NoPairWorks; 2]),
        }
    }
}

#[test]
fn firewalls_of_ipv6_are_opened_like_nats() {
    for unsolicited in [Drop, Reset] {
        let place = || Place::only_v6(V6::Firewalled(unsolicited));
        let outcome = run(place(), place());
        assert_eq!(selected(&outcome)[1].strategy, Strategy::OpenedHere { ttl: 2 });
    }
}

#[test]
fn ipv6_helps_where_ipv4_maps_by_destination() {
    let place = || Place::behind(&[by_destination(Reset)]).with_v6(V6::Firewalled(Reset));
    let [first, _] = selected(&run(place(), place()));
    assert!(first.remote.is_ipv6());
    let place = || Place::behind(&[by_destination(Reset)]);
    let [first, _] = selected(&run(place().with_v6(V6::Open), place().with_v6(V6::Firewalled(Reset))));
    assert!(first.remote.is_ipv6() && is_plain(first.strategy));
}

#[test]
fn a_firewall_that_lets_only_443_out_reaches_a_node_there_and_no_other() {
    let inside = || Place::behind(&[strict(Drop).only_to_port(443)]);
    let [first, _] = selected(&run(inside(), Place::public().listening_at(443)));
    assert_eq!((first.strategy, first.remote.port()), (Strategy::Connected, 443));
    failed(&run(inside(), Place::behind(&[strict(Drop)])));
    failed(&run(inside(), Place::behind(&[by_destination(Drop)])));
}
