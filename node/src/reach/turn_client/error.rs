//! Why there is no allocation, or no connection to a peer.
//!
//! What it is not: the choice of the next server; see [`super::relays`].

use std::{io, time::Duration};

use keyferry_ice::ConnectFailure;
use keyferry_turn::client::{ConnectRefusal, Ending, RequestError};

use super::{proxy::ProxyError, tls::TrustError};

/// Why there is no allocation on a server.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// The server's name has no address.
    #[error("the name {host} could not be resolved: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// None of its addresses answers.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// The proxy in front.
    #[error("{0}")]
    Proxy(#[from] ProxyError),
    /// There is nothing to check the server's certificate against.
    #[error("{0}")]
    Trust(#[from] TrustError),
    /// TLS, the server's certificate among others.
    #[error("no TLS with the server: {0}")]
    Tls(io::Error),
    /// No connection in time.
    #[error("no connection within {} s", patience.as_secs())]
    TimedOut {
        /// How long this node has waited.
        patience: Duration,
    },
    /// The server has refused, or does not speak TURN.
    #[error("{0}")]
    Ended(#[from] Ending),
}

impl TurnError {
    /// Whether the server has no addresses of the family that was asked for (440, or one of the other family in the answer).
    pub(super) fn lacks_family(&self) -> bool {
        matches!(self, Self::Ended(Ending::Failed(RequestError::AddressFamily { .. })))
    }
}

/// Why the relay has not connected to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerConnectError {
    /// This node has not even asked it.
    #[error("{0}")]
    NotAsked(#[from] ConnectRefusal),
    /// It has refused or failed.
    #[error("{0}")]
    Failed(#[from] RequestError),
    /// The allocation has ended.
    #[error("the allocation has ended")]
    Ended,
}

impl From<PeerConnectError> for ConnectFailure {
    fn from(error: PeerConnectError) -> Self {
        match error {
            PeerConnectError::Failed(RequestError::PeerUnreachable | RequestError::Forbidden) => Self::Refused,
            PeerConnectError::Failed(RequestError::Silent) => Self::TimedOut,
            PeerConnectError::Failed(RequestError::ConnectionExists) => Self::AddrInUse,
            PeerConnectError::NotAsked(ConnectRefusal::Family)
            | PeerConnectError::Failed(RequestError::AddressFamily { .. }) => Self::Unreachable,
            PeerConnectError::NotAsked(_) | PeerConnectError::Failed(_) | PeerConnectError::Ended => Self::Other,
        }
    }
}
