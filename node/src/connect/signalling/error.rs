//! Why a call has not led to a session: nobody has answered it, there is no path, or nobody has proven itself on the path.
//!
//! What it is not: what to do about it.

use std::{io, net::SocketAddr};

use keyferry_ice::Stream;
use keyferry_proto::signalling::{CallRefusal, SignallingError};
use libp2p::Multiaddr;

use super::CALL_TIMEOUT;
use crate::{
    base::frame_io::ReadFrameError,
    connect::ice::{IceError, IceFailure, TooManyNegotiations},
    net::session::SessionError,
    reach::rendezvous::OpenCallError,
};

/// Why a call has not led to a session.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No offer names a circuit, or this node may not call for what is wanted.
    #[error("there is nowhere to call the node")]
    NowhereToCall,
    /// This node is looking for too many paths at once.
    #[error(transparent)]
    TooMany(#[from] TooManyNegotiations),
    /// The address is not that of a circuit, or one that may not be dialled. Whoever made the offer is at fault.
    #[error("{addr} is no circuit that may be dialled")]
    Address {
        /// The address.
        addr: Multiaddr,
    },
    /// Neither the relay nor the node behind it was reached.
    #[error("the node cannot be called: {0}")]
    Unreachable(#[source] OpenCallError),
    /// The line to the node broke, or what came over it is no message.
    #[error("the node cannot be called: {0}")]
    Line(#[from] ReadFrameError),
    /// Nobody answered in time.
    #[error("no answer within {} s", CALL_TIMEOUT.as_secs())]
    TimedOut,
    /// The callee does not want the call.
    #[error("the call was refused: {0}")]
    Refused(CallRefusal),
    /// Another node is at that address.
    #[error("another node is at the end of that circuit")]
    NotThisNode,
    /// The callee sent something that is not allowed.
    #[error("the peer's signalling is wrong: {0}")]
    Peer(#[source] SignallingError),
    /// What this side would send is not allowed.
    #[error("this side's description cannot be sent: {0}")]
    Own(#[source] SignallingError),
    /// The call, or all signalling of this node, has ended.
    #[error("the call has ended")]
    Ended,
    /// There is no path, in any stream that the call was about. One at least has an error.
    #[error("{}", direct.as_ref().or(relayed.as_ref()).map(ToString::to_string).unwrap_or_default())]
    NoPath {
        /// Why there is no direct path.
        direct: Option<IceError>,
        /// Why there is none through a relay.
        relayed: Option<IceError>,
    },
    /// There was a path, but no session on it.
    #[error("a path was found, but no session was made on it: {why}")]
    NoSession {
        /// The stream that led to the path.
        stream: Stream,
        /// The other end of the path.
        remote: SocketAddr,
        /// Why.
        #[source]
        why: SessionError,
    },
}

impl CallError {
    /// Why there is no path in one stream.
    pub(crate) fn no_path(stream: Stream, error: IceError) -> Self {
        match stream {
            Stream::Direct => Self::NoPath { direct: Some(error), relayed: None },
            Stream::Relayed => Self::NoPath { direct: None, relayed: Some(error) },
        }
    }

    /// Joins the errors of the two streams of one call. That a path led to no session tells more than that there is none.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::NoPath { direct, relayed }, Self::NoPath { direct: other_direct, relayed: other_relayed }) => {
                Self::NoPath { direct: direct.or(other_direct), relayed: relayed.or(other_relayed) }
            }
            (_, error @ Self::NoSession { stream: Stream::Direct, .. }) => error,
            (error @ Self::NoSession { .. }, _) | (_, error) => error,
        }
    }

    /// Whether nobody was there to answer, so that the node may be called elsewhere.
    pub(crate) fn is_unanswered(&self) -> bool {
        match self {
            Self::Address { .. }
            | Self::Unreachable(_)
            | Self::Line(_)
            | Self::TimedOut
            | Self::NotThisNode
            | Self::Peer(_)
            | Self::Own(_)
            | Self::Ended => true,
            Self::NowhereToCall
            | Self::TooMany(_)
            | Self::Refused(_)
            | Self::NoPath { .. }
            | Self::NoSession { .. } => false,
        }
    }

    /// Whether the node itself has given the answer, so that there is nothing to wait for.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::NoPath { direct, relayed } => {
                [direct, relayed].into_iter().flatten().all(|error| matches!(error.reason, IceFailure::NoPath(_)))
            }
            Self::Refused(_) | Self::TooMany(_) => true,
            _ => false,
        }
    }

    /// Whether another negotiation may well end otherwise.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::NoPath { direct, relayed } => [direct, relayed].into_iter().flatten().any(IceError::may_pass),
            Self::NoSession { .. } => true,
            _ => false,
        }
    }
}

impl From<OpenCallError> for CallError {
    fn from(error: OpenCallError) -> Self {
        match error {
            OpenCallError::Address { addr } => Self::Address { addr },
            OpenCallError::Ended => Self::Ended,
            _ => Self::Unreachable(error),
        }
    }
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Line(error.into())
    }
}
