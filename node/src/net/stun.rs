//! STUN over TCP (RFC 8489 §6.2.2) at the node's port: what comes in there, answers to Binding requests, and asking
//! others.
//!
//! ```text
//! plain      STUN message, one after the other: header 20 (its length at offset 2), attributes
//! ICE check  length u16 big-endian | STUN message      (RFC 4571 §2), after the last one raw bytes
//! ```
//! What it is not: ICE. A connection whose first message is an ICE check goes to [`crate::connect::ice`] with that message.

mod client;
pub(crate) mod read;

pub use self::client::{StunAskError, StunClient, ask};
