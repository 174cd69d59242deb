//! Scenes of the relayed stream: what no direct path can do, a relay does.

use std::{net::SocketAddr, time::Duration};

use super::{
    driver::Ended,
    nat::{Filtering, MappingBehaviour, NatKind, Unsolicited},
    pair::{Outcome, Relaying, Scene},
    relay::{Families, RELAYED_PORT},
    rng::{Rng, seeds},
    topology::{Place, Together, Topology, V6},
};
use crate::{FailureReason, Role, Selected, Strategy, candidate::CandidateKind};

const LATENCY: Duration = Duration::from_millis(20);
/// A call has a relayed path within this time, at 40 ms from side to side.
const SOON: Duration = Duration::from_millis(500);

const NO_RELAY: Relaying = Relaying { relay: None, only: false };
const RELAY: Relaying = Relaying { relay: Some(Families::V4), only: false };
const BOTH_FAMILIES: Relaying = Relaying { relay: Some(Families::Both), only: false };
const ONLY_RELAY: Relaying = Relaying { relay: Some(Families::V4), only: true };

fn strict(unsolicited: Unsolicited) -> NatKind {
    NatKind::new(MappingBehaviour::EndpointIndependent, Filtering::AddressAndPortDependent, unsolicited)
}

fn symmetric() -> Place {
    let mapping = MappingBehaviour::AddressAndPortDependent;
    Place::behind(&[NatKind::new(mapping, Filtering::AddressAndPortDependent, Unsolicited::Reset)])
}

fn only_443() -> Place {
    Place::behind(&[strict(Unsolicited::Drop).only_to_port(443)])
}

fn run(places: [Place; 2], relaying: [Relaying; 2]) -> Outcome {
    let [first, second] = places;
    Scene::relayed(Topology::apart(first, second), LATENCY, relaying).run()
}

fn selected(outcome: &Outcome) -> [Selected; 2] {
    assert_eq!(outcome.faults, Vec::<String>::new());
    let [Ended::Selected(first), Ended::Selected(second)] = &outcome.ended else { panic!("no path: {outcome:?}") };
    [first.clone(), second.clone()]
}

fn failed(outcome: &Outcome) -> [FailureReason; 2] {
    assert_eq!(outcome.faults, Vec::<String>::new());
    let [Ended::Failed(first), Ended::Failed(second)] = outcome.ended else { panic!("not failed: {outcome:?}") };
    [first, second]
}

fn strategies(selected: &[Selected; 2]) -> [Strategy; 2] {
    [selected[0].strategy, selected[1].strategy]
}

/// The relayed address of a side, as `relay` gives them out.
fn relayed(side: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 101 + 10 * side], RELAYED_PORT))
}

#[test]
fn two_routers_that_map_by_destination_meet_at_a_relay() {
    let outcome = run([symmetric(), symmetric()], [RELAY, RELAY]);
    let both = selected(&outcome);
    // Through one relay, not through two.
    assert!(
        [[Strategy::Connected, Strategy::AcceptedAtRelay], [Strategy::AcceptedAtRelay, Strategy::Connected]]
            .contains(&strategies(&both)),
        "{outcome:?}"
    );
    assert_eq!(both[0].relay, both[1].relay);
    assert!(outcome.took <= SOON, "{:?}", outcome.took);
}

#[test]
fn one_relay_is_enough_whoever_has_it() {
    for (relaying, expected) in [
        ([RELAY, NO_RELAY], [Strategy::AcceptedAtRelay, Strategy::Connected]),
        ([NO_RELAY, RELAY], [Strategy::Connected, Strategy::AcceptedAtRelay]),
    ] {
        let outcome = run([symmetric(), symmetric()], relaying);
        let both = selected(&outcome);
        assert_eq!(strategies(&both), expected);
        let owner = u8::from(relaying[0] == NO_RELAY);
        assert_eq!(both.clone().map(|one| one.relay), [Some(relayed(owner)); 2]);
        assert!(outcome.took <= SOON, "{:?}", outcome.took);
    }
}

