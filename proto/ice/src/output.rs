//! What an agent tells its caller: what it wants done, and what it has counted.

use std::net::SocketAddr;

use super::{ConnId, ConnectMethod, FailureReason, Selected, Signal, Source};

/// What the agent wants done. Drained by `Agent::poll_output` after each call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a connection; then `Agent::connected` or `Agent::connect_failed`.
    Connect {
        /// The new connection.
        conn: ConnId,
        /// From where.
        source: Source,
        /// To where.
        remote: SocketAddr,
        /// How.
        method: ConnectMethod,
    },
    /// Write one message to a connection, with its RFC 4571 length in front (which is not in `message`).
    Send {
        /// The connection.
        conn: ConnId,
        /// A STUN message.
        message: Vec<u8>,
    },
    /// What was sent on this connection is the last frame of this side, if the peer agrees: raw bytes may follow at once. If it does
    /// not, the connection is closed, and another one may be nominated.
    Nominating {
        /// The connection.
        conn: ConnId,
    },
    /// Close a connection, or give up the attempt at it. The agent has forgotten it already.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Carry this to the peer's agent, in order.
    Signal(Signal),
    /// The negotiation has succeeded: after everything sent so far, the connection carries raw bytes. The last output but
    /// for [`Output::Close`] of all others.
    Selected(Selected),
    /// The negotiation has failed. The last output but for [`Output::Close`] of all connections.
    Failed(FailureReason),
}

/// Numbers of one negotiation: for reports, and for the tests that limits hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentCounters {
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
