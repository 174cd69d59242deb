//! The client of TURN over TCP (RFC 8656, RFC 6062): TCP connections to peers, and of peers, through a relay.
//!
//! ```text
//! TurnServer ── dial: resolve, race, proxy?, TLS? ──▶ control connection ──▶ Allocation (a task owns it)
//!                    └───────────────────────────▶ data connections ──▶ PathStream
//! Relays: which servers there are, the fastest first
//! ```
//! An allocation lives as long as its [`Allocation`] or one of its [`Lease`]s, and all its connections end with it: whoever uses a
//! connection of it keeps a lease.
//!
//! What it is not: the protocol, which is [`keyferry_turn::client`]; ICE; or a relay for others.

mod allocation;
mod dial;
mod driver;
mod error;
mod proxy;
mod ranking;
mod relays;
mod server;
#[cfg(test)]
pub(crate) mod test_relay;
mod tls;
mod uri;

#[cfg(test)]
mod tests;

pub use keyferry_turn::AddressFamily;

pub use self::{
    allocation::{Allocation, Connector, Lease},
    error::{PeerConnectError, TurnError},
    proxy::{Proxy, ProxyError},
    ranking::{MAX_CONFIGURED, MAX_FOUND},
    relays::{RelayAllocator, RelayReport, RelaySearch, Relays, RelaysError},
    server::TurnServer,
    tls::{Pin, Trust, TrustError},
    uri::UriError,
};
