//! Blinding: for each UTC day, a node key gives another key pair that cannot be linked to it without knowing it.
//!
//! ```text
//! h   = clamp(BLAKE3 derive_key("keyferry 2026 blind v1", A | day u32 LE))
//! A'  = h·A          a' = h·a mod l          prefix' = SHA-512("keyferry blind prefix v1\0" | prefix | A')[..32]
//! ```
//! `a` and `prefix` are the two halves of the expanded secret key (RFC 8032 §5.1.5). This is the key blinding of Tor's
//! rend-spec-v3, appendix A.2, with other hash functions.
//!
//! What it is not: encryption. Whoever knows `A` can compute `A'` of any day.

use curve25519_dalek::scalar::{Scalar, clamp_integer};
use ed25519_dalek::{
    VerifyingKey,
    hazmat::{ExpandedSecretKey, raw_sign},
};
use sha2::{Digest, Sha512};

use keyferry_net::time::UtcDay;

use crate::identity::{NodeKey, NodeSecret};

const FACTOR_CONTEXT: &str = "keyferry 2026 blind v1";
const PREFIX_DOMAIN: &[u8] = b"keyferry blind prefix v1\0";

/// The blinded public key `A'` of a node for a day, as bytes.
pub(super) fn blinded_key(node: &NodeKey, day: UtcDay) -> [u8; 32] {
    // Clamping makes the factor a multiple of the cofactor, so that A' has no small-order part even where A has one.
    node.point().mul_clamped(factor(node, day)).compress().to_bytes()
}

/// The blinded key pair of a node for a day. It is wiped from memory when dropped.
pub(super) struct BlindedSecret {
    expanded: ExpandedSecretKey,
    public: VerifyingKey,
}

impl BlindedSecret {
    /// Derives the pair.
    pub(super) fn derive(secret: &NodeSecret, day: UtcDay) -> Self {
        let node = secret.public();
        let expanded = secret.expanded();
        let factor = clamp_integer(factor(&node, day));
        let point = node.point().mul_clamped(factor);
        let public = VerifyingKey::from(point);
        // One prefix for two scalars would give one nonce to two keys that are related in a known way, and so, for
        // equal messages, the secret itself: the prefix must depend on A'.
        let digest = Sha512::new()
            .chain_update(PREFIX_DOMAIN)
            .chain_update(expanded.hash_prefix)
            .chain_update(public.as_bytes())
            .finalize();
        let mut hash_prefix = [0; 32];
        hash_prefix.copy_from_slice(&digest[..32]);
        let scalar = Scalar::from_bytes_mod_order(factor) * expanded.scalar;
        Self { expanded: ExpandedSecretKey { scalar, hash_prefix }, public }
    }

    /// The public half, `A'`.
    pub(super) fn public(&self) -> &[u8; 32] {
        self.public.as_bytes()
    }

    /// Signs a message that begins with a domain-separation prefix.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        raw_sign::<Sha512>(&self.expanded, message, &self.public).to_bytes()
    }
}

/// The blinding factor, before clamping.
fn factor(node: &NodeKey, day: UtcDay) -> [u8; 32] {
    *blake3::Hasher::new_derive_key(FACTOR_CONTEXT)
        .update(node.as_bytes())
        .update(&day.0.to_le_bytes())
        .finalize()
        .as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_ways_to_the_blinded_key_meet_and_its_signatures_verify_strictly() {
        for seed in 0..20 {
            let secret = NodeSecret::from_bytes(&[seed; 32]);
            let day = UtcDay(20_000 + u32::from(seed));
            let pair = BlindedSecret::derive(&secret, day);
            assert_eq!(*pair.public(), blinded_key(&secret.public(), day));
            assert_eq!(*pair.public(), VerifyingKey::from(&pair.expanded).to_bytes());
            let as_key = NodeKey::from_bytes(pair.public()).expect("a sound key");
            assert!(as_key.verifies(b"message", &pair.sign(b"message")));
            assert!(!secret.public().verifies(b"message", &pair.sign(b"message")));
        }
    }

    #[test]
    fn every_day_and_node_has_its_own_key_and_prefix() {
        let [one, other] = [1, 2].map(|seed| NodeSecret::from_bytes(&[seed; 32]));
        let pairs = [(&one, 1), (&one, 2), (&other, 1)].map(|(secret, day)| BlindedSecret::derive(secret, UtcDay(day)));
        for (index, pair) in pairs.iter().enumerate() {
            for later in &pairs[index + 1..] {
                assert_ne!(pair.public(), later.public());
                assert_ne!(pair.expanded.hash_prefix, later.expanded.hash_prefix);
            }
        }
    }
}
