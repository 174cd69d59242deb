//! Who an attempt asks, and over which session.
//!
//! What it is not: the judging of what they sent (`reports`).

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use keyferry_proto::{
    identity::NodeKey,
    transfer::schedule::{HolderId, Input, RequestId, ScheduleError},
};

use super::{Attempt, RunningRequest};
use crate::{
    content::transfer::{FetchError, InternalError},
    net::session::Session,
};

/// How long a request may take to come to the end of what it is at, when its holder is asked over a better session: if the
/// path that it came by brings nothing any more, it would never.
const MOVE_PATIENCE: Duration = Duration::from_secs(1);

impl Attempt {
    /// Takes a session with a node that may have the content.
    pub(super) fn add_holder(&mut self, now: Instant, session: Session) -> Result<(), FetchError> {
        let peer = session.peer();
        if self.ledger.banned.contains(&peer) {
            tracing::debug!("a holder that lied is not asked again");
            return Ok(());
        }
        if let Some(id) = self.known_holder(&peer) {
            return self.move_holder(now, id, session);
        }
        let busy: HashSet<HolderId> = self.requests.values().map(|running| running.holder).collect();
        self.holders.retain(|id, session| busy.contains(id) || session.end().is_none());
        let id = HolderId(self.next_holder);
        match self.schedule.handle_input(now, Input::HolderAdded(id)) {
            Err(error @ ScheduleError::TooManyHolders { .. }) => {
                tracing::debug!(%error, "one more holder is left alone");
                return Ok(());
            }
            other => other.map_err(InternalError::from)?,
        }
        self.next_holder += 1;
        self.may_return.remove(&peer);
        self.holders.insert(id, session);
        Ok(())
    }

    /// The holder that a node is, if it can be asked.
    fn known_holder(&self, peer: &NodeKey) -> Option<HolderId> {
        self.schedule.holders().find(|id| self.holders.get(id).is_some_and(|session| session.peer() == *peer))
    }

    /// Asks a holder over another session from now on, if that is the better one.
    fn move_holder(&mut self, now: Instant, id: HolderId, session: Session) -> Result<(), FetchError> {
        let Some(present) = self.holders.get_mut(&id) else { return Ok(()) };
        let is_lost = present.end().is_some();
        if !is_lost && (session.path().kind.is_relayed() || !present.path().kind.is_relayed()) {
            return Ok(());
        }
        tracing::info!(path = %session.path(), instead_of = %present.path(), "a holder is asked over another session");
        self.may_return.remove(&session.peer());
        *present = session;
        for running in self.requests.values_mut().filter(|running| running.holder == id) {
            running.moved.get_or_insert(now);
        }
        self.input_at(now, Input::HolderMoved(id))
    }

    /// Ends the requests over sessions that were left and bring nothing more. They tell what they have verified before they
    /// report their end.
    pub(super) fn end_moved(&self) {
        let now = Instant::now();
        let late = |moved: Instant| now.saturating_duration_since(moved) >= MOVE_PATIENCE;
        let is_late = |(id, running): &(&RequestId, &RunningRequest)| {
            running.moved.is_some_and(late) && self.planning != Some((running.holder, **id))
        };
        self.requests.iter().filter(is_late).for_each(|(_, running)| running.cancel.cancel());
    }

    /// Never asks a node again, whatever session it comes by.
    pub(super) fn ban(&mut self, peer: NodeKey) {
        self.ledger.banned.insert(peer);
        self.holders.retain(|_, session| session.peer() != peer);
    }
}