#[test]
fn two_sides_that_reach_nothing_but_their_relays_connect_them() {
    let outcome = run([only_443(), only_443()], [RELAY, RELAY]);
    let both = selected(&outcome);
    let ways = strategies(&both);
    assert!(
        [
            [Strategy::ConnectedByRelay, Strategy::AcceptedAtRelay],
            [Strategy::AcceptedAtRelay, Strategy::ConnectedByRelay]
        ]
        .contains(&ways),
        "{outcome:?}"
    );
    assert_eq!(both.clone().map(|one| one.relay), [Some(relayed(0)), Some(relayed(1))], "each has its own");
    let kinds = both.map(|one| (one.local_kind, one.remote_kind));
    assert_eq!(kinds, [(CandidateKind::Relayed, CandidateKind::Relayed); 2]);
    assert!(outcome.took <= SOON, "{:?}", outcome.took);
}

#[test]
fn an_ipv4_side_and_an_ipv6_side_meet_at_a_relay_that_has_both() {
    for relaying in [[BOTH_FAMILIES, NO_RELAY], [NO_RELAY, BOTH_FAMILIES]] {
        let outcome = run([symmetric(), Place::only_v6(V6::Firewalled(Unsolicited::Drop))], relaying);
        selected(&outcome);
        assert!(outcome.took <= SOON, "{:?}", outcome.took);
    }
    let outcome = run([symmetric(), Place::only_v6(V6::Open)], [RELAY, NO_RELAY]);
    assert_eq!(failed(&outcome), [FailureReason::NoPairs; 2]);
}

#[test]
fn a_side_that_hides_its_addresses_is_reached_at_its_relay_only() {
    for relaying in [[ONLY_RELAY, NO_RELAY], [ONLY_RELAY, RELAY], [RELAY, ONLY_RELAY], [ONLY_RELAY, ONLY_RELAY]] {
        let outcome = run([Place::behind(&[strict(Unsolicited::Reset)]), Place::public()], relaying);
        let both = selected(&outcome);
        for (side, hidden) in relaying.iter().enumerate().filter(|(_, relaying)| relaying.only) {
            assert!(hidden.relay.is_some());
            assert_eq!(both[side].local_kind, CandidateKind::Relayed);
            assert_eq!(both[1 - side].remote_kind, CandidateKind::Relayed, "{relaying:?}: {outcome:?}");
            let told = outcome.pairs[1 - side].iter().map(|pair| pair.remote.kind);
            assert!(told.into_iter().all(|kind| kind == CandidateKind::Relayed), "{outcome:?}");
        }
    }
}

#[test]
fn without_a_relay_it_ends_at_once_and_says_why() {
    let outcome = run([symmetric(), symmetric()], [NO_RELAY, NO_RELAY]);
    assert_eq!(failed(&outcome), [FailureReason::NoRelay; 2]);
    assert!(outcome.took <= SOON, "{:?}", outcome.took);
}

#[test]
fn a_relay_that_cannot_be_reached_from_either_side_is_given_up_soon() {
    let outcome = run([symmetric(), only_443()], [RELAY, NO_RELAY]);
    assert_eq!(failed(&outcome), [FailureReason::NoPairWorks; 2]);
    assert!(outcome.took <= Duration::from_secs(3), "{:?}", outcome.took);
}

#[test]
fn relayed_addresses_that_come_late_still_lead_to_a_path() {
    let mut scene = Scene::relayed(Topology::apart(symmetric(), symmetric()), LATENCY, [RELAY, RELAY]);
    scene.trickle = Some(Duration::from_secs(2));
    let outcome = scene.run();
    selected(&outcome);
    assert!(outcome.took <= Duration::from_secs(2) + SOON, "{:?}", outcome.took);
}

#[test]
fn a_relay_that_is_asked_late_to_let_the_peer_in_is_tried_again() {
    let mut scene = Scene::relayed(Topology::apart(symmetric(), symmetric()), LATENCY, [RELAY, NO_RELAY]);
    scene.permissions_take = Duration::from_millis(300);
    let outcome = scene.run();
    selected(&outcome);
    let tried = outcome.pairs[1].iter().map(|pair| pair.attempts).max();
    assert!(tried.is_some_and(|tried| tried > 1), "{outcome:?}");
    assert!(outcome.took <= Duration::from_secs(1), "{:?}", outcome.took);
}

