//! When an attempt has waited long enough for somebody to ask, and whose word its plan rests on.
//!
//! What it is not: patience with a single holder; that is the schedule's.

use std::time::Duration;

use keyferry_proto::{hash::ContentFormat, identity::NodeKey, message::Refusal};

use super::{
    super::{FetchError, HolderError},
    Attempt, AttemptError,
};

/// How long an attempt with nobody to ask waits for somebody.
#[derive(Debug, Clone)]
pub(in crate::content::transfer) struct Patience {
    /// If nobody was ever found.
    pub(in crate::content::transfer) to_find: Duration,
    /// If all who were found are there, and give nothing.
    pub(in crate::content::transfer) when_refused: Duration,
    /// If somebody was lost who may be back: so long after there was last any progress.
    pub(in crate::content::transfer) for_return: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let (to_find, when_refused) = (Duration::from_secs(30), Duration::from_secs(4));
        Self { to_find, when_refused, for_return: Duration::from_secs(60) }
    }
}

/// What last went wrong with a holder.
pub(in crate::content::transfer) enum Setback {
    Refused(Refusal),
    Failed(HolderError),
}

impl Attempt {
    /// How long the fetch may still wait for a holder; an error once it is over.
    pub(super) fn patience_left(&mut self) -> Result<Duration, AttemptError> {
        let fruitless = self.ledger.last_gain.elapsed();
        if !self.requests.is_empty() {
            let left = self.patience.for_return.saturating_sub(fruitless);
            return if left.is_zero() { Err(AttemptError::Failed(self.in_the_end())) } else { Ok(left) };
        }
        let stuck_since = self.stuck_since;
        if self.someone_disagrees && fruitless < self.patience.for_return && self.unproven_describer().is_some() {
            self.doubt_describer();
            return Err(AttemptError::PlanWasWrong);
        }
        // One that is connected and gives nothing gives nothing later either; one whose session ended may be back.
        let may_be_back = !self.may_return.is_empty() || self.holders.values().any(|session| session.end().is_some());
        let left = match self.ledger.setback {
            Some(_) if may_be_back => self.patience.for_return.saturating_sub(fruitless),
            Some(_) => self.patience.when_refused.saturating_sub(stuck_since.elapsed()),
            None => self.patience.to_find.saturating_sub(stuck_since.elapsed()),
        };
        if !left.is_zero() && !self.holders_closed {
            return Ok(left);
        }
        Err(AttemptError::Failed(self.in_the_end()))
    }

    /// Why it was all in vain.
    fn in_the_end(&mut self) -> FetchError {
        let hash = self.shared.root;
        match self.ledger.setback.take() {
            Some(Setback::Refused(why)) => FetchError::Unavailable { hash, why },
            Some(Setback::Failed(last)) => FetchError::NoHolder { last },
            None if self.requests.is_empty() => FetchError::NotFound { hash },
            None => FetchError::NoHolder { last: HolderError::Silent },
        }
    }

    /// Leaves out whoever described the content, unless it is only away: then another is heard first.
    fn doubt_describer(&mut self) {
        if let Some(describer) = self.describer.filter(|describer| !self.may_return.contains(describer)) {
            self.ban(describer);
        }
    }

    /// The holder on whose unproven word the plan rests, if it rests on one.
    pub(super) fn unproven_describer(&self) -> Option<NodeKey> {
        let plan = self.shared.plan.get().filter(|plan| plan.format == ContentFormat::Blob)?;
        let last = plan.layout.total_units().checked_sub(1)?;
        self.describer.filter(|_| !self.have.contains(last))
    }
}
