//! The steps towards a node, for those who want to follow them: as words in passing, or with their times.
//!
//! What it is not: a log.

use std::{fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use keyferry_ice::PairReport;
use serde::{Deserialize, Serialize};

use crate::net::path::info::{PathEnd, PathInfo};

/// What is said on the way to a node.
#[derive(Debug)]
pub(crate) enum TraceStep<'a> {
    /// What is being done now, in words.
    Doing(String),
    /// A step is done, or has failed.
    Done {
        /// Which.
        stage: StageName,
        /// How long it took.
        took: Duration,
        /// What came of it, in words.
        detail: String,
        /// The pairs that were checked, if this is the stage for it.
        pairs: &'a [PairReport],
    },
}

/// A step on the way to a node. Not every way has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageName {
    /// Looking for the node's offer in the DHT.
    Offer,
    /// Calling the node through another one, and being answered.
    Signalling,
    /// Asking a TURN server for an address at which the node can reach this one.
    Relay,
    /// ICE: trying pairs of addresses.
    Checks,
    /// The proof of identity, and the start of the session; where an address was dialled, its connection too.
    Tls,
}

/// Who takes the steps. It does not wait: a front end that is behind misses some.
pub(crate) type StepSink = Arc<dyn Fn(TraceStep<'_>) + Send + Sync>;

/// What becomes of a session that is used.
#[derive(Debug)]
pub(crate) enum PathNews {
    /// It stands on this path, or more is known of that.
    Stands(PathInfo),
    /// It has ended.
    Ended(PathEnd),
}

/// Who takes the news of sessions. The search waits for it.
pub(crate) type PathSink = Arc<dyn Fn(PathNews) -> BoxFuture<'static, ()> + Send + Sync>;

/// Who wants to know of the steps towards a node.
#[derive(Clone)]
pub(crate) enum Trace {
    /// Nobody.
    Silent,
    /// A person who waits for something else.
    Words(StepSink),
    /// Whoever asked for the steps themselves.
    Stages(StepSink),
}

impl Trace {
    /// Tells what is being done now.
    pub(crate) fn doing(&self, message: impl FnOnce() -> String) {
        if let Self::Words(sink) | Self::Stages(sink) = self {
            sink(TraceStep::Doing(message()));
        }
    }

    /// Tells that a step is done, or has failed.
    pub(crate) fn stage(&self, stage: StageName, took: Duration, detail: impl Into<String>) {
        self.checked(stage, took, detail, &[]);
    }

    /// The same, with the pairs that were checked.
    pub(crate) fn checked(&self, stage: StageName, took: Duration, detail: impl Into<String>, pairs: &[PairReport]) {
        if let Self::Stages(sink) = self {
            sink(TraceStep::Done { stage, took, detail: detail.into(), pairs });
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "Silent",
            Self::Words(_) => "Words",
            Self::Stages(_) => "Stages",
        })
    }
}
