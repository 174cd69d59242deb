//! The part of the agent that makes connections: which pair is tried when, turns of opening, and what has run out.
//!
//! What it is not: what is said on a connection that stands (`checks`).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    Agent, ConnId, ConnectFailure, ConnectMethod, Mapping, OpenTurn, Output, PairState, Role, Signal, SignalError,
    Source,
    checklist::Checklist,
    conn::{Conn, Stage},
    opening::{Opening, Plan, Step},
    pair::{Pair, PairId, Way},
};
use crate::candidate::{CandidateKind, TcpType};

/// Attempts that may be under way to one address of the peer, besides those in turns (RFC 6544 §12).
const MAX_ATTEMPTS_TO_ONE_ADDRESS: usize = 5;

/// How a connection, or an attempt at one, has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// The attempt has failed.
    Failed(ConnectFailure),
    /// The connection was closed.
    Closed,
    /// Somebody else is there, or the peer misbehaves.
    Disproven,
}

impl Agent {
    /// Makes the pairs that the candidates known so far allow.
    pub(super) fn form_pairs(&mut self, now: Instant) {
        let Some(peer) = &self.peer else { return };
        if self.has_ended() {
            return;
        }
        let mut delay = Duration::ZERO;
        for (local, remote) in self.checklist.missing(self.options.stream, &self.local, &peer.candidates, self.role) {
            let way = if local.candidate.tcp_type == TcpType::Active {
                Way::Active
            } else {
                let is_dependent = |mapping, kind| mapping == Mapping::EndpointDependent && kind != CandidateKind::Host;
                let here = is_dependent(self.options.mapping, local.candidate.kind);
                let plan = match (here, is_dependent(peer.mapping, remote.kind)) {
                    (true, true) => continue,
                    (true, false) => Plan::There,
                    (false, true) => Plan::Here,
                    // The controlled side knows both descriptions first.
                    (false, false) => Plan::Alternate { ours_first: self.role == Role::Controlled },
                };
                let can_open = (self.options.opening, peer.opening);
                let mut opening = Opening::new(plan, can_open, &self.config, delay, self.timing(), now);
                if peer.exhausted {
                    opening.peer_is_exhausted();
                }
                delay += self.config.pacing;
                Way::SimultaneousOpen(opening)
            };
            self.checklist.add(Pair::new(local, remote, way), self.role, self.config.max_pairs);
        }
    }

    /// Connects to candidates that accept, one after the other (RFC 8445 §6.1.4.2).
    pub(super) fn start_attempts(&mut self, now: Instant) {
        while now >= self.next_start && self.has_room() {
            let Some(id) = self.next_to_try(now) else { return };
            self.checklist.mark_tried(id);
            let Some((source, remote)) = self.endpoints(id) else { return };
            let timeout = match source {
                Source::Relayed(_) => self.config.relayed_connect_timeout,
                Source::Port(_) | Source::AnyPort(_) => self.config.connect_timeout,
            };
            let until = now + timeout + 2 * self.round_trip;
            let conn = self.connect(now, id, source, remote, ConnectMethod::Plain, Some(until));
            if conn.is_none() {
                self.fail_pair(now, id);
            }
            self.next_start = now + self.config.pacing;
        }
    }

    /// Does what is due in the turns of each pair.
    pub(super) fn take_turns(&mut self, now: Instant) {
        let timing = self.timing();
        for id in self.checklist.openings().collect::<Vec<_>>() {
            while let Some(step) = self.next_step(now, id, timing) {
                self.take_step(now, id, step);
            }
        }
    }

    /// Acts on a turn of the peer, if the pair is one.
    pub(super) fn peer_takes_turn(&mut self, now: Instant, turn: OpenTurn, crosses: bool) -> Result<(), SignalError> {
        let timing = self.timing();
        let id =
            self.checklist.find_opening(&self.local, turn.sender, turn.receiver).ok_or(SignalError::UnknownPair)?;
        let Some(Way::SimultaneousOpen(opening)) = self.checklist.get_mut(id).map(|pair| &mut pair.way) else {
            return Err(SignalError::UnknownPair);
        };
        // Where both sides have taken the same round, one has to give way, and both must think the same of it.
        let yields = turn.sender > turn.receiver;
        let step = if crosses {
            opening.peer_crosses(now, timing, turn.round, yields)?
        } else {
            opening.peer_opened(now, timing, turn.round, turn.ttl, yields)?
        };
        if let Some(step) = step {
            self.take_step(now, id, step);
        }
        Ok(())
    }

