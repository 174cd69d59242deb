//! This side's addresses in one negotiation: the candidates that its agent knows, and what the peer connects to them.
//!
//! What it is not: gathering candidates, or asking for allocations (`relaying`).

use std::{
    future::{pending, poll_fn},
    net::SocketAddr,
};

use keyferry_ice::{Candidate, LocalCandidate, Stream};
use tokio::sync::{mpsc, watch};

use super::{
    Inbound,
    host::Registration,
    relaying::{HeldAllocation, RelayEvent, Relaying},
};
use crate::{net::path::PathStream, reach::gather::Gathered};

/// Where connections of the peer arrive.
pub(super) enum PeerArrivals {
    /// At the node's port.
    Port { inbound: mpsc::Receiver<Inbound>, _registration: Registration },
    /// At relays.
    Relays(Relaying),
}

/// What has happened where connections of the peer arrive.
pub(super) enum ArrivalEvent {
    /// The peer has connected: to the node's port, with a first check, or to a relayed address.
    Connected { stream: PathStream, local: SocketAddr, remote: SocketAddr, first_check: Option<Vec<u8>> },
    /// There is one allocation more, or there will be no more.
    Allocated,
    /// Nothing can arrive any more.
    Closed,
}

/// The candidates of this side that the agent knows, and those that it has yet to be told.
#[derive(Debug)]
pub(super) struct OwnCandidates {
    told: Vec<LocalCandidate>,
    gathered: watch::Receiver<Gathered>,
    /// Whether `gathered` may still change.
    gathering: bool,
}

impl PeerArrivals {
    pub(super) fn stream(&self) -> Stream {
        match self {
            Self::Port { .. } => Stream::Direct,
            Self::Relays(_) => Stream::Relayed,
        }
    }

    /// Waits for the next connection of the peer. Cancel-safe.
    pub(super) async fn next(&mut self) -> ArrivalEvent {
        match self {
            Self::Port { inbound, .. } => match inbound.recv().await {
                Some(Inbound { stream, remote, local, first_check }) => {
                    ArrivalEvent::Connected { stream, local, remote, first_check: Some(first_check) }
                }
                None => ArrivalEvent::Closed,
            },
            Self::Relays(relaying) => match poll_fn(|cx| relaying.poll_event(cx)).await {
                RelayEvent::Allocated => ArrivalEvent::Allocated,
                RelayEvent::Accepted { stream, relayed, remote } => {
                    ArrivalEvent::Connected { stream, local: relayed, remote, first_check: None }
                }
            },
        }
    }

    /// Has the relays let in the peer.
    pub(super) fn permit(&mut self, candidates: &[Candidate]) {
        if let Self::Relays(relaying) = self {
            relaying.permit(candidates.iter().map(|candidate| candidate.addr.ip()));
        }
    }

    /// Takes out the allocation of a relayed address: a path needs it.
    pub(super) fn take_allocation(&mut self, relayed: SocketAddr) -> Option<HeldAllocation> {
        match self {
            Self::Port { .. } => None,
            Self::Relays(relaying) => relaying.take(relayed),
        }
    }
}

impl OwnCandidates {
    /// Those of `told` are known to the agent.
    pub(super) fn new(told: Vec<LocalCandidate>, gathered: watch::Receiver<Gathered>) -> Self {
        Self { told, gathered, gathering: true }
    }

    /// Waits until something new has been gathered. Cancel-safe; never returns when nothing will be any more.
    pub(super) async fn changed(&mut self) {
        if self.gathering && self.gathered.changed().await.is_ok() {
            return;
        }
        self.gathering = false;
        pending().await
    }

    /// What the agent has yet to be told, and whether that is the last.
    pub(super) fn take_news(&mut self, arrivals: &PeerArrivals) -> (Vec<LocalCandidate>, bool) {
        let gathered = self.gathered.borrow_and_update().clone();
        let (known, complete) = match arrivals {
            PeerArrivals::Port { .. } => (gathered.candidates, gathered.complete),
            PeerArrivals::Relays(relaying) => {
                (relaying.candidates(&gathered), gathered.complete && relaying.is_complete())
            }
        };
        let new: Vec<_> = known.into_iter().filter(|candidate| !self.is_told(candidate, arrivals.stream())).collect();
        self.told.extend(&new);
        (new, complete)
    }

    /// Whether the agent knows a candidate. In a relayed stream its preference depends on what else is known.
    fn is_told(&self, candidate: &LocalCandidate, stream: Stream) -> bool {
        let key = |local: &LocalCandidate| (local.candidate.tcp_type, local.candidate.addr, local.base);
        match stream {
            Stream::Direct => self.told.contains(candidate),
            Stream::Relayed => self.told.iter().any(|told| key(told) == key(candidate)),
        }
    }
}
