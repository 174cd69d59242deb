//! The key file: a node's secret, plain or under a passphrase.
//!
//! ```text
//! plain       08 01 12 40 | 32 secret | 32 public                     libp2p's protobuf form of an ed25519 private key
//! encrypted   "keyferry key 1\n" | u32 memory (KiB) | u32 passes | 16 salt | 24 nonce | ciphertext of plain | 16 tag
//! ```
//! Numbers are little endian. The key of the cipher (XChaCha20-Poly1305) is argon2id(passphrase, salt), one lane, 32
//! bytes; everything before the nonce's end is authenticated with it.
//!
//! What it is not: the file's place and permissions; see [`super::Home`].

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use keyferry_proto::identity::NodeSecret;
use zeroize::Zeroizing;

/// The longest passphrase, in bytes.
pub const MAX_PASSPHRASE_LEN: usize = 1024;

/// No key file is longer than this, in bytes.
pub(super) const MAX_KEY_FILE_LEN: u64 = 1024;

const PLAIN_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x40];
const PLAIN_LEN: usize = 4 + 32 + 32;
const MAGIC: &[u8; 15] = b"keyferry key 1\n";
const SALT_LEN: usize = 16;
const NONCE_LEN: usize = 24;
const HEADER_LEN: usize = MAGIC.len() + 4 + 4 + SALT_LEN + NONCE_LEN;
const ENCRYPTED_LEN: usize = HEADER_LEN + PLAIN_LEN + 16;

/// OWASP's first choice of memory for argon2id, with one pass more; stays far below a node's memory limit.
const MEMORY_KIB: u32 = 46 * 1024;
const PASSES: u32 = 2;
/// A damaged header must not make us allocate more than this, nor run for minutes.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 64;

/// Why a key file gives no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// It is encrypted, and no passphrase was given.
    #[error("it is encrypted; its passphrase is needed")]
    Encrypted,
    /// It is not encrypted, and a passphrase was given.
    #[error("it is not encrypted; no passphrase is needed")]
    NotEncrypted,
    /// Wrong length or header.
    #[error(
        "not a key file of keyferry ({got} bytes); restore it from a backup, or move it away to get a new identity"
    )]
    Malformed {
        /// Its length, in bytes, as far as it was read.
        got: usize,
    },
    /// The public half does not belong to the secret half.
    #[error("it is damaged: its two halves do not belong together; restore it from a backup")]
    Mismatch,
    /// The passphrase is wrong, or the file damaged; the cipher cannot tell which.
    #[error("wrong passphrase (or the file is damaged)")]
    WrongPassphrase,
    /// The passphrase is empty or too long.
    #[error("a passphrase has 1 to {MAX_PASSPHRASE_LEN} bytes, this has {got}")]
    PassphraseLength {
        /// Its length, in bytes.
        got: usize,
    },
    /// The cost in the header is out of bounds.
    #[error(
        "it asks for {memory_kib} KiB and {passes} passes to unlock, which is out of bounds; restore it from a backup"
    )]
    Cost {
        /// Memory, in KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
    },
}

/// The plain form.
pub(super) fn encode(secret: &NodeSecret) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(PLAIN_LEN));
    bytes.extend_from_slice(&PLAIN_PREFIX);
    bytes.extend_from_slice(&*secret.to_bytes());
    bytes.extend_from_slice(secret.public().as_bytes());
    bytes
}

/// Reads the plain form.
pub(super) fn decode(bytes: &[u8]) -> Result<NodeSecret, KeyFileError> {
    if bytes.starts_with(MAGIC) {
        return Err(KeyFileError::Encrypted);
    }
    let malformed = || KeyFileError::Malformed { got: bytes.len() };
    let body: &[u8; 64] =
        bytes.strip_prefix(&PLAIN_PREFIX).and_then(|body| body.try_into().ok()).ok_or_else(malformed)?;
    let (secret, public) = body.split_at(32);
    let secret = Zeroizing::new(<[u8; 32]>::try_from(secret).map_err(|_| malformed())?);
    let secret = NodeSecret::from_bytes(&secret);
    if secret.public().as_bytes() != public {
        return Err(KeyFileError::Mismatch);
    }
    Ok(secret)
}

/// The encrypted form. Salt and nonce are random, the caller's.
pub(super) fn encrypt(
    secret: &NodeSecret,
    passphrase: &str,
    salt: [u8; SALT_LEN],
    nonce: [u8; NONCE_LEN],
) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(ENCRYPTED_LEN));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&MEMORY_KIB.to_le_bytes());
    bytes.extend_from_slice(&PASSES.to_le_bytes());
    bytes.extend_from_slice(&salt);
    bytes.extend_from_slice(&nonce);
    let key = derive_key(passphrase, &salt, MEMORY_KIB, PASSES)?;
    let plain = encode(secret);
    let sealed = XChaCha20Poly1305::new((&*key).into())
        .encrypt(&XNonce::from(nonce), Payload { msg: &plain, aad: &bytes })
        .map_err(|_| KeyFileError::WrongPassphrase)?;
    bytes.extend_from_slice(&sealed);
    Ok(bytes)
}

