//! A whole node: what the command line, the local socket and the tests drive.
//!
//! What it is not: a user interface. It takes [`api::Command`]s and tells [`api::Event`]s.

mod announce;
mod answering;
pub mod api;
mod calling;
mod commands;
mod dialling;
mod doctor;
mod failure;
pub mod finder;
mod hello;
mod host;
pub mod local;
mod node;
mod online;
mod ping;
mod relaying;
mod remote;
pub mod runner;
mod sessions;
mod streams;
mod told;
mod trace;
mod turns;

use std::time::{SystemTime, UNIX_EPOCH};

use keyferry_net::time::UnixTime;

pub use self::{
    node::{Node, NodeConfig},
    ping::MAX_PINGS,
};

/// The wall clock.
pub(crate) fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

#[cfg(test)]
mod tests;
