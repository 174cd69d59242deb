//! Candidates: the transport addresses at which a node may be reached (RFC 8445 §5.1.1, RFC 6544 §4).
//!
//! What it is not: gathering them (the `keyferry` package) or pairing and checking them (the ICE agent).

use std::net::SocketAddr;

/// How a candidate came about (RFC 8445 §5.1.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum CandidateKind {
    /// An address of one of the node's own interfaces.
    Host,
    /// The address that a STUN server saw.
    ServerReflexive,
    /// An address that a router has mapped on request (UPnP-IGD, NAT-PMP, PCP).
    PortMapped,
    /// An address allocated on a TURN server.
    Relayed,
}

/// The role of a TCP candidate in opening the connection (RFC 6544 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum TcpType {
    /// Only opens connections.
    Active,
    /// Only accepts connections.
    Passive,
    /// Opens a connection at the same moment as its peer does.
    SimultaneousOpen,
}

/// One way to reach a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Candidate {
    /// How the candidate came about.
    pub kind: CandidateKind,
    /// Its role in opening a TCP connection.
    pub tcp_type: TcpType,
    /// The transport address.
    pub addr: SocketAddr,
    /// The priority by RFC 6544 §4.2; greater is better.
    pub priority: u32,
}

impl Candidate {
    /// Makes a candidate with the priority that RFC 6544 §4.2 recommends.
    ///
    /// `local_preference_other` is the 13-bit "other preference" (§4.2): unique among candidates of one kind and type.
    pub fn new(kind: CandidateKind, tcp_type: TcpType, addr: SocketAddr, local_preference_other: u16) -> Self {
        Self { kind, tcp_type, addr, priority: priority(kind, tcp_type, local_preference_other) }
    }

    /// A host candidate that accepts connections.
    pub fn host_passive(addr: SocketAddr, local_preference_other: u16) -> Self {
        Self::new(CandidateKind::Host, TcpType::Passive, addr, local_preference_other)
    }
}

/// A candidate of this side, with the address of the socket behind it (RFC 8445 §5.1.1: its base).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalCandidate {
    /// What the peer is told.
    pub candidate: Candidate,
    /// The local address: that of the candidate itself for a host candidate, that behind the NAT for a reflexive or mapped
    /// one. For relayed ones, the relayed address of the allocation (RFC 8445 §5.1.1.1).
    pub base: SocketAddr,
}

/// The priority of a candidate (RFC 8445 §5.1.2.1 with RFC 6544 §4.2), for component 1.
fn priority(kind: CandidateKind, tcp_type: TcpType, other_preference: u16) -> u32 {
    let type_preference: u32 = match kind {
        CandidateKind::Host => 126,
        CandidateKind::PortMapped => 105,
        CandidateKind::ServerReflexive => 100,
        CandidateKind::Relayed => 0,
    };
    let direction_preference: u32 = match (kind, tcp_type) {
        (CandidateKind::Host | CandidateKind::Relayed, TcpType::Active) => 6,
        (CandidateKind::Host | CandidateKind::Relayed, TcpType::Passive) => 4,
        (CandidateKind::Host | CandidateKind::Relayed, TcpType::SimultaneousOpen) => 2,
        (_, TcpType::SimultaneousOpen) => 6,
        (_, TcpType::Active) => 4,
        (_, TcpType::Passive) => 2,
    };
    let local_preference = direction_preference << 13 | u32::from(other_preference) & 0x1fff;
    type_preference << 24 | local_preference << 8 | 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_order_kinds_before_directions() {
        let addr = "192.0.2.1:1".parse().expect("an address");
        let host = Candidate::new(CandidateKind::Host, TcpType::SimultaneousOpen, addr, 0);
        let mapped = Candidate::new(CandidateKind::PortMapped, TcpType::Passive, addr, 0x1fff);
        let relayed = Candidate::new(CandidateKind::Relayed, TcpType::Active, addr, 0x1fff);
        assert!(host.priority > mapped.priority && mapped.priority > relayed.priority);
    }
}
