//! Why a request, a Connect, or the allocation has failed.
//!
//! What it is not: text for people who do not know what TURN is.

use std::net::SocketAddr;

use stun_types::attribute::ErrorCode;

use crate::long_term::ChallengeError;

/// Why one request has failed. The numbers are those of the server's answer (RFC 8656 §19, RFC 6062 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// 300.
    #[error("the server refers to another server{} (300)", server.map(|server| format!(", {server}")).unwrap_or_default())]
    TryAlternate {
        /// The other server, if it is named.
        server: Option<SocketAddr>,
    },
    /// 401 without credentials to answer with.
    #[error("the server asks for a user name and a password (401)")]
    CredentialsNeeded,
    /// 401 or 441 to a request with credentials.
    #[error("the server does not accept the user name and password (401)")]
    WrongCredentials,
    /// 403.
    #[error("the server does not allow it (403)")]
    Forbidden,
    /// 437.
    #[error("the server knows of no such allocation, or of another one (437)")]
    AllocationMismatch,
    /// 440 and 443.
    #[error("the server does not relay for this address family ({code})")]
    AddressFamily {
        /// 440 for the allocation, 443 for a peer.
        code: u16,
    },
    /// 442.
    #[error("the server does not relay TCP (442)")]
    TransportUnsupported,
    /// 446.
    #[error("the server has a connection to this peer already (446)")]
    ConnectionExists,
    /// 447.
    #[error("the server could not connect to the peer (447)")]
    PeerUnreachable,
    /// 486.
    #[error("the quota of this user is used up (486)")]
    QuotaReached,
    /// 508.
    #[error("the server has no room for it (508)")]
    InsufficientCapacity,
    /// Any other code.
    #[error("the server answered {code} {}", ErrorCode::default_reason_for_code(*code))]
    Other {
        /// The code.
        code: u16,
    },
    /// One nonce after the other was called stale (438).
    #[error("the server calls each of its own nonces stale (438)")]
    StaleNonces,
    /// A challenge to which there is no answer.
    #[error("{0}")]
    Challenge(#[from] ChallengeError),
    /// A success response that does not prove that the server knows the password.
    #[error("the server's answer does not prove that it knows the password")]
    Unproven,
    /// No answer in time.
    #[error("the server does not answer")]
    Silent,
    /// The answer makes no sense.
    #[error("the server's answer makes no sense: {0}")]
    Malformed(&'static str),
    /// No data connection to the server, or it ended before it was bound.
    #[error("the data connection to the server failed")]
    DataConnection,
}

/// Why there is no allocation, or no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// It was given back.
    #[error("the allocation was given back")]
    Released,
    /// The control connection has ended.
    #[error("the server closed the connection")]
    Closed,
    /// A request without which there is no allocation has failed.
    #[error("{0}")]
    Failed(#[from] RequestError),
    /// It could not be refreshed in time.
    #[error("the allocation could not be refreshed in time")]
    Expired,
    /// The server sent something that is no STUN message.
    #[error("the server sent something that is no STUN message")]
    Garbage,
}

/// Why a peer cannot be given a permission. The caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermitRefusal {
    /// There is no allocation any more.
    #[error("the allocation has ended")]
    Ended,
    /// The relayed address is of the other family.
    #[error("the peer's address is of another family than the relayed address")]
    Family,
    /// [`Config::max_permissions`](super::Config::max_permissions) peers have one.
    #[error("at most {limit} peers are let in")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

/// Why the client does not even send a Connect. The caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectRefusal {
    /// There is no allocation, or no more.
    #[error("there is no allocation")]
    NotAllocated,
    /// The relayed address is of the other family.
    #[error("the peer's address is of another family than the relayed address")]
    Family,
    /// [`Config::max_connects`](super::Config::max_connects) are under way.
    #[error("at most {limit} connections may be under way at once")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}
