//! A sealed offer: the record that the DHT holds. All of them have one length.
//!
//! ```text
//! header     version u8 = 2 | blinded key A' 32 | day u32 | sequence u64 | expires u64              53 bytes
//! record     header | nonce 24 | ciphertext 2320 | signature 64                                   2461 bytes
//! signature  by a' over "keyferry sealed offer v2\0" and all before it
//! plaintext  length u32 LE | SignedOffer | zeros up to 2304 bytes
//! ciphertext XChaCha20-Poly1305(BLAKE3 derive_key("keyferry 2026 offer seal v2", A | day u32 LE), nonce,
//!            plaintext, associated data = header)
//! ```
//! What it is not: the store of such records. It asks [`supersedes`] which of two to keep.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};

use super::{
    OfferError, RecordKey, SignedOffer, WINDOW,
    blind::{BlindedSecret, blinded_key},
    record::{acceptable_days, of_blinded},
    signed::MAX_SIGNED_LEN,
    veil::Veil,
};
use keyferry_net::time::{UnixTime, UtcDay};

use crate::{
    codec,
    identity::{NodeKey, NodeSecret},
};

/// The length of a sealed offer, in bytes; what has another one is refused unread.
pub const SEALED_LEN: usize = HEADER_LEN + NONCE_LEN + CIPHERTEXT_LEN + SIGNATURE_LEN;

/// The version of the records that this program makes, stores and reads. What is sealed in one has a version of its own.
pub const RECORD_VERSION: u8 = 2;

const DOMAIN: &[u8] = b"keyferry sealed offer v2\0";
const SEAL_CONTEXT: &str = "keyferry 2026 offer seal v2";
const HEADER_LEN: usize = 53;
const NONCE_LEN: usize = 24;
/// Every plaintext has this length, so that the size of a record tells nothing about what is in it.
const PLAINTEXT_LEN: usize = 4 + MAX_SIGNED_LEN;
const CIPHERTEXT_LEN: usize = PLAINTEXT_LEN + 16;
const SIGNATURE_LEN: usize = 64;

/// A record of the DHT, checked as far as one can who does not know the node key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedOffer {
    header: Header,
    bytes: Vec<u8>,
}

/// What of a record is in the clear, and bound to the ciphertext as its associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    version: u8,
    blinded: [u8; 32],
    day: UtcDay,
    sequence: u64,
    expires: UnixTime,
}

/// Why some bytes are not a record that belongs under a key. The fault lies with whoever put them there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The record is of another version than this one, and nothing more of it was read.
    #[error("the record is of version {got}, this program reads version {RECORD_VERSION}")]
    Version {
        /// The version of the record.
        got: u8,
    },
    /// Records have one length, and this one has another; nothing was parsed.
    #[error("a record of {got} bytes where {SEALED_LEN} are needed")]
    Length {
        /// Length, in bytes.
        got: usize,
    },
    /// The record belongs under another key.
    #[error("the record belongs under {expected}, it was found under {got}")]
    WrongKey {
        /// The key that the record's blinded key gives.
        expected: RecordKey,
        /// The key under which it was found.
        got: RecordKey,
    },
    /// The signature is not one of the blinded key over this record, or the blinded key is unusable.
    #[error("the record is not signed by its blinded key")]
    BadSignature,
    /// The record has not been valid for longer than a clock may be behind.
    #[error("the record expired at {expires:?}; it is {now:?} now")]
    Expired {
        /// When it expired.
        expires: UnixTime,
        /// The time at which it was looked at.
        now: UnixTime,
    },
    /// The record would be valid for longer than one made by now can be, even by a clock that is ahead.
    #[error("the record expires at {expires:?}, later than any made by now could ({latest:?})")]
    FromTheFuture {
        /// When it would expire.
        expires: UnixTime,
        /// The latest acceptable expiry.
        latest: UnixTime,
    },
    /// The record is of a day that is neither today nor near.
    #[error("the record is of {got:?}, only {first:?} to {last:?} are acceptable now")]
    WrongDay {
        /// The day of the record.
        got: UtcDay,
        /// The first acceptable day.
        first: UtcDay,
        /// The last acceptable day.
        last: UtcDay,
    },
}

/// Why a record is not an offer of a node. [`UnsealError::AnotherNode`] is a mix-up; all else is the owner's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// The record is not one of this node for the day that it states.
    #[error("the record is not one of the node that was asked for")]
    AnotherNode,
    /// The ciphertext is not authentic.
    #[error("the record does not decrypt")]
    Undecryptable,
    /// The plaintext is not a length, that many bytes, and zeros to the end.
    #[error("the decrypted record is not padded as it should be")]
    Padding,
    /// The offer inside is not acceptable.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The offer inside is one of another node.
    #[error("the record holds an offer that was signed by another node")]
    SignedByAnother,
    /// Sequence or expiry in the clear are not those of the offer inside, veiled for the day.
    #[error("the record's sequence or expiry does not follow from that of the offer inside")]
    HeaderMismatch,
}

/// Seals a signed offer for a day.
///
/// `secret` must be the one that signed the offer, else the offer's own check fails with [`OfferError::BadSignature`].
/// `nonce` must be random, fresh for every call. An offer that was sealed for one day must not be sealed for another one:
/// whoever stores both could tell by what their sequences and expiries add from one record to the next.
pub fn seal(
    offer: &SignedOffer,
    secret: &NodeSecret,
    day: UtcDay,
    nonce: [u8; NONCE_LEN],
) -> Result<SealedOffer, OfferError> {
    let node = secret.public();
    if offer.node() != node {
        return Err(OfferError::BadSignature);
    }
    let pair = BlindedSecret::derive(secret, day);
    let veil = Veil::new(&node, day);
    let header = Header {
        version: RECORD_VERSION,
        blinded: *pair.public(),
        day,
        sequence: veil.sequence(offer.offer().sequence),
        expires: veil.expires(offer.offer().expires),
    };
    let encoded = codec::encode(&header);
    let ciphertext = cipher(&node, day)
        .encrypt(&nonce.into(), Payload { msg: &pad(offer.as_bytes()), aad: &encoded })
        .expect("a plaintext of a few kilobytes is within the cipher's limit");
    let body = [&encoded[..], &nonce, &ciphertext].concat();
    let signature = pair.sign(&[DOMAIN, &body].concat());
    Ok(SealedOffer { header, bytes: [&body[..], &signature].concat() })
}

