//! ICE over TCP on real sockets: finds a direct connection to a peer with whom there is a signalling channel, whatever NATs are
//! between, or one through relays.
//!
//! ```text
//!  Gathered (watch) ──▶ ┌─────────────┐ ◀── Dialogue ──▶ the peer's negotiation of the same stream
//!  Inbound (stun) ────▶ │ Negotiation │
//!  allocations ───────▶ │  + Agent    │ ──▶ Path, or IceError with what became of each pair
//!  TCP connections ◀──▶ └─────────────┘
//! ```
//! [`IceHost`] knows the running negotiations by their username fragments. A [`Negotiation`] of the direct stream, or a
//! [`RelayedNegotiation`], is one future that owns its agent (`keyferry_ice`), all sockets and all allocations:
//! dropping it ends it, closes them and gives them back.
//!
//! What it is not: the protocol (the agent), the signalling, or proof of who the peer is (the session's TLS).

mod addresses;
mod admission;
mod host;
mod negotiation;
mod relaying;
mod run;
mod sockets;
mod talk;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use keyferry_ice::{Description, FailureReason, PairReport, Signal, SignalError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::net::path::{Path, PathStream};

pub(crate) use self::host::Unclaimed;
pub use self::{
    host::{IceHost, MAX_NEGOTIATIONS, TooManyNegotiations},
    negotiation::{Negotiation, RelayedNegotiation},
    relaying::{AllocationError, AllocationStep, AllocationSteps},
};

/// A connection that has come in, and its first message, an ICE check.
#[derive(Debug)]
pub struct Inbound {
    /// The connection.
    pub stream: PathStream,
    /// Its other end.
    pub remote: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// The first message, without its RFC 4571 length.
    pub first_check: Vec<u8>,
}

/// What a negotiation learns from the call by which the peer agreed to it, and how it goes on talking.
#[derive(Debug)]
pub struct Dialogue {
    /// The peer's description.
    pub remote: Description,
    /// How long a signal takes to the peer and back, once that was measured.
    pub round_trip: watch::Receiver<Option<Duration>>,
    /// Signals to the peer, in order.
    pub outgoing: mpsc::Sender<Signal>,
    /// Signals from the peer, in order; it ends when the peer has hung up.
    pub incoming: mpsc::Receiver<Signal>,
}

/// The same for a relayed stream, which the sides describe only after the call has been answered. If the peer's description
/// does not come, the peer has left the stream.
#[derive(Debug)]
pub struct RelayedDialogue {
    /// Addresses of the peer that its direct stream has named already: relays let them in at once.
    pub known: Vec<IpAddr>,
    /// The peer's description.
    pub remote: oneshot::Receiver<Description>,
    /// Takes this side's description.
    pub describe: oneshot::Sender<Description>,
    /// How long a signal takes to the peer and back, once that was measured.
    pub round_trip: watch::Receiver<Option<Duration>>,
    /// Signals to the peer, in order, after the description.
    pub outgoing: mpsc::Sender<Signal>,
    /// Signals from the peer, in order, after its description; it ends when the peer has hung up.
    pub incoming: mpsc::Receiver<Signal>,
}

/// A path, and what became of each pair of addresses on the way to it.
#[derive(Debug)]
pub struct FoundPath {
    /// The path.
    pub path: Path,
    /// What was tried.
    pub pairs: Vec<PairReport>,
    /// Whether this side has said its first words on it already ([`Negotiation::saying`]).
    pub first_words_said: bool,
}

/// Why there is no path, and what became of each pair of addresses.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct IceError {
    /// Why.
    pub reason: IceFailure,
    /// What was tried.
    pub pairs: Vec<PairReport>,
}

impl IceError {
    /// Whether another negotiation may well end differently.
    pub fn may_pass(&self) -> bool {
        matches!(self.reason, IceFailure::PeerGone | IceFailure::Broke)
    }
}

/// Why there is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IceFailure {
    /// The agent has found no path.
    #[error("{0}")]
    NoPath(#[from] FailureReason),
    /// The peer has hung up without one.
    #[error("the peer has given up")]
    PeerGone,
    /// The peer's description cannot be used.
    #[error("the peer's description cannot be used: {0}")]
    Peer(SignalError),
    /// The connection that both sides agreed on broke at that moment.
    #[error("the connection that was found broke")]
    Broke,
}

#[cfg(test)]
mod tests;
