//! Offers: what a peer needs to reach a node now, signed by the node, blinded and sealed for the DHT.
//!
//! ```text
//! Offer         candidates list ≤ 32 | signalling list ≤ 4 of byte lists | sequence u64 | expires u64
//!                                                                                  (bincode, see `codec`)
//! SignedOffer   version u8 = 2 | node key 32 | Offer | signature 64 by the node key over "keyferry offer v2\0" Offer
//! SealedOffer   version u8 = 2 | blinded key 32 | day u32 | sequence u64 | expires u64 | nonce 24 | ciphertext 2320
//!               | signature 64 by the blinded key over "keyferry sealed offer v2\0" and all before it
//! ```
//! The DHT holds a [`SealedOffer`] under a [`RecordKey`]. Whoever does not know the node key can check that only its
//! owner made the record, learns nothing of who or where the owner is, and cannot tell that two days' records have one
//! owner: sequence and expiry in the clear are veiled for each day (see `veil`).
//!
//! What it is not: the DHT that carries it, or the rules by which its candidates are dialled.

mod blind;
mod record;
mod sealed;
mod signed;
mod veil;

use std::time::Duration;

use multiaddr::Multiaddr;

pub use self::{
    record::{
        RecordKey, content_record_key, publish_days, record_key, relay_record_key, relay_record_key_of, resolve_days,
    },
    sealed::{RECORD_VERSION, RecordError, SEALED_LEN, SealedOffer, UnsealError, seal, supersedes},
    signed::{MAX_SIGNED_LEN, OFFER_VERSION, SignedOffer},
    veil::MAX_EARLY,
};
use keyferry_ice::Candidate;
use keyferry_net::time::UnixTime;

use crate::{codec::CodecError, identity::NodeKeyError};

/// The greatest number of candidates in an offer.
pub const MAX_CANDIDATES: usize = 32;

/// The greatest number of signalling addresses in an offer.
pub const MAX_SIGNALLING: usize = 4;

/// The greatest binary length of one multiaddr, in bytes: signalling addresses and hints alike.
pub const MAX_MULTIADDR_LEN: usize = 256;

/// The longest time for which an offer is valid.
pub const MAX_LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

/// The time for which a node makes its offers valid: a little more than from one to the next would do, but a node may sleep. The record
/// expires up to [`MAX_EARLY`] before the offer in it.
pub const USUAL_LIFETIME: Duration = Duration::from_secs(90 * 60);

/// How far the clocks of two nodes may be apart without anybody noticing it.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(10 * 60);

/// How wrong a clock may be whose offers are still taken.
pub const MAX_CLOCK_ERROR: Duration = Duration::from_secs(24 * 60 * 60);

/// How far from now an offer may expire, or its day lie, to either side: it is made ahead of time, and by a clock that may be wrong.
const WINDOW: Duration =
    Duration::from_secs(MAX_LIFETIME.as_secs() + MAX_CLOCK_SKEW.as_secs() + MAX_CLOCK_ERROR.as_secs());

/// The greatest sequence number of an offer: it and what veils it fit into 64 bits together.
pub const MAX_SEQUENCE: u64 = u64::MAX / 2;

/// What a peer needs to reach a node now.
///
/// In hand it may hold anything; [`SignedOffer::sign`] and [`SignedOffer::decode`] are where its limits are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Where the node may be reached; at most [`MAX_CANDIDATES`].
    pub candidates: Vec<Candidate>,
    /// Circuits at which the node may be called; at most [`MAX_SIGNALLING`].
    pub signalling: Vec<Multiaddr>,
    /// Greater in each offer that a node makes, whatever the day: of two, the greater one counts. At most [`MAX_SEQUENCE`].
    pub sequence: u64,
    /// From this moment on the offer is void by the clock of the node that made it; at most [`MAX_LIFETIME`] ahead of that.
    pub expires: UnixTime,
}

