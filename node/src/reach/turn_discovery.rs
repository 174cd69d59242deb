//! Finding relays: a node that may need one looks for TURN relays of other nodes, and keeps the leave to use a few of them at hand.
//!
//! ```text
//! DHT: relays of contacts, relays for everyone ─▶ candidates ─▶ asked for credentials ─▶ found ─▶ renewed, or dropped
//! ```
//! The search begins when relays are wanted for the first time, or when the node turns out to be unreachable: then it should have them
//! before it needs them. Relays of contacts come first, then peers that are connected already; among equals chance decides, which
//! spreads the load.
//!
//! What it is not: the use of a relay, or the ones that the owner has configured. The rendezvous carries the requests
//! ([`Rendezvous::ask_relay`]).

mod addresses;
mod pool;
mod search;
mod task;

use libp2p::PeerId;
use tokio::sync::{mpsc, watch};

use self::task::{FindingTask, Wish};
pub use self::{
    pool::{FoundRelay, MAX_FOUND},
    task::FindingConfig,
};
use crate::reach::rendezvous::Rendezvous;

/// How many wishes may wait for the task; more would say nothing new.
const WISHES: usize = 32;

/// The handle to the task that finds relays. The task ends with the last handle, or with the rendezvous.
#[derive(Debug, Clone)]
pub struct RelayFinding {
    found: watch::Receiver<Vec<FoundRelay>>,
    wishes: mpsc::Sender<Wish>,
}

impl RelayFinding {
    /// Starts the task.
    pub fn spawn(config: FindingConfig, rendezvous: Rendezvous) -> Self {
        let (wishes, wish_receiver) = mpsc::channel(WISHES);
        let (found_sender, found) = watch::channel(Vec::new());
        tokio::spawn(FindingTask::new(config, rendezvous, wish_receiver, found_sender).run());
        Self { found, wishes }
    }

    /// The relays that can be used now, those of contacts first, as they change.
    pub fn found(&self) -> watch::Receiver<Vec<FoundRelay>> {
        self.found.clone()
    }

    /// Says that relays are wanted now: looks for some if there are none.
    pub fn want(&self) {
        // What waits says the same.
        let _ = self.wishes.try_send(Wish::Wanted);
    }

    /// Says that a relay cannot be used: it is dropped, and left alone for a time.
    pub fn lost(&self, peer: PeerId) {
        let _ = self.wishes.try_send(Wish::Lost(peer));
    }
}
