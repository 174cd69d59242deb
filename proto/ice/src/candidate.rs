//! Candidates: the transport addresses at which a node may be reached (RFC 8445 §5.1.1, RFC 6544 §4).
//!
//! What it is not: gathering them (the `keyferry` package) or pairing and checking them (the ICE agent).

use std::net::SocketAddr;

use super::Priority;

/// The type preference of peer-reflexive candidates (RFC 8445 §5.1.2.2).
const PEER_REFLEXIVE: u8 = 110;

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
    pub priority: Priority,
}

impl Candidate {
    /// Makes a candidate with the priority that RFC 6544 §4.2 recommends.
    ///
    /// `local_preference_other` is the 13-bit "other preference" (§4.2): unique among candidates of one kind and type.
    pub fn new(kind: CandidateKind, tcp_type: TcpType, addr: SocketAddr, local_preference_other: u16) -> Self {
        Self { kind, tcp_type, addr, priority: recommended(kind, tcp_type, local_preference_other) }
    }

    /// A host candidate that accepts connections.
    pub fn host_passive(addr: SocketAddr, local_preference_other: u16) -> Self {
        Self::new(CandidateKind::Host, TcpType::Passive, addr, local_preference_other)
    }

    /// The priority of the peer-reflexive candidate that a check from this one may reveal (RFC 8445 §7.1.1).
    pub(super) fn reflexive_priority(&self) -> Priority {
        self.priority.with_preferences(PEER_REFLEXIVE, direction_of_reflexive(self.tcp_type))
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

/// The priority that RFC 6544 §4.2 recommends.
fn recommended(kind: CandidateKind, tcp_type: TcpType, other_preference: u16) -> Priority {
    let (type_preference, direction_preference) = match kind {
        CandidateKind::Host => (126, direction_of_host(tcp_type)),
        CandidateKind::PortMapped => (105, direction_of_reflexive(tcp_type)),
        CandidateKind::ServerReflexive => (100, direction_of_reflexive(tcp_type)),
        CandidateKind::Relayed => (0, direction_of_host(tcp_type)),
    };
    Priority::new(type_preference, direction_preference, other_preference)
}

/// Whether a check with this priority comes from a candidate that opens simultaneously.
pub(super) fn is_from_simultaneous_open(priority: Priority) -> bool {
    priority.direction_preference() == direction_of_reflexive(TcpType::SimultaneousOpen)
}

/// The direction preference of candidates that no NAT hides (RFC 6544 §4.2).
fn direction_of_host(tcp_type: TcpType) -> u8 {
    match tcp_type {
        TcpType::Active => 6,
        TcpType::Passive => 4,
        TcpType::SimultaneousOpen => 2,
    }
}

/// The direction preference of candidates behind a NAT (RFC 6544 §4.2).
fn direction_of_reflexive(tcp_type: TcpType) -> u8 {
    match tcp_type {
        TcpType::SimultaneousOpen => 6,
        TcpType::Active => 4,
        TcpType::Passive => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kind: CandidateKind, tcp_type: TcpType, other: u16) -> Candidate {
        Candidate::new(kind, tcp_type, "192.0.2.1:1".parse().expect("an address"), other)
    }

    #[test]
    fn priorities_order_kinds_before_directions() {
        let host = candidate(CandidateKind::Host, TcpType::SimultaneousOpen, 0);
        let mapped = candidate(CandidateKind::PortMapped, TcpType::Passive, 0x1fff);
        let relayed = candidate(CandidateKind::Relayed, TcpType::Active, 0x1fff);
        assert!(host.priority > mapped.priority && mapped.priority > relayed.priority);
    }

    #[test]
    fn a_check_reveals_the_type_the_direction_and_the_local_preference() {
        let revealed = candidate(CandidateKind::Host, TcpType::SimultaneousOpen, 0x123).reflexive_priority();
        assert_eq!(u32::from(revealed), 110 << 24 | (6 << 13 | 0x123) << 8 | 255);
        assert!(is_from_simultaneous_open(revealed));
        assert!(!is_from_simultaneous_open(candidate(CandidateKind::Host, TcpType::Active, 1).reflexive_priority()));
    }
}
