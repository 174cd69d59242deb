//! What Keyferry's state machines share: classes of IP addresses, wall-clock time as a value, and numbers drawn from a seed.
//!
//! What it is not: a socket, a clock or a source of randomness.

#[cfg(feature = "serde")]
pub mod bounded;
pub mod ip;
pub mod random;
pub mod time;
