//! The server's half of TURN over TCP (RFC 8656 with RFC 6062), without a socket.
//!
//! ```text
//!            client                               server                                peer
//!   control  ──── Allocate, Refresh, ────────────▶  allocation: relayed address,
//!                 CreatePermission, Connect         permissions
//!            ◀─── ConnectionAttempt ──────────────  ◀──────────── connects ─────────────
//!   data     ──── ConnectionBind ────────────────▶  joined: raw bytes from here  ◀──────▶
//! ```
//! [`Server`] is the state machine of a whole relay. Its caller accepts connections, reads whole messages
//! from those that are not joined, listens and connects on demand, moves the bytes of those that are joined, and after each call
//! drains [`Server::poll_output`].
//!
//! What it is not: a socket, or the bytes that are relayed; they never come here. UDP is not relayed (RFC 6062 §4.1 is the only
//! kind of allocation), so there are no channels and no Send or Data indications.

mod allocate;
mod allocations;
mod answer;
mod check;
mod clients;
mod config;
mod connect;
mod counters;
mod dispatch;
mod expiry;
mod half_open;
mod nonce;
mod peers;
mod quota;
mod request;
mod state;
mod users;

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // any instant will do as the first one
mod tests;

use std::net::SocketAddr;

pub use self::{
    check::{MAX_CHECK_LEN, is_check},
    config::{Config, Quota, RelayLimits},
    counters::{CountedOutcome, ServerCounters},
    quota::Holder,
    state::Server,
    users::{UserIdentity, Users},
};
use crate::AddressFamily;

/// The longest message that a client may send. With the longest username, realm and nonce, and a handful of peers, a request
/// has less than this.
pub const MAX_MESSAGE_LEN: usize = 2048;

/// One connection from a client. The server gives out the numbers, and uses none twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

/// One connection with a peer, or an attempt at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(u64);

/// One allocation (RFC 8656 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllocationId(u64);

/// A connection that a client has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Where it comes from: the mapped address.
    pub remote: SocketAddr,
    /// The address of this machine that it has reached.
    pub local: SocketAddr,
}

/// Why there is no listener for an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListenFailure {
    /// This machine has no such address.
    #[error("no address of that family")]
    NoSuchFamily,
    /// Every port is taken.
    #[error("no port is free")]
    NoPort,
}

/// A peer could not be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer cannot be connected to")]
pub struct ConnectFailed;

/// What the server wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerOutput {
    /// Write a message to a client.
    Send {
        /// The client's connection.
        client: ClientId,
        /// A STUN message.
        message: Vec<u8>,
    },
    /// Close a client's connection once everything that was sent has left, with the connection of the peer if they are joined. The
    /// server has forgotten both.
    Close {
        /// The client's connection.
        client: ClientId,
    },
    /// Find a port of this family and listen; then [`Server::listening`].
    Listen {
        /// For this allocation.
        allocation: AllocationId,
        /// Of this family.
        family: AddressFamily,
        /// The address of this machine that the client has reached.
        reached: SocketAddr,
    },
    /// Close the listener. The server has forgotten the allocation.
    StopListening {
        /// The allocation.
        allocation: AllocationId,
    },
    /// Connect from the relayed address of an allocation to a peer; then [`Server::peer_connected`].
    Connect {
        /// The new connection.
        peer: PeerId,
        /// From whose relayed address.
        allocation: AllocationId,
        /// To where.
        to: SocketAddr,
    },
    /// Close a peer's connection, or give up the attempt. The server has forgotten it.
    ClosePeer {
        /// The peer's connection.
        peer: PeerId,
    },
    /// After everything sent so far, both connections carry raw bytes: join them. Tell the bytes by [`Server::relayed`] and the
    /// end of it by [`Server::closed`] of the client.
    ///
    /// With `checks_first`, the first message each way, behind its length of two bytes (RFC 4571 §2), has to be one that [`is_check`]
    /// knows: pass on these two and nothing else, and then join them, or call [`Server::not_checked`].
    Join {
        /// The client's connection.
        client: ClientId,
        /// The peer's connection.
        peer: PeerId,
        /// Whose bytes they are.
        holder: Holder,
        /// Whether they have to begin with checks: the client is nobody whom the operator knows, and the peer none of the relay's
        /// clients.
        checks_first: bool,
    },
}
