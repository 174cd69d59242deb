//! Pairs with their connections: how an attempt at a pair begins, which pair an accepted connection is of, and what the end of a
//! connection means for its pair.
//!
//! What it is not: when something is tried (`attempts`, `turns`), or what is said on a connection (`checking`).

use std::time::Instant;

use super::{
    CandidateKind, ConnId, ConnectFailure, ConnectMethod, Output, Priority, Role, Strategy,
    checklist::Checklist,
    conn::{Conn, ConnTable, Stage, Standing},
    means::Means,
    pair::{Gone, Pair, PairId, Way},
    sides::Sides,
};

/// The pairs and the connections of an agent.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) checklist: Checklist,
    pub(super) conns: ConnTable,
}

impl Links {
    /// The pair that a connection is for.
    pub(super) fn pair_of(&mut self, conn: ConnId) -> Option<&mut Pair> {
        self.checklist.get_mut(self.conns.get(conn)?.pair?)
    }

    /// The attempt at a pair, or its connection.
    pub(super) fn conn_of(&self, pair: &Pair) -> Option<&Conn> {
        self.conns.get(pair.conn?)
    }

    /// Whether this side has nothing left to try with the candidates that are known.
    pub(super) fn are_exhausted(&self) -> bool {
        self.conns.len() == 0 && self.checklist.iter().all(|(_, pair)| pair.is_over())
    }

    /// Starts an attempt at a pair. Where limits forbid it, the pair fails.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        means: &mut Means,
        id: PairId,
        method: ConnectMethod,
        until: Option<Instant>,
    ) {
        let is_full = self.conns.len() >= means.config.max_conns
            || means.out.counters.attempts >= means.config.max_attempts as u64;
        if is_full {
            return self.fail(now, means, id);
        }
        let Some(pair) = self.checklist.get_mut(id) else { return };
        means.out.counters.attempts += 1;
        let (source, remote) = (pair.source(), pair.remote.addr);
        let conn = self.conns.add(Conn::attempt(id, remote, until));
        pair.begin(now, conn);
        means.out.push(Output::Connect { conn, source, remote, method });
    }

    /// An attempt has led to a connection; returns whether it is still wanted.
    pub(super) fn connected(&mut self, conn: ConnId, standing: impl FnOnce(Strategy) -> Standing) -> bool {
        let Some(strategy) = self.pair_of(conn).map(Pair::connected) else { return false };
        let Some(known) = self.conns.get_mut(conn).filter(|known| known.is_attempt()) else { return false };
        known.stage = Stage::Standing(standing(strategy));
        true
    }

    /// Gives up the attempt at a pair, but not the pair.
    pub(super) fn drop_attempt(&mut self, means: &mut Means, id: PairId) {
        if let Some(conn) = self.checklist.get_mut(id).and_then(|pair| pair.conn.take()) {
            self.conns.remove(conn);
            means.out.push(Output::Close { conn });
        }
    }

    /// Gives up a pair.
    pub(super) fn fail(&mut self, now: Instant, means: &mut Means, id: PairId) {
        self.drop_attempt(means, id);
        if let Some(pair) = self.checklist.get_mut(id) {
            pair.fail(now);
        }
    }

    /// Closes a connection and forgets it.
    pub(super) fn close(&mut self, now: Instant, means: &mut Means, id: ConnId, gone: Gone) {
        means.out.push(Output::Close { conn: id });
        self.forget(now, means, id, gone);
    }

    /// Forgets a connection that is no more, and notes what that means for its pair.
    pub(super) fn forget(&mut self, now: Instant, means: &Means, id: ConnId, gone: Gone) {
        let Some(conn) = self.conns.remove(id) else { return };
        let pair = conn.pair.and_then(|pair| self.checklist.get_mut(pair));
        if let Some(pair) = pair.filter(|pair| pair.conn == Some(id)) {
            pair.lose(now, &means.config, means.timing(), gone);
        }
    }

    /// Gives up what has taken too long.
    pub(super) fn expire(&mut self, now: Instant, means: &mut Means) {
        for id in self.conns.overdue(now) {
            let is_attempt = self.conns.get(id).is_some_and(Conn::is_attempt);
            means.out.counters.silent += u64::from(!is_attempt);
            let gone = if is_attempt { Gone::Failed(ConnectFailure::TimedOut) } else { Gone::Disproven };
            self.close(now, means, id, gone);
        }
    }

    /// Finds the pair of a connection that shows its first valid check, or makes one of a peer-reflexive candidate
    /// (RFC 8445 §7.3.1.3, §7.3.1.4). Where there are too many pairs, closes the connection and returns false.
    pub(super) fn attach(
        &mut self,
        now: Instant,
        means: &mut Means,
        sides: &Sides,
        role: Role,
        id: ConnId,
        priority: Priority,
    ) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        if conn.pair.is_some() {
            return true;
        }
        let Some((remote, local)) = conn.standing().map(|standing| (conn.remote, standing.local)) else { return false };
        let in_turn = self.checklist.find_so(local, remote);
        let in_turn = in_turn.or_else(|| self.checklist.find_let_in(local, remote, priority));
        let in_turn = in_turn.filter(|pair| !self.has_connection(*pair));
        let (pair, strategy) = match in_turn {
            Some(pair) => (Some(pair), self.adopt_in_turn(means, pair)),
            None => {
                let own = sides.own.candidate_at(local, remote);
                let is_relayed = own.candidate.kind == CandidateKind::Relayed;
                let strategy = if is_relayed { Strategy::AcceptedAtRelay } else { Strategy::Accepted };
                let pair = Pair::new(own, sides.remote_of(remote, priority), Way::Passive);
                (self.checklist.add(pair, role, means.config.max_pairs), strategy)
            }
        };
        let Some(pair) = pair else {
            means.out.counters.over_limit += 1;
            self.close(now, means, id, Gone::Disproven);
            return false;
        };
        if let Some(known) = self.checklist.get_mut(pair) {
            known.begin(now, id);
        }
        if let Some(conn) = self.conns.get_mut(id) {
            conn.pair = Some(pair);
            if let Some(standing) = conn.standing_mut() {
                standing.strategy = strategy;
            }
        }
        true
    }

    fn has_connection(&self, id: PairId) -> bool {
        let conn = self.checklist.get(id).and_then(|pair| self.conn_of(pair));
        conn.is_some_and(|conn| conn.standing().is_some())
    }

    /// The listener has accepted the connection that was to come about in turns.
    fn adopt_in_turn(&mut self, means: &mut Means, id: PairId) -> Strategy {
        self.drop_attempt(means, id);
        match self.checklist.get_mut(id).map(|pair| &mut pair.way) {
            Some(Way::SimultaneousOpen(opening)) => opening.connected(),
            _ => Strategy::Accepted,
        }
    }
}
