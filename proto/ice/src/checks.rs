//! The part of the agent that speaks on connections that stand: checks, answers to them, and conflicts of roles
//! (RFC 8445 §7.2.5, §7.3).
//!
//! What it is not: the form of the messages (`messages`), or what follows from a valid pair (`ending`).

use std::{net::SocketAddr, time::Instant};

use super::{
    Agent, ConnId, LocalCandidate, Output, PairState, Role, Strategy,
    attempts::Gone,
    conn::{Conn, Pending},
    messages::{self, AnswerOutcome, Check, Incoming, MessageError, Refusal, Request},
    pair::{Pair, PairId, Way, is_from_simultaneous_open, is_inside},
};
use crate::candidate::{Candidate, CandidateKind, TcpType};

/// Refused requests and stray answers on one connection, before it is closed.
const MAX_NUISANCES: u8 = 4;

/// Changes of role in one negotiation. One is enough for honest peers.
const MAX_ROLE_SWITCHES: u8 = 4;

/// Stands for the priority of a local candidate that nobody has told: the least there is.
const UNKNOWN_PRIORITY: u32 = 1;

impl Agent {
    /// Takes a message of the peer.
    pub(super) fn handle_message(&mut self, now: Instant, id: ConnId, message: &[u8]) {
        if self.has_ended() || self.conns.get(&id).is_none_or(|conn| conn.standing().is_none()) {
            self.counters.ignored += 1;
            return;
        }
        match messages::read(message) {
            Ok(Incoming::Request(request)) => self.handle_request(now, id, &request),
            Ok(Incoming::Answer(answer)) => self.handle_answer(now, id, &answer),
            Ok(Incoming::Indication) => self.count_nuisance(now, id),
            Err(_) => {
                self.counters.garbage += 1;
                self.close(now, id, Gone::Disproven);
            }
        }
    }

    /// Sends this side's check on a connection, if it has not been sent and the peer is known.
    pub(super) fn check_if_due(&mut self, now: Instant, id: ConnId) {
        let is_due = self.conns.get(&id).is_some_and(|conn| {
            let is_open =
                |standing: &super::conn::Standing| standing.pending.is_none() && standing.round_trip.is_none();
            conn.pair.is_some() && conn.standing().is_some_and(is_open)
        });
        if is_due {
            self.send_check(now, id, false);
        }
    }

    pub(super) fn send_check(&mut self, now: Instant, id: ConnId, nominates: bool) {
        let priority = self.pair_of(id).map_or(UNKNOWN_PRIORITY, |pair| pair.reflexive_priority());
        let Some(peer) = &self.peer else { return };
        let Some(standing) = self.conns.get_mut(&id).and_then(|conn| conn.standing_mut()) else { return };
        let pending = Pending { id: self.random.next_u128().into(), sent_at: now, role: self.role, nominates };
        let check = Check { priority, role: Some((self.role, self.tie_breaker)), nominates };
        let message = messages::check(pending.id, &check, &self.own, &peer.credentials);
        standing.pending = Some(pending);
        // The peer may have taken the connection already: nothing else can come of the negotiation then.
        standing.until = if nominates { peer.deadline } else { now + self.config.check_timeout };
        self.counters.checks_sent += 1;
        self.outputs.push_back(Output::Send { conn: id, message });
    }

    fn handle_request(&mut self, now: Instant, id: ConnId, request: &Request<'_>) {
        match request.check(&self.own) {
            Ok(check) if self.settle_roles(&check) => self.answer(now, id, request, &check),
            Ok(_) => self.refuse(now, id, request, Refusal::RoleConflict),
            Err(refusal) => self.refuse(now, id, request, refusal),
        }
    }

    /// Answers a valid check, and checks in the other direction (RFC 8445 §7.3.1.4).
    fn answer(&mut self, now: Instant, id: ConnId, request: &Request<'_>, check: &Check) {
        let Some(from) = self.conns.get(&id).map(|conn| conn.remote) else { return };
        if self.peer.is_some() && !self.attach(now, id, check.priority) {
            return;
        }
        let message = request.success(from, &self.own);
        self.outputs.push_back(Output::Send { conn: id, message });
        self.counters.checks_received += 1;
        if let Some(standing) = self.conns.get_mut(&id).and_then(|conn| conn.standing_mut()) {
            standing.has_answered = true;
            standing.priority = check.priority;
            standing.is_nominated |= check.nominates && self.role == Role::Controlled;
        }
        self.check_if_due(now, id);
        self.take_if_nominated(now, id);
    }

