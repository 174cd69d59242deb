//! Sealing a claim so that only one node can open it: an ephemeral key agrees with the key of that node.
//!
//! ```text
//! sealed  E | XChaCha20-Poly1305(key, nonce of 24 zero bytes, claim)           E = e·B for a fresh e
//! key     BLAKE3 derive_key("keyferry 2026 relay request v1", E | A | S)       S = 8·e·A = 8·a·E
//! ```
//! The nonce may be constant since each key seals one claim. The cofactor makes S the same on both sides whatever part of
//! small order A or E may have.
//!
//! What it is not: proof of who has sealed; that is the signature inside.

use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::Aead};
use curve25519_dalek::{EdwardsPoint, Scalar};

use super::{KEY_LEN, RelayingError};
use crate::identity::{NodeKey, NodeSecret};

/// The length of what is sealed, in bytes: a key, a time and a signature.
pub(super) const CLAIM_LEN: usize = 32 + 8 + 64;
/// The length of a sealed claim, in bytes.
pub(super) const SEALED_LEN: usize = KEY_LEN + CLAIM_LEN + TAG_LEN;

const CONTEXT: &str = "keyferry 2026 relay request v1";
const TAG_LEN: usize = 16;
const NONCE: [u8; 24] = [0; 24];

/// Seals a claim to a node.
pub(super) fn seal(node: &NodeKey, seed: &[u8; 64], claim: &[u8; CLAIM_LEN]) -> Vec<u8> {
    let ephemeral = Scalar::from_bytes_mod_order_wide(seed);
    let public = EdwardsPoint::mul_base(&ephemeral).compress().to_bytes();
    let shared = (node.point() * ephemeral).mul_by_cofactor();
    let sealed = cipher(&public, node, &shared).encrypt(&XNonce::from(NONCE), &claim[..]);
    [&public[..], &sealed.expect("a claim is far below the limit of the cipher")].concat()
}

/// Opens a claim that was sealed to the node of `secret`.
pub(super) fn open(secret: &NodeSecret, sealed: &[u8; SEALED_LEN]) -> Result<[u8; CLAIM_LEN], RelayingError> {
    let (public, ciphertext) = sealed.split_first_chunk::<KEY_LEN>().ok_or(RelayingError::EphemeralKey)?;
    // A usable key, so that there is one encoding of it, and the shared point is none that everybody knows.
    let ephemeral = NodeKey::from_bytes(public).map_err(|_| RelayingError::EphemeralKey)?;
    let shared = ephemeral.point().mul_by_cofactor() * secret.expanded().scalar;
    let opened = cipher(public, &secret.public(), &shared).decrypt(&XNonce::from(NONCE), ciphertext);
    opened.ok().and_then(|claim| claim.try_into().ok()).ok_or(RelayingError::Sealed)
}

fn cipher(ephemeral: &[u8; KEY_LEN], node: &NodeKey, shared: &EdwardsPoint) -> XChaCha20Poly1305 {
    let material = [&ephemeral[..], node.as_bytes(), shared.compress().as_bytes()].concat();
    XChaCha20Poly1305::new(&blake3::derive_key(CONTEXT, &material).into())
}
