//! A sealed offer: the record that the DHT holds.
//!
//! ```text
//! body       blinded key A' 32 | day u32 | sequence u64 | expires u64 | nonce 24 | ciphertext byte list
//! record     body | signature 64 by a' over "keyferry sealed offer v1\0" body
//! plaintext  length u32 LE | SignedOffer | zeros up to a multiple of 512 bytes
//! ciphertext XChaCha20-Poly1305(BLAKE3 derive_key("keyferry 2026 offer seal v1", A | day u32 LE), nonce,
//!            plaintext, associated data = the first 52 bytes of the body)
//! ```
//! What it is not: the store of such records. It asks [`supersedes`] which of two to keep.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};

use super::{
    OfferError, RecordKey, SignedOffer,
    blind::{BlindedSecret, blinded_key},
    latest_expiry,
    record::{acceptable_days, of_blinded},
    signed::MAX_SIGNED_LEN,
};
use keyferry_net::time::{UnixTime, UtcDay};

use crate::{
    codec::{self, CodecError},
    identity::{NodeKey, NodeSecret},
};

/// The greatest length of a sealed offer, in bytes; what is longer is refused unread.
pub const MAX_SEALED_LEN: usize = 4096;

const DOMAIN: &[u8] = b"keyferry sealed offer v1\0";
const SEAL_CONTEXT: &str = "keyferry 2026 offer seal v1";
const SIGNATURE_LEN: usize = 64;
const TAG_LEN: usize = 16;
/// The sizes of plaintexts are multiples of this, so that the size of a record tells little about what is in it.
const PADDING: usize = 512;
const MAX_CIPHERTEXT_LEN: usize = (4 + MAX_SIGNED_LEN).next_multiple_of(PADDING) + TAG_LEN;
const _: () = assert!(84 + MAX_CIPHERTEXT_LEN + SIGNATURE_LEN <= MAX_SEALED_LEN);

/// A record of the DHT, checked as far as one can who does not know the node key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedOffer {
    body: Body,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    header: Header,
    nonce: [u8; 24],
    #[serde(deserialize_with = "codec::at_most::<MAX_CIPHERTEXT_LEN, _, _>")]
    ciphertext: Vec<u8>,
}

/// What of a record is in the clear, and bound to the ciphertext as its associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    blinded: [u8; 32],
    day: UtcDay,
    sequence: u64,
    expires: UnixTime,
}

