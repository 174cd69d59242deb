//! Who a node is: an ed25519 key, and its text form.
//!
//! ```text
//! peer id = base58btc( 00 24 | 08 01 12 20 | 32 key bytes )      always "12D3KooW…", 52 characters
//! ```
//! `00 24` is the identity multihash of 36 bytes, `08 01 12 20` libp2p's protobuf header of an ed25519 public key.
//!
//! What it is not: the key *file*; that is the `keyferry` package's business.

use std::{fmt, str::FromStr};

use curve25519_dalek::EdwardsPoint;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey, hazmat::ExpandedSecretKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The public key of a node: what people exchange. Always a valid point of large order, in canonical form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeKey([u8; 32]);

/// The secret half of a node's identity. It is wiped from memory when dropped and never printed.
#[derive(Clone)]
pub struct NodeSecret(SigningKey);

/// Why something is not a node key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeKeyError {
    /// The text is not base58.
    #[error("not a node key: a node key starts with 12D3KooW and has 52 letters and digits")]
    NotBase58,
    /// The text is base58 of something else.
    #[error("not an ed25519 node key: expected 38 bytes in libp2p's peer-id form, got {got} bytes")]
    NotEd25519PeerId {
        /// Decoded length, in bytes.
        got: usize,
    },
    /// The 32 bytes are no point of the curve, not in canonical form, or of small order.
    #[error("not a usable ed25519 public key (no point, non-canonical or of small order)")]
    InvalidPoint,
}

impl NodeKey {
    /// Checks 32 bytes: a point of the curve, canonical, not of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, NodeKeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| NodeKeyError::InvalidPoint)?;
        let canonical = curve25519_dalek::edwards::CompressedEdwardsY(*bytes)
            .decompress()
            .is_some_and(|point| point.compress().to_bytes() == *bytes);
        if key.is_weak() || !canonical {
            return Err(NodeKeyError::InvalidPoint);
        }
        Ok(Self(*bytes))
    }

    /// The 32 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` over `message` was made by this key, by the strict rules (`verify_strict`).
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.verifying_key().verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }

    /// The point of the curve, for blinding.
    pub(crate) fn point(&self) -> EdwardsPoint {
        self.verifying_key().to_edwards()
    }

    /// Kept as bytes, since a decompressed point takes 192 of them in every type that names a node.
    fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey::from_bytes(&self.0).expect("checked when it was made")
    }

    /// The last eight characters of the text form, for people to read.
    pub fn short(&self) -> String {
        let text = self.to_string();
        format!("…{}", &text[text.len() - 8..])
    }
}

impl NodeSecret {
    /// Makes a secret from 32 random bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(bytes))
    }

    /// The 32 secret bytes, for the key file and for TLS.
    pub fn to_bytes(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> NodeKey {
        NodeKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a message. Callers put a domain-separation prefix in front of it.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// The secret scalar and the nonce prefix (RFC 8032 §5.1.5), for blinding.
    pub(crate) fn expanded(&self) -> ExpandedSecretKey {
        ExpandedSecretKey::from(self.0.as_bytes())
    }
}

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeSecret(of {})", self.public())
    }
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        f.write_str(&bs58::encode(bytes).into_string())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({self})")
    }
}

impl FromStr for NodeKey {
    type Err = NodeKeyError;

    fn from_str(text: &str) -> Result<Self, NodeKeyError> {
        if text.len() > 64 {
            return Err(NodeKeyError::NotBase58);
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| NodeKeyError::NotBase58)?;
        match bytes.strip_prefix(&PEER_ID_PREFIX).map(<[u8; 32]>::try_from) {
            Some(Ok(key)) => Self::from_bytes(&key),
            _ => Err(NodeKeyError::NotEd25519PeerId { got: bytes.len() }),
        }
    }
}

impl Serialize for NodeKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for NodeKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <[u8; 32]>::deserialize(deserializer)?;
        Self::from_bytes(&bytes).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_looks_like_a_peer_id() {
        let key = NodeSecret::from_bytes(&[7; 32]).public();
        let text = key.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.len(), 52);
        assert_eq!(text.parse(), Ok(key));
    }

    #[test]
    fn wrong_short_weak_and_non_canonical_keys_are_refused() {
        assert_eq!("0OIl".parse::<NodeKey>(), Err(NodeKeyError::NotBase58));
        assert_eq!("12D3KooW".parse::<NodeKey>(), Err(NodeKeyError::NotEd25519PeerId { got: 6 }));
        // The identity point, and y = p + 1, its non-canonical encoding.
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(NodeKey::from_bytes(&identity), Err(NodeKeyError::InvalidPoint));
        let mut non_canonical = [0xff; 32];
        non_canonical[0] = 0xee;
        non_canonical[31] = 0x7f;
        assert_eq!(NodeKey::from_bytes(&non_canonical), Err(NodeKeyError::InvalidPoint));
    }
}
