//! What holds in every scene, tried in random ones. A failure prints its seed.

use std::time::Duration;

use super::{
    driver::Ended,
    nat::{Filtering, MappingBehaviour, NatKind, Unsolicited},
    pair::{Outcome, Scene},
    rng::{Rng, seeds},
    theory::{Allowed, Reach, allowed},
    topology::{Place, Together, Topology, V6},
};
use crate::{Role, Selected, candidate::CandidateKind};

fn nat(rng: &mut Rng) -> NatKind {
    let mapping = rng.pick(&[
        MappingBehaviour::EndpointIndependent,
        MappingBehaviour::EndpointIndependent,
        MappingBehaviour::AddressDependent,
        MappingBehaviour::AddressAndPortDependent,
    ]);
    let filtering = rng.pick(&[
        Filtering::EndpointIndependent,
        Filtering::AddressDependent,
        Filtering::AddressAndPortDependent,
        Filtering::AddressAndPortDependent,
    ]);
    let kind = NatKind::new(mapping, filtering, unsolicited(rng));
    let kind = if rng.one_in(2) { kind.with_hairpin() } else { kind };
    if rng.one_in(12) { kind.only_to_port(443) } else { kind }
}

fn unsolicited(rng: &mut Rng) -> Unsolicited {
    rng.pick(&[Unsolicited::Drop, Unsolicited::Reset])
}

fn place(rng: &mut Rng, at_least: u64) -> Place {
    let nats: Vec<NatKind> = (0..at_least + rng.below(4 - at_least)).map(|_| nat(rng)).collect();
    let v6 = match rng.below(6) {
        0 if !nats.is_empty() => V6::Firewalled(unsolicited(rng)),
        1 => V6::Open,
        _ => V6::None,
    };
    let mapped = !nats.is_empty() && rng.one_in(5);
    let port = if rng.one_in(5) { 443 } else { 4001 };
    let place = Place { v6, mapped, port, opening: !rng.one_in(4), ..Place::behind(&nats) };
    let may_mislead = place.has_known_mapping() && place.weakest_filter_is(Filtering::AddressDependent);
    Place { falsely_confirmed: may_mislead && rng.one_in(3), ..place }
}

fn topology(rng: &mut Rng) -> Topology {
    let together = match rng.below(8) {
        0 => Together::OneLan,
        1 => Together::OneCarrier,
        _ => Together::Apart,
    };
    let [mut first, mut second] = [0, 1].map(|_| match together {
        Together::Apart => place(rng, 0),
        Together::OneLan => place(rng, 1),
        Together::OneCarrier => place(rng, 2),
    });
    match together {
        Together::Apart => {}
        Together::OneLan => (second.nats, second.mapped) = (first.nats.clone(), false),
        Together::OneCarrier => *second.nats.last_mut().unwrap() = *first.nats.last().unwrap(),
    }
    if together == Together::OneLan && first.v6 != second.v6 {
        (first.v6, second.v6) = (V6::None, V6::None);
    }
    // The mapped port of two hosts behind one router would be the same one.
    first.mapped &= together == Together::Apart;
    Topology { places: [first, second], together }
}

fn scene(seed: u64) -> Scene {
    let mut rng = Rng::new(seed);
    let latency = Duration::from_millis(rng.pick(&[0, 1, 10, 40, 100]));
    let mut scene = Scene::new(topology(&mut rng), latency);
    scene.seed = seed;
    scene.core.hops = 1 + u8::try_from(rng.below(5)).unwrap();
    scene.core.jitter = latency / 4;
    scene.signalling.jitter = latency / 2;
    // After both descriptions: what a node learns before, it keeps until then.
    scene.trickle = rng.one_in(4).then(|| (scene.signalling.latency + scene.signalling.jitter) * 2 + latency);
    if rng.one_in(10) {
        // A role conflict: both believe that they control, or neither.
        scene.roles = [rng.pick(&[Role::Controlling, Role::Controlled]); 2];
    }
    scene
}

/// What is wrong with how a scene ended whatever the network did.
fn always(scene: &Scene, outcome: &Outcome) -> Result<(), String> {
    match &outcome.ended {
        _ if !outcome.faults.is_empty() => Err("faults".to_owned()),
        [Ended::NotYet, _] | [_, Ended::NotYet] => Err("does not end".to_owned()),
        [Ended::Selected(_), Ended::Failed(_)] | [Ended::Failed(_), Ended::Selected(_)] => {
            Err("no agreement".to_owned())
        }
        _ if outcome.took > scene.deadline() => Err("too late".to_owned()),
        _ => Ok(()),
    }
}

