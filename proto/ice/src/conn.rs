//! Connections of an agent: attempts under way, and those that stand, with what their checks have shown.
//!
//! What it is not: the sockets, or the pairs that the connections are for (`links`).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use stun_types::message::TransactionId;

use super::{ConnId, Priority, Role, Strategy, pair::PairId};

/// All connections of an agent.
#[derive(Debug, Default)]
pub(super) struct ConnTable {
    conns: BTreeMap<ConnId, Conn>,
    last_id: u64,
}

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
    /// Being connected, until then at most; `None`: the turns of its pair say for how long.
    Attempt { until: Option<Instant> },
    /// Connected.
    Standing(Standing),
}

/// A connection that stands.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) local: SocketAddr,
    pub(super) strategy: Strategy,
    /// This side's check, until it is answered.
    pub(super) pending: Option<Pending>,
    /// How long this side's check took, once it was answered, which proves the peer.
    pub(super) round_trip: Option<Duration>,
    /// The priority in the peer's check, once that was answered with success.
    pub(super) answered: Option<Priority>,
    /// Whether the controlling peer has nominated it.
    pub(super) is_nominated: bool,
    /// Messages that did no harm by themselves: refused requests and stray answers.
    pub(super) nuisances: u8,
    /// The time by which both checks must have been answered.
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

impl ConnTable {
    pub(super) fn add(&mut self, conn: Conn) -> ConnId {
        self.last_id += 1;
        let id = ConnId(self.last_id);
        self.conns.insert(id, conn);
        id
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Conn> {
        self.conns.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&id)
    }

    pub(super) fn standing(&self, id: ConnId) -> Option<&Standing> {
        self.conns.get(&id)?.standing()
    }

    pub(super) fn standing_mut(&mut self, id: ConnId) -> Option<&mut Standing> {
        self.conns.get_mut(&id)?.standing_mut()
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.conns.remove(&id)
    }

    /// Removes all connections.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = ConnId> + use<> {
        std::mem::take(&mut self.conns).into_keys()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.conns.iter().map(|(id, conn)| (*id, conn))
    }

    pub(super) fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether a nominating check is under way: nothing new begins then.
    pub(super) fn is_nominating(&self) -> bool {
        let nominates = |conn: &Conn| conn.standing().and_then(|one| one.pending).is_some_and(|check| check.nominates);
        self.conns.values().any(nominates)
    }

    /// The connections and attempts that have taken too long.
    pub(super) fn overdue(&self, now: Instant) -> Vec<ConnId> {
        let is_due = |conn: &Conn| conn.due_at().is_some_and(|due| now >= due);
        self.iter().filter(|(_, conn)| is_due(conn)).map(|(id, _)| id).collect()
    }

    /// When the next one will have.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.conns.values().filter_map(Conn::due_at).min()
    }
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
        self.standing().is_some_and(|standing| standing.strategy == Strategy::Accepted && standing.answered.is_none())
    }

    /// Whether it may be nominated: this side's check was answered, and the peer's.
    pub(super) fn is_valid(&self) -> bool {
        self.standing().is_some_and(|standing| standing.round_trip.is_some() && standing.answered.is_some())
    }

    /// Whether the controlling peer has nominated it, and this side waits for no answer.
    pub(super) fn is_taken(&self) -> bool {
        let is_nominated = |standing: &Standing| standing.is_nominated && standing.pending.is_none();
        self.is_valid() && self.standing().is_some_and(is_nominated)
    }

    pub(super) fn is_attempt(&self) -> bool {
        matches!(self.stage, Stage::Attempt { .. })
    }

    /// When it has taken too long.
    fn due_at(&self) -> Option<Instant> {
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
            answered: None,
            is_nominated: false,
            nuisances: 0,
            until,
        }
    }

    /// Whether this side's check is still to be sent.
    pub(super) fn is_unchecked(&self) -> bool {
        self.pending.is_none() && self.round_trip.is_none()
    }

    /// The peer has answered this side's check.
    pub(super) fn prove(&mut self, now: Instant, check: Pending) {
        self.pending = None;
        self.round_trip = Some(now.saturating_duration_since(check.sent_at));
    }
}
