//! Keyferry: share and fetch files by public key.

mod base;
pub mod cli;
pub mod engine;
pub mod gather;
pub mod home;
pub mod ice;
#[cfg(test)]
mod namespace;
pub mod path;
pub mod port;
pub mod relay;
pub mod relay_finding;
pub mod rendezvous;
pub mod session;
pub mod signalling;
pub mod store;
pub mod stun;
pub mod transfer;
pub mod turn;
