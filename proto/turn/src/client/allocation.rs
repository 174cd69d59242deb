//! The allocation's life: asked for, refreshed before its lifetime ends, given back (RFC 8656 §7, §8).
//!
//! What it is not: peers.

use std::time::{Duration, Instant};

use super::{
    AddressFamily, Allocated, Client, ClientOutput, Ending, RequestError, requests::OutgoingRequest,
    transactions::Purpose,
};

/// How far the allocation is.
#[derive(Debug)]
pub(super) enum Phase {
    /// The answer to Allocate is awaited.
    Allocating,
    /// It stands.
    Standing(Standing),
    /// The answer to the last Refresh is awaited.
    Releasing,
    /// There is none.
    Ended,
}

/// An allocation that stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    ends_at: Instant,
    /// When to refresh; `None` while the answer to a Refresh is awaited.
    refresh_at: Option<Instant>,
}

impl Phase {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Standing(standing) => {
                Some(standing.refresh_at.map_or(standing.ends_at, |at| at.min(standing.ends_at)))
            }
            Self::Allocating | Self::Releasing | Self::Ended => None,
        }
    }
}

impl Client {
    pub(super) fn allocate(&mut self, now: Instant) {
        let request = OutgoingRequest::Allocate { family: self.family, lifetime: self.config.lifetime };
        self.request(now, Purpose::Allocate, request);
    }

    /// The answer to Allocate.
    pub(super) fn allocated(&mut self, now: Instant, allocated: Allocated) -> Result<(), RequestError> {
        if AddressFamily::of(allocated.relayed.ip()) != self.family {
            return Err(RequestError::Malformed("its relayed address is of another family"));
        }
        self.stand(now, allocated.lifetime);
        self.outputs.push_back(ClientOutput::Allocated(allocated));
        self.ask_for_permissions(now);
        Ok(())
    }

    /// The answer to Refresh.
    pub(super) fn refreshed(&mut self, now: Instant, lifetime: Duration) {
        if lifetime.is_zero() {
            return self.end(Ending::Expired);
        }
        self.counters.refreshes += 1;
        self.stand(now, lifetime);
    }

    /// Refresh has failed. What may pass is tried again while the allocation lasts.
    pub(super) fn refresh_failed(&mut self, now: Instant, error: RequestError) {
        let may_pass = matches!(
            error,
            RequestError::Other { .. } | RequestError::InsufficientCapacity | RequestError::QuotaReached
        );
        match &mut self.phase {
            Phase::Standing(standing) if may_pass => {
                let wait = standing.ends_at.saturating_duration_since(now) / 4;
                standing.refresh_at = Some(now + wait.max(self.config.min_refresh_interval));
            }
            _ => self.end(error.into()),
        }
    }

    /// Refreshes the allocation when it is time, and ends when it is too late.
    pub(super) fn advance_phase(&mut self, now: Instant) {
        let Phase::Standing(standing) = &mut self.phase else { return };
        if standing.ends_at <= now {
            return self.end(Ending::Expired);
        }
        if standing.refresh_at.is_some_and(|at| at <= now) {
            standing.refresh_at = None;
            self.request(now, Purpose::Refresh, OutgoingRequest::Refresh { lifetime: self.config.lifetime });
        }
    }

    /// Gives the allocation back.
    pub(super) fn give_back(&mut self, now: Instant) {
        match self.phase {
            Phase::Allocating => self.end(Ending::Released),
            Phase::Standing(_) => {
                self.transactions.clear();
                self.permissions.clear();
                self.drop_connections();
                self.phase = Phase::Releasing;
                self.request(now, Purpose::Release, OutgoingRequest::Refresh { lifetime: Duration::ZERO });
            }
            Phase::Releasing | Phase::Ended => {}
        }
    }

    /// The last Refresh is answered, or will not be.
    pub(super) fn released(&mut self) {
        self.end(Ending::Released);
    }

    /// Ends everything.
    pub(super) fn end(&mut self, ending: Ending) {
        if self.has_ended() {
            return;
        }
        let ending = if matches!(self.phase, Phase::Releasing) { Ending::Released } else { ending };
        self.phase = Phase::Ended;
        self.transactions.clear();
        self.permissions.clear();
        self.drop_connections();
        self.outputs.push_back(ClientOutput::Ended(ending));
    }

    fn stand(&mut self, now: Instant, lifetime: Duration) {
        let lifetime = lifetime.min(self.config.max_lifetime);
        let refresh_after = (lifetime * 3 / 4).max(self.config.min_refresh_interval);
        self.phase = Phase::Standing(Standing { ends_at: now + lifetime, refresh_at: Some(now + refresh_after) });
    }
}
