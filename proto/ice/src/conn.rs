//! Connections of an agent: attempts under way, and those that stand, with what their checks have shown.
//!
//! What it is not: the sockets.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use stun_types::message::TransactionId;

use super::{Role, Strategy, pair::PairId};

/// A connection, or an attempt at one.
#[derive(Debug)]
pub(super) struct Conn {
    /// The pair it is for; for an accepted one, known from its first valid check on.
    pub(super) pair: Option<PairId>,
    pub(super) remote: SocketAddr,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Being connected. Where it is waited for longer than `until`, it is given up; `None`: that is for others to say.
    Attempt { until: Option<Instant> },
    /// Connected.
    Standing(Standing),
}

/// A connection that stands.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) local: SocketAddr,
    pub(super) strategy: Strategy,
    /// The check that has not been answered yet.
    pub(super) pending: Option<Pending>,
    /// How long the check took that has been answered. From then on the peer is proven.
    pub(super) round_trip: Option<Duration>,
    /// Whether a check of the peer has been answered with success.
    pub(super) has_answered: bool,
    /// The priority that the peer's check gave.
    pub(super) priority: u32,
    /// Whether the controlling peer has nominated it.
    pub(super) is_nominated: bool,
    /// Requests that were refused.
    pub(super) refused: u8,
    /// When both checks have to be done.
    pub(super) until: Instant,
}

/// A check under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) id: TransactionId,
    pub(super) sent_at: Instant,
    pub(super) role: Role,
    pub(super) nominates: bool,
}

impl Conn {
    pub(super) fn attempt(pair: PairId, remote: SocketAddr, until: Option<Instant>) -> Self {
        Self { pair: Some(pair), remote, stage: Stage::Attempt { until } }
    }

    pub(super) fn accepted(local: SocketAddr, remote: SocketAddr, until: Instant) -> Self {
        Self { pair: None, remote, stage: Stage::Standing(Standing::new(local, Strategy::Accepted, until)) }
    }

    pub(super) fn standing(&self) -> Option<&Standing> {
        match &self.stage {
            Stage::Standing(standing) => Some(standing),
            Stage::Attempt { .. } => None,
        }
    }

    pub(super) fn standing_mut(&mut self) -> Option<&mut Standing> {
        match &mut self.stage {
            Stage::Standing(standing) => Some(standing),
            Stage::Attempt { .. } => None,
        }
    }

    /// Whether it was accepted and has not shown a valid check.
    pub(super) fn is_unproven(&self) -> bool {
        self.standing().is_some_and(|standing| standing.strategy == Strategy::Accepted && !standing.has_answered)
    }

    /// Whether it may be nominated: this side's check was answered, and the peer's.
    pub(super) fn is_valid(&self) -> bool {
        self.standing().is_some_and(|standing| standing.round_trip.is_some() && standing.has_answered)
    }

    /// When it has taken too long.
    pub(super) fn due_at(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Attempt { until } => *until,
            Stage::Standing(standing) if standing.pending.is_none() && self.is_valid() => None,
            Stage::Standing(standing) => Some(standing.until),
        }
    }
}

impl Standing {
    pub(super) fn new(local: SocketAddr, strategy: Strategy, until: Instant) -> Self {
        Self {
            local,
            strategy,
            pending: None,
            round_trip: None,
            has_answered: false,
            priority: 0,
            is_nominated: false,
            refused: 0,
            until,
        }
    }
}
