//! A whole node: what the command line, the local socket and the tests drive.
//!
//! What it is not: a user interface. It takes [`api::Command`]s and tells [`api::Event`]s.

mod alone;
pub mod announcer;
pub mod api;
mod builder;
mod commands;
mod config;
mod doctor;
mod dry_run;
mod error;
mod events;
mod failure;
mod fetch_events;
mod following;
mod happening;
mod listing;
pub mod local;
pub(crate) mod network;
mod operations;
mod ping;
mod progress;
mod reader;
mod remote;
pub mod runner;
mod running;
mod sharing;
mod waiting;

pub use self::{
    builder::NodeBuilder,
    config::NodeConfig,
    error::{Error, NobodyThere, Offence},
    operations::{Get, GetTo, Share},
    ping::MAX_PINGS,
    progress::{Progress, Update},
    reader::{ContentReader, MAX_BYTES},
    running::Node,
};

#[cfg(test)]
mod tests;
