//! The choice of a connection: regular nomination (RFC 8445 §8.1.1) of the best valid pair, and how long to wait for a better one.
//!
//! ```text
//! controlling   own check answered, peer's check answered ── check with USE-CANDIDATE ──▶  its last frame, raw bytes behind it
//! controlled    its last frame  ◀── success ──                                            raw bytes from here on
//! ```
//! What it is not: the nominating check (`checking`), or what follows from its answer (`conclusion`).

use std::time::{Duration, Instant};

use super::{
    ConnId, PairState, Role,
    conn::{Conn, Standing},
    links::Links,
    pair::{Pair, Way},
    sides::Sides,
};

/// The nomination of a negotiation.
#[derive(Debug, Default)]
pub(super) struct Nomination {
    /// Since when there has been a valid connection.
    first_valid: Option<Instant>,
}

/// The connection to nominate, as things are.
struct Choice {
    conn: ConnId,
    /// When to stop hoping for a better one.
    due_at: Instant,
}

impl Nomination {
    /// The connection that this side has to nominate now: the best valid one, once there is no hope for a better one.
    pub(super) fn due(
        &mut self,
        now: Instant,
        role: Role,
        patience: Duration,
        sides: &Sides,
        links: &Links,
    ) -> Option<ConnId> {
        if role == Role::Controlled || links.conns.is_nominating() {
            return None;
        }
        let is_any_valid = links.conns.iter().any(|(_, conn)| conn.is_valid());
        self.first_valid = if is_any_valid { self.first_valid.or(Some(now)) } else { None };
        let choice = choice(self.first_valid?, role, patience, sides, links)?;
        (now >= choice.due_at).then_some(choice.conn)
    }

    /// When patience ends.
    pub(super) fn due_at(&self, role: Role, patience: Duration, sides: &Sides, links: &Links) -> Option<Instant> {
        let is_due = role == Role::Controlling && !links.conns.is_nominating();
        let choice = choice(self.first_valid.filter(|_| is_due)?, role, patience, sides, links)?;
        Some(choice.due_at)
    }
}

fn choice(first_valid: Instant, role: Role, patience: Duration, sides: &Sides, links: &Links) -> Option<Choice> {
    let valid = links.conns.iter().filter(|(_, conn)| conn.is_valid());
    let ranked = valid.filter_map(|(id, conn)| Some((id, conn, links.checklist.get(conn.pair?)?.priority(role))));
    let (conn, known, priority) = ranked.max_by_key(|(_, _, priority)| *priority)?;
    let answer_time = 2 * known.standing().and_then(|standing: &Standing| standing.round_trip).unwrap_or(patience);
    let is_better = |pair: &Pair| pair.priority(role) > priority;
    let tried = hopes(first_valid, patience, answer_time, links, is_better);
    let described = sides.peer.as_ref().map_or(first_valid, |peer| peer.candidates_at);
    let awaited = sides.awaited().filter(is_better).map(|_| described + patience);
    Some(Choice { conn, due_at: tried.chain(awaited).max().unwrap_or(first_valid) })
}

/// How long to wait for each better pair that this side tries.
fn hopes(
    first_valid: Instant,
    patience: Duration,
    answer_time: Duration,
    links: &Links,
    is_better: impl Fn(&Pair) -> bool,
) -> impl Iterator<Item = Instant> {
    let is_valid = |pair: &Pair| links.conn_of(pair).is_some_and(Conn::is_valid);
    let is_standing = |pair: &Pair| links.conn_of(pair).is_some_and(|conn| conn.standing().is_some());
    let open = links.checklist.iter().filter(move |(_, pair)| !pair.is_over() && !is_valid(pair) && is_better(pair));
    open.map(move |(_, pair)| match pair.way {
        // If somebody is there, the answer takes as long as on the connection that stands.
        Way::Active if pair.state == PairState::InProgress && !is_standing(pair) => {
            pair.began_at().map_or(first_valid, |began| began + answer_time).min(first_valid + patience)
        }
        _ => first_valid + patience,
    })
}
