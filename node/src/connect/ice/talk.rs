//! What differs between the negotiations of the two streams: where connections of the peer arrive, and when the two sides
//! describe themselves.
//!
//! What it is not: the course of a negotiation, which is `run`.

use std::{future::pending, time::Duration};

use keyferry_ice::{Description, Signal, Stream};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Dialogue, Inbound, RelayedDialogue, host::Registration, relaying::Relaying};

/// Where connections of the peer arrive.
pub(super) enum PeerArrivals {
    /// At the node's port.
    Port { inbound: mpsc::Receiver<Inbound>, _registration: Registration },
    /// At relays.
    Relays(Relaying),
}

impl PeerArrivals {
    pub(super) fn stream(&self) -> Stream {
        match self {
            Self::Port { .. } => Stream::Direct,
            Self::Relays(_) => Stream::Relayed,
        }
    }
}

/// How the negotiation talks to that of the peer.
pub(super) struct Talk {
    pub(super) remote: Remote,
    /// Takes this side's description, where it has not been told yet.
    pub(super) describe: Option<oneshot::Sender<Description>>,
    pub(super) round_trip: watch::Receiver<Duration>,
    pub(super) outgoing: mpsc::Sender<Signal>,
    pub(super) incoming: mpsc::Receiver<Signal>,
}

/// The peer's description.
pub(super) enum Remote {
    Known(Description),
    Awaited(oneshot::Receiver<Description>),
    Taken,
}

impl Remote {
    /// Waits for the description, if it is still to come. `None`: there will be none. Cancel-safe.
    pub(super) async fn described(&mut self) -> Option<Description> {
        match self {
            Self::Awaited(described) => described.await.ok(),
            Self::Known(_) | Self::Taken => pending().await,
        }
    }
}

impl From<Dialogue> for Talk {
    fn from(dialogue: Dialogue) -> Self {
        let Dialogue { remote, round_trip, outgoing, incoming } = dialogue;
        Self { remote: Remote::Known(remote), describe: None, round_trip, outgoing, incoming }
    }
}

impl From<RelayedDialogue> for Talk {
    fn from(dialogue: RelayedDialogue) -> Self {
        let RelayedDialogue { known: _, remote, describe, round_trip, outgoing, incoming } = dialogue;
        Self { remote: Remote::Awaited(remote), describe: Some(describe), round_trip, outgoing, incoming }
    }
}
