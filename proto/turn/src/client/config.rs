//! Every timer and limit of the client, in one place.
//!
//! What it is not: anything that client and server agree on.

use std::time::Duration;

/// The timers and limits of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How long an answer may take on a connection that stands. TCP repeats what is lost; RFC 8489 §6.2.2 has 39.5 s.
    pub request_timeout: Duration,
    /// How long an answer to Connect may take: the server itself waits for the peer, 30 s and more (RFC 6062 §5.2).
    pub connect_timeout: Duration,
    /// How long a data connection may take from its opening until it is bound. The server waits 30 s (RFC 6062 §5.3).
    pub bind_timeout: Duration,
    /// How long to wait for the answer to the last Refresh.
    pub release_timeout: Duration,
    /// The lifetime to ask for: the default of RFC 8656 §7.2.
    pub lifetime: Duration,
    /// The longest lifetime to believe: the client refreshes the allocation before that in any case.
    pub max_lifetime: Duration,
    /// The least time between two refreshes, however short the lifetimes that a server gives.
    pub min_refresh_interval: Duration,
    /// How long after it was granted to refresh a permission. It lasts 300 s (RFC 8656 §9).
    pub permission_refresh: Duration,
    /// How many nonces in a row the server may call stale before the client gives the request up.
    pub max_stale_nonces: u8,
    /// How many peers may have a permission, or wait for one.
    pub max_permissions: usize,
    /// How many Connects may be under way at once.
    pub max_connects: usize,
    /// How many connections of peers may be opened or bound at once.
    pub max_unbound: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(40),
            bind_timeout: Duration::from_secs(10),
            release_timeout: Duration::from_secs(2),
            lifetime: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(3600),
            min_refresh_interval: Duration::from_secs(1),
            permission_refresh: Duration::from_secs(240),
            max_stale_nonces: 3,
            max_permissions: 64,
            max_connects: 32,
            max_unbound: 32,
        }
    }
}
