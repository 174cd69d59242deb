//! Who connects to whom: from the wish for a node, or from a call that comes in, to a session.
//!
//! What it is not: knowing where nodes are, or what sessions are used for.

pub(crate) mod acceptor;
pub(crate) mod call_arbiter;
pub(crate) mod callee;
pub(crate) mod caller;
pub mod connector;
pub mod demux;
pub(crate) mod dialling;
pub mod ice;
pub mod protocols;
pub(crate) mod sessions;
pub mod signalling;
pub(crate) mod streams;
pub mod trace;
