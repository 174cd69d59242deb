//! Relaying: how a node asks another for leave to use it as a TURN relay; the messages of the libp2p protocol
//! `/keyferry/turn/1`.
//!
//! ```text
//! stream     one frame each way (see `frame`); whoever opens the stream asks
//! request    enum { Anonymous, Node (ephemeral key 32 | sealed claim 120) }                     4 or 156 bytes
//! claim      node key 32 | time u64 | signature 64
//! signature  by the node key over "keyferry relay v1\0" | relay's rendezvous key 32 | requester's rendezvous key 32
//!            | time u64
//! reply      enum { Issued RelayCredentials, Refused enum { Policy, Busy } }                    (bincode, see `codec`), ≤ 765
//! RelayCredentials     realm string | username string | password string | expires u64 | addrs list of address ≤ 8
//!            | tls_pin option 32
//! ```
//! A claim is sealed to the node key of the relay that is meant, because anybody may pose as the relay of a node, and only that node shall
//! know who asks. It is bound to the two ends of the connection, so that nobody can pass it on.
//!
//! What it is not: encrypted otherwise (libp2p's noise does that, between the rendezvous keys), the policy of whom to
//! relay for, or TURN.

mod error;
mod reply;
mod request;
mod sealing;

use std::time::Duration;

pub use self::{
    error::RelayingError,
    reply::{
        MAX_ADDRS, MAX_PASSWORD_LEN, MAX_REALM_LEN, MAX_REPLY_LEN, MAX_USERNAME_LEN, RelayCredentials, RelayRefusal,
        Reply,
    },
    request::{MAX_REQUEST_LEN, anonymous_request, node_request, verify_request},
};

/// The name of the protocol.
pub const PROTOCOL: &str = "/keyferry/turn/1";

/// How far the clocks of two nodes may be apart.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(10 * 60);

/// The longest time for which credentials are issued.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

const DOMAIN: &[u8] = b"keyferry relay v1\0";
const KEY_LEN: usize = 32;

/// The channel of a request (RFC 5056): the rendezvous keys (ed25519) that libp2p has proven at the two ends of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelayChannel {
    /// That of the relay, which is asked.
    pub relay: [u8; KEY_LEN],
    /// That of the node that asks.
    pub requester: [u8; KEY_LEN],
}

#[cfg(test)]
mod tests;
