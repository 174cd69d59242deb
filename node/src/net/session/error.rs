//! Why there is no session, or no longer one: what was wrong, with whom, and whose fault it is.
//!
//! What it is not: what to do about it.

use std::{fmt::Display, io, net::SocketAddr, sync::Arc, time::Duration};

use keyferry_proto::{
    frame::FrameError,
    identity::{NodeKey, NodeKeyError},
    message::{ControlMessage, Goodbye, MessageError},
};

use crate::net::path::AddressRefusal;

/// Why the identity of a peer was refused in the TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityRefused {
    /// Another node is there.
    #[error("another node is there: expected {expected}, got {got}")]
    OtherNode {
        /// Who was asked for.
        expected: Box<NodeKey>,
        /// Who answered.
        got: Box<NodeKey>,
    },
    /// It is this node itself.
    #[error("that address leads back to this node itself")]
    Ourselves,
    /// It is another running node, with this node's own key.
    #[error("another running node has this node's own key")]
    Twin,
    /// The peer showed something other than one raw ed25519 public key.
    #[error("the peer did not show a raw ed25519 public key")]
    NotEd25519,
    /// The peer showed an ed25519 key that must not be used.
    #[error("the peer showed an unusable key: {0}")]
    BadKey(NodeKeyError),
    /// The peer speaks TLS, but not this protocol.
    #[error("the peer does not speak keyferry/2")]
    WrongProtocol,
}

/// Why a session could not be made, or could not be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// The peer's identity was refused; the peer or the address is wrong.
    #[error(transparent)]
    Identity(#[from] IdentityRefused),
    /// Whoever is at the other end has ended the connection without a word: it is not who is sought, or its clock is more than a day
    /// off.
    #[error("whoever is there does not know what is sought")]
    NotThere,
    /// The dialler has not proven to know what it seeks here; it is at fault.
    #[error("the dialler does not show that it knows whom or what it seeks")]
    Unproven,
    /// The TLS handshake failed for another reason; the peer is at fault, or is no keyferry node.
    #[error("the TLS handshake failed: {0}")]
    Tls(Arc<rustls::Error>),
    /// The connection broke; the network or the peer is at fault.
    #[error("the connection broke: {0}")]
    Io(Arc<io::Error>),
    /// The peer did not finish the handshake in time.
    #[error("the peer did not finish the handshake within {limit:?}")]
    HandshakeTimeout {
        /// The time it had.
        limit: Duration,
    },
    /// The peer's first messages were wrong; the peer is at fault.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// The peer speaks another version of the protocol; the older program is to be updated.
    #[error("the peer speaks version {theirs} of the protocol, this node {ours}; update the older one")]
    Version {
        /// Our version.
        ours: u16,
        /// The peer's version.
        theirs: u16,
    },
    /// Too many peers are in the middle of a handshake; this node is busy.
    #[error("too many handshakes at once (limit {limit})")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// The session has ended.
    #[error("the session has ended: {0}")]
    Ended(SessionEnd),
    /// None of the peer's addresses may be dialled.
    #[error("no address to dial{}", list(refused))]
    NothingToDial {
        /// Addresses that were offered, and why each was refused.
        refused: Vec<(SocketAddr, AddressRefusal)>,
    },
    /// No session could be made at any of the peer's addresses.
    #[error("no address answered as the right node{}", list(failed))]
    AllFailed {
        /// Each attempt, in the order in which they failed.
        failed: Vec<(SocketAddr, SessionError)>,
        /// Addresses that were offered, and why each was refused.
        refused: Vec<(SocketAddr, AddressRefusal)>,
    },
    /// This node's own key was refused by the TLS library; this node is at fault.
    #[error("this node's key cannot be used for TLS: {0}")]
    OwnKey(Arc<rustls::Error>),
}

impl SessionError {
    /// Whether the peer has no place for this session now.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Ended(SessionEnd::ClosedByPeer { reason: Some(Goodbye::Busy) }))
    }

    /// The first address at which somebody answers who is not who is sought.
    pub fn not_there(&self) -> Option<SocketAddr> {
        let Self::AllFailed { failed, .. } = self else {
            return None;
        };
        let not_there =
            |error: &Self| matches!(error, Self::NotThere | Self::Identity(IdentityRefused::OtherNode { .. }));
        failed.iter().find(|(_, error)| not_there(error)).map(|(addr, _)| *addr)
    }

    /// Sorts out an error of the TLS layer: the identity, the handshake or the connection.
    pub(super) fn of_handshake(error: io::Error) -> Self {
        let Some(inner) = error.get_ref() else {
            return Self::Io(Arc::new(error));
        };
        if let Some(refused) = inner.downcast_ref::<IdentityRefused>() {
            return Self::Identity(refused.clone());
        }
        match inner.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => {
                match other.0.downcast_ref::<IdentityRefused>() {
                    Some(refused) => Self::Identity(refused.clone()),
                    None => Self::Io(Arc::new(error)),
                }
            }
            Some(tls) => Self::Tls(Arc::new(tls.clone())),
            None => Self::Io(Arc::new(error)),
        }
    }
}

/// How a peer broke the protocol on its control stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// It sent something that is not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It sent something that is not a message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Its first request was not the one for the control stream.
    #[error("expected the control stream first, got another request")]
    NoControl,
    /// Its first message was not a hello.
    #[error("expected a hello, got {got:?}")]
    NoHello {
        /// What it said.
        got: ControlMessage,
    },
    /// It said hello again.
    #[error("a second hello")]
    SecondHello,
}

/// Why a session ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionEnd {
    /// This side closed it, or dropped every handle.
    #[error("closed by this side")]
    ClosedHere,
    /// The peer closed it.
    #[error("closed by the peer{}", in_words(reason))]
    ClosedByPeer {
        /// The peer's reason, if it gave one.
        reason: Option<Goodbye>,
    },
    /// The peer has not been heard for too long.
    #[error("the peer has not been heard for {0:?}")]
    Silent(Duration),
    /// The connection broke, or the peer broke the protocol.
    #[error("the connection broke: {0}")]
    Broken(#[from] Breakage),
}

fn in_words(reason: &Option<Goodbye>) -> &'static str {
    match reason {
        None => "",
        Some(Goodbye::Finished) => " (it has finished)",
        Some(Goodbye::Stopping) => " (it stops)",
        Some(Goodbye::Busy) => " (it is busy)",
        Some(Goodbye::Idle) => " (nothing was asked of it for minutes)",
        Some(Goodbye::Protocol) => " (it says that this node broke the protocol)",
    }
}

/// How a session broke.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Breakage {
    /// The multiplexer, or the connection under it.
    #[error("{0}")]
    Multiplexer(#[source] Arc<yamux::ConnectionError>),
    /// The peer broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks version {theirs} of the protocol, this node {ours}; update the older one")]
    Version {
        /// Our version.
        ours: u16,
        /// The peer's version.
        theirs: u16,
    },
    /// This side broke it off.
    #[error("{0}")]
    BrokenOff(&'static str),
    /// The task of the session is gone.
    #[error("its task is gone")]
    TaskGone,
}

fn list(whys: &[(SocketAddr, impl Display)]) -> String {
    whys.iter().map(|(addr, why)| format!("; {addr}: {why}")).collect()
}