/// Whether the best pair is there before the patience of the controlling side ends.
fn is_in_time(scene: &Scene) -> bool {
    let has_conflict = scene.roles[0] == scene.roles[1];
    scene.trickle.is_none() && !has_conflict && scene.core.latency <= Duration::from_millis(40)
}

fn as_theory_says(scene: &Scene, outcome: &Outcome) -> Result<(), String> {
    always(scene, outcome)?;
    let allowed = allowed(&scene.topology);
    match (&outcome.ended, allowed) {
        ([Ended::Selected(_), _], Allowed::Not) => Err("theory says that there is no path".to_owned()),
        // In a conflict of roles both sides take the first turn, and SYNs that have crossed leave no second try.
        ([Ended::Failed(_), _], Allowed::Punched) if scene.roles[0] == scene.roles[1] => Ok(()),
        ([Ended::Failed(_), _], Allowed::Punched | Allowed::Plainly(_)) => Err(format!("{allowed:?}, but failed")),
        // An opened way is as good as a plain one between the same addresses, and a mapped port is no better than an opened
        // one: what comes first is taken.
        ([Ended::Selected(first), Ended::Selected(second)], Allowed::Plainly(Reach::Host)) if is_in_time(scene) => {
            let kinds = [first.remote_kind, second.remote_kind];
            kinds.contains(&CandidateKind::Host).then_some(()).ok_or(format!("{allowed:?} is better"))
        }
        _ => Ok(()),
    }
}

fn for_each_seed(first: u64, usual: u64, holds: impl Fn(u64) -> Result<(), String>) {
    let seeds = seeds(first, usual);
    let failures: Vec<String> =
        seeds.filter_map(|seed| holds(seed).err().map(|error| format!("seed {seed}: {error}\n"))).collect();
    let shown = failures.iter().take(5).map(String::as_str).collect::<String>();
    assert!(failures.is_empty(), "{} failures, such as\n{shown}", failures.len());
}

#[test]
fn agents_find_what_theory_allows_in_any_topology() {
    for_each_seed(0, 1500, |seed| {
        let scene = scene(seed);
        let outcome = scene.run();
        as_theory_says(&scene, &outcome).map_err(|error| format!("{error}: {outcome:?}\nin {scene:?}"))
    });
}

#[test]
fn agents_end_in_agreement_when_segments_are_lost_and_overtake_each_other() {
    for_each_seed(1_000_000, 700, |seed| {
        let mut scene = scene(seed);
        scene.core.loss_one_in = 8 + seed % 30;
        scene.core.jitter = scene.core.latency;
        let outcome = scene.run();
        if has_lost_the_last_word(&outcome) {
            return Ok(());
        }
        always(&scene, &outcome).map_err(|error| format!("{error}: {outcome:?}\nin {scene:?}"))
    });
}

/// No protocol can have both sides know that both know: the answer to a nomination may be lost until it is too late.
fn has_lost_the_last_word(outcome: &Outcome) -> bool {
    let just_before = |selected: &Selected| selected.took + Duration::from_secs(3) > outcome.took;
    match &outcome.ended {
        [Ended::Selected(selected), Ended::Failed(_)] | [Ended::Failed(_), Ended::Selected(selected)] => {
            outcome.faults.is_empty() && outcome.took > Duration::from_secs(8) && just_before(selected)
        }
        _ => false,
    }
}

#[test]
fn agents_end_when_signalling_breaks_half_way() {
    for_each_seed(2_000_000, 300, |seed| {
        let mut scene = scene(seed);
        scene.signalling.breaks_after = Some(usize::try_from(seed % 6).unwrap());
        let outcome = scene.run();
        always(&scene, &outcome).map_err(|error| format!("{error}: {outcome:?}\nin {scene:?}"))
    });
}

#[test]
fn few_lost_segments_cost_time_but_hardly_ever_the_path() {
    let runs: Vec<(u64, bool)> = (3_000_000..3_000_400)
        .filter_map(|seed| {
            let mut scene = scene(seed);
            scene.core.loss_one_in = 50;
            let is_possible = !matches!(allowed(&scene.topology), Allowed::Not | Allowed::Perhaps);
            is_possible.then(|| (seed, matches!(scene.run().ended, [Ended::Selected(_), Ended::Selected(_)])))
        })
        .collect();
    let failed: Vec<u64> = runs.iter().filter(|(_, selected)| !selected).map(|(seed, _)| *seed).collect();
    assert!(failed.len() * 100 <= runs.len(), "{} of {} failed: {failed:?}", failed.len(), runs.len());
}
