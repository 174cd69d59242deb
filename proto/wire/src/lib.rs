//! Keyferry's own wire formats, and the schedule of a transfer.
//!
//! Everything here is deterministic: time and randomness are arguments. What it is not: there is no socket, clock,
//! random generator, disk or async runtime in this crate; the `keyferry` package drives it.

pub mod address;
pub mod catalogue;
pub mod codec;
pub mod collection;
pub mod dialling;
pub mod frame;
pub mod hash;
pub mod identity;
pub mod message;
pub mod offer;
pub mod path;
pub mod relaying;
pub mod signalling;
pub mod transfer;