/// Whether one side can connect to a relayed address of the other: from its own addresses, or from its relay.
fn can_connect(from: (&Place, Relaying), to: (&Place, Relaying)) -> bool {
    let Some(families) = to.1.relay else { return false };
    let has = |is_ipv4: bool| is_ipv4 || families == Families::Both;
    let may = |is_ipv4: bool| if is_ipv4 { from.0.v4 && from.0.may_go_to(RELAYED_PORT) } else { from.0.v6 != V6::None };
    let itself = !from.1.only && [true, false].into_iter().any(|is_ipv4| has(is_ipv4) && may(is_ipv4));
    itself || from.1.relay.is_some()
}

fn place(rng: &mut Rng) -> Place {
    let mapping = rng.pick(&[MappingBehaviour::EndpointIndependent, MappingBehaviour::AddressAndPortDependent]);
    let unsolicited = rng.pick(&[Unsolicited::Drop, Unsolicited::Reset]);
    let nat = NatKind::new(mapping, Filtering::AddressAndPortDependent, unsolicited);
    let nat = if rng.one_in(4) { nat.only_to_port(443) } else { nat };
    match rng.below(8) {
        0 => Place::public(),
        1 => Place::only_v6(V6::Firewalled(unsolicited)),
        2 => Place::behind(&[nat]).with_v6(V6::Open),
        3 => Place::behind(&[nat, nat]),
        _ => Place::behind(&[nat]),
    }
}

fn random_scene(seed: u64) -> Scene {
    let mut rng = Rng::new(seed);
    let places = [place(&mut rng), place(&mut rng)];
    let relaying = [0, 1].map(|_| {
        let relay = rng.pick(&[None, Some(Families::V4), Some(Families::Both)]);
        Relaying { relay, only: relay.is_some() && rng.one_in(4) }
    });
    let latency = Duration::from_millis(rng.pick(&[0, 1, 10, 40, 100]));
    let mut scene = Scene::relayed(Topology { places, together: Together::Apart }, latency, relaying);
    scene.seed = seed;
    scene.core.jitter = latency / 4;
    scene.signalling.jitter = latency / 2;
    scene.trickle = rng.one_in(4).then(|| (scene.signalling.latency + scene.signalling.jitter) * 2 + latency);
    if rng.one_in(10) {
        scene.roles = [rng.pick(&[Role::Controlling, Role::Controlled]); 2];
    }
    scene
}

#[test]
fn a_relay_leads_to_a_path_in_every_scene_in_which_one_side_can_connect_to_it() {
    for seed in seeds(0, 800) {
        let scene = random_scene(seed);
        let outcome = scene.run();
        let [first, second] = [0, 1].map(|side| (&scene.topology.places[side], scene.relaying.unwrap()[side]));
        let is_possible = can_connect(first, second) || can_connect(second, first);
        let is_right = match &outcome.ended {
            _ if !outcome.faults.is_empty() || outcome.took > scene.deadline() => false,
            [Ended::Selected(_), Ended::Selected(_)] => is_possible,
            [Ended::Failed(_), Ended::Failed(_)] => !is_possible,
            _ => false,
        };
        assert!(is_right, "seed {seed}: {is_possible}, but {outcome:?}\nin {scene:?}");
    }
}

#[test]
fn sides_agree_when_segments_are_lost_on_the_way_to_relays() {
    let mut unhappy = 0;
    let all = seeds(1_000_000, 300);
    let count = all.clone().count();
    for seed in all {
        let mut scene = random_scene(seed);
        scene.core.loss_one_in = 20 + seed % 30;
        let outcome = scene.run();
        assert!(outcome.took <= scene.deadline(), "seed {seed}: {outcome:?}");
        unhappy += usize::from(matches!(
            outcome.ended,
            [Ended::Selected(_), Ended::Failed(_)] | [Ended::Failed(_), Ended::Selected(_)]
        ));
    }
    // The answer to a nomination may be lost until it is too late.
    assert!(unhappy * 100 <= count, "{unhappy} of {count}");
}
