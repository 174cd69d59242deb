//! The end of a negotiation: the selected connection, or why there is none.
//!
//! What it is not: the checks by which a connection becomes valid (`checking`), or the choice of one (`nomination`).

use std::{net::SocketAddr, time::Instant};

use super::{
    CandidateKind, ConnId, FailureReason, Output, Selected, Signal, Stream,
    links::Links,
    means::Means,
    pair::{Pair, Way},
    sides::Sides,
};

/// How far a negotiation is from its end.
#[derive(Debug)]
pub(super) struct Conclusion {
    started: Instant,
    /// Whether this side has told the peer that it has nothing left to try.
    said_exhausted: bool,
    has_ended: bool,
}

impl Conclusion {
    pub(super) fn new(started: Instant) -> Self {
        Self { started, said_exhausted: false, has_ended: false }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Ends the negotiation with this connection.
    pub(super) fn select(&mut self, now: Instant, means: &mut Means, sides: &Sides, links: &mut Links, id: ConnId) {
        let Some(conn) = links.conns.remove(id) else { return };
        let pair = conn.pair.and_then(|pair| links.checklist.get(pair));
        let (Some(standing), Some(pair)) = (conn.standing(), pair) else { return };
        // The peer may have named more candidates since it connected.
        let remote_kind = match (&pair.way, standing.answered) {
            (Way::Passive, Some(priority)) => sides.remote_of(conn.remote, priority).kind,
            (Way::Passive | Way::Active | Way::SimultaneousOpen(_), _) => pair.remote.kind,
        };
        let selected = Selected {
            conn: id,
            remote: conn.remote,
            local_kind: pair.local.candidate.kind,
            remote_kind,
            strategy: standing.strategy,
            relay: relay_of(pair),
            took: now.saturating_duration_since(self.started),
            round_trip: standing.round_trip.unwrap_or_default(),
        };
        self.finish(means, links, Output::Selected(selected));
    }

    /// Fails when the time is up.
    pub(super) fn fail_if_late(&mut self, now: Instant, means: &mut Means, sides: &Sides, links: &mut Links) {
        if sides.peer.as_ref().is_some_and(|peer| now >= peer.deadline) {
            let is_exhausted = sides.are_complete() && links.are_exhausted();
            let reason = if is_exhausted { failure(sides, links) } else { FailureReason::Deadline };
            self.finish(means, links, Output::Failed(reason));
        }
    }

    /// Tells the peer when nothing is left to try, and fails when both sides have said so.
    pub(super) fn fail_if_exhausted(&mut self, means: &mut Means, sides: &Sides, links: &mut Links) {
        if !(sides.are_complete() && links.are_exhausted()) {
            return;
        }
        if !std::mem::replace(&mut self.said_exhausted, true) {
            means.out.push(Output::Signal(Signal::Exhausted));
        }
        if sides.peer.as_ref().is_some_and(|peer| peer.exhausted) {
            self.finish(means, links, Output::Failed(failure(sides, links)));
        }
    }

    /// The last outputs: how it ended, and the end of all other connections.
    fn finish(&mut self, means: &mut Means, links: &mut Links, last: Output) {
        self.has_ended = true;
        means.out.push(last);
        links.conns.clear().for_each(|conn| means.out.push(Output::Close { conn }));
    }
}

/// The relayed address of this side that is the end of a pair, or else that of the peer.
fn relay_of(pair: &Pair) -> Option<SocketAddr> {
    let is_relayed = |kind| kind == CandidateKind::Relayed;
    let own = is_relayed(pair.local.candidate.kind).then_some(pair.local.base);
    own.or(is_relayed(pair.remote.kind).then_some(pair.remote.addr))
}

/// Why there is no path, as far as this side can tell.
fn failure(sides: &Sides, links: &Links) -> FailureReason {
    let stream = sides.own.options.stream;
    let opens_in_turns = links.checklist.openings().next().is_some();
    match sides.map_by_destination() {
        _ if stream == Stream::Relayed && !sides.know_a_relay() => FailureReason::NoRelay,
        (true, true) if stream == Stream::Direct => FailureReason::BothMapByDestination,
        (true, false) if opens_in_turns => FailureReason::MapsByDestination,
        (false, true) if opens_in_turns => FailureReason::PeerMapsByDestination,
        _ if links.checklist.iter().next().is_none() && sides.awaited().next().is_none() => FailureReason::NoPairs,
        _ => FailureReason::NoPairWorks,
    }
}
