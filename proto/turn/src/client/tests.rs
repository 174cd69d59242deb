//! The client against a scripted server, in virtual time.

mod allocation;
mod connections;
mod credentials;
mod exchange;
mod permissions;
mod properties;
