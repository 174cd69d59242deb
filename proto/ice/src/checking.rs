//! What is said on connections that stand: checks, answers to them, and conflicts of roles (RFC 8445 §7.2.5, §7.3).
//!
//! What it is not: the form of the messages (`messages`), or what follows from a valid pair (`nomination`, `conclusion`).

use std::{net::SocketAddr, time::Instant};

use super::{
    ConnId, Output, PairState, Priority, Role,
    conn::{Conn, Pending, Standing},
    links::Links,
    means::Means,
    messages::{self, AnswerOutcome, BindingError, BindingRequest, Check, CheckRefusal, Incoming},
    pair::{Gone, Way},
    role::OwnRole,
    sides::Sides,
};

/// Refused requests and stray answers that one connection may have.
const MAX_NUISANCES: u8 = 4;

/// The exchange of checks, for the length of one event.
#[derive(Debug)]
pub(super) struct Checking<'a> {
    pub(super) now: Instant,
    pub(super) means: &'a mut Means,
    pub(super) sides: &'a Sides,
    pub(super) role: &'a mut OwnRole,
    pub(super) links: &'a mut Links,
}

impl Checking<'_> {
    /// Takes a message of the peer. Returns whether both sides agree on its connection now.
    pub(super) fn receive(&mut self, id: ConnId, message: &[u8]) -> bool {
        if self.links.conns.standing(id).is_none() {
            self.means.out.counters.ignored += 1;
            return false;
        }
        match messages::read(message) {
            Ok(Incoming::Request(request)) => return self.handle_request(id, &request),
            Ok(Incoming::Answer(answer)) => return self.handle_answer(id, &answer),
            Ok(Incoming::Indication) => self.count_nuisance(id),
            Err(error) => self.refute(id, error),
        }
        false
    }

    /// Sends this side's check on a connection, unless it has been sent or the peer is not known.
    pub(super) fn begin(&mut self, id: ConnId) {
        let conn = self.links.conns.get(id);
        let is_due = |conn: &Conn| conn.pair.is_some() && conn.standing().is_some_and(Standing::is_unchecked);
        if conn.is_some_and(is_due) {
            self.send(id, false);
        }
    }

    /// Sends the nominating check.
    pub(super) fn nominate(&mut self, id: ConnId) {
        self.send(id, true);
        self.means.out.push(Output::Nominating { conn: id });
    }

    /// Deals with the connections that came before the peer's description.
    pub(super) fn attach_early(&mut self) {
        let conns = self.links.conns.iter();
        let early: Vec<(ConnId, Priority)> =
            conns.filter_map(|(id, conn)| Some((id, conn.standing()?.answered?))).collect();
        for (id, priority) in early {
            if self.attach(id, priority) {
                self.begin(id);
            }
        }
    }

    fn send(&mut self, id: ConnId, nominates: bool) {
        // The least stands for that of a local candidate which is not known.
        let priority = self.links.pair_of(id).map_or(Priority::LEAST, |pair| pair.local.candidate.reflexive_priority());
        let Some(peer) = &self.sides.peer else { return };
        let Some(standing) = self.links.conns.standing_mut(id) else { return };
        let check_id = self.means.random.next_u128().into();
        let pending = Pending { id: check_id, sent_at: self.now, role: self.role.get(), nominates };
        let check = Check { priority, role: Some(self.role.claim()), nominates };
        let message = messages::check(pending.id, &check, &self.sides.own.credentials, &peer.credentials);
        standing.pending = Some(pending);
        // The peer may have taken the connection already: nothing else can come of the negotiation then.
        standing.until = if nominates { peer.deadline } else { self.now + self.means.config.check_timeout };
        self.means.out.counters.checks_sent += 1;
        self.means.out.push(Output::Send { conn: id, message });
    }

    fn handle_request(&mut self, id: ConnId, request: &BindingRequest<'_>) -> bool {
        match request.check(&self.sides.own.credentials) {
            Ok(check) if self.settle_roles(&check) => return self.answer(id, request, &check),
            Ok(_) => self.refuse(id, request, CheckRefusal::RoleConflict),
            Err(refusal) => self.refuse(id, request, refusal),
        }
        false
    }

    /// Answers a valid check, and checks in the other direction (RFC 8445 §7.3.1.4).
    fn answer(&mut self, id: ConnId, request: &BindingRequest<'_>, check: &Check) -> bool {
        let Some(from) = self.links.conns.get(id).map(|conn| conn.remote) else { return false };
        if self.sides.peer.is_some() && !self.attach(id, check.priority) {
            return false;
        }
        let message = request.success(from, &self.sides.own.credentials);
        self.means.out.push(Output::Send { conn: id, message });
        self.means.out.counters.checks_received += 1;
        if let Some(standing) = self.links.conns.standing_mut(id) {
            standing.answered = Some(check.priority);
            standing.is_nominated |= check.nominates && self.role.get() == Role::Controlled;
        }
        self.begin(id);
        self.is_taken(id)
    }

    fn refuse(&mut self, id: ConnId, request: &BindingRequest<'_>, refusal: CheckRefusal) {
        let message = request.refusal(refusal, &self.sides.own.credentials);
        self.means.out.push(Output::Send { conn: id, message });
        self.means.out.counters.errors_sent += 1;
        match refusal {
            CheckRefusal::BadRequest | CheckRefusal::Unauthenticated => self.refute(id, BindingError::Unauthentic),
            CheckRefusal::UnknownAttribute | CheckRefusal::RoleConflict => self.count_nuisance(id),
        }
    }

    /// Settles who controls (RFC 8445 §7.3.1.1); false if the peer has to change its role.
    fn settle_roles(&mut self, check: &Check) -> bool {
        match check.role {
            Some((theirs, tie_breaker)) if theirs == self.role.get() => {
                self.means.out.counters.role_conflicts += 1;
                self.role.settle(tie_breaker)
            }
            _ => true,
        }
    }

    fn handle_answer(&mut self, id: ConnId, answer: &messages::Answer<'_>) -> bool {
        let pending = self.links.conns.standing(id).and_then(|standing| standing.pending);
        let Some(pending) = pending.filter(|pending| pending.id == answer.transaction_id()) else {
            self.count_nuisance(id);
            return false;
        };
        let Some(peer) = &self.sides.peer else { return false };
        match answer.outcome(&peer.credentials) {
            Ok(AnswerOutcome::Success { mapped }) => return self.succeed(id, pending, mapped),
            Ok(AnswerOutcome::RoleConflict) => self.give_way(id, pending),
            Ok(AnswerOutcome::Error { .. }) => self.close(id),
            Err(error) => self.refute(id, error),
        }
        false
    }

    /// The peer is proven (RFC 8445 §7.2.5.3).
    fn succeed(&mut self, id: ConnId, pending: Pending, mapped: SocketAddr) -> bool {
        let local = self.links.conns.standing(id).map(|standing| standing.local);
        let seen = local.and_then(|local| self.sides.own.candidate_seen_as(mapped, local));
        if let Some(pair) = self.links.pair_of(id) {
            if let (Way::Passive, Some(seen)) = (&pair.way, seen) {
                pair.local = seen;
            }
            pair.enter(self.now, PairState::Succeeded);
        }
        if let Some(standing) = self.links.conns.standing_mut(id) {
            standing.prove(self.now, pending);
        }
        pending.nominates || self.is_taken(id)
    }

    /// Whether the controlling peer has nominated a connection, and this side's check is answered too.
    fn is_taken(&self, id: ConnId) -> bool {
        self.role.get() == Role::Controlled && self.links.conns.get(id).is_some_and(Conn::is_taken)
    }

    /// The peer has answered that both have the same role (RFC 8445 §7.2.5.1).
    fn give_way(&mut self, id: ConnId, pending: Pending) {
        self.means.out.counters.role_conflicts += 1;
        if pending.role == self.role.get() && !self.role.give_way(&mut self.means.random) {
            self.close(id);
            return;
        }
        self.count_nuisance(id);
        self.send(id, false);
    }

    fn attach(&mut self, id: ConnId, priority: Priority) -> bool {
        self.links.attach(self.now, self.means, self.sides, self.role.get(), id, priority)
    }

    /// Counts what is no harm by itself.
    fn count_nuisance(&mut self, id: ConnId) {
        self.means.out.counters.ignored += 1;
        let Some(standing) = self.links.conns.standing_mut(id) else { return };
        standing.nuisances += 1;
        if standing.nuisances > MAX_NUISANCES {
            self.close(id);
        }
    }

    /// Counts what proves that somebody else is there, or that the peer misbehaves, and closes the connection.
    fn refute(&mut self, id: ConnId, error: BindingError) {
        match error {
            BindingError::Garbage => self.means.out.counters.garbage += 1,
            BindingError::Unauthentic => self.means.out.counters.unauthentic += 1,
        }
        self.close(id);
    }

    fn close(&mut self, id: ConnId) {
        self.links.close(self.now, self.means, id, Gone::Disproven);
    }
}
