//! The client of one allocation over one control connection (RFC 8656 §5-§9, RFC 6062 §4).
//!
//! ```text
//! control   Allocate ▸ 401 ▸ Allocate ▸ success     Refresh …     Refresh 0
//!           CreatePermission, for each peer, again before five minutes have passed
//!           Connect to a peer ▸ CONNECTION-ID                  ConnectionAttempt of a peer (indication): CONNECTION-ID
//! data                                └────────▸ ConnectionBind ◂────────┘   then raw bytes
//! ```
//! [`Client`] is the state machine. Its caller opens the connections, reads whole messages from them, and after each call drains
//! [`Client::poll_output`]. The allocation, and all its data connections, end with the control connection.
//!
//! What it is not: a socket, a choice of servers, or a look at what is relayed.

mod allocation;
mod config;
mod connections;
mod core;
mod error;
mod permissions;
mod requests;
mod responses;
mod transactions;

#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use self::{
    config::Config,
    core::{Client, ClientOptions},
    error::{ConnectRefusal, Ending, PermitRefusal, RequestError},
};
use crate::AddressFamily;

/// One Connect that the caller asked for. No number is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectId(u64);

/// One data connection to the server, or an attempt at one. No number is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataId(u64);

/// What the server has given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocated {
    /// The address at which peers reach this allocation (XOR-RELAYED-ADDRESS).
    pub relayed: SocketAddr,
    /// The address from which the server sees the control connection come (XOR-MAPPED-ADDRESS).
    pub mapped: SocketAddr,
    /// How long it lasts if it is not refreshed.
    pub lifetime: Duration,
}

/// How a data connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataOrigin {
    /// This side asked for it.
    Connect {
        /// The Connect.
        connect: ConnectId,
        /// The peer.
        peer: SocketAddr,
    },
    /// A peer has connected to the relayed address.
    Attempt {
        /// The peer.
        peer: SocketAddr,
    },
}

/// What the client wants done, or has to tell. Its caller drains them with [`Client::poll_output`] after each call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOutput {
    /// Write this to the control connection.
    Send {
        /// A whole message.
        message: Vec<u8>,
    },
    /// Open a connection to the server, of the same kind as the control connection; then [`Client::data_connected`] or
    /// [`Client::data_closed`].
    OpenData {
        /// The new connection.
        data: DataId,
    },
    /// Write this to a data connection, and read one message from it in exact lengths.
    SendData {
        /// The connection.
        data: DataId,
        /// A whole message.
        message: Vec<u8>,
    },
    /// Close a data connection, or give up the attempt at it. The client has forgotten it already.
    CloseData {
        /// The connection.
        data: DataId,
    },
    /// A data connection carries the peer's bytes from here on. The client has forgotten it.
    Bound {
        /// The connection.
        data: DataId,
        /// How it came about.
        origin: DataOrigin,
    },
    /// The allocation stands.
    Allocated(Allocated),
    /// Connections from this peer are let in.
    Permitted {
        /// The peer.
        peer: IpAddr,
    },
    /// Connections from this peer are not let in, or not any more.
    PermissionRefused {
        /// The peer.
        peer: IpAddr,
        /// Why.
        error: RequestError,
    },
    /// No connection to that peer.
    ConnectFailed {
        /// The Connect.
        connect: ConnectId,
        /// Why.
        error: RequestError,
    },
    /// There is no allocation, or not any more; close the control connection. The last output.
    Ended(Ending),
}

/// What a client has counted for one allocation: for reports, and for tests that check its limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientCounters {
    /// Requests sent, repeated ones among them.
    pub requests: u64,
    /// Requests that were repeated with a new nonce.
    pub stale_nonces: u64,
    /// Successful refreshes of the allocation.
    pub refreshes: u64,
    /// Requests without an answer in time.
    pub timeouts: u64,
    /// Success responses that do not prove that the server knows the password.
    pub unproven: u64,
    /// Responses that make no sense.
    pub malformed: u64,
    /// Responses that nobody asked for, and messages that do not belong here.
    pub ignored: u64,
    /// Peers that have connected.
    pub attempts: u64,
    /// Connections of peers that have no permission: ignored.
    pub attempts_without_permission: u64,
    /// Connections of peers beyond the number that may be under way: ignored.
    pub attempts_over_limit: u64,
    /// Data connections bound.
    pub bound: u64,
}
