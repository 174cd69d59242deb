//! The one TCP port of a node, the paths of bytes that leave and arrive there, and the sessions on them.
//!
//! What it is not: deciding which node to connect to.

pub mod path;
pub mod port;
pub mod session;
pub mod stun;
pub mod trouble;
pub mod twins;
