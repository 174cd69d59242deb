//! How a negotiation ended, and what became of each pair, in words that make sense to a person.
//!
//! What it is not: the end itself (`conclusion`).

use std::{net::SocketAddr, time::Duration};

use super::{ConnId, ConnectFailure, Strategy};
use crate::candidate::{Candidate, CandidateKind};

/// The pair that both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The connection.
    pub conn: ConnId,
    /// The peer's address as this side sees it.
    pub remote: SocketAddr,
    /// The kind of this side's candidate.
    pub local_kind: CandidateKind,
    /// The kind of the peer's candidate. A peer-reflexive one counts as server-reflexive.
    pub remote_kind: CandidateKind,
    /// How it came about.
    pub strategy: Strategy,
    /// The relayed address through which it goes: this side's, if the connection goes through this side's relay, else the
    /// peer's. In a direct stream none.
    pub relay: Option<SocketAddr>,
    /// From the start of the agent.
    pub took: Duration,
    /// The round trip of the last check.
    pub round_trip: Duration,
}

/// Why there is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FailureReason {
    /// Both NATs choose another port for every destination, so neither side can tell the other where to connect.
    #[error("both NATs map by destination")]
    BothMapByDestination,
    /// This side's NAT does so, and the peer's lets in nobody that it does not know.
    #[error("this side's NAT maps by destination, and the peer's lets in known ports only")]
    MapsByDestination,
    /// The peer's NAT does so, and this side's lets in nobody that it does not know.
    #[error("the peer's NAT maps by destination, and this side's lets in known ports only")]
    PeerMapsByDestination,
    /// In a relayed stream: neither side has an address at a relay.
    #[error("neither side has a relay")]
    NoRelay,
    /// The two sides have no addresses between which a connection could be tried.
    #[error("there is no pair of addresses to try")]
    NoPairs,
    /// Everything was tried, and nothing answered.
    #[error("no pair of addresses works")]
    NoPairWorks,
    /// The negotiation took longer than [`super::Config::deadline`] allows.
    #[error("it took too long")]
    Deadline,
}

/// What has become of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PairState {
    /// Not tried yet.
    Waiting,
    /// Being connected or checked.
    InProgress,
    /// Proven by a check.
    Succeeded,
    /// Not connected.
    Failed(ConnectFailure),
    /// Connected, but not proven: somebody else is there.
    Disproven,
}

/// One pair, for those who want to know what was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairReport {
    /// This side's candidate.
    pub local: Candidate,
    /// The peer's candidate.
    pub remote: Candidate,
    /// What has become of it.
    pub state: PairState,
    /// Connection attempts so far.
    pub attempts: usize,
    /// From the first attempt to the state it has.
    pub took: Duration,
}
