//! The server in virtual time, with real messages.

mod abuse;
mod allocations;
mod authentication;
mod connections;
mod properties;
mod relay;
