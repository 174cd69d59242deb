//! Where the steps towards a node are told: to nobody, in passing words, or with their times.
//!
//! What it is not: a log.

use std::time::Duration;

use keyferry_ice::PairReport;

use super::{
    api::{Event, PingStage, StageName},
    commands::Events,
};

/// Who wants to know of the steps towards a node.
#[derive(Debug, Clone)]
pub(super) enum Trace {
    /// Nobody.
    Silent,
    /// A person who waits for something else.
    Words(Events),
    /// Whoever asked for the steps themselves.
    Stages(Events),
}

impl Trace {
    /// Tells what is being done now. A front end that is behind misses it.
    pub(super) fn doing(&self, message: impl FnOnce() -> String) {
        if let Self::Words(events) | Self::Stages(events) = self {
            let _ = events.try_send(Event::Stage { message: message() });
        }
    }

    /// Tells that a step is done, or has failed.
    pub(super) fn stage(&self, stage: StageName, took: Duration, detail: impl Into<String>) {
        self.checked(stage, took, detail, &[]);
    }

    /// The same, with the pairs that were checked.
    pub(super) fn checked(&self, stage: StageName, took: Duration, detail: impl Into<String>, pairs: &[PairReport]) {
        if let Self::Stages(events) = self {
            let pairs = pairs.iter().map(Into::into).collect();
            let _ = events.try_send(Event::PingStage(PingStage { stage, took, detail: detail.into(), pairs }));
        }
    }
}
