//! Moving content: how it is cut into units, which of them are asked of whom, and how each is proven.
//!
//! - [`units`]: sets of units, the currency of requests.
//! - [`layout`]: the one linear space of units that a root (a blob or a collection) spans.
//! - [`groups`]: the bao encoding of the groups of one blob, checked piece by piece.
//! - [`schedule`]: the state machine that decides which ranges to ask of whom.
//!
//! What it is not: the messages on the stream ([`crate::message`]), sockets or disks (the `keyferry` package).

pub mod groups;
pub mod layout;
pub mod schedule;
pub mod units;
