//! Connections in the words that an agent and its caller share: their names, how to open one, why there is none, and how the one
//! that was selected came about.
//!
//! What it is not: what an agent knows of its connections (`conn`).

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// One TCP connection, or an attempt at one, of one agent. The agent hands them out; none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(crate) u64);

/// From which local address a connection leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// From the node's own port at this address, so that a NAT with endpoint-independent mapping shows the known mapping.
    Port(SocketAddr),
    /// From this address and a port of the system's choice.
    AnyPort(IpAddr),
    /// From the allocation with this relayed address, by a TURN Connect (RFC 6062 §4.3).
    Relayed(SocketAddr),
}

/// How to open a connection.
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

/// Why an attempt led to no connection, as far as the agent cares.
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

/// How the selected connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// This side connected to a candidate that accepts.
    Connected,
    /// The peer connected to this side.
    Accepted,
    /// This side's relay connected on its behalf (RFC 6062 §4.3).
    ConnectedByRelay,
    /// The peer connected to the address of this side at its relay (RFC 6062 §4.4).
    AcceptedAtRelay,
    /// This side's opening SYN let the peer in.
    OpenedHere {
        /// Its TTL.
        ttl: u8,
    },
    /// The peer's opening SYN let this side in.
    OpenedByPeer {
        /// Its TTL.
        ttl: u8,
    },
    /// SYNs of both sides crossed.
    Crossing,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Accepted => f.write_str("accepted"),
            Self::ConnectedByRelay => f.write_str("connected by the relay"),
            Self::AcceptedAtRelay => f.write_str("accepted at the relay"),
            Self::OpenedHere { ttl } | Self::OpenedByPeer { ttl } => write!(f, "opening SYN, TTL {ttl}"),
            Self::Crossing => f.write_str("crossing SYNs"),
        }
    }
}
