//! What a dialler shows in its first flight, so that the listener may show itself: a proof that it knows the node, or the content,
//! that it wants. It goes where TLS has the name of the server, and looks like one (RFC 6066 §3).
//!
//! ```text
//! server name  base32 (RFC 4648 §6), lower case, no padding: nonce 16 | mac 16                    52 characters
//! mac          BLAKE3 keyed_hash(key, nonce | key share 32), first 16 bytes
//! node         key = BLAKE3 derive_key("keyferry 2026 dial node v1", A | day u32 LE), nonce = random 16
//! content      key = BLAKE3 derive_key("keyferry 2026 dial content v1", content hash | day u32 LE), nonce = tag 8 | random 8
//! tag          BLAKE3 derive_key("keyferry 2026 dial tag v1", content hash | day u32 LE), first 8 bytes
//! ```
//! The key share is the dialler's X25519 key of the same ClientHello: whoever lifts a proof from the wire and sends it again has no
//! use for the answer, which only the owner of that key can read.
//!
//! What it is not: TLS, or a proof of who dials.

mod first_flight;

use std::{fmt, sync::LazyLock};

use data_encoding::{Encoding, Specification};
use keyferry_net::time::UtcDay;
use thiserror::Error;

pub use self::first_flight::{FirstFlight, MAX_RECORD_LEN, RECORD_HEADER_LEN};
use crate::{hash::ContentHash, identity::NodeKey};

const NODE_CONTEXT: &str = "keyferry 2026 dial node v1";
const CONTENT_CONTEXT: &str = "keyferry 2026 dial content v1";
const TAG_CONTEXT: &str = "keyferry 2026 dial tag v1";

const NONCE_LEN: usize = 16;
const TAG_LEN: usize = 8;
const MAC_LEN: usize = 16;

/// Characters of a proof as the name of a server.
pub const NAME_LEN: usize = 52;

/// What a dialler wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sought {
    /// A node.
    Node(NodeKey),
    /// A content, from whoever has it.
    Content(ContentHash),
}

/// The X25519 key of a ClientHello, as bytes (RFC 8446 §4.2.8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyShare(pub [u8; 32]);

/// What tells two proofs apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialNonce([u8; NONCE_LEN]);

/// By what a listener finds the content that is sought, of all that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentTag([u8; TAG_LEN]);

/// A proof, as it came or as it is to be sent. What it proves is to be asked ([`proves`](Self::proves)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialProof {
    nonce: DialNonce,
    mac: [u8; MAC_LEN],
}

/// A name is no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected a name of {NAME_LEN} characters in base32, got one of {got_len}")]
pub struct NoProof {
    /// Its length.
    pub got_len: usize,
}

impl DialProof {
    /// Proves on a day that this is sought. Of the random bytes, content needs the last 8 only.
    pub fn new(sought: &Sought, day: UtcDay, share: &KeyShare, random: [u8; NONCE_LEN]) -> Self {
        let mut nonce = random;
        if let Sought::Content(hash) = sought {
            nonce[..TAG_LEN].copy_from_slice(&ContentTag::of(hash, day).0);
        }
        Self { nonce: DialNonce(nonce), mac: mac(sought, day, nonce, share) }
    }

    /// Reads the name of a server.
    pub fn parse(name: &str) -> Result<Self, NoProof> {
        let no_proof = NoProof { got_len: name.len() };
        // Before it is decoded, so that the length of what is decoded is known.
        if name.len() != NAME_LEN {
            return Err(no_proof);
        }
        let bytes = NAME.decode(name.as_bytes()).map_err(|_| no_proof)?;
        let (nonce, mac) = bytes.split_first_chunk().ok_or(no_proof)?;
        Ok(Self { nonce: DialNonce(*nonce), mac: mac.try_into().map_err(|_| no_proof)? })
    }

    /// The proof as the name of a server.
    pub fn to_name(&self) -> String {
        NAME.encode(&[self.nonce.0, self.mac].concat())
    }

    /// What tells it from others.
    pub fn nonce(&self) -> DialNonce {
        self.nonce
    }

    /// By what the content is found, if it is of a content.
    pub fn tag(&self) -> ContentTag {
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&self.nonce.0[..TAG_LEN]);
        ContentTag(tag)
    }

    /// Whether whoever has made it with that key share knew on that day what it sought. Takes as long whatever the answer is.
    pub fn proves(&self, sought: &Sought, day: UtcDay, share: &KeyShare) -> bool {
        // Hashes are compared in constant time.
        padded(self.mac) == padded(mac(sought, day, self.nonce.0, share))
    }
}

impl ContentTag {
    /// The tag of a content on a day.
    pub fn of(hash: &ContentHash, day: UtcDay) -> Self {
        let mut tag = [0; TAG_LEN];
        let derived = derive(TAG_CONTEXT, hash.as_bytes(), day);
        tag.copy_from_slice(&derived[..TAG_LEN]);
        Self(tag)
    }
}

impl fmt::Display for DialProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_name())
    }
}

fn mac(sought: &Sought, day: UtcDay, nonce: [u8; NONCE_LEN], share: &KeyShare) -> [u8; MAC_LEN] {
    let key = match sought {
        Sought::Node(node) => derive(NODE_CONTEXT, node.as_bytes(), day),
        Sought::Content(hash) => derive(CONTENT_CONTEXT, hash.as_bytes(), day),
    };
    let mut mac = [0; MAC_LEN];
    let whole = blake3::Hasher::new_keyed(&key).update(&nonce).update(&share.0).finalize();
    mac.copy_from_slice(&whole.as_bytes()[..MAC_LEN]);
    mac
}

fn derive(context: &str, of: &[u8; 32], day: UtcDay) -> [u8; 32] {
    *blake3::Hasher::new_derive_key(context).update(of).update(&day.0.to_le_bytes()).finalize().as_bytes()
}

fn padded(mac: [u8; MAC_LEN]) -> blake3::Hash {
    let mut bytes = [0; 32];
    bytes[..MAC_LEN].copy_from_slice(&mac);
    blake3::Hash::from_bytes(bytes)
}

/// Base32 in lower case without padding; nothing else stands for the same bytes.
static NAME: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("32 different symbols")
});

#[cfg(test)]
mod tests;
