//! What theory allows in a scene, by reasoning about the behaviour of its routers alone.

use super::{
    nat::{Filtering, NatKind, Unsolicited},
    topology::{Place, Together, Topology, V6},
};
use crate::candidate::CandidateKind;

/// The best way that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Allowed {
    Not,
    /// It depends on timing: SYNs have to cross between routers that answer with RST, or the way leads through a router
    /// that turns segments round.
    Perhaps,
    /// A way has to be opened first.
    Punched,
    /// One side can connect to the other as usual, at a candidate of this kind at best.
    Plainly(Reach),
}

/// The kind of a candidate that accepts, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    Reflexive,
    Mapped,
    Host,
}

impl From<CandidateKind> for Reach {
    fn from(kind: CandidateKind) -> Self {
        match kind {
            CandidateKind::Host => Self::Host,
            CandidateKind::PortMapped => Self::Mapped,
            CandidateKind::ServerReflexive | CandidateKind::Relayed => Self::Reflexive,
        }
    }
}

/// What theory allows in a scene.
pub(super) fn allowed(topology: &Topology) -> Allowed {
    let [a, b] = &topology.places;
    let plainly = [(a, b), (b, a)].into_iter().filter_map(|(from, to)| plain(topology, from, to)).max();
    let punched = punched_v6(topology, a, b).max(match topology.together {
        Together::OneCarrier if a.v4 && b.v4 => hairpin(a, b),
        _ => punched_v4(a, b),
    });
    plainly.map_or(punched, Allowed::Plainly)
}

/// The best candidate of `to` at which `from` can connect as usual.
fn plain(topology: &Topology, from: &Place, to: &Place) -> Option<Reach> {
    let both_v4 = from.v4 && to.v4;
    let one_lan = topology.together == Together::OneLan;
    let v6 = from.v6 != V6::None && (to.v6 == V6::Open || to.v6 != V6::None && one_lan);
    let v4_host = both_v4 && (one_lan || to.nats.is_empty() && from.may_go_to(to.port));
    if v6 || v4_host {
        return Some(Reach::Host);
    }
    if !both_v4 || to.nats.is_empty() || topology.together == Together::OneLan {
        return None;
    }
    // A mapped port leads in from next to the router: the core, or the inside of the carrier that both share.
    let shared = usize::from(topology.together == Together::OneCarrier);
    let leaves = from.nats.iter().rev().skip(shared).all(|nat| nat.only_port.is_none_or(|only| only == to.port));
    if to.mapped && to.nats.len() == 1 + shared && leaves {
        return Some(Reach::Mapped);
    }
    if shared > 0 {
        return None;
    }
    (to.is_confirmed() && !from.is_restricted()).then_some(Reach::Reflexive)
}

fn punched_v6(topology: &Topology, a: &Place, b: &Place) -> Allowed {
    match (a.v6, b.v6) {
        (V6::Firewalled(first), V6::Firewalled(second))
            if topology.together == Together::OneCarrier && [first, second].contains(&Unsolicited::Reset) =>
        {
            // No hop lies between the two firewalls, in which an opening SYN could die.
            Allowed::Perhaps
        }
        (V6::Firewalled(first), V6::Firewalled(second)) => {
            opened(first == Unsolicited::Drop && second == Unsolicited::Drop, a, b)
        }
        _ => Allowed::Not,
    }
}

fn punched_v4(a: &Place, b: &Place) -> Allowed {
    if !a.v4 || !b.v4 || a.is_restricted() || b.is_restricted() {
        return Allowed::Not;
    }
    match (a.has_known_mapping(), b.has_known_mapping()) {
        (true, true) => opened(!a.resets() && !b.resets(), a, b),
        // The one that is known lets in any port of the other's address, once it has sent something there.
        (true, false) => lets_in_any_port(a),
        (false, true) => lets_in_any_port(b),
        (false, false) => Allowed::Not,
    }
    .max(by_a_mapping_for_others(a))
    .max(by_a_mapping_for_others(b))
}

/// A mapping that was made for a STUN server lets in everybody, where that router filters nothing.
fn by_a_mapping_for_others(place: &Place) -> Allowed {
    let is_open = |nat: &NatKind| nat.filtering == Filtering::EndpointIndependent || nat.has_known_mapping();
    if place.nats.iter().all(is_open) { Allowed::Perhaps } else { Allowed::Not }
}

fn lets_in_any_port(known: &Place) -> Allowed {
    if known.weakest_filter_is(Filtering::AddressDependent) { Allowed::Punched } else { Allowed::Not }
}

/// Between routers that answer with RST, one side must be able to open.
///
/// Behind three routers, what an earlier round has let into the outer ones may be in the way of the right TTL.
fn opened(all_drop: bool, a: &Place, b: &Place) -> Allowed {
    if a.nats.len() > 2 || b.nats.len() > 2 {
        return Allowed::Perhaps;
    }
    if all_drop || a.opening || b.opening { Allowed::Punched } else { Allowed::Perhaps }
}

/// Two houses behind one carrier meet where it turns segments round.
fn hairpin(a: &Place, b: &Place) -> Allowed {
    let turns_round = a.nats.last().is_some_and(|carrier| carrier.hairpin);
    let known = a.has_known_mapping() && b.has_known_mapping();
    let fails = !turns_round || punched_v4(a, b) == Allowed::Not;
    match (fails, known && !a.resets() && !b.resets()) {
        (true, _) => Allowed::Not,
        (_, true) => Allowed::Punched,
        _ => Allowed::Perhaps,
    }
}
