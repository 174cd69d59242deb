//! Finding relays: a node that may need one looks for TURN relays of other nodes, and has leave to use a few of them at hand.
//!
//! ```text
//! DHT: relays of contacts, relays for everyone ─▶ candidates ─▶ asked for credentials ─▶ found ─▶ renewed, or dropped
//! ```
//! Nothing is looked up before relays are wanted for the first time, or the node turns out not to be reachable: then they
//! are to be at hand before they are needed. Relays of contacts come first, then peers that are connected already; among
//! equals chance decides, so that the load is spread.
//!
//! What it is not: the use of a relay, or the ones that the owner has configured. The rendezvous carries what is asked
//! ([`Rendezvous::ask_relay`]).

mod addresses;
mod pool;
mod search;
mod task;

use std::net::SocketAddr;

use keyferry_proto::{
    identity::{NodeKey, NodeSecret},
    relaying::RelayCredentials,
};
use libp2p::PeerId;
use tokio::sync::{mpsc, watch};

use self::task::FindingTask;
use crate::{base::data_dir::ContactsFile, reach::rendezvous::Rendezvous};

/// Relays that are kept at hand.
pub const MAX_FOUND: usize = 4;

/// Wishes that may wait for the task; more say nothing new.
const WISHES: usize = 32;

/// How relays are found.
#[derive(Debug, Clone)]
pub struct FindingConfig {
    /// The node, as which relays of contacts are asked.
    pub secret: NodeSecret,
    /// Whose relays are asked first.
    pub contacts: ContactsFile,
    /// Whether contacts may learn that this node is where it is. Otherwise only relays for everyone are asked, as nobody in
    /// particular.
    pub introduces_itself: bool,
}

/// A relay that has given this node leave to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundRelay {
    /// Its rendezvous peer.
    pub peer: PeerId,
    /// The contact whose relay it says to be; none for one that is for everyone.
    pub whose: Option<NodeKey>,
    /// Where it is, on the one port of its node, the surest first; never empty, and each may be dialled.
    pub addrs: Vec<SocketAddr>,
    /// What it has issued. New credentials come before these are void. Their addresses are the relay's word; `addrs` are to
    /// be used.
    pub credentials: RelayCredentials,
}

/// The handle to the task that finds relays. The task ends with the last handle, or with the rendezvous.
#[derive(Debug, Clone)]
pub struct RelayFinding {
    found: watch::Receiver<Vec<FoundRelay>>,
    wishes: mpsc::Sender<Wish>,
}

/// What a handle tells the task.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Wanted,
    Lost(PeerId),
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

impl std::fmt::Debug for FoundRelay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FoundRelay")
            .field("peer", &self.peer)
            .field("addrs", &self.addrs)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}