    /// Gives up what has taken too long.
    pub(super) fn expire_conns(&mut self, now: Instant) {
        let is_due = |conn: &Conn| conn.due_at().is_some_and(|due| now >= due);
        let due: Vec<ConnId> = self.conns.iter().filter(|(_, conn)| is_due(conn)).map(|(id, _)| *id).collect();
        for id in due {
            let Some(conn) = self.conns.get(&id) else { continue };
            let gone = match &conn.stage {
                Stage::Attempt { .. } => Gone::Failed(ConnectFailure::TimedOut),
                Stage::Standing(_) => {
                    self.counters.silent += 1;
                    Gone::Disproven
                }
            };
            self.close(now, id, gone);
        }
    }

    /// When an attempt, a turn or a connection wants something.
    pub(super) fn attempts_due_at(&self) -> Option<Instant> {
        let conns = self.conns.values().filter_map(Conn::due_at).min();
        if self.end.is_nominating() {
            return conns;
        }
        let turns = self.checklist.iter().filter_map(|(_, pair)| match &pair.way {
            Way::SimultaneousOpen(opening) => opening.due_at(),
            Way::Active | Way::Passive => None,
        });
        [conns, turns.min(), self.next_start_at()].into_iter().flatten().min()
    }

    /// Closes a connection and forgets it.
    pub(super) fn close(&mut self, now: Instant, id: ConnId, gone: Gone) {
        self.outputs.push_back(Output::Close { conn: id });
        self.forget(now, id, gone);
    }

    /// Forgets a connection that is no more, and notes what that means for its pair.
    pub(super) fn forget(&mut self, now: Instant, id: ConnId, gone: Gone) {
        let Some(conn) = self.conns.remove(&id) else { return };
        self.end.forget(id);
        let timing = self.timing();
        let Some(pair) = conn.pair.and_then(|pair| self.checklist.get_mut(pair)) else { return };
        if pair.conn != Some(id) {
            return;
        }
        pair.conn = None;
        if let Gone::Failed(failure) = gone {
            pair.last_failure = Some(failure);
        }
        let may_open_later = is_turned_away(pair, gone) && pair.attempts < self.config.relayed_tries;
        match (&mut pair.way, gone) {
            (Way::SimultaneousOpen(opening), Gone::Failed(failure)) => opening.attempt_failed(now, timing, failure),
            (Way::SimultaneousOpen(opening), Gone::Closed) => {
                opening.lost(now, timing);
                pair.enter(now, PairState::InProgress);
            }
            (Way::SimultaneousOpen(opening), Gone::Disproven) => {
                opening.give_up();
                pair.enter(now, PairState::Disproven);
            }
            (Way::Active, _) if may_open_later => {
                let tried = u32::try_from(pair.attempts.saturating_sub(1)).unwrap_or(u32::MAX);
                let patience = self.config.permission_patience.saturating_mul(2_u32.saturating_pow(tried));
                pair.wait_until(now, now + patience);
            }
            (Way::Active | Way::Passive, Gone::Failed(_)) => pair.fail(now),
            (Way::Active | Way::Passive, Gone::Closed | Gone::Disproven) => pair.enter(now, PairState::Disproven),
        }
    }

    pub(super) fn new_conn(&mut self, conn: Conn) -> ConnId {
        self.last_conn += 1;
        let id = ConnId(self.last_conn);
        self.conns.insert(id, conn);
        id
    }

    pub(super) fn pair_of(&mut self, conn: ConnId) -> Option<&mut Pair> {
        let pair = self.conns.get(&conn)?.pair?;
        self.checklist.get_mut(pair)
    }

    /// The pair to connect next, if there is one.
    fn next_to_try(&self, now: Instant) -> Option<PairId> {
        let is_due = |pair: &Pair| pair.not_before.is_none_or(|at| at <= now);
        self.checklist.next_waiting(self.role, |pair| is_due(pair) && self.may_knock(pair))
    }

    /// When there is one.
    fn next_start_at(&self) -> Option<Instant> {
        let waiting = self.checklist.waiting().filter(|(_, pair)| self.has_room() && self.may_knock(pair));
        waiting.map(|(_, pair)| pair.not_before.map_or(self.next_start, |at| at.max(self.next_start))).min()
    }

