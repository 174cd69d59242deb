//! A whole node: what the command line, the local socket and the tests drive.
//!
//! What it is not: a user interface. It takes [`api::Command`]s and tells [`api::Event`]s.

pub mod announcer;
pub mod api;
mod commands;
mod doctor;
mod error;
mod failure;
pub mod local;
pub(crate) mod network;
mod ping;
mod remote;
pub mod runner;
mod running;

pub use self::{
    error::{Error, Offence},
    ping::MAX_PINGS,
    running::{Node, NodeConfig},
};

#[cfg(test)]
mod tests;
