//! Why a message of a call is not acceptable.

use super::{MAX_MESSAGE_LEN, MAX_SIGNALS};
use keyferry_ice::{MAX_SIGNALLED_CANDIDATES, Stream};

use crate::codec::CodecError;

/// Why a message of a call is not acceptable. On writing the fault is the caller's of this crate, on reading the peer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignallingError {
    /// More bytes than a message may have; nothing was parsed.
    #[error("a message of {got} bytes where at most {MAX_MESSAGE_LEN} are allowed")]
    TooLong {
        /// Length, in bytes.
        got: usize,
    },
    /// Fewer bytes than any message has.
    #[error("a message of {got} bytes is too short")]
    TooShort {
        /// Length, in bytes.
        got: usize,
    },
    /// The caller asked for another node. Answer with an empty message.
    #[error("the call is for another node")]
    OtherNode,
    /// The caller's key is no node key, or that of the node that is called.
    #[error("the caller's node key is not usable, or our own")]
    CallerKey,
    /// The signature is not the sender's, or is one for another call, connection, direction or number.
    #[error("the signature is wrong, or made for another call or place in it")]
    BadSignature,
    /// The body does not decode.
    #[error("the message is {0}")]
    Codec(#[from] CodecError),
    /// The body is not the one encoding of its value.
    #[error("the message is not encoded in the one way that is allowed")]
    NotCanonical,
    /// Another kind of message than may stand here.
    #[error("expected {expected}, got {got}")]
    Unexpected {
        /// What may stand here.
        expected: &'static str,
        /// What stands here.
        got: &'static str,
    },
    /// There is no stream in which both sides take part. A callee says so by a refusal.
    #[error("there is no stream in which both sides take part")]
    NoCommonStream,
    /// The message is about a stream in which not both sides take part, which nobody has described yet, or which the sender has left.
    #[error("{got} of a {stream} stream that is not under way")]
    NotUnderWay {
        /// What is said.
        got: &'static str,
        /// The stream.
        stream: Stream,
    },
    /// The ICE username fragment or password is not one.
    #[error("the ICE {field} is not one by RFC 8445")]
    Credential {
        /// Which.
        field: &'static str,
    },
    /// More candidates of one stream than a side may name.
    #[error("{got} candidates where a side may name {MAX_SIGNALLED_CANDIDATES} of a stream")]
    Candidates {
        /// How many, with this message.
        got: usize,
    },
    /// More messages than a side may send in one call.
    #[error("more than {MAX_SIGNALS} signals in a call")]
    Signals,
    /// A moment for crossing SYNs that lies too far ahead.
    #[error("a crossing in {got_ms} ms is too far ahead")]
    Delay {
        /// How far ahead, in milliseconds.
        got_ms: u64,
    },
}
