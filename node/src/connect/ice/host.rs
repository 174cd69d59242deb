//! The running negotiations of a node: the direct ones by username fragment, under which connections come in at its port.
//!
//! What it is not: beginning or running one (`negotiation`, `run`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use keyferry_ice::{Config, addressed_ufrag};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::{Inbound, relaying::MAX_ALLOCATIONS};
use crate::{base::counters::counters, reach::gather::Gathered};

/// Negotiations that may run at once, of each stream.
pub const MAX_NEGOTIATIONS: usize = 64;
/// Connections that may wait for one negotiation to look at them.
const MAX_WAITING_INBOUND: usize = 16;

/// Too many negotiations run at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node is looking for {MAX_NEGOTIATIONS} paths already")]
pub struct TooManyNegotiations;

/// What all negotiations of a node share: its candidates, and places among the running ones.
#[derive(Debug)]
pub struct IceHost {
    pub(super) gathered: watch::Receiver<Gathered>,
    pub(super) config: Config,
    running: Mutex<HashMap<String, mpsc::Sender<Inbound>>>,
    /// Places of relayed negotiations.
    relayed: Arc<Semaphore>,
    /// Places of allocations on relays.
    pub(super) allocations: Arc<Semaphore>,
    pub(super) counters: IceCounters,
}

counters! {
    /// What has become of negotiations, and of what came in for them.
    pub struct IceCounters {
        /// Negotiations begun.
        pub begun = "ice_begun",
        /// Negotiations that found a path.
        pub found = "ice_found",
        /// Negotiations that found none.
        pub failed = "ice_failed",
        /// Connections tried.
        pub connects = "ice_connects",
        /// Those of them that open a NAT for the peer.
        pub opening_syns = "ice_opening_syns",
        /// Connections of peers taken in.
        pub accepted = "ice_accepted",
        /// Connections of peers closed at once.
        pub refused_connections = "ice_refused_connections",
        /// Candidates of peers left out.
        pub refused_candidates = "ice_refused_candidates",
        /// Signals of peers not acted upon.
        pub refused_signals = "ice_refused_signals",
    }
}

/// Why a connection is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unclaimed {
    /// Its first message is no check.
    Malformed,
    /// No negotiation has that username fragment any more, or none ever had.
    UnknownNegotiation,
    /// The negotiation has enough connections.
    Full,
}

impl IceHost {
    /// Makes a host without negotiations. They tell their peers what is in `gathered`, now and later.
    pub fn new(gathered: watch::Receiver<Gathered>, config: Config) -> Arc<Self> {
        Arc::new(Self {
            gathered,
            config,
            running: Mutex::default(),
            relayed: Arc::new(Semaphore::new(MAX_NEGOTIATIONS)),
            allocations: Arc::new(Semaphore::new(MAX_ALLOCATIONS)),
            counters: IceCounters::default(),
        })
    }

    /// Takes a place among the direct negotiations: from now on connections that name this username fragment are its own.
    pub(super) fn register(
        self: &Arc<Self>,
        ufrag: &str,
    ) -> Result<(Registration, mpsc::Receiver<Inbound>), TooManyNegotiations> {
        let (sender, inbound) = mpsc::channel(MAX_WAITING_INBOUND);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.len() >= MAX_NEGOTIATIONS || running.contains_key(ufrag) {
            return Err(TooManyNegotiations);
        }
        running.insert(ufrag.to_owned(), sender);
        drop(running);
        self.counters.begun.add_one();
        Ok((Registration { host: Arc::clone(self), ufrag: ufrag.to_owned() }, inbound))
    }

    /// Takes a place among the relayed negotiations.
    pub(super) fn register_relayed(&self) -> Result<OwnedSemaphorePermit, TooManyNegotiations> {
        let place = Arc::clone(&self.relayed).try_acquire_owned().map_err(|_| TooManyNegotiations)?;
        self.counters.begun.add_one();
        Ok(place)
    }

    /// Gives a connection to the negotiation whose username fragment its first check names: the part of the USERNAME
    /// before the colon (RFC 8445 §7.2.2).
    pub(crate) fn hand_over(&self, inbound: Inbound) -> Result<(), Unclaimed> {
        let ufrag = addressed_ufrag(&inbound.first_check).ok_or(Unclaimed::Malformed)?;
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let negotiation = running.get(&ufrag).ok_or(Unclaimed::UnknownNegotiation)?;
        negotiation.try_send(inbound).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unclaimed::Full,
            mpsc::error::TrySendError::Closed(_) => Unclaimed::UnknownNegotiation,
        })
    }

    /// What has happened.
    pub fn counters(&self) -> &IceCounters {
        &self.counters
    }
}

/// A negotiation's place among the running ones; given back when dropped.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) host: Arc<IceHost>,
    ufrag: String,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.host.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.ufrag);
    }
}
