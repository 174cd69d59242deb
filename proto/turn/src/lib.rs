//! TURN over TCP (RFC 8656 with RFC 6062): TCP connections through a relay, for where no direct path exists.
//!
//! ```text
//! control connection    STUN messages, one after the other, with nothing between them (RFC 8489 §6.2.2)
//! data connection       one ConnectionBind request, one answer to it, then raw bytes of the peer's connection (RFC 6062 §4.3)
//! ```
//! What it is not: a socket. It relays over TCP alone: no channels, no Send and Data indications, no UDP allocations.

mod address_family;
pub mod binding;
pub mod client;
pub mod framing;
pub mod long_term;
pub mod peer_policy;
pub mod rest_credentials;
pub mod server;
pub mod transaction_ids;

pub use self::address_family::AddressFamily;
