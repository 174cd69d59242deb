//! Who gets a connection that somebody made to the node's port.
//!
//! The port itself tells TLS, STUN and libp2p apart by the first byte; `alpn` tells sessions from `turns:`, and [`stun`]
//! ICE checks from plain STUN and TURN.

pub(crate) mod alpn;
pub mod stun;
