//! Attempts at candidates that accept: which pair this side connects, and when.
//!
//! What it is not: pairs that open in turns (`turns`), or what is said on a connection that stands (`checking`).

use std::time::Instant;

use super::{
    Config, ConnectMethod, Role, Source,
    conn::Conn,
    links::Links,
    means::Means,
    pair::{Pair, PairId},
};

/// Attempts that may be under way to one address of the peer, besides those in turns (RFC 6544 §12).
const MAX_ATTEMPTS_TO_ONE_ADDRESS: usize = 5;

/// The pace of attempts.
#[derive(Debug)]
pub(super) struct Attempts {
    /// The earliest time for the next one.
    next_start: Instant,
}

impl Attempts {
    pub(super) fn new(now: Instant) -> Self {
        Self { next_start: now }
    }

    /// Connects to candidates that accept, one after the other (RFC 8445 §6.1.4.2).
    pub(super) fn start_due(&mut self, now: Instant, means: &mut Means, role: Role, links: &mut Links) {
        while now >= self.next_start && has_room(links, &means.config) {
            let Some(id) = next_to_try(now, role, links) else { return };
            links.checklist.mark_tried(id);
            let Some(source) = links.checklist.get(id).map(Pair::source) else { return };
            let until = now + means.connect_timeout(source);
            links.connect(now, means, id, ConnectMethod::Plain, Some(until));
            self.next_start = now + means.config.pacing;
        }
    }

    /// When there is a pair to connect.
    pub(super) fn due_at(&self, config: &Config, links: &Links) -> Option<Instant> {
        let waiting = links.checklist.waiting().filter(|(_, pair)| has_room(links, config) && may_knock(links, pair));
        waiting.map(|(_, pair)| pair.not_before.map_or(self.next_start, |at| at.max(self.next_start))).min()
    }
}

/// The pair to connect next, if there is one.
fn next_to_try(now: Instant, role: Role, links: &Links) -> Option<PairId> {
    let is_due = |pair: &Pair| pair.not_before.is_none_or(|at| at <= now);
    links.checklist.next_waiting(role, |pair| is_due(pair) && may_knock(links, pair))
}

/// Whether few enough attempts are under way to the pair's address. What relays do for this side is not counted with what it does
/// itself: neither has to wait for the other.
fn may_knock(links: &Links, pair: &Pair) -> bool {
    let is_by_relay = |pair: &Pair| matches!(pair.source(), Source::Relayed(_));
    let knocks = |conn: &Conn| {
        let other = conn.pair.and_then(|id| links.checklist.get(id));
        conn.is_attempt()
            && conn.remote.ip() == pair.remote.addr.ip()
            && other.is_some_and(|other| is_by_relay(other) == is_by_relay(pair))
    };
    links.conns.iter().filter(|(_, conn)| knocks(conn)).count() < MAX_ATTEMPTS_TO_ONE_ADDRESS
}

fn has_room(links: &Links, config: &Config) -> bool {
    links.conns.len() < config.max_conns
}