    /// Whether the address is not being knocked at enough already. What relays do for this side is not counted with what it
    /// does itself: neither has to wait for the other.
    fn may_knock(&self, pair: &Pair) -> bool {
        let is_by_relay = |pair: &Pair| matches!(pair.source(), Source::Relayed(_));
        let knocks = |conn: &&Conn| {
            let other = conn.pair.and_then(|id| self.checklist.get(id));
            matches!(conn.stage, Stage::Attempt { .. })
                && conn.remote.ip() == pair.remote.addr.ip()
                && other.is_some_and(|other| is_by_relay(other) == is_by_relay(pair))
        };
        self.conns.values().filter(knocks).count() < MAX_ATTEMPTS_TO_ONE_ADDRESS
    }

    fn has_room(&self) -> bool {
        self.conns.len() < self.config.max_conns
    }

    fn endpoints(&self, id: PairId) -> Option<(Source, SocketAddr)> {
        let pair = self.checklist.get(id)?;
        Some((pair.source(), pair.remote.addr))
    }

    /// Starts an attempt, if limits allow.
    fn connect(
        &mut self,
        now: Instant,
        id: PairId,
        source: Source,
        remote: SocketAddr,
        method: ConnectMethod,
        until: Option<Instant>,
    ) -> Option<ConnId> {
        if !self.has_room() || self.counters.attempts >= self.config.max_attempts as u64 {
            return None;
        }
        self.counters.attempts += 1;
        let conn = self.new_conn(Conn::attempt(id, remote, until));
        if let Some(pair) = self.checklist.get_mut(id) {
            pair.begin(now, conn);
        }
        self.outputs.push_back(Output::Connect { conn, source, remote, method });
        Some(conn)
    }

    fn next_step(&mut self, now: Instant, id: PairId, timing: super::opening::Timing) -> Option<Step> {
        let Self { checklist, random, .. } = self;
        match &mut checklist.get_mut(id)?.way {
            Way::SimultaneousOpen(opening) => opening.step(now, timing, |around| random.jitter(around)),
            Way::Active | Way::Passive => None,
        }
    }

    fn take_step(&mut self, now: Instant, id: PairId, step: Step) {
        match step {
            Step::Open { ttl } => self.attempt_in_turn(now, id, ConnectMethod::Opening { ttl }),
            Step::Connect => self.attempt_in_turn(now, id, ConnectMethod::Plain),
            Step::TellOpened { round, ttl } => {
                let turn = turn_of(&self.checklist, id, round, ttl);
                self.tell(turn.map(Signal::Opened));
            }
            Step::TellCross { round, after } => {
                let turn = turn_of(&self.checklist, id, round, 0);
                self.tell(turn.map(|turn| Signal::Cross { turn, after }));
            }
            Step::GiveUp => self.fail_pair(now, id),
        }
    }

    /// Makes a new attempt at a pair in the place of the one that there is: both would have the same addresses.
    fn attempt_in_turn(&mut self, now: Instant, id: PairId, method: ConnectMethod) {
        self.drop_attempt(id);
        let Some((source, remote)) = self.endpoints(id) else { return };
        if self.connect(now, id, source, remote, method, None).is_none() {
            self.fail_pair(now, id);
        }
    }

    /// Gives up the attempt at a pair, without a judgement on the pair.
    pub(super) fn drop_attempt(&mut self, id: PairId) {
        if let Some(conn) = self.checklist.get_mut(id).and_then(|pair| pair.conn.take()) {
            self.conns.remove(&conn);
            self.outputs.push_back(Output::Close { conn });
        }
    }

    fn fail_pair(&mut self, now: Instant, id: PairId) {
        self.drop_attempt(id);
        if let Some(pair) = self.checklist.get_mut(id) {
            if let Way::SimultaneousOpen(opening) = &mut pair.way {
                opening.give_up();
            }
            pair.fail(now);
        }
    }

    fn tell(&mut self, signal: Option<Signal>) {
        self.counters.rounds += 1;
        self.outputs.extend(signal.map(Output::Signal));
    }
}

/// Whether the way in which an attempt or connection has ended is that of a relay which has not been asked yet to let this
/// side in: it closes what it has accepted (RFC 6062 §5.3). Not so if nobody has answered at all.
fn is_turned_away(pair: &Pair, gone: Gone) -> bool {
    let is_answer = match gone {
        Gone::Failed(failure) => matches!(failure, ConnectFailure::Refused | ConnectFailure::Other),
        Gone::Closed => true,
        Gone::Disproven => false,
    };
    is_answer && pair.remote.kind == CandidateKind::Relayed
}

fn turn_of(checklist: &Checklist, id: PairId, round: u8, ttl: u8) -> Option<OpenTurn> {
    let pair = checklist.get(id)?;
    Some(OpenTurn { round, sender: pair.local.candidate.addr, receiver: pair.remote.addr, ttl })
}
