//! Every timer and limit of the server, in one place.
//!
//! What it is not: whom the server believes ([`super::Users`]), or with whom it connects them
//! ([`crate::peer_policy`]).

use std::time::Duration;

/// The timers and limits of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The realm of the credentials (RFC 8489 §9.2).
    pub realm: String,
    /// How long a nonce is valid. RFC 8656 §5 asks for an hour at most.
    pub nonce_lifetime: Duration,
    /// How long an allocation lasts if its client asks for nothing else, and at least (RFC 8656 §7.2).
    pub default_lifetime: Duration,
    /// How long an allocation lasts at most before it is refreshed (RFC 8656 §7.2).
    pub max_lifetime: Duration,
    /// How long a permission lasts (RFC 8656 §9).
    pub permission_lifetime: Duration,
    /// How long a connection to a peer may take (RFC 6062 §5.2).
    pub connect_timeout: Duration,
    /// How long a connection with a peer waits for its client (RFC 6062 §5.2, §5.3).
    pub bind_timeout: Duration,
    /// How long a client's connection may be neither a control nor a data connection.
    pub half_open_timeout: Duration,
    /// How much everyone may have.
    pub limits: RelayLimits,
}

/// What a single identity, a single host, and all together may have. A host is an IPv4 address or the /64 of an IPv6 one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayLimits {
    /// For each identity.
    pub identity: Quota,
    /// For each host that clients come from. Several people share one behind a NAT.
    pub host: Quota,
    /// For all together.
    pub all: Quota,
    /// How long bytes are counted before the count starts anew.
    pub period: Duration,
    /// Connections of one host that are neither control nor data connections, at once. One more pushes out its oldest.
    pub half_open_per_host: usize,
    /// Connections that are neither, at once. One more pushes out the oldest of the host that has most.
    pub half_open: usize,
    /// Requests without valid credentials on one connection, one after the other, before it is closed: a stranger does not keep the
    /// relay busy, or guess passwords, on one connection. A client needs one or two.
    pub challenges: u8,
    /// Permissions of one allocation. A peer has some few addresses, and a relay a few peers.
    pub permissions: usize,
    /// How many identities, and how many hosts, the server remembers for the period.
    pub remembered: usize,
}

/// How much of the relay may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Allocations at once.
    pub allocations: usize,
    /// Connections with peers at once: those that are being made or wait for the client, and those that are joined.
    pub connections: usize,
    /// Bytes in one period, both directions together; `None` for any number.
    pub bytes: Option<u64>,
}

const GIB: u64 = 1 << 30;

impl Default for Config {
    fn default() -> Self {
        Self {
            realm: "keyferry".to_owned(),
            nonce_lifetime: Duration::from_secs(60 * 60),
            default_lifetime: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(60 * 60),
            permission_lifetime: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(30),
            bind_timeout: Duration::from_secs(30),
            half_open_timeout: Duration::from_secs(15),
            limits: RelayLimits::default(),
        }
    }
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            identity: Quota { allocations: 16, connections: 256, bytes: Some(100 * GIB) },
            host: Quota { allocations: 32, connections: 512, bytes: Some(200 * GIB) },
            all: Quota { allocations: 1024, connections: 4096, bytes: None },
            period: Duration::from_secs(24 * 60 * 60),
            half_open_per_host: 32,
            half_open: 512,
            challenges: 16,
            permissions: 64,
            remembered: 16_384,
        }
    }
}
