//! The part of the agent that chooses: regular nomination (RFC 8445 §8.1.1) of the best valid pair, and how long to wait for
//! a better one.
//!
//! ```text
//! controlling   own check answered, peer's check answered ── check with USE-CANDIDATE ──▶  its last frame, raw bytes behind it
//! controlled    its last frame  ◀── success ──                                            raw bytes from here on
//! ```
//! What it is not: what happens when the peer has answered (`ending`).

use std::time::Instant;

use super::{
    Agent, ConnId, LocalCandidate, Output, PairState, Role,
    conn::{Conn, Standing},
    pair::{Pair, Way, is_inside},
};
use crate::candidate::TcpType;

/// The connection to nominate, as things are.
struct Choice {
    conn: ConnId,
    /// When there is nothing better to be hoped for any more.
    due_at: Instant,
}

impl Agent {
    /// Nominates the best valid pair, once no better one is to be hoped for.
    pub(super) fn nominate(&mut self, now: Instant) {
        if self.role == Role::Controlled || self.end.nominating.is_some() {
            return;
        }
        let is_any_valid = self.conns.values().any(Conn::is_valid);
        self.end.first_valid = if is_any_valid { self.end.first_valid.or(Some(now)) } else { None };
        if let Some(choice) = self.choice().filter(|choice| now >= choice.due_at) {
            self.end.nominating = Some(choice.conn);
            self.send_check(now, choice.conn, true);
            self.outputs.push_back(Output::Nominating { conn: choice.conn });
        }
    }

    /// When patience ends.
    pub(super) fn nomination_due_at(&self) -> Option<Instant> {
        let is_due = self.role == Role::Controlling && self.end.nominating.is_none();
        self.choice().filter(|_| is_due).map(|choice| choice.due_at)
    }

    fn choice(&self) -> Option<Choice> {
        let first_valid = self.end.first_valid?;
        let valid = self.conns.iter().filter(|(_, conn)| conn.is_valid());
        let ranked = valid.filter_map(|(id, conn)| Some((*id, self.checklist.get(conn.pair?)?.priority(self.role))));
        let (conn, priority) = ranked.max_by_key(|(_, priority)| *priority)?;
        let due_at = self.hopes(conn, priority, first_valid).max().unwrap_or(first_valid);
        Some(Choice { conn, due_at })
    }

    /// Until when each of the pairs is waited for that would be better than that of a valid connection.
    fn hopes(&self, conn: ConnId, priority: u64, first_valid: Instant) -> impl Iterator<Item = Instant> {
        let patience = self.config.nomination_patience;
        let standing = self.conns.get(&conn).and_then(Conn::standing);
        let answer_time = 2 * standing.and_then(|standing: &Standing| standing.round_trip).unwrap_or(patience);
        let is_better = move |pair: &Pair| pair.priority(self.role) > priority;
        let is_valid = |pair: &Pair| pair.conn.and_then(|id| self.conns.get(&id)).is_some_and(Conn::is_valid);
        let open = self.checklist.iter().filter(move |(_, pair)| !pair.is_over() && !is_valid(pair) && is_better(pair));
        let tried = open.map(move |(_, pair)| match pair.way {
            // Whoever is there answers as fast as on the connection that stands.
            Way::Active if pair.state == PairState::InProgress && !self.is_standing(pair) => {
                pair.began_at().map_or(first_valid, |began| began + answer_time).min(first_valid + patience)
            }
            _ => first_valid + patience,
        });
        let described = self.peer.as_ref().map_or(first_valid, |peer| peer.candidates_at);
        tried.chain(self.awaited().filter(move |pair| is_better(pair)).map(move |_| described + patience))
    }

    fn is_standing(&self, pair: &Pair) -> bool {
        pair.conn.and_then(|id| self.conns.get(&id)).is_some_and(|conn| conn.standing().is_some())
    }

    /// The pairs that the peer may be connecting now: from its active candidates to those of this side that accept and
    /// that it can reach from where it is.
    pub(super) fn awaited(&self) -> impl Iterator<Item = Pair> {
        let active =
            self.peer.iter().flat_map(|peer| &peer.candidates).filter(|other| other.tcp_type == TcpType::Active);
        active.flat_map(|other| {
            let accepts = |own: &&LocalCandidate| {
                own.candidate.tcp_type == TcpType::Passive
                    && own.candidate.addr.is_ipv4() == other.addr.is_ipv4()
                    && !is_inside(own.candidate.addr)
            };
            self.local.iter().filter(accepts).map(|own| Pair::new(*own, *other, Way::Passive))
        })
    }
}