    fn refuse(&mut self, now: Instant, id: ConnId, request: &Request<'_>, refusal: Refusal) {
        let message = request.refusal(refusal, &self.own);
        self.outputs.push_back(Output::Send { conn: id, message });
        self.counters.errors_sent += 1;
        match refusal {
            Refusal::BadRequest | Refusal::Unauthenticated => {
                self.counters.unauthentic += 1;
                self.close(now, id, Gone::Disproven);
            }
            Refusal::UnknownAttribute | Refusal::RoleConflict => self.count_nuisance(now, id),
        }
    }

    /// Settles who controls (RFC 8445 §7.3.1.1); false: the peer has to change its role.
    fn settle_roles(&mut self, check: &Check) -> bool {
        let Some((theirs, tie_breaker)) = check.role.filter(|(theirs, _)| *theirs == self.role) else { return true };
        self.counters.role_conflicts += 1;
        let ours_is_greater = self.tie_breaker >= tie_breaker;
        if (theirs == Role::Controlling) == ours_is_greater {
            return false;
        }
        self.switch_role()
    }

    /// Takes the other role; false if that has been done too often.
    fn switch_role(&mut self) -> bool {
        if self.role_switches >= MAX_ROLE_SWITCHES {
            return false;
        }
        self.role_switches += 1;
        self.role = self.role.other();
        true
    }

    fn handle_answer(&mut self, now: Instant, id: ConnId, answer: &messages::Answer<'_>) {
        let pending = self.conns.get(&id).and_then(|conn| conn.standing()?.pending);
        let Some(pending) = pending.filter(|pending| pending.id == answer.transaction_id()) else {
            self.count_nuisance(now, id);
            return;
        };
        let Some(peer) = &self.peer else { return };
        match answer.outcome(&peer.credentials) {
            Ok(AnswerOutcome::Success { mapped }) => self.succeed(now, id, pending, mapped),
            Ok(AnswerOutcome::RoleConflict) => self.yield_role(now, id, pending),
            Ok(AnswerOutcome::Error { .. }) => self.close(now, id, Gone::Disproven),
            Err(MessageError::Unauthentic) => {
                self.counters.unauthentic += 1;
                self.close(now, id, Gone::Disproven);
            }
            Err(MessageError::Garbage) => {
                self.counters.garbage += 1;
                self.close(now, id, Gone::Disproven);
            }
        }
    }

    /// The peer is proven (RFC 8445 §7.2.5.3).
    fn succeed(&mut self, now: Instant, id: ConnId, pending: Pending, mapped: SocketAddr) {
        let local = self.conns.get(&id).and_then(Conn::standing).map(|standing| standing.local);
        let is_seen = |own: &&LocalCandidate| {
            own.candidate.tcp_type == TcpType::Passive && own.candidate.addr == mapped && Some(own.base) == local
        };
        let seen = self.local.iter().find(is_seen).copied();
        if let Some(pair) = self.pair_of(id) {
            if let (Way::Passive, Some(seen)) = (&pair.way, seen) {
                pair.local = seen;
            }
            pair.enter(now, PairState::Succeeded);
        }
        if let Some(standing) = self.conns.get_mut(&id).and_then(|conn| conn.standing_mut()) {
            standing.pending = None;
            standing.round_trip = Some(now.saturating_duration_since(pending.sent_at));
        }
        if pending.nominates {
            self.select(id, now);
        } else {
            self.take_if_nominated(now, id);
        }
    }

    /// The peer has answered that both have the same role (RFC 8445 §7.2.5.1).
    fn yield_role(&mut self, now: Instant, id: ConnId, pending: Pending) {
        self.counters.role_conflicts += 1;
        if pending.role == self.role {
            if !self.switch_role() {
                self.close(now, id, Gone::Disproven);
                return;
            }
            self.tie_breaker = self.random.next_u64();
        }
        self.end.forget(id);
        self.count_nuisance(now, id);
        self.send_check(now, id, false);
    }

    /// Deals with the connections that came before the peer was described.
    pub(super) fn attach_early_conns(&mut self, now: Instant) {
        let answered = |conn: &Conn| conn.standing().filter(|standing| standing.has_answered).map(|one| one.priority);
        let early: Vec<(ConnId, u32)> =
            self.conns.iter().filter_map(|(id, conn)| Some((*id, answered(conn)?))).collect();
        for (id, priority) in early {
            if self.attach(now, id, priority) {
                self.check_if_due(now, id);
            }
        }
    }

