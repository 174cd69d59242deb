//! Where a node can be reached, as its offer says it.
//!
//! What it is not: the gathering of candidates (`crate::reach::gather`).

use keyferry_ice::{Candidate, CandidateKind, LocalCandidate, TcpType};
use keyferry_proto::offer::{MAX_CANDIDATES, MAX_SIGNALLING};
use libp2p::Multiaddr;

use crate::{net::path::RelayMode, reach::gather::Gathered};

/// What an offer says of where the node can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reachability {
    pub(super) candidates: Vec<Candidate>,
    pub(super) circuits: Vec<Multiaddr>,
}

impl Reachability {
    /// Where this node accepts connections, of all that was gathered, and where it can be called. A node that hides its addresses
    /// can only be called.
    pub(super) fn new(gathered: &Gathered, circuits: &[Multiaddr], relay_mode: RelayMode) -> Self {
        let circuits = circuits.iter().take(MAX_SIGNALLING).cloned().collect();
        if !relay_mode.allows_direct() {
            return Self { candidates: Vec::new(), circuits };
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        for LocalCandidate { candidate, .. } in &gathered.candidates {
            // The outside may have confirmed the port that the router maps.
            let is_named = candidates.iter().any(|named| named.addr == candidate.addr);
            if candidate.tcp_type == TcpType::Passive && !is_named {
                candidates.push(*candidate);
            }
        }
        candidates.truncate(MAX_CANDIDATES);
        Self { candidates, circuits }
    }

    /// Whether a node that has just started will soon know a way in from outside, and knows none yet. One that meets nobody but
    /// neighbours needs none.
    pub(super) fn expects_more(&self, public: bool, connected: usize, wan_peers: usize) -> bool {
        let is_proven = |candidate: &Candidate| candidate.kind != CandidateKind::Host;
        let has_way = public || !self.circuits.is_empty() || self.candidates.iter().any(is_proven);
        !has_way && (connected == 0 || wan_peers > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_offer_waits_for_a_way_in_unless_there_are_only_neighbours() {
        let passive = |kind, addr: &str| Candidate::new(kind, TcpType::Passive, addr.parse().unwrap(), 1);
        let inside = vec![passive(CandidateKind::Host, "192.168.1.10:4600")];
        let mapped = vec![passive(CandidateKind::PortMapped, "192.0.2.7:4600")];
        let inside = Reachability { candidates: inside, circuits: Vec::new() };
        let mapped = Reachability { candidates: mapped, circuits: Vec::new() };
        let called = Reachability { circuits: vec!["/ip4/192.0.2.1/tcp/443".parse().unwrap()], ..inside.clone() };

        assert!(inside.expects_more(false, 0, 0));
        assert!(inside.expects_more(false, 2, 2));
        assert!(!inside.expects_more(false, 1, 0));
        assert!(!inside.expects_more(true, 2, 2));
        assert!(!mapped.expects_more(false, 2, 2));
        assert!(!called.expects_more(false, 2, 2));
    }

    #[test]
    fn an_offer_names_each_address_that_accepts_once() {
        let gathered = |kind, tcp_type, addr: &str| {
            let candidate = Candidate::new(kind, tcp_type, addr.parse().unwrap(), 1);
            LocalCandidate { candidate, base: "192.168.1.10:4600".parse().unwrap() }
        };
        let candidates = vec![
            gathered(CandidateKind::Host, TcpType::Passive, "192.168.1.10:4600"),
            gathered(CandidateKind::PortMapped, TcpType::Passive, "198.51.100.2:4600"),
            gathered(CandidateKind::ServerReflexive, TcpType::SimultaneousOpen, "198.51.100.2:700"),
            gathered(CandidateKind::ServerReflexive, TcpType::Passive, "198.51.100.2:4600"),
            gathered(CandidateKind::ServerReflexive, TcpType::Passive, "198.51.100.3:4600"),
        ];

        let reachability = Reachability::new(&Gathered { candidates, ..Gathered::default() }, &[], RelayMode::Both);

        let named: Vec<_> = reachability.candidates.iter().map(|named| (named.kind, named.addr.to_string())).collect();
        let expected = [
            (CandidateKind::Host, "192.168.1.10:4600".to_owned()),
            (CandidateKind::PortMapped, "198.51.100.2:4600".to_owned()),
            (CandidateKind::ServerReflexive, "198.51.100.3:4600".to_owned()),
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn the_offer_of_a_node_that_hides_its_addresses_names_only_where_it_can_be_called() {
        let candidate = Candidate::host_passive("192.168.1.10:4600".parse().unwrap(), 1);
        let base = candidate.addr;
        let gathered = Gathered { candidates: vec![LocalCandidate { candidate, base }], ..Gathered::default() };
        let circuits: Vec<Multiaddr> = vec!["/ip4/192.0.2.1/tcp/443".parse().unwrap()];

        let shown = Reachability::new(&gathered, &circuits, RelayMode::Both);
        let hidden = Reachability::new(&gathered, &circuits, RelayMode::RelayOnly);

        assert_eq!((shown.candidates.len(), shown.circuits), (1, circuits.clone()));
        assert_eq!(hidden, Reachability { candidates: Vec::new(), circuits });
    }
}
