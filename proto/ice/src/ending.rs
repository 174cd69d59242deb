//! The part of the agent that ends a negotiation: taking a nomination, the selected pair, and failing early.
//!
//! What it is not: the checks by which a connection becomes valid, or the choice of one (`nomination`).

use std::{net::SocketAddr, time::Instant};

use super::{
    Agent, ConnId, FailureReason, Mapping, Output, Role, Selected, Signal, Stream,
    pair::{Pair, Way},
};
use crate::candidate::CandidateKind;

/// How far the end has come.
#[derive(Debug, Default)]
pub(super) struct End {
    /// When there was a valid connection for the first time.
    pub(super) first_valid: Option<Instant>,
    /// The connection on which a nominating check is under way.
    pub(super) nominating: Option<ConnId>,
    /// Whether the peer has been told that nothing is left to try.
    said_exhausted: bool,
    pub(super) has_ended: bool,
}

impl End {
    /// Whether a nominating check is under way: nothing new is begun then.
    pub(super) fn is_nominating(&self) -> bool {
        self.nominating.is_some()
    }

    /// A connection is no more, or its nomination has come to nothing.
    pub(super) fn forget(&mut self, conn: ConnId) {
        if self.nominating == Some(conn) {
            self.nominating = None;
        }
    }
}

impl Agent {
    pub(super) fn has_ended(&self) -> bool {
        self.end.has_ended
    }

    /// Takes the pair that the controlling peer has nominated, once this side's check is answered too.
    pub(super) fn take_if_nominated(&mut self, now: Instant, id: ConnId) {
        let is_taken = self.conns.get(&id).is_some_and(|conn| {
            conn.is_valid()
                && conn.standing().is_some_and(|standing| standing.is_nominated && standing.pending.is_none())
        });
        if is_taken && self.role == Role::Controlled {
            self.select(id, now);
        }
    }

    /// Ends the negotiation with this connection.
    pub(super) fn select(&mut self, id: ConnId, now: Instant) {
        let Some(conn) = self.conns.remove(&id) else { return };
        let (Some(standing), Some(pair)) = (conn.standing(), conn.pair.and_then(|pair| self.checklist.get(pair)))
        else {
            return;
        };
        // By now more candidates of the peer may be known than when it connected.
        let remote_kind = match pair.way {
            Way::Passive => self.remote_of(conn.remote, standing.priority).kind,
            Way::Active | Way::SimultaneousOpen(_) => pair.remote.kind,
        };
        let selected = Selected {
            conn: id,
            remote: conn.remote,
            local_kind: pair.local.candidate.kind,
            remote_kind,
            strategy: standing.strategy,
            relay: self.relay_of(pair),
            took: now.saturating_duration_since(self.started),
            round_trip: standing.round_trip.unwrap_or_default(),
        };
        self.finish(Output::Selected(selected));
    }

    /// The relayed address of this side that is the end of a pair, or else that of the peer.
    fn relay_of(&self, pair: &Pair) -> Option<SocketAddr> {
        let is_relayed = |kind| kind == CandidateKind::Relayed;
        let own = is_relayed(pair.local.candidate.kind).then_some(pair.local.base);
        own.or(is_relayed(pair.remote.kind).then_some(pair.remote.addr))
    }

    /// Fails when time is over.
    pub(super) fn end_if_late(&mut self, now: Instant) {
        if self.peer.as_ref().is_some_and(|peer| now >= peer.deadline) {
            let reason = if self.is_exhausted() { self.failure() } else { FailureReason::Deadline };
            self.finish(Output::Failed(reason));
        }
    }

    /// Tells the peer when nothing is left to try, and fails when both sides have said so.
    pub(super) fn end_if_exhausted(&mut self) {
        if self.has_ended() || !self.is_exhausted() {
            return;
        }
        if !std::mem::replace(&mut self.end.said_exhausted, true) {
            self.outputs.push_back(Output::Signal(Signal::Exhausted));
        }
        if self.peer.as_ref().is_some_and(|peer| peer.exhausted) {
            self.finish(Output::Failed(self.failure()));
        }
    }

    fn is_exhausted(&self) -> bool {
        let knows_all = self.local_complete && self.peer.as_ref().is_some_and(|peer| peer.complete);
        knows_all && self.conns.is_empty() && self.checklist.iter().all(|(_, pair)| pair.is_over())
    }

    /// The peer will not act any more, so it is of no use to wait for its turns.
    pub(super) fn peer_is_exhausted(&mut self) {
        if let Some(peer) = &mut self.peer {
            peer.exhausted = true;
        }
        for (_, pair) in self.checklist.iter_mut() {
            if let Way::SimultaneousOpen(opening) = &mut pair.way {
                opening.peer_is_exhausted();
            }
        }
    }

    /// Why there is no path, as far as this side can tell.
    fn failure(&self) -> FailureReason {
        let peer = self.peer.as_ref().map(|peer| peer.mapping);
        let is_dependent = |mapping| mapping == Mapping::EndpointDependent;
        match (is_dependent(self.options.mapping), peer.is_some_and(is_dependent)) {
            _ if self.options.stream == Stream::Relayed && !self.is_any_relay_known() => FailureReason::NoRelay,
            (true, true) if self.options.stream == Stream::Direct => FailureReason::BothMapByDestination,
            (true, false) if self.checklist.openings().next().is_some() => FailureReason::MapsByDestination,
            (false, true) if self.checklist.openings().next().is_some() => FailureReason::PeerMapsByDestination,
            _ if self.checklist.iter().next().is_none() && self.awaited().next().is_none() => FailureReason::NoPairs,
            _ => FailureReason::NoPairWorks,
        }
    }

    fn is_any_relay_known(&self) -> bool {
        let own = self.local.iter().map(|own| own.candidate.kind);
        let theirs = self.peer.iter().flat_map(|peer| &peer.candidates).map(|other| other.kind);
        own.chain(theirs).any(|kind| kind == CandidateKind::Relayed)
    }

    /// The last outputs: how it ended, and the end of all other connections.
    fn finish(&mut self, last: Output) {
        self.end.has_ended = true;
        self.outputs.push_back(last);
        let others = std::mem::take(&mut self.conns);
        self.outputs.extend(others.into_keys().map(|conn| Output::Close { conn }));
    }
}