/// Whether a record replaces another one under the same key: only by a greater sequence number.
///
/// An equal one with other bytes never does, or two holders could differ for good, and a replayed one changes nothing.
/// Sequences of records under two keys say nothing about each other: those of the offers inside do.
pub fn supersedes(new: &SealedOffer, old: &SealedOffer) -> bool {
    new.sequence() > old.sequence()
}

impl SealedOffer {
    /// Checks a record as any node of the DHT does, on put and on get: version and length before all else, then key,
    /// expiry and day as of `now`, and signature.
    pub fn parse(bytes: &[u8], key: &RecordKey, now: UnixTime) -> Result<Self, RecordError> {
        match bytes.first() {
            Some(&RECORD_VERSION) | None => {}
            Some(&got) => return Err(RecordError::Version { got }),
        }
        let wrong_length = RecordError::Length { got: bytes.len() };
        let bytes: &[u8; SEALED_LEN] = bytes.try_into().map_err(|_| wrong_length.clone())?;
        let (encoded, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(wrong_length.clone())?;
        let (_, signature) = rest.split_last_chunk::<SIGNATURE_LEN>().ok_or(wrong_length)?;
        let header: Header = codec::decode(encoded, HEADER_LEN).expect("integers of a fixed width decode");
        let expected = of_blinded(&header.blinded);
        if expected != *key {
            return Err(RecordError::WrongKey { expected, got: *key });
        }
        header.check_time(now)?;
        let blinded = NodeKey::from_bytes(&header.blinded).map_err(|_| RecordError::BadSignature)?;
        if !blinded.verifies(&[DOMAIN, &bytes[..SEALED_LEN - SIGNATURE_LEN]].concat(), signature) {
            return Err(RecordError::BadSignature);
        }
        Ok(Self { header, bytes: bytes.to_vec() })
    }

    /// Opens the record as the offer of `node`, and checks that it is one.
    pub fn open(&self, node: &NodeKey, now: UnixTime) -> Result<SignedOffer, UnsealError> {
        let header = &self.header;
        if blinded_key(node, header.day) != header.blinded {
            return Err(UnsealError::AnotherNode);
        }
        let (encoded, rest) = self.bytes.split_at(HEADER_LEN);
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>().ok_or(UnsealError::Undecryptable)?;
        let plaintext = cipher(node, header.day)
            .decrypt(nonce.into(), Payload { msg: &rest[..CIPHERTEXT_LEN], aad: encoded })
            .map_err(|_| UnsealError::Undecryptable)?;
        let signed = SignedOffer::decode(unpad(&plaintext)?, now)?;
        if signed.node() != *node {
            return Err(UnsealError::SignedByAnother);
        }
        let (offer, veil) = (signed.offer(), Veil::new(node, header.day));
        if (veil.sequence(offer.sequence), veil.expires(offer.expires)) != (header.sequence, header.expires) {
            return Err(UnsealError::HeaderMismatch);
        }
        Ok(signed)
    }

    /// The key under which the record belongs.
    pub fn key(&self) -> RecordKey {
        of_blinded(&self.header.blinded)
    }

    /// The day for which it was made.
    pub fn day(&self) -> UtcDay {
        self.header.day
    }

    /// The sequence number in the clear: of two records under one key, the greater one counts; see [`supersedes`].
    pub fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// From this moment on the record is void by the clock of the node that made it.
    pub fn expires(&self) -> UnixTime {
        self.header.expires
    }

    /// The record's bytes, for the DHT and for [`Self::parse`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Header {
    fn check_time(&self, now: UnixTime) -> Result<(), RecordError> {
        let latest = now.plus(WINDOW);
        if self.expires.plus(WINDOW) <= now {
            return Err(RecordError::Expired { expires: self.expires, now });
        }
        if self.expires > latest {
            return Err(RecordError::FromTheFuture { expires: self.expires, latest });
        }
        let (first, last) = acceptable_days(now);
        if !(first..=last).contains(&self.day) {
            return Err(RecordError::WrongDay { got: self.day, first, last });
        }
        Ok(())
    }
}

fn cipher(node: &NodeKey, day: UtcDay) -> XChaCha20Poly1305 {
    let key =
        blake3::Hasher::new_derive_key(SEAL_CONTEXT).update(node.as_bytes()).update(&day.0.to_le_bytes()).finalize();
    XChaCha20Poly1305::new(key.as_bytes().into())
}

fn pad(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a signed offer is a few kilobytes");
    let mut padded = [&length.to_le_bytes(), message].concat();
    padded.resize(PLAINTEXT_LEN, 0);
    padded
}

fn unpad(padded: &[u8]) -> Result<&[u8], UnsealError> {
    let (length, rest) = padded.split_first_chunk::<4>().ok_or(UnsealError::Padding)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| UnsealError::Padding)?;
    let (message, zeros) = rest.split_at_checked(length).ok_or(UnsealError::Padding)?;
    match zeros.iter().all(|byte| *byte == 0) {
        true => Ok(message),
        false => Err(UnsealError::Padding),
    }
}
