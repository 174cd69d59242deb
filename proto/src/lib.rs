//! Keyferry's wire formats and state machines.
//!
//! Everything here is deterministic: time and randomness are arguments. What it is not: there is no socket, clock,
//! random generator, disk or async runtime in this crate; the `keyferry` package drives it.

pub mod address;
pub mod binding;
pub mod candidate;
pub mod catalogue;
pub mod codec;
pub mod collection;
pub mod frame;
pub mod hash;
pub mod ice;
pub mod identity;
pub mod ip;
pub mod message;
pub mod offer;
pub mod path;
mod random;
pub mod relaying;
pub mod signalling;
pub mod time;
pub mod transfer;
pub mod turn;