    /// Finds the pair of a connection that shows its first valid check, or makes one of a peer-reflexive candidate
    /// (RFC 8445 §7.3.1.3, §7.3.1.4). Where there are too many pairs, the connection is closed: false.
    fn attach(&mut self, now: Instant, id: ConnId, priority: u32) -> bool {
        let Some(conn) = self.conns.get(&id) else { return false };
        if conn.pair.is_some() {
            return true;
        }
        let Some((remote, local)) = conn.standing().map(|standing| (conn.remote, standing.local)) else { return false };
        let in_turn = self.checklist.find_so(local, remote).or_else(|| self.let_in(local, remote, priority));
        let in_turn = in_turn.filter(|pair| !self.has_connection(*pair));
        let (pair, strategy) = match in_turn {
            Some(pair) => (Some(pair), self.adopt_in_turn(pair)),
            None => {
                let own = self.local_of(local, remote);
                let is_relayed = own.candidate.kind == CandidateKind::Relayed;
                let strategy = if is_relayed { Strategy::AcceptedAtRelay } else { Strategy::Accepted };
                let pair = Pair::new(own, self.remote_of(remote, priority), Way::Passive);
                (self.checklist.add(pair, self.role, self.config.max_pairs), strategy)
            }
        };
        let Some(pair) = pair else {
            self.counters.over_limit += 1;
            self.close(now, id, Gone::Disproven);
            return false;
        };
        if let Some(known) = self.checklist.get_mut(pair) {
            known.begin(now, id);
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.pair = Some(pair);
            if let Some(standing) = conn.standing_mut() {
                standing.strategy = strategy;
            }
        }
        true
    }

    fn has_connection(&self, id: PairId) -> bool {
        let conn = self.checklist.get(id).and_then(|pair| self.conns.get(&pair.conn?));
        conn.is_some_and(|conn| conn.standing().is_some())
    }

    /// The listener has accepted what was to come about in turns.
    fn adopt_in_turn(&mut self, id: PairId) -> Strategy {
        self.drop_attempt(id);
        match self.checklist.get_mut(id).map(|pair| &mut pair.way) {
            Some(Way::SimultaneousOpen(opening)) => opening.connected(),
            _ => Strategy::Accepted,
        }
    }

    /// The pair whose opening lets in any port of the peer's address, if that is where a connection comes from.
    fn let_in(&self, local: SocketAddr, remote: SocketAddr, priority: u32) -> Option<PairId> {
        let lets_in = |pair: &Pair| matches!(&pair.way, Way::SimultaneousOpen(opening) if opening.lets_in_any_port());
        let is_between = |pair: &Pair| pair.local.base == local && pair.remote.addr.ip() == remote.ip();
        let mut pairs = self.checklist.iter().filter(|(_, pair)| lets_in(pair) && is_between(pair));
        pairs.next().map(|(id, _)| id).filter(|_| is_from_simultaneous_open(priority))
    }

    /// The local candidate that the peer has connected to, as far as it can be told before the peer says what it sees.
    fn local_of(&self, local: SocketAddr, remote: SocketAddr) -> LocalCandidate {
        let accepts = |own: &&LocalCandidate| own.candidate.tcp_type == TcpType::Passive && own.base == local;
        let likely =
            |own: &&LocalCandidate| (is_inside(own.candidate.addr) == is_inside(remote), own.candidate.priority);
        let host = || LocalCandidate { candidate: Candidate::host_passive(local, 0), base: local };
        self.local.iter().filter(accepts).max_by_key(likely).copied().unwrap_or_else(host)
    }

    /// The candidate of the peer from which a connection has come. Its port is that of a NAT, or any: its address tells,
    /// and the priority of the check tells which role the candidate has.
    pub(super) fn remote_of(&self, remote: SocketAddr, priority: u32) -> Candidate {
        let is_so = is_from_simultaneous_open(priority);
        let tcp_type = if is_so { TcpType::SimultaneousOpen } else { TcpType::Active };
        let candidates = self.peer.iter().flat_map(|peer| &peer.candidates);
        let likely = |known: &&Candidate| (known.tcp_type == tcp_type, known.priority);
        let known = candidates.filter(|known| known.addr.ip() == remote.ip()).max_by_key(likely);
        let kind = known.map_or(CandidateKind::ServerReflexive, |known| known.kind);
        let signalled = known.filter(|known| known.tcp_type == tcp_type).map(|known| known.priority);
        Candidate { kind, tcp_type, addr: remote, priority: signalled.unwrap_or(priority) }
    }

    /// Counts what is no harm by itself.
    fn count_nuisance(&mut self, now: Instant, id: ConnId) {
        self.counters.ignored += 1;
        let Some(standing) = self.conns.get_mut(&id).and_then(|conn| conn.standing_mut()) else { return };
        standing.refused += 1;
        if standing.refused > MAX_NUISANCES {
            self.close(now, id, Gone::Disproven);
        }
    }
}