/// Reads the encrypted form.
pub(super) fn decrypt(bytes: &[u8], passphrase: &str) -> Result<NodeSecret, KeyFileError> {
    if bytes.starts_with(&PLAIN_PREFIX) {
        return Err(KeyFileError::NotEncrypted);
    }
    if !bytes.starts_with(MAGIC) || bytes.len() != ENCRYPTED_LEN {
        return Err(KeyFileError::Malformed { got: bytes.len() });
    }
    let (header, sealed) = bytes.split_at(HEADER_LEN);
    let mut rest = &header[MAGIC.len()..];
    let memory_kib = u32::from_le_bytes(take(&mut rest));
    let passes = u32::from_le_bytes(take(&mut rest));
    let salt: [u8; SALT_LEN] = take(&mut rest);
    let nonce: [u8; NONCE_LEN] = take(&mut rest);
    if memory_kib > MAX_MEMORY_KIB || passes > MAX_PASSES {
        return Err(KeyFileError::Cost { memory_kib, passes });
    }
    let key = derive_key(passphrase, &salt, memory_kib, passes)?;
    let plain = XChaCha20Poly1305::new((&*key).into())
        .decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: header })
        .map_err(|_| KeyFileError::WrongPassphrase)?;
    decode(&Zeroizing::new(plain))
}

fn derive_key(
    passphrase: &str,
    salt: &[u8; SALT_LEN],
    memory_kib: u32,
    passes: u32,
) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    if passphrase.is_empty() || passphrase.len() > MAX_PASSPHRASE_LEN {
        return Err(KeyFileError::PassphraseLength { got: passphrase.len() });
    }
    let cost = KeyFileError::Cost { memory_kib, passes };
    let params = Params::new(memory_kib, passes, 1, Some(32)).map_err(|_| cost.clone())?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
        .map_err(|_| cost)?;
    Ok(key)
}

/// Takes `N` bytes off the front; the caller has checked the length.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (head, tail) = rest.split_first_chunk().expect("the length was checked");
    *rest = tail;
    *head
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_plain_form_is_libp2ps() {
        let secret = NodeSecret::from_bytes(&[9; 32]);
        let parsed = libp2p::identity::Keypair::from_protobuf_encoding(&encode(&secret)).unwrap();
        assert_eq!(parsed.public().to_peer_id().to_string(), secret.public().to_string());
        assert_eq!(decode(&encode(&secret)).unwrap().public(), secret.public());
    }

    #[test]
    fn halves_that_do_not_belong_together_are_refused() {
        let mut bytes = encode(&NodeSecret::from_bytes(&[9; 32]));
        bytes[10] ^= 1;
        assert_eq!(decode(&bytes).unwrap_err(), KeyFileError::Mismatch);
    }

    #[test]
    fn only_the_right_passphrase_opens_an_encrypted_key() {
        let secret = NodeSecret::from_bytes(&[3; 32]);
        let bytes = encrypt(&secret, "correct horse", [1; 16], [2; 24]).unwrap();
        assert_eq!(decode(&bytes).unwrap_err(), KeyFileError::Encrypted);
        assert_eq!(decrypt(&bytes, "battery staple").unwrap_err(), KeyFileError::WrongPassphrase);
        assert_eq!(decrypt(&bytes, "correct horse").unwrap().public(), secret.public());
    }

    #[test]
    fn every_changed_byte_of_an_encrypted_key_is_noticed() {
        let bytes = encrypt(&NodeSecret::from_bytes(&[3; 32]), "p", [1; 16], [2; 24]).unwrap();
        // One byte of each field; the cost fields are tried where they stay cheap.
        for at in [0, MAGIC.len(), MAGIC.len() + 8, HEADER_LEN - 1, HEADER_LEN, ENCRYPTED_LEN - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(decrypt(&changed, "p").is_err(), "byte {at}");
        }
        assert_eq!(
            decrypt(&bytes[..bytes.len() - 1], "p").unwrap_err(),
            KeyFileError::Malformed { got: ENCRYPTED_LEN - 1 }
        );
    }

    #[test]
    fn a_header_that_asks_for_too_much_is_refused_before_it_costs_anything() {
        let mut bytes = encrypt(&NodeSecret::from_bytes(&[3; 32]), "p", [1; 16], [2; 24]).unwrap();
        bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decrypt(&bytes, "p").unwrap_err(), KeyFileError::Cost { memory_kib: u32::MAX, passes: PASSES });
    }

    #[test]
    fn empty_and_endless_passphrases_are_refused() {
        let secret = NodeSecret::from_bytes(&[3; 32]);
        for passphrase in [String::new(), "x".repeat(MAX_PASSPHRASE_LEN + 1)] {
            let got = passphrase.len();
            assert_eq!(
                encrypt(&secret, &passphrase, [1; 16], [2; 24]).unwrap_err(),
                KeyFileError::PassphraseLength { got }
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            // Behind the magic most random headers ask for too much, which is the point; the rest is short.
            let _ = decrypt(&bytes, "p");
        }
    }
}
