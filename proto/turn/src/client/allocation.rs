//! The allocation's life: asked for, refreshed before its lifetime ends, given back (RFC 8656 §7, §8).
//!
//! What it is not: peers, or the requests.

use std::time::{Duration, Instant};

use super::{Config, RequestError};

/// How far the allocation is.
#[derive(Debug)]
pub(super) enum AllocationPhase {
    /// It waits for the answer to Allocate.
    Allocating,
    /// It stands.
    Standing(StandingAllocation),
    /// It waits for the answer to the last Refresh.
    Releasing,
    /// There is none.
    Ended,
}

/// An allocation that stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct StandingAllocation {
    ends_at: Instant,
    /// When to refresh it; `None` while it waits for the answer to a Refresh.
    refresh_at: Option<Instant>,
}

/// What an allocation needs by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AllocationNeed {
    Nothing,
    /// A Refresh. From here on it waits for the answer.
    Refresh,
    /// Nothing any more: its lifetime is over.
    End,
}

impl AllocationPhase {
    /// The phase of an allocation that has just been given, or refreshed.
    pub(super) fn granted(now: Instant, lifetime: Duration, config: &Config) -> Self {
        let lifetime = lifetime.min(config.max_lifetime);
        let refresh_after = (lifetime * 3 / 4).max(config.min_refresh_interval);
        Self::Standing(StandingAllocation { ends_at: now + lifetime, refresh_at: Some(now + refresh_after) })
    }

    pub(super) fn stands(&self) -> bool {
        matches!(self, Self::Standing(_))
    }

    /// What is needed by now.
    pub(super) fn advance(&mut self, now: Instant) -> AllocationNeed {
        let Self::Standing(standing) = self else { return AllocationNeed::Nothing };
        if standing.ends_at <= now {
            return AllocationNeed::End;
        }
        match standing.refresh_at {
            Some(at) if at <= now => {
                standing.refresh_at = None;
                AllocationNeed::Refresh
            }
            _ => AllocationNeed::Nothing,
        }
    }

    /// Plans another Refresh after one has failed, if the error may pass while the allocation lasts. False if it will not.
    pub(super) fn retry_refresh(&mut self, now: Instant, error: RequestError, config: &Config) -> bool {
        let may_pass = matches!(
            error,
            RequestError::Other { .. } | RequestError::InsufficientCapacity | RequestError::QuotaReached
        );
        match self {
            Self::Standing(standing) if may_pass => {
                let wait = standing.ends_at.saturating_duration_since(now) / 4;
                standing.refresh_at = Some(now + wait.max(config.min_refresh_interval));
                true
            }
            _ => false,
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Standing(standing) => {
                Some(standing.refresh_at.map_or(standing.ends_at, |at| at.min(standing.ends_at)))
            }
            Self::Allocating | Self::Releasing | Self::Ended => None,
        }
    }
}
