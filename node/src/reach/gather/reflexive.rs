//! What the words of others about this node's addresses amount to: server-reflexive candidates, and how the NAT maps.
//!
//! A host's word counts once, however often it says it. Only hosts of the wide area count: one on this side of the NAT sees
//! the address that the NAT has yet to change.
//!
//! What it is not: truth. Two hosts that lie together can make a wrong candidate, which costs an attempt.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use keyferry_ice::{Candidate, CandidateKind, LocalCandidate, Mapping, TcpType};
use keyferry_net::ip::host_of;

use crate::reach::rendezvous::{AddressScope, Observation};

/// Server-reflexive addresses that become candidates.
pub(super) const MAX_REFLEXIVE: usize = 4;
/// Confirmed addresses that become passive candidates.
pub(super) const MAX_CONFIRMED: usize = 2;

/// An outer address, and who has seen it.
struct Outer {
    addr: SocketAddr,
    base: SocketAddr,
    observers: BTreeSet<IpAddr>,
}

/// Server-reflexive candidates: those that open simultaneously, most seen first, and those that accept, which the outside
/// has confirmed.
pub(super) fn candidates(
    observations: &[Observation],
    hosts: &[SocketAddr],
    confirmed: &[SocketAddr],
) -> Vec<LocalCandidate> {
    let outer = outer_addrs(observations, hosts);
    let opening = worth_telling(&outer, mapping(observations, hosts)).take(MAX_REFLEXIVE);
    let opening = opening.map(|outer| (TcpType::SimultaneousOpen, outer.addr, outer.base));
    let accepting = confirmed.iter().filter(|addr| !hosts.contains(addr)).filter_map(|addr| {
        let seen = outer.iter().find(|outer| outer.addr == *addr).map(|outer| outer.base);
        let base = seen.or_else(|| hosts.iter().find(|host| host.is_ipv4() == addr.is_ipv4()).copied())?;
        Some((TcpType::Passive, *addr, base))
    });
    opening
        .chain(accepting.take(MAX_CONFIRMED))
        .zip((0..=u16::MAX).rev())
        .map(|((tcp_type, addr, base), preference)| LocalCandidate {
            candidate: Candidate::new(CandidateKind::ServerReflexive, tcp_type, addr, preference & 0x1fff),
            base,
        })
        .collect()
}

/// How the NAT chooses outer ports: for IPv4 if all IPv4 addresses of this machine are private, else for the family there is.
pub(super) fn mapping(observations: &[Observation], hosts: &[SocketAddr]) -> Mapping {
    let is_public = |host: &&SocketAddr| AddressScope::of_ip(host.ip()) == Some(AddressScope::Wan);
    let mut of_v4 = hosts.iter().filter(|host| host.is_ipv4()).peekable();
    if of_v4.peek().is_some() && !of_v4.any(|host| is_public(&host)) {
        return mapping_of(observations, hosts, true);
    }
    match mapping_of(observations, hosts, false) {
        Mapping::Unknown if hosts.iter().any(|host| is_public(&host)) => Mapping::EndpointIndependent,
        known => known,
    }
}

/// The mapping of one family. Two hosts that agree prove that it is endpoint-independent; two that do not, that it is not.
pub(crate) fn mapping_of(observations: &[Observation], hosts: &[SocketAddr], ipv4: bool) -> Mapping {
    let of_family = |observation: &&Observation| observation.local.is_ipv4() == ipv4 && counts(observation, hosts);
    let observations: Vec<&Observation> = observations.iter().filter(of_family).collect();
    let witnesses = |addr: Option<SocketAddr>| {
        let those = observations.iter().filter(|one| addr.is_none_or(|addr| one.observed == addr));
        those.map(|one| host_of(one.observer.ip())).collect::<BTreeSet<_>>().len()
    };
    let is_plain = observations.iter().any(|one| one.observed == one.local);
    if is_plain || observations.iter().any(|one| witnesses(Some(one.observed)) >= 2) {
        Mapping::EndpointIndependent
    } else if witnesses(None) >= 2 {
        Mapping::EndpointDependent
    } else {
        Mapping::Unknown
    }
}

/// The outer addresses that are not this machine's own, most seen first, newest first among equals.
fn outer_addrs(observations: &[Observation], hosts: &[SocketAddr]) -> Vec<Outer> {
    let mut outer: Vec<Outer> = Vec::new();
    for one in observations.iter().rev().filter(|one| counts(one, hosts) && !hosts.contains(&one.observed)) {
        let host = host_of(one.observer.ip());
        match outer.iter_mut().find(|known| known.addr == one.observed) {
            Some(known) => drop(known.observers.insert(host)),
            None => outer.push(Outer { addr: one.observed, base: one.local, observers: BTreeSet::from([host]) }),
        }
    }
    outer.sort_by_key(|outer| std::cmp::Reverse(outer.observers.len()));
    outer
}