/// Why an offer is not acceptable. On signing the fault is the caller's, on decoding the peer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// More bytes than a signed offer may have; nothing was parsed.
    #[error("a signed offer of {got} bytes where at most {limit} are allowed")]
    TooLong {
        /// Length, in bytes.
        got: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The offer is of another version than this one, and nothing more of it was read.
    #[error("the offer is of version {got}, this program reads version {OFFER_VERSION}")]
    Version {
        /// The version of the offer.
        got: u8,
    },
    /// Fewer bytes than a version, a key and a signature take.
    #[error("a signed offer of {got} bytes is too short")]
    TooShort {
        /// Length, in bytes.
        got: usize,
    },
    /// The key in the offer is not usable.
    #[error("the offer's node key: {0}")]
    NodeKey(#[from] NodeKeyError),
    /// The signature is not one of the offer's node key over these bytes.
    #[error("the offer is not signed by the node key that it names")]
    BadSignature,
    /// The offer does not decode.
    #[error("the offer is {0}")]
    Malformed(#[from] CodecError),
    /// Too many candidates.
    #[error("{got} candidates where at most {MAX_CANDIDATES} are allowed")]
    Candidates {
        /// Candidates found.
        got: usize,
    },
    /// Too many signalling addresses.
    #[error("{got} signalling addresses where at most {MAX_SIGNALLING} are allowed")]
    Signalling {
        /// Addresses found.
        got: usize,
    },
    /// A signalling address that is no multiaddr, empty, too long, or without an unambiguous text form.
    #[error("signalling address {index} is not a plain multiaddr of 1 to {MAX_MULTIADDR_LEN} bytes")]
    SignallingAddr {
        /// Its place in the list, from 0.
        index: usize,
    },
    /// The sequence number is greater than one can be.
    #[error("the sequence number {got} is greater than {MAX_SEQUENCE}")]
    Sequence {
        /// The sequence number.
        got: u64,
    },
    /// The offer has not been valid for longer than a clock may be behind.
    #[error("the offer expired at {expires:?}; it is {now:?} now")]
    Expired {
        /// When it expired.
        expires: UnixTime,
        /// The time at which it was looked at.
        now: UnixTime,
    },
    /// The offer claims to be valid for longer than an offer can be, even by a clock that is ahead.
    #[error("the offer expires at {expires:?}, later than any made by now could ({latest:?})")]
    FromTheFuture {
        /// When it would expire.
        expires: UnixTime,
        /// The latest acceptable expiry.
        latest: UnixTime,
    },
}

impl Offer {
    /// Checks everything about the offer that does not depend on the time.
    fn check_form(&self) -> Result<(), OfferError> {
        if self.candidates.len() > MAX_CANDIDATES {
            return Err(OfferError::Candidates { got: self.candidates.len() });
        }
        if self.signalling.len() > MAX_SIGNALLING {
            return Err(OfferError::Signalling { got: self.signalling.len() });
        }
        if self.sequence > MAX_SEQUENCE {
            return Err(OfferError::Sequence { got: self.sequence });
        }
        match self.signalling.iter().position(|addr| !is_plain_multiaddr(addr)) {
            Some(index) => Err(OfferError::SignallingAddr { index }),
            None => Ok(()),
        }
    }

    /// Checks that `now` lies within the offer's time, by some clock that is no more than [`MAX_CLOCK_ERROR`] wrong.
    fn check_time(&self, now: UnixTime) -> Result<(), OfferError> {
        let latest = now.plus(WINDOW);
        if self.expires.plus(WINDOW) <= now {
            return Err(OfferError::Expired { expires: self.expires, now });
        }
        if self.expires > latest {
            return Err(OfferError::FromTheFuture { expires: self.expires, latest });
        }
        Ok(())
    }
}

/// Whether a multiaddr is safe to print and to parse again: 1 to [`MAX_MULTIADDR_LEN`] bytes, printable ASCII text that
/// means the same address.
pub(crate) fn is_plain_multiaddr(addr: &Multiaddr) -> bool {
    if addr.is_empty() || addr.len() > MAX_MULTIADDR_LEN {
        return false;
    }
    let text = addr.to_string();
    text.bytes().all(|byte| byte.is_ascii_graphic()) && text.parse::<Multiaddr>().is_ok_and(|again| again == *addr)
}

#[cfg(test)]
mod tests;
