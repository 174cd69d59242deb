//! What an agent has counted: for reports, and for the tests that limits hold.
//!
//! What it is not: a record of single peers or addresses.

/// Numbers of one negotiation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connection attempts started.
    pub attempts: u64,
    /// Connections that the peer made.
    pub accepted: u64,
    /// Connections turned away, because limits were reached or they were made to an address of another stream.
    pub over_limit: u64,
    /// Checks sent, nominating ones among them.
    pub checks_sent: u64,
    /// Valid checks received.
    pub checks_received: u64,
    /// Requests answered with an error.
    pub errors_sent: u64,
    /// Messages that are no STUN message, or none that belongs here; each closed its connection.
    pub garbage: u64,
    /// Messages whose integrity or username is wrong.
    pub unauthentic: u64,
    /// Indications and answers that nobody asked for: ignored.
    pub ignored: u64,
    /// Connections that showed no valid check in time.
    pub silent: u64,
    /// Role conflicts (RFC 8445 §7.3.1.1).
    pub role_conflicts: u64,
    /// Candidates of the peer that make no sense or are over the limit.
    pub candidates_refused: u64,
    /// Signals that were not acted upon.
    pub signals_refused: u64,
    /// Rounds of opening that this side began.
    pub rounds: u64,
}
