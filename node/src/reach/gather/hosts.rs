//! Host candidates: each address of this machine at which the node listens, in every role that TCP knows (RFC 6544 §5.1).
//!
//! What it is not: the choice of the addresses, which is [`crate::net::path::host_candidates`].

use std::{io, net::SocketAddr};

use keyferry_ice::{Candidate, CandidateKind, LocalCandidate, TcpType};

use crate::{net::path::host_candidates, reach::rendezvous::AddressScope};

/// Addresses of this machine that become candidates; each becomes three.
pub(super) const MAX_HOSTS: usize = 8;
/// The port that an active candidate names, at which nobody listens: discard (RFC 6544 §4.1).
const DISCARD: u16 = 9;

/// The addresses at which the node listens, best first: those of the whole internet come before those of the house.
pub(super) fn addrs(listeners: &[SocketAddr]) -> io::Result<Vec<SocketAddr>> {
    let mut addrs: Vec<SocketAddr> = host_candidates(listeners)?.into_iter().map(|candidate| candidate.addr).collect();
    addrs.sort_by_key(|addr| AddressScope::of_ip(addr.ip()) != Some(AddressScope::Wan));
    Ok(addrs)
}

/// The candidates of the first [`MAX_HOSTS`] of these addresses, in their order. Those that open simultaneously do so from where
/// connections leave.
pub(super) fn candidates(addrs: &[SocketAddr], departures: &[SocketAddr]) -> Vec<LocalCandidate> {
    let types = [TcpType::Active, TcpType::Passive, TcpType::SimultaneousOpen];
    let ranked = addrs.iter().zip((0..u16::try_from(MAX_HOSTS).unwrap_or(u16::MAX)).rev());
    ranked
        .flat_map(|(base, preference)| {
            types.map(|tcp_type| {
                let departure = departures.iter().find(|departure| departure.ip() == base.ip()).unwrap_or(base);
                let base = if tcp_type == TcpType::SimultaneousOpen { departure } else { base };
                let port = if tcp_type == TcpType::Active { DISCARD } else { base.port() };
                let addr = SocketAddr::new(base.ip(), port);
                let candidate = Candidate::new(CandidateKind::Host, tcp_type, addr, preference);
                LocalCandidate { candidate, base: *base }
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_a_candidate_in_three_roles() {
        let addr: SocketAddr = "192.168.7.20:4600".parse().unwrap();
        let candidates = candidates(&[addr], &[addr]);
        let found: Vec<_> = candidates.iter().map(|own| (own.candidate.tcp_type, own.candidate.addr.port())).collect();
        assert_eq!(found, [(TcpType::Active, DISCARD), (TcpType::Passive, 4600), (TcpType::SimultaneousOpen, 4600)]);
        assert!(candidates.iter().all(|own| own.base == addr));
    }

    #[test]
    fn one_that_opens_simultaneously_is_where_connections_leave() {
        let addr = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let candidates = candidates(&[addr("192.168.7.20:4600")], &[addr("192.168.7.20:50000")]);
        let bases: Vec<_> = candidates.iter().map(|own| (own.candidate.tcp_type, own.base.port())).collect();
        assert_eq!(bases, [(TcpType::Active, 4600), (TcpType::Passive, 4600), (TcpType::SimultaneousOpen, 50000)]);
        assert_eq!(candidates[2].candidate.addr.port(), 50000);
    }

    #[test]
    fn an_earlier_address_has_a_greater_priority_in_each_role() {
        let addrs = ["[2001:db8::1]:1".parse().unwrap(), "10.0.0.1:1".parse().unwrap()];
        let candidates = candidates(&addrs, &addrs);
        for (first, second) in candidates[..3].iter().zip(&candidates[3..]) {
            assert!(first.candidate.priority > second.candidate.priority);
        }
    }
}