/// If the NAT shows every destination another port, one address for each outer host says all there is to know: from which host
/// connections will come.
fn worth_telling(outer: &[Outer], mapping: Mapping) -> impl Iterator<Item = &Outer> {
    outer.iter().enumerate().filter_map(move |(index, one)| {
        let is_known_host = outer[..index].iter().any(|earlier| earlier.addr.ip() == one.addr.ip());
        (mapping != Mapping::EndpointDependent || !is_known_host).then_some(one)
    })
}

/// Whether an observation can be right and says something about the way to the wide area.
fn counts(observation: &Observation, hosts: &[SocketAddr]) -> bool {
    let Observation { observer, local, observed } = observation;
    let is_far = |addr: &SocketAddr| AddressScope::of_ip(addr.ip()) == Some(AddressScope::Wan) && addr.port() != 0;
    is_far(observer) && is_far(observed) && local.is_ipv4() == observed.is_ipv4() && hosts.contains(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: &str = "10.0.0.2:4600";

    fn seen(observer: &str, observed: &str) -> Observation {
        let addr = |text: &str| text.parse().unwrap();
        Observation { observer: addr(observer), local: addr(INSIDE), observed: addr(observed) }
    }

    fn hosts() -> Vec<SocketAddr> {
        vec![INSIDE.parse().unwrap()]
    }

    fn opening(observations: &[Observation]) -> Vec<String> {
        let all = candidates(observations, &hosts(), &[]);
        all.iter().map(|own| own.candidate.addr.to_string()).collect()
    }

    #[test]
    fn two_hosts_that_agree_prove_endpoint_independence_and_one_proves_nothing() {
        let first = seen("203.0.113.1:1", "198.51.100.9:700");
        let second = seen("203.0.113.2:1", "198.51.100.9:700");
        assert_eq!(mapping(&[first], &hosts()), Mapping::Unknown);
        assert_eq!(mapping(&[first, second], &hosts()), Mapping::EndpointIndependent);
        assert_eq!(opening(&[first, second]), ["198.51.100.9:700"]);
    }

    #[test]
    fn one_host_under_two_ports_is_one_witness() {
        let same_host = [seen("203.0.113.1:1", "198.51.100.9:700"), seen("203.0.113.1:2", "198.51.100.9:700")];
        assert_eq!(mapping(&same_host, &hosts()), Mapping::Unknown);
    }

    #[test]
    fn a_port_for_each_destination_is_endpoint_dependent_and_one_candidate() {
        let words = [seen("203.0.113.1:1", "198.51.100.9:700"), seen("203.0.113.2:1", "198.51.100.9:701")];
        assert_eq!(mapping(&words, &hosts()), Mapping::EndpointDependent);
        assert_eq!(opening(&words), ["198.51.100.9:701"], "the newest");
    }

    #[test]
    fn a_single_liar_does_not_change_what_two_others_agree_on() {
        let words = [
            seen("203.0.113.66:1", "192.0.2.66:6"),
            seen("203.0.113.1:1", "198.51.100.9:700"),
            seen("203.0.113.2:1", "198.51.100.9:700"),
        ];
        assert_eq!(mapping(&words, &hosts()), Mapping::EndpointIndependent);
        assert_eq!(opening(&words)[0], "198.51.100.9:700");
    }

    #[test]
    fn words_that_cannot_be_right_do_not_count() {
        let nonsense = [
            seen("10.0.0.7:1", "198.51.100.9:700"),
            seen("203.0.113.1:1", "127.0.0.1:700"),
            seen("203.0.113.2:1", "169.254.169.254:80"),
            seen("203.0.113.3:1", "224.0.0.1:1"),
            seen("203.0.113.4:1", "198.51.100.9:0"),
            seen("203.0.113.5:1", "[2001:db8::1]:700"),
        ];
        assert!(opening(&nonsense).is_empty());
        assert_eq!(mapping(&nonsense, &hosts()), Mapping::Unknown);
        assert!(candidates(&[seen("203.0.113.1:1", "198.51.100.9:7")], &[], &[]).is_empty(), "the address is gone");
    }

    #[test]
    fn candidates_are_capped_whatever_is_said() {
        let words: Vec<_> =
            (1..200).map(|i| seen(&format!("203.0.113.{i}:1"), &format!("198.51.100.{i}:{i}"))).collect();
        assert_eq!(opening(&words).len(), MAX_REFLEXIVE);
    }

    #[test]
    fn a_confirmed_address_accepts_and_one_of_our_own_needs_no_second_candidate() {
        let confirmed: Vec<SocketAddr> = vec!["198.51.100.9:700".parse().unwrap(), INSIDE.parse().unwrap()];
        let found = candidates(&[], &hosts(), &confirmed);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].candidate.tcp_type, TcpType::Passive);
        assert_eq!(found[0].base, hosts()[0]);
    }

    #[test]
    fn a_public_address_that_others_see_as_it_is_has_no_nat() {
        let own: SocketAddr = "203.0.113.80:4600".parse().unwrap();
        let word = Observation { observer: "203.0.113.1:1".parse().unwrap(), local: own, observed: own };
        assert_eq!(mapping(&[word], &[own]), Mapping::EndpointIndependent);
        assert!(candidates(&[word], &[own], &[]).is_empty());
    }
}
