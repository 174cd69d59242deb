//! How a connection came about, as front ends are told.
//!
//! What it is not: the path itself (`crate::net::path`).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use keyferry_ice::{Candidate, CandidateKind, Strategy, TcpType};
use keyferry_proto::identity::NodeKey;
use serde::{Deserialize, Serialize};

use crate::{
    base::durations::millis,
    net::path::{PathKind, PathReport, RelayWay},
};

/// How a connection came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathInfo {
    /// The key of the node at the other end, as text; none if it does not show it to whoever seeks content alone.
    pub node: Option<String>,
    /// Its address, as this side sees it.
    pub remote: SocketAddr,
    /// Whether anybody stands in between.
    pub path: PathClass,
    /// Who connected to whom, and by which trick.
    pub strategy: PathStrategy,
    /// The TTL of the opening SYN, if it was one.
    pub ttl: Option<u8>,
    /// The relay, if there is one.
    pub relay: Option<IpAddr>,
    /// Why the path is not a direct one, in words, where that is known.
    pub why: Option<String>,
    /// In words, such as `direct (LAN, 3 ms)`.
    pub description: String,
    /// From the first attempt until the path stood; zero for an accepted one.
    #[serde(rename = "took_ms", with = "millis")]
    pub took: Duration,
}

/// How a connection ended that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathEnd {
    /// The key of the node at the other end, as text; none if it does not show it to whoever seeks content alone.
    pub node: Option<String>,
    /// Its address, as this side saw it.
    pub remote: SocketAddr,
    /// Why, in words.
    pub why: String,
}

/// Whether anybody stands in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathClass {
    /// One TCP connection from node to node.
    Direct,
    /// A TURN server is in between, which sees only TLS.
    Relay,
}

/// Who connected to whom, and by which trick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathStrategy {
    /// This node dialled an address of the offer or of a hint.
    Dialled,
    /// The peer did.
    Accepted,
    /// ICE checks, on a connection to an address that accepts, of either side.
    Connected,
    /// ICE checks, on a connection for which one side's opening SYN had opened its NAT.
    OpeningSyn,
    /// ICE checks, on a connection whose SYNs crossed.
    Crossing,
    /// This node connected to the relayed address of the peer.
    ToRelay,
    /// A relay of this node connected on its behalf.
    ThroughRelay,
    /// The peer came in at this node's relayed address.
    FromRelay,
}

impl PathInfo {
    /// Tells of the path to a node.
    pub fn new(node: Option<NodeKey>, report: &PathReport) -> Self {
        let (strategy, ttl) = strategy_of(report.kind);
        let (relay, why) = match report.kind {
            PathKind::Relayed { by, why, .. } => (Some(by), why.map(|why| why.to_string())),
            PathKind::Dialled | PathKind::Accepted | PathKind::Punched(_) => (None, None),
        };
        Self {
            node: node.map(|node| node.to_string()),
            remote: report.remote,
            path: if report.kind.is_relayed() { PathClass::Relay } else { PathClass::Direct },
            strategy,
            ttl,
            relay,
            why,
            description: report.to_string(),
            took: report.took,
        }
    }
}

/// A candidate, in words that ICE uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateInfo {
    /// `host`, `server-reflexive`, `port-mapped` or `relayed`.
    pub kind: String,
    /// `active`, `passive` or `simultaneous-open`.
    pub tcp_type: String,
    /// The address.
    pub addr: SocketAddr,
}

impl From<&Candidate> for CandidateInfo {
    fn from(candidate: &Candidate) -> Self {
        let kind = match candidate.kind {
            CandidateKind::Host => "host",
            CandidateKind::ServerReflexive => "server-reflexive",
            CandidateKind::PortMapped => "port-mapped",
            CandidateKind::Relayed => "relayed",
        };
        let tcp_type = match candidate.tcp_type {
            TcpType::Active => "active",
            TcpType::Passive => "passive",
            TcpType::SimultaneousOpen => "simultaneous-open",
        };
        Self { kind: kind.to_owned(), tcp_type: tcp_type.to_owned(), addr: candidate.addr }
    }
}

fn strategy_of(kind: PathKind) -> (PathStrategy, Option<u8>) {
    match kind {
        PathKind::Dialled => (PathStrategy::Dialled, None),
        PathKind::Accepted => (PathStrategy::Accepted, None),
        PathKind::Punched(
            Strategy::Connected | Strategy::Accepted | Strategy::ConnectedByRelay | Strategy::AcceptedAtRelay,
        ) => (PathStrategy::Connected, None),
        PathKind::Punched(Strategy::OpenedHere { ttl } | Strategy::OpenedByPeer { ttl }) => {
            (PathStrategy::OpeningSyn, Some(ttl))
        }
        PathKind::Punched(Strategy::Crossing) => (PathStrategy::Crossing, None),
        PathKind::Relayed { how: RelayWay::ToTheirs, .. } => (PathStrategy::ToRelay, None),
        PathKind::Relayed { how: RelayWay::ThroughOurs, .. } => (PathStrategy::ThroughRelay, None),
        PathKind::Relayed { how: RelayWay::Accepted, .. } => (PathStrategy::FromRelay, None),
    }
}

#[cfg(test)]
mod tests {
    use keyferry_ice::FailureReason;
    use keyferry_proto::identity::NodeSecret;

    use super::*;
    use crate::net::path::PathScope;

    #[test]
    fn a_punched_path_tells_its_strategy_to_programs_and_people() {
        let node = NodeSecret::from_bytes(&[1; 32]).public();
        let report = PathReport {
            remote: "192.0.2.7:4".parse().unwrap(),
            kind: PathKind::Punched(Strategy::OpenedHere { ttl: 2 }),
            scope: PathScope::Internet,
            took: Duration::from_micros(34_500),
        };

        let line = serde_json::to_value(PathInfo::new(Some(node), &report)).unwrap();

        let expected = serde_json::json!({
            "node": node.to_string(), "remote": "192.0.2.7:4", "path": "direct", "strategy": "opening-syn", "ttl": 2,
            "relay": null, "why": null,
            "description": "direct (opening SYN, TTL 2, 34 ms)", "took_ms": 34.5,
        });
        assert_eq!(line, expected);
        assert_eq!(serde_json::from_value::<PathInfo>(line).unwrap(), PathInfo::new(Some(node), &report));
    }

    #[test]
    fn a_relayed_path_tells_its_relay_and_why_it_is_not_direct() {
        let node = NodeSecret::from_bytes(&[1; 32]).public();
        let why = Some(FailureReason::BothMapByDestination.into());
        let report = PathReport {
            remote: "203.0.113.1:50000".parse().unwrap(),
            kind: PathKind::Relayed { by: "203.0.113.1".parse().unwrap(), how: RelayWay::ToTheirs, why },
            scope: PathScope::Internet,
            took: Duration::from_millis(34),
        };

        let line = serde_json::to_value(PathInfo::new(Some(node), &report)).unwrap();

        let expected = serde_json::json!({
            "node": node.to_string(), "remote": "203.0.113.1:50000", "path": "relay", "strategy": "to-relay",
            "ttl": null, "relay": "203.0.113.1", "why": "both NATs map by destination",
            "description": "relayed by 203.0.113.1 (both NATs map by destination)", "took_ms": 34.0,
        });
        assert_eq!(line, expected);
    }
}
