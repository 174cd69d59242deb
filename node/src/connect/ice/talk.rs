//! How a negotiation talks to that of the peer: the peer's description, signals both ways, and how long they take.
//!
//! What it is not: what the signals mean, which is the agent's, or which of them it gets to see (`admission`).

use std::{collections::VecDeque, future::pending, time::Duration};

use keyferry_ice::{Description, Signal};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{Dialogue, RelayedDialogue};

/// Signals that may wait for the signalling channel. More is a peer, or a path, that has stopped taking them.
const MAX_UNSENT_SIGNALS: usize = 64;
/// How long to wait for a path after the peer has hung up, beyond two round trips: if the peer has found one, its last check is
/// under way, and may have to be sent again.
const HANG_UP_PATIENCE: Duration = Duration::from_secs(1);

/// The talk with the peer's negotiation.
pub(super) struct Talk {
    remote: Remote,
    round_trip: watch::Receiver<Option<Duration>>,
    /// Whether `round_trip` may still change.
    measuring: bool,
    outgoing: mpsc::Sender<Signal>,
    unsent: VecDeque<Signal>,
    incoming: mpsc::Receiver<Signal>,
    /// Once the peer has hung up: until when a path may still come about.
    hung_up: Option<Instant>,
}

/// The peer's description.
enum Remote {
    Known(Description),
    Awaited(oneshot::Receiver<Description>),
    Taken,
}

/// What has happened on the signalling channel.
pub(super) enum TalkEvent {
    /// The peer has described itself.
    Described(Description),
    /// The peer's agent signals.
    Signal(Signal),
    /// A signal takes this long to the peer and back.
    RoundTrip(Duration),
    /// A signal of this side has left.
    Sent,
    /// The peer has hung up.
    HungUp,
}

impl Talk {
    /// The talk of a relayed stream, and what takes this side's description.
    pub(super) fn in_relayed(dialogue: RelayedDialogue) -> (Self, oneshot::Sender<Description>) {
        let RelayedDialogue { known: _, remote, describe, round_trip, outgoing, incoming } = dialogue;
        (Self::new(Remote::Awaited(remote), round_trip, outgoing, incoming), describe)
    }

    fn new(
        remote: Remote,
        round_trip: watch::Receiver<Option<Duration>>,
        outgoing: mpsc::Sender<Signal>,
        incoming: mpsc::Receiver<Signal>,
    ) -> Self {
        Self { remote, round_trip, measuring: true, outgoing, unsent: VecDeque::new(), incoming, hung_up: None }
    }

    /// The peer's description, if the call has brought it already.
    pub(super) fn take_description(&mut self) -> Option<Description> {
        match std::mem::replace(&mut self.remote, Remote::Taken) {
            Remote::Known(remote) => Some(remote),
            other => {
                self.remote = other;
                None
            }
        }
    }

    /// Whether the peer is still to describe itself.
    pub(super) fn awaits_description(&self) -> bool {
        matches!(self.remote, Remote::Awaited(_))
    }

    /// How long a signal takes to the peer and back, if that was measured by now.
    pub(super) fn round_trip(&mut self) -> Option<Duration> {
        *self.round_trip.borrow_and_update()
    }

    /// Sends a signal as soon as the channel takes it.
    pub(super) fn say(&mut self, signal: Signal) {
        self.unsent.push_back(signal);
    }

    /// Whether the channel takes too few signals.
    pub(super) fn is_stuck(&self) -> bool {
        self.unsent.len() > MAX_UNSENT_SIGNALS
    }

    /// Gives the last signals to the channel, as far as it takes them at once: the negotiation is over.
    pub(super) fn say_what_is_unsent(&mut self) {
        for signal in self.unsent.drain(..) {
            if self.outgoing.try_send(signal).is_err() {
                return;
            }
        }
    }

    /// When it is of no use any more to wait for a path, because the peer has hung up.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.hung_up
    }

    /// Waits for the next event. Cancel-safe.
    pub(super) async fn next(&mut self) -> TalkEvent {
        let talks = self.hung_up.is_none();
        let is_described = matches!(self.remote, Remote::Taken);
        let event = tokio::select! {
            remote = self.remote.described(), if talks => {
                self.remote = Remote::Taken;
                remote.map(TalkEvent::Described)
            }
            signal = self.incoming.recv(), if talks && is_described => signal.map(TalkEvent::Signal),
            permit = self.outgoing.reserve(), if talks && !self.unsent.is_empty() => permit.ok().map(|permit| {
                if let Some(signal) = self.unsent.pop_front() {
                    permit.send(signal);
                }
                TalkEvent::Sent
            }),
            round_trip = changed(&mut self.round_trip, &mut self.measuring) => Some(TalkEvent::RoundTrip(round_trip)),
        };
        event.unwrap_or_else(|| {
            self.remote = Remote::Taken;
            self.hung_up = Some(Instant::now() + HANG_UP_PATIENCE + 2 * self.round_trip.borrow().unwrap_or_default());
            TalkEvent::HungUp
        })
    }
}

impl From<Dialogue> for Talk {
    fn from(dialogue: Dialogue) -> Self {
        let Dialogue { remote, round_trip, outgoing, incoming } = dialogue;
        Self::new(Remote::Known(remote), round_trip, outgoing, incoming)
    }
}

impl Remote {
    /// Waits for the description, if it is still to come. `None`: there will be none. Cancel-safe.
    async fn described(&mut self) -> Option<Description> {
        match self {
            Self::Awaited(described) => described.await.ok(),
            Self::Known(_) | Self::Taken => pending().await,
        }
    }
}

/// Waits until a round trip has been measured. Cancel-safe; never returns when none will be any more.
async fn changed(round_trip: &mut watch::Receiver<Option<Duration>>, measuring: &mut bool) -> Duration {
    if *measuring && round_trip.changed().await.is_ok() {
        let measured = *round_trip.borrow_and_update();
        if let Some(round_trip) = measured {
            return round_trip;
        }
    }
    *measuring = false;
    pending().await
}
