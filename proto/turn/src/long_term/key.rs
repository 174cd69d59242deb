//! Keys that prove who has made a message, and messages that are proven (RFC 8489 §9.2.2, §14.5, §14.6).
//!
//! `stun-types` has no HMAC-SHA256 under an MD5 key, which a server that offers MD5 alone asks for: MESSAGE-INTEGRITY-SHA256 is
//! computed here.
//!
//! What it is not: a choice between the two kinds of proof; see [`Authorization`](super::Authorization) and [`Claim`](super::Claim).

use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;
use stun_types::{
    attribute::{AttributeStaticType, MessageIntegrity, MessageIntegritySha256},
    message::{
        IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageHeader, MessageWrite,
        MessageWriteExt, MessageWriteVec,
    },
};
use zeroize::Zeroizing;

use super::PasswordAlgorithm;

/// MESSAGE-INTEGRITY-SHA256 in full, with its header. Truncated ones are refused: no usage of STUN allows them here.
const SHA256_LEN: u16 = 36;

/// Which attribute proves a message, and under which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// MESSAGE-INTEGRITY under the MD5 key: all that servers before RFC 8489 know.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256.
    Sha256(PasswordAlgorithm),
}

/// The key of a user in a realm, for one kind of protection.
#[derive(Clone)]
pub struct Key {
    protection: Protection,
    secret: KeyMaterial,
}

#[derive(Clone)]
enum KeyMaterial {
    Sha1(IntegrityKey),
    Sha256(Box<Hmac<Sha256>>),
}

impl Key {
    /// The key of a user in a realm (RFC 8489 §9.2.2).
    pub fn new(protection: Protection, username: &str, realm: &str, password: &str) -> Self {
        let secret = match protection {
            Protection::Sha1 => {
                let text = LongTermKeyCredentials::new(username.to_owned(), password.to_owned(), realm.to_owned());
                KeyMaterial::Sha1(text.make_key(IntegrityAlgorithm::Sha1))
            }
            Protection::Sha256(algorithm) => {
                let key = derived(algorithm, &[username, ":", realm, ":", password]);
                KeyMaterial::Sha256(Box::new(hmac_sha256(&key)))
            }
        };
        Self { protection, secret }
    }

    /// How messages are proven by this key.
    pub fn protection(&self) -> Protection {
        self.protection
    }

    /// Finishes a message with the proof of this key.
    pub fn sign(&self, mut message: MessageWriteVec) -> Vec<u8> {
        match &self.secret {
            KeyMaterial::Sha1(key) => {
                let added = message.add_message_integrity_with_key(key, IntegrityAlgorithm::Sha1);
                debug_assert!(added.is_ok(), "there is none yet: {added:?}");
                message.finish()
            }
            KeyMaterial::Sha256(hmac) => signed_sha256(message.finish(), hmac.as_ref().clone()),
        }
    }

    /// Whether whoever made a message has this key.
    pub fn proves(&self, message: &Message<'_>) -> bool {
        match &self.secret {
            KeyMaterial::Sha1(key) => {
                message.has_attribute(MessageIntegrity::TYPE) && message.validate_integrity_with_key(key).is_ok()
            }
            KeyMaterial::Sha256(hmac) => proves_sha256(message, hmac.as_ref().clone()),
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("protection", &self.protection).finish_non_exhaustive()
    }
}

fn derived(algorithm: PasswordAlgorithm, text: &[&str]) -> Zeroizing<Vec<u8>> {
    let text = Zeroizing::new(text.concat());
    Zeroizing::new(match algorithm {
        PasswordAlgorithm::Md5 => Md5::digest(text.as_bytes()).to_vec(),
        PasswordAlgorithm::Sha256 => Sha256::digest(text.as_bytes()).to_vec(),
    })
}

#[expect(clippy::expect_used, reason = "an HMAC takes a key of any length (RFC 2104 §2)")]
fn hmac_sha256(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length")
}

fn signed_sha256(mut message: Vec<u8>, mut hmac: Hmac<Sha256>) -> Vec<u8> {
    let end = message.len();
    message[2..4].copy_from_slice(&length_up_to(end).to_be_bytes());
    hmac.update(&message);
    message.extend_from_slice(&MessageIntegritySha256::TYPE.value().to_be_bytes());
    message.extend_from_slice(&(SHA256_LEN - 4).to_be_bytes());
    message.extend_from_slice(&hmac.finalize().into_bytes());
    message
}

fn proves_sha256(message: &Message<'_>, mut hmac: Hmac<Sha256>) -> bool {
    let Some((offset, attribute)) = message.raw_attribute_and_offset(MessageIntegritySha256::TYPE) else {
        return false;
    };
    let Some(covered) = message.as_bytes().get(4..offset) else { return false };
    hmac.update(&message.as_bytes()[..2]);
    hmac.update(&length_up_to(offset).to_be_bytes());
    hmac.update(covered);
    hmac.verify_slice(&attribute.value).is_ok()
}

/// The length in the header of a message whose proof begins at `offset` and is all that is left (RFC 8489 §14.6).
fn length_up_to(offset: usize) -> u16 {
    u16::try_from(offset - MessageHeader::LENGTH).unwrap_or(u16::MAX).saturating_add(SHA256_LEN)
}
