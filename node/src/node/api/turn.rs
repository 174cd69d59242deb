//! What front ends are told of the relays that a node may use.
//!
//! What it is not: the relay that a node is for others (`RelayInfo`).

use serde::{Deserialize, Serialize};

use crate::reach::turn_client::RelayReport;

/// A TURN server that a node may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnInfo {
    /// Its URI, without credentials.
    pub server: String,
    /// Whether the node has found it by itself; else the user has named it.
    pub found: bool,
    /// How long it took to connect and to get an address, last time, in milliseconds.
    pub took_ms: Option<u64>,
    /// Why it gave none since, in words.
    pub reason: Option<String>,
    /// Addresses that this node has there now.
    pub allocations: u64,
}

impl From<RelayReport> for TurnInfo {
    fn from(report: RelayReport) -> Self {
        let RelayReport { server, found, answered, failure, allocations } = report;
        let took_ms = answered.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        Self { server, found, took_ms, reason: failure, allocations: allocations as u64 }
    }
}
