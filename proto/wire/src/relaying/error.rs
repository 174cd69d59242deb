//! Why a request or a reply is not acceptable.

use super::{MAX_CLOCK_SKEW, MAX_LIFETIME};
use keyferry_net::time::UnixTime;

use crate::codec::CodecError;

/// Why a request or a reply is not acceptable. On writing the fault is the caller's of this crate, on reading the peer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayingError {
    /// The request has a length that none has; nothing was parsed.
    #[error("a request of {got} bytes; requests have 4 or 156")]
    RequestLength {
        /// Length, in bytes.
        got: usize,
    },
    /// The request is of a kind that has another length, or of no known kind.
    #[error("a request of {len} bytes is not of kind {got}")]
    Kind {
        /// The kind that it states.
        got: u32,
        /// Its length, in bytes.
        len: usize,
    },
    /// The ephemeral key of the seal is not usable.
    #[error("the ephemeral key of the request is not usable")]
    EphemeralKey,
    /// The claim does not open: it is sealed to another node, or was changed.
    #[error("the claim is sealed to another node, or was changed")]
    Sealed,
    /// The key of the claim is no node key, or that of the relay itself.
    #[error("the requester's node key is not usable, or our own")]
    RequesterKey,
    /// The claim was made too long ago, or comes from the future.
    #[error("the request was made at {got:?}, more than {MAX_CLOCK_SKEW:?} from now, {now:?}")]
    Time {
        /// The stated time.
        got: UnixTime,
        /// The time at which it was looked at.
        now: UnixTime,
    },
    /// The signature is not the requester's, or is one for another connection.
    #[error("the signature is wrong, or made for another connection")]
    BadSignature,
    /// The reply does not decode.
    #[error("the reply is {0}")]
    Codec(#[from] CodecError),
    /// The reply is not the one encoding of its value.
    #[error("the reply is not encoded in the one way that is allowed")]
    NotCanonical,
    /// A realm, username or password is empty, too long, or has a character that it may not have.
    #[error("the {field} of {got} bytes is not one of 1 to {limit} printable characters")]
    Credential {
        /// Which.
        field: &'static str,
        /// Its length, in bytes.
        got: usize,
        /// The greatest length, in bytes.
        limit: usize,
    },
    /// Too many addresses.
    #[error("{got} addresses where at most {limit} are allowed")]
    Addrs {
        /// How many.
        got: usize,
        /// How many there may be.
        limit: usize,
    },
    /// An address with port 0, one that wraps another, or one that stands there twice.
    #[error("address {index} has port 0, wraps an IPv4 address, or stands there twice")]
    Addr {
        /// Its place in the list, from 0.
        index: usize,
    },
    /// The credentials have expired.
    #[error("the credentials expired at {expires:?}; it is {now:?} now")]
    Expired {
        /// When they expired.
        expires: UnixTime,
        /// The time at which the reply was looked at.
        now: UnixTime,
    },
    /// The credentials claim to be good for longer than they can be.
    #[error(
        "the credentials expire at {expires:?}, more than {MAX_LIFETIME:?} and {MAX_CLOCK_SKEW:?} from now, {now:?}"
    )]
    FromTheFuture {
        /// When they would expire.
        expires: UnixTime,
        /// The time at which the reply was looked at.
        now: UnixTime,
    },
}
