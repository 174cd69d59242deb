//! What callers hold of an allocation: the allocation itself, the means to connect through it, and what keeps it alive.
//!
//! What it is not: the task that owns the protocol; see [`super::driver`].

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
};

use keyferry_ice::ConnectFailure;
use keyferry_turn::{
    AddressFamily,
    client::{Allocated, Ending},
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    PeerConnectError, TurnError, TurnServer,
    driver::{self, PeerConnect, WantedPeers},
};
use crate::net::path::PathStream;

/// An allocation on a server. When it and all its leases are dropped, the task gives it back (Refresh with lifetime 0) and closes those of
/// its connections that nobody has taken; the server closes the others.
#[derive(Debug)]
pub struct Allocation {
    allocated: Allocated,
    server: TurnServer,
    lease: Lease,
    wanted: Arc<WantedPeers>,
    accepted: mpsc::Receiver<(PathStream, SocketAddr)>,
}

/// Keeps an allocation alive, for whoever uses one of its connections.
#[derive(Debug, Clone)]
pub struct Lease {
    connects: mpsc::Sender<PeerConnect>,
    ended: watch::Receiver<Option<Ending>>,
}

/// Connects to peers through an allocation, without keeping that alive.
#[derive(Debug, Clone)]
pub struct Connector {
    connects: mpsc::WeakSender<PeerConnect>,
}

impl Allocation {
    /// Asks a server for a relayed address of this family.
    pub async fn make(server: &TurnServer, family: AddressFamily) -> Result<Self, TurnError> {
        let wanted = Arc::new(WantedPeers::default());
        let started = driver::start(server, family, Arc::clone(&wanted)).await?;
        Ok(Self::of(started, server.clone(), wanted))
    }

    /// What callers hold of an allocation that stands.
    pub(super) fn of(started: driver::Started, server: TurnServer, wanted: Arc<WantedPeers>) -> Self {
        let driver::Started { allocated, connects, accepted, ended } = started;
        Self { allocated, server, lease: Lease { connects, ended }, wanted, accepted }
    }

    /// The address at which peers reach this node.
    pub fn relayed(&self) -> SocketAddr {
        self.allocated.relayed
    }

    /// The address from which the server sees this node come.
    pub fn mapped(&self) -> SocketAddr {
        self.allocated.mapped
    }

    /// The server.
    pub fn server(&self) -> &TurnServer {
        &self.server
    }

    /// Lets in connections of a peer, whatever their port, from soon to the end of the allocation. Once is enough.
    pub fn permit(&self, peer: IpAddr) {
        self.wanted.add(peer.to_canonical());
    }

    /// The means to connect to peers.
    pub fn connector(&self) -> Connector {
        Connector { connects: self.lease.connects.downgrade() }
    }

    /// What keeps the allocation alive beyond this value.
    pub fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// The next connection of a peer: bound, raw from here on. `None` when the allocation has ended.
    pub async fn accept(&mut self) -> Option<(PathStream, SocketAddr)> {
        self.accepted.recv().await
    }

    /// Polls for the next connection of a peer, for whoever waits for other things too.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<(PathStream, SocketAddr)>> {
        self.accepted.poll_recv(cx)
    }
}

impl Lease {
    /// Waits until the allocation has ended, and says why.
    pub async fn ended(&mut self) -> Ending {
        match self.ended.wait_for(Option::is_some).await {
            Ok(ending) => ending.unwrap_or(Ending::Released),
            Err(_) => Ending::Released,
        }
    }

    /// The end of the allocation, for whoever does not keep it alive.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Ending>> {
        self.ended.clone()
    }
}

impl Connector {
    /// Connects to a peer, with an error for an ICE agent. Dropping the future gives the attempt up.
    pub async fn connect(&self, peer: SocketAddr) -> Result<PathStream, ConnectFailure> {
        self.relay_to(peer).await.map_err(|error| {
            tracing::debug!(%peer, %error, "the relay has not connected");
            error.into()
        })
    }

    /// Connects to a peer, with an error that says what the relay answered. Dropping the future gives the attempt up.
    pub async fn relay_to(&self, peer: SocketAddr) -> Result<PathStream, PeerConnectError> {
        let (reply, answer) = oneshot::channel();
        let connects = self.connects.upgrade().ok_or(PeerConnectError::Ended)?;
        connects.send(PeerConnect { peer, reply }).await.map_err(|_| PeerConnectError::Ended)?;
        drop(connects);
        answer.await.unwrap_or(Err(PeerConnectError::Ended))
    }
}
