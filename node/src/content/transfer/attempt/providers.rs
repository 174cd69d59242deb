//! The providers that an attempt knows, and over which session it asks each.
//!
//! What it is not: the choice of who is asked for what, or a judgement of what they send.

use std::collections::{HashMap, HashSet};

use keyferry_proto::transfer::schedule::ProviderId;

use crate::net::session::{PeerName, Session};

/// The providers of an attempt.
#[derive(Default)]
pub(super) struct Providers {
    sessions: HashMap<ProviderId, Session>,
    next: u64,
    /// Those whose sessions were lost, and who may be back.
    away: HashSet<PeerName>,
}

impl Providers {
    /// The session over which a provider is asked, if it still has one.
    pub(super) fn session(&self, id: ProviderId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// Who a provider is.
    pub(super) fn name(&self, id: ProviderId) -> Option<PeerName> {
        self.sessions.get(&id).map(Session::peer_name)
    }

    /// Whether the session over which a provider is asked brings something, as far as is known.
    pub(super) fn is_alive(&self, id: ProviderId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.end().is_none() && !session.is_doubted())
    }

    /// Whether a provider's session stands.
    pub(super) fn is_connected(&self, id: ProviderId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.end().is_none())
    }

    /// The id of the next provider that is added.
    pub(super) fn next_id(&self) -> ProviderId {
        ProviderId(self.next)
    }

    /// Adds a provider, as [`Providers::next_id`].
    pub(super) fn add(&mut self, session: Session) {
        self.away.remove(&session.peer_name());
        self.sessions.insert(self.next_id(), session);
        self.next += 1;
    }

    /// Has a provider be asked over another session from now on, if that is the better one; returns whether it is.
    pub(super) fn move_to(&mut self, id: ProviderId, session: Session) -> bool {
        let Some(present) = self.sessions.get_mut(&id) else { return false };
        let may_be_lost = present.end().is_some() || present.is_doubted();
        if !may_be_lost && (session.path().kind.is_relayed() || !present.path().kind.is_relayed()) {
            return false;
        }
        tracing::info!(path = %session.path(), instead_of = %present.path(), "a provider is asked over another session");
        self.away.remove(&session.peer_name());
        *present = session;
        true
    }

    /// Forgets those whose sessions have ended, except those with requests under way.
    pub(super) fn forget_ended(&mut self, busy: &HashSet<ProviderId>) {
        self.sessions.retain(|id, session| busy.contains(id) || session.end().is_none());
    }

    /// Forgets a provider that is of no use.
    pub(super) fn give_back(&mut self, id: ProviderId) {
        self.sessions.remove(&id);
    }

    /// Forgets a provider.
    pub(super) fn remove(&mut self, name: &PeerName) {
        self.sessions.retain(|_, session| session.peer_name() != *name);
    }

    /// Notes that the session of a provider was lost, which may be back.
    pub(super) fn lose(&mut self, name: PeerName) {
        self.away.insert(name);
    }

    pub(super) fn is_away(&self, name: &PeerName) -> bool {
        self.away.contains(name)
    }

    /// Whether anybody may be back. One that is connected and gives nothing gives nothing later either; one whose session
    /// ended may.
    pub(super) fn may_return(&self) -> bool {
        !self.away.is_empty() || self.sessions.values().any(|session| session.end().is_some())
    }

    /// Whether somebody was lost, and nobody is left who answers.
    pub(super) fn are_all_lost(&self) -> bool {
        let is_alive = |session: &Session| session.end().is_none() && !session.is_doubted();
        (!self.away.is_empty() || !self.sessions.is_empty()) && !self.sessions.values().any(is_alive)
    }

    /// The sessions that stand.
    pub(super) fn into_sessions(self) -> Vec<Session> {
        self.sessions.into_values().filter(|session| session.end().is_none()).collect()
    }
}
