//! ICE over TCP (RFC 6544 on RFC 8445): finds one TCP connection between two nodes that works, through the NATs between
//! them or through a relay, and proves on that very connection that the peer knows the password of this negotiation.
//!
//! ```text
//! an ICE check on a TCP connection    length u16 big-endian | STUN message (RFC 4571 §2 framing)
//! after the nominating check          raw bytes, which belong to whoever takes the connection over
//! ```
//! `Agent` is the state machine of one negotiation, of one [`Stream`] with one component. Its caller connects, accepts,
//! reads whole frames, carries [`Signal`]s to the peer's agent, and after each call drains `Agent::poll_output`. A call has
//! up to two streams, direct and relayed, each with an agent of its own.
//!
//! What it is not: a socket, a gatherer of candidates, the signalling channel, or proof of the peer's node key; that is
//! the session's TLS.

mod agent;
mod attempts;
mod candidate;
mod checklist;
mod checks;
mod config;
mod conn;
mod counters;
mod credentials;
mod ending;
mod framing;
mod messages;
mod nomination;
mod opening;
mod outcome;
mod pair;
mod signal;

#[cfg(test)]
mod tests;

pub use self::{
    agent::{Agent, AgentOptions},
    candidate::{Candidate, CandidateKind, TcpType},
    config::Config,
    counters::Counters,
    credentials::{Credentials, CredentialsError, PASSWORD_LEN, UFRAG_LEN, check_credentials},
    framing::{FrameError, FrameReader, MAX_MESSAGE_LEN, frame},
    messages::addressed_ufrag,
    outcome::{FailureReason, PairReport, PairState, Selected, Strategy},
    signal::{Description, MAX_SIGNALLED_CANDIDATES, Mapping, OpenTurn, Signal, SignalError},
};

use std::net::SocketAddr;

/// One TCP connection, or an attempt at one, of one agent. The agent hands them out; none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(crate) u64);

/// What a negotiation looks for: a data stream of RFC 8445 §4. Each has its own credentials, checklist and nomination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Stream {
    /// A connection from node to node. No relayed candidate counts.
    Direct,
    /// A connection through one or two relays: every pair has a relayed candidate. Nothing is opened in turns.
    Relayed,
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        })
    }
}

/// Who decides on the pair (RFC 8445 §6.1.1). The caller of a negotiation controls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Nominates.
    Controlling,
    /// Takes the pair that the peer nominates.
    Controlled,
}

impl Role {
    /// The role of the other side.
    pub fn other(self) -> Self {
        match self {
            Self::Controlling => Self::Controlled,
            Self::Controlled => Self::Controlling,
        }
    }
}

/// A candidate of this side, with the address of the socket behind it (RFC 8445 §5.1.1: its base).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalCandidate {
    /// What the peer is told.
    pub candidate: Candidate,
    /// The local address: that of the candidate itself for a host candidate, that behind the NAT for a reflexive or mapped
    /// one. For relayed ones, the relayed address of the allocation (RFC 8445 §5.1.1.1).
    pub base: SocketAddr,
}

/// From which local address a connection leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// From the node's own port at this address, so that a NAT with endpoint-independent mapping shows the known mapping.
    Port(SocketAddr),
    /// From this address and a port of the system's choice.
    AnyPort(std::net::IpAddr),
    /// From the allocation with this relayed address, by a TURN Connect (RFC 6062 §4.3).
    Relayed(SocketAddr),
}

/// How a connection is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectMethod {
    /// As usual.
    Plain,
    /// By an opening SYN (`docs/ice.md`): its first SYN has this TTL, so that it passes this side's NATs and dies before
    /// the peer's, and the socket stays in SYN_SENT with its TTL raised again. The caller reports `Agent::opened` as
    /// soon as that SYN has left.
    Opening {
        /// The TTL (IPv6: hop limit) of the first SYN.
        ttl: u8,
    },
}

/// Why a connection was not made, as far as the agent cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ConnectFailure {
    /// The other end, or a router before it, answered with RST.
    #[error("refused")]
    Refused,
    /// No route, or a router said so by ICMP.
    #[error("unreachable")]
    Unreachable,
    /// Nobody answered.
    #[error("no answer")]
    TimedOut,
    /// The local port is in use for a connection to that very address.
    #[error("the local address is in use")]
    AddrInUse,
    /// The platform has no way to send an opening SYN.
    #[error("not possible on this system")]
    Unsupported,
    /// Anything else.
    #[error("failed")]
    Other,
}

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
