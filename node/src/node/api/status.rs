//! The state of a node: the result of `status`.
//!
//! What it is not: what it is gathered from.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{CandidateInfo, MappingInfo, PathInfo, SameKeyInfo, TurnInfo};
use crate::base::clock::ClockSkew;

/// The state of a node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// The node key, as text.
    pub node: String,
    /// The version of the program.
    pub version: String,
    /// The data folder.
    pub home: PathBuf,
    /// Whether a node is running, rather than a command that opened the data folder by itself.
    pub running: bool,
    /// The addresses it listens on.
    pub listen: Vec<SocketAddr>,
    /// Multiaddrs that others can give as `--bootstrap` or `?via=`.
    pub hints: Vec<String>,
    /// Peers in the routing table of the wide-area DHT.
    pub wan_peers: u64,
    /// Peers in the routing table of the local DHT.
    pub lan_peers: u64,
    /// Whether the wide-area DHT is served (reachability confirmed, or `--public`).
    pub public: bool,
    /// Where it can be reached, as far as it knows; the best first.
    pub candidates: Vec<CandidateInfo>,
    /// How its NAT chooses outer ports: `endpoint-independent` (or there is no NAT), `endpoint-dependent` or `unknown`.
    pub mapping: MappingInfo,
    /// Where it can be called by those who cannot connect to it.
    pub circuits: Vec<String>,
    /// How far this machine's clock is from those of peers; none if nobody has told lately.
    #[serde(default)]
    pub clock: Option<ClockSkew>,
    /// Another running node with this node's key, if one was met within the last two and a half hours.
    #[serde(default)]
    pub same_key: Option<SameKeyInfo>,
    /// Whose calls it takes: `everyone`, `contacts` or `nobody`.
    pub calls: String,
    /// Sessions that are up.
    pub sessions: u64,
    /// How each of them came about.
    pub paths: Vec<PathInfo>,
    /// Names in the catalogue.
    pub shared: u64,
    /// The relays that it may use itself; none if it uses no relays (`--no-relay`).
    #[serde(default)]
    pub turn: Option<Vec<TurnInfo>>,
    /// What it relays for others, if it does.
    #[serde(default)]
    pub relay: Option<RelayInfo>,
    /// Bytes sent to peers since the start.
    pub sent_bytes: u64,
    /// Bytes received from peers since the start.
    pub received_bytes: u64,
    /// Bytes of the rendezvous and of STUN since the start, by what they were for; those purposes alone for which there were some.
    #[serde(default)]
    pub traffic: BTreeMap<String, TrafficInfo>,
    /// Counters of bad input and of limits reached, by name.
    pub counters: BTreeMap<String, u64>,
}

/// Bytes since the start, without what TCP and IP put around them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficInfo {
    /// Received.
    pub in_bytes: u64,
    /// Sent.
    pub out_bytes: u64,
}

/// What a node relays for others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayInfo {
    /// For whom: `everyone`, `contacts` or `nobody` (but the users that are named).
    #[serde(rename = "for")]
    pub whom: String,
    /// SHA-256 of the public key in the certificate, which `turns:` clients pin.
    pub pin: String,
    /// Allocations now.
    pub allocations: u64,
    /// Connections with peers now.
    pub connections: u64,
    /// Bytes relayed since the start.
    pub bytes: u64,
    /// What was refused or ended since the start, by reason; those reasons alone that have occurred.
    pub refused: BTreeMap<String, u64>,
}
