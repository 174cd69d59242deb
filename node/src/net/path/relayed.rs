//! Relayed paths: whether they are used, and what is told of one that a TURN server relays.
//!
//! What it is not: the client of the server (`crate::reach::turn_client`).

use keyferry_ice::FailureReason;

/// Whether relays are used, and whether anything else is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RelayMode {
    /// Direct paths, and relayed ones where there is no direct one yet.
    #[default]
    Both,
    /// Relayed paths only: this node tells nobody an address of its own, and connects to peers through its own relays
    /// alone.
    RelayOnly,
    /// Direct paths only: this node asks no relay for anything, and uses none of a peer's.
    NoRelay,
}

impl RelayMode {
    /// Whether this node may have direct paths, and tell where it is.
    pub fn allows_direct(self) -> bool {
        self != Self::RelayOnly
    }

    /// Whether this node may have relayed paths.
    pub fn allows_relays(self) -> bool {
        self != Self::NoRelay
    }
}

/// Which side's relay a path goes through, and who connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayWay {
    /// This node connected to the relayed address of the peer.
    ToTheirs,
    /// A relay of this node connected to the peer (RFC 6062 §4.3), or to the peer's relay.
    ThroughOurs,
    /// The peer, or its relay, connected to the relayed address of this node (RFC 6062 §4.4).
    Accepted,
}

/// Why a path is relayed rather than direct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelayReason {
    /// A direct path was looked for in vain.
    #[error("{0}")]
    NoDirectPath(#[from] FailureReason),
    /// This side tells nobody its address.
    #[error("this side hides its address")]
    RelayOnly,
}
