//! What a client has counted: for reports, and for the tests that limits hold.
//!
//! What it is not: a record of single peers or addresses.

/// Numbers of one allocation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientCounters {
    /// Requests sent, repeated ones among them.
    pub requests: u64,
    /// Requests that were repeated with a new nonce.
    pub stale_nonces: u64,
    /// Successful refreshes of the allocation.
    pub refreshes: u64,
    /// Requests without an answer in time.
    pub timeouts: u64,
    /// Success responses that do not prove that the server knows the password.
    pub unproven: u64,
    /// Responses that make no sense.
    pub malformed: u64,
    /// Responses that nobody asked for, and messages that do not belong here.
    pub ignored: u64,
    /// Peers that have connected.
    pub attempts: u64,
    /// Connections of peers that have no permission: ignored.
    pub attempts_without_permission: u64,
    /// Connections of peers that were more than may be under way: ignored.
    pub attempts_over_limit: u64,
    /// Data connections bound.
    pub bound: u64,
}
