//! What `ping` tells: the steps on the way to a node, the pairs that were checked, round trips.
//!
//! What it is not: taking these steps (`crate::connect`).

use std::time::Duration;

use keyferry_ice::{PairReport, PairState};
use serde::{Deserialize, Serialize};

use super::{CandidateInfo, PathInfo, StageName};
use crate::base::durations::seconds;

/// One step on the way to a node, done or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingStage {
    /// Which.
    pub stage: StageName,
    /// How long it took.
    #[serde(with = "seconds")]
    pub took: Duration,
    /// What came of it, in words.
    pub detail: String,
    /// The pairs of addresses that were checked, if this is the stage for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<PairInfo>,
}

/// A pair of addresses that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairInfo {
    /// This side's candidate.
    pub local: CandidateInfo,
    /// The other side's.
    pub remote: CandidateInfo,
    /// What became of it, in words.
    pub state: String,
    /// Connection attempts.
    pub attempts: u64,
    /// From the first attempt to the state that it has.
    #[serde(with = "seconds")]
    pub took: Duration,
}

impl From<&PairReport> for PairInfo {
    fn from(pair: &PairReport) -> Self {
        let state = match pair.state {
            PairState::Waiting => "not tried".to_owned(),
            PairState::InProgress => "not decided".to_owned(),
            PairState::Succeeded => "works".to_owned(),
            PairState::Failed(why) => why.to_string(),
            PairState::Disproven => "somebody else is there".to_owned(),
        };
        Self {
            local: (&pair.local).into(),
            remote: (&pair.remote).into(),
            state,
            attempts: pair.attempts as u64,
            took: pair.took,
        }
    }
}

/// One round trip over the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingReply {
    /// Its number, from 1.
    pub number: u32,
    /// How long it took.
    #[serde(with = "seconds")]
    pub took: Duration,
}

/// The result of `ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinged {
    /// The node, as text.
    pub node: String,
    /// How it was reached.
    pub path: PathInfo,
    /// From the start until there was a session.
    #[serde(with = "seconds")]
    pub total: Duration,
    /// The shortest round trip over the session; none if none was measured.
    #[serde(rename = "round_trip", with = "seconds::optional")]
    pub round_trip: Option<Duration>,
}