/// Why some bytes are not a record that belongs under a key. The fault lies with whoever put them there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// More bytes than a record may have; nothing was parsed.
    #[error("a record of {got} bytes where at most {limit} are allowed")]
    TooLong {
        /// Length, in bytes.
        got: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The bytes do not decode.
    #[error("the record is {0}")]
    Malformed(#[from] CodecError),
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
    /// The record is no longer valid.
    #[error("the record expired at {expires:?}; it is {now:?} now")]
    Expired {
        /// When it expired.
        expires: UnixTime,
        /// The time at which it was looked at.
        now: UnixTime,
    },
    /// The record would be valid for longer than one made by now can be.
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

/// Why a record is not an offer of a node. [`OpenError::AnotherNode`] is a mix-up; all else is the owner's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The record is not one of this node for the day that it states.
    #[error("the record is not one of the node that was asked for")]
    AnotherNode,
    /// The ciphertext is not authentic.
    #[error("the record does not decrypt")]
    Undecryptable,
    /// The plaintext is not a length, that many bytes, and zeros.
    #[error("the decrypted record is not padded as it should be")]
    Padding,
    /// The offer inside is not acceptable.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The offer inside is one of another node.
    #[error("the record holds an offer that was signed by another node")]
    SignedByAnother,
    /// Sequence or expiry in the clear differ from those of the offer inside.
    #[error("the record's sequence or expiry differs from that of the offer inside")]
    HeaderMismatch,
}

/// Seals a signed offer for a day.
///
/// `secret` must be the one that signed the offer, else the offer's own check fails with [`OfferError::BadSignature`].
/// `nonce` must be random, fresh for every call.
pub fn seal(offer: &SignedOffer, secret: &NodeSecret, day: UtcDay, nonce: [u8; 24]) -> Result<SealedOffer, OfferError> {
    let node = secret.public();
    if offer.node() != node {
        return Err(OfferError::BadSignature);
    }
    let pair = BlindedSecret::derive(secret, day);
    let header =
        Header { blinded: *pair.public(), day, sequence: offer.offer().sequence, expires: offer.offer().expires };
    let ciphertext = cipher(&node, day)
        .encrypt(&nonce.into(), Payload { msg: &pad(offer.as_bytes()), aad: &codec::encode(&header) })
        .expect("a plaintext of a few kilobytes is within the cipher's limit");
    let body = Body { header, nonce, ciphertext };
    let encoded = codec::encode(&body);
    let signature = pair.sign(&[DOMAIN, &encoded].concat());
    Ok(SealedOffer { body, bytes: [&encoded[..], &signature].concat() })
}

/// Whether a record replaces another one under the same key: only by a greater sequence number.
///
/// An equal one with other bytes never does, or two holders could differ for good, and a replayed one changes nothing.
pub fn supersedes(new: &SealedOffer, old: &SealedOffer) -> bool {
    new.sequence() > old.sequence()
}

impl SealedOffer {
    /// Checks a record as any node of the DHT does, on put and on get: length before all else, then form, key,
    /// signature, expiry and day as of `now`.
    pub fn parse(bytes: &[u8], key: &RecordKey, now: UnixTime) -> Result<Self, RecordError> {
        if bytes.len() > MAX_SEALED_LEN {
            return Err(RecordError::TooLong { got: bytes.len(), limit: MAX_SEALED_LEN });
        }
        let (encoded, signature) = bytes
            .split_last_chunk::<SIGNATURE_LEN>()
            .ok_or_else(|| CodecError::Malformed(format!("{} bytes are too few", bytes.len())))?;
        let body: Body = codec::decode(encoded, MAX_SEALED_LEN)?;
        let header = body.header;
        let expected = of_blinded(&header.blinded);
        if expected != *key {
            return Err(RecordError::WrongKey { expected, got: *key });
        }
        header.check_time(now)?;
        let blinded = NodeKey::from_bytes(&header.blinded).map_err(|_| RecordError::BadSignature)?;
        if !blinded.verifies(&[DOMAIN, encoded].concat(), signature) {
            return Err(RecordError::BadSignature);
        }
        Ok(Self { body, bytes: bytes.to_vec() })
    }

    /// Opens the record as the offer of `node`, and checks that it is one.
    pub fn open(&self, node: &NodeKey, now: UnixTime) -> Result<SignedOffer, OpenError> {
        let Body { header, nonce, ciphertext } = &self.body;
        if blinded_key(node, header.day) != header.blinded {
            return Err(OpenError::AnotherNode);
        }
        let plaintext = cipher(node, header.day)
            .decrypt(nonce.into(), Payload { msg: ciphertext, aad: &codec::encode(header) })
            .map_err(|_| OpenError::Undecryptable)?;
        let offer = SignedOffer::decode(unpad(&plaintext)?, now)?;
        if offer.node() != *node {
            return Err(OpenError::SignedByAnother);
        }
        if (offer.offer().sequence, offer.offer().expires) != (header.sequence, header.expires) {
            return Err(OpenError::HeaderMismatch);
        }
        Ok(offer)
    }

    /// The key under which the record belongs.
    pub fn key(&self) -> RecordKey {
        of_blinded(&self.body.header.blinded)
    }

    /// The day for which it was made.
    pub fn day(&self) -> UtcDay {
        self.body.header.day
    }

    /// The sequence number: of two records under one key, the greater one counts; see [`supersedes`].
    pub fn sequence(&self) -> u64 {
        self.body.header.sequence
    }

    /// From this moment on the record is void.
    pub fn expires(&self) -> UnixTime {
        self.body.header.expires
    }

    /// The record's bytes, for the DHT and for [`Self::parse`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Header {
    fn check_time(&self, now: UnixTime) -> Result<(), RecordError> {
        let latest = latest_expiry(now);
        if self.expires <= now {
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
    padded.resize(padded.len().next_multiple_of(PADDING), 0);
    padded
}

fn unpad(padded: &[u8]) -> Result<&[u8], OpenError> {
    let (length, rest) = padded.split_first_chunk::<4>().ok_or(OpenError::Padding)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| OpenError::Padding)?;
    let (message, zeros) = rest.split_at_checked(length).ok_or(OpenError::Padding)?;
    let is_shortest = padded.len() == (4 + length).next_multiple_of(PADDING);
    if !is_shortest || zeros.iter().any(|byte| *byte != 0) {
        return Err(OpenError::Padding);
    }
    Ok(message)
}
