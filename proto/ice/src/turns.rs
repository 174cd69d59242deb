//! The turns of pairs that open simultaneously, carried out: attempts and signals as [`Opening`] says.
//!
//! What it is not: whose turn it is, and for how long (`opening`).
//!
//! [`Opening`]: super::opening::Opening

use std::time::Instant;

use super::{
    ConnectMethod, LocalCandidate, OpenTurn, Output, Signal, SignalError,
    links::Links,
    means::Means,
    opening::OpeningStep,
    pair::{PairId, Way},
};

/// Does what is due in the turns of each pair.
pub(super) fn take_due(now: Instant, means: &mut Means, links: &mut Links) {
    for id in links.checklist.openings().collect::<Vec<_>>() {
        while let Some(step) = next_step(now, means, links, id) {
            take_step(now, means, links, id, step);
        }
    }
}

/// Acts on a turn of the peer, if it is one of a pair. `crosses`: the peer will connect at the same time.
pub(super) fn follow(
    now: Instant,
    means: &mut Means,
    links: &mut Links,
    local: &[LocalCandidate],
    turn: OpenTurn,
    crosses: bool,
) -> Result<(), SignalError> {
    let timing = means.timing();
    let id = links.checklist.find_opening(local, turn.sender, turn.receiver).ok_or(SignalError::UnknownPair)?;
    let Some(Way::SimultaneousOpen(opening)) = links.checklist.get_mut(id).map(|pair| &mut pair.way) else {
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
        take_step(now, means, links, id, step);
    }
    Ok(())
}

fn next_step(now: Instant, means: &mut Means, links: &mut Links, id: PairId) -> Option<OpeningStep> {
    let timing = means.timing();
    match &mut links.checklist.get_mut(id)?.way {
        Way::SimultaneousOpen(opening) => opening.step(now, timing, |around| means.random.jitter(around)),
        Way::Active | Way::Passive => None,
    }
}

fn take_step(now: Instant, means: &mut Means, links: &mut Links, id: PairId, step: OpeningStep) {
    match step {
        OpeningStep::Open { ttl } => connect(now, means, links, id, ConnectMethod::Opening { ttl }),
        OpeningStep::Connect => connect(now, means, links, id, ConnectMethod::Plain),
        OpeningStep::TellOpened { round, ttl } => tell(means, turn_of(links, id, round, ttl).map(Signal::Opened)),
        OpeningStep::TellCross { round, after } => {
            tell(means, turn_of(links, id, round, 0).map(|turn| Signal::Cross { turn, after }));
        }
        OpeningStep::GiveUp => links.fail(now, means, id),
    }
}

/// Makes a new attempt at a pair in the place of the one that there is: both would have the same addresses.
fn connect(now: Instant, means: &mut Means, links: &mut Links, id: PairId, method: ConnectMethod) {
    links.drop_attempt(means, id);
    links.connect(now, means, id, method, None);
}

fn tell(means: &mut Means, signal: Option<Signal>) {
    means.out.counters.rounds += 1;
    if let Some(signal) = signal {
        means.out.push(Output::Signal(signal));
    }
}

fn turn_of(links: &Links, id: PairId, round: u8, ttl: u8) -> Option<OpenTurn> {
    let pair = links.checklist.get(id)?;
    Some(OpenTurn { round, sender: pair.local.candidate.addr, receiver: pair.remote.addr, ttl })
}
