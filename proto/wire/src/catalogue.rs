//! The catalogue of a node: names, and the content that each stands for, signed by the node.
//!
//! ```text
//! CatalogueEntry  name string | hash 32 | format u32 (0 blob, 1 collection) | size u64 | files u64 | Option attributes
//! attributes      modified i64 (nanoseconds since 1970) | executable bool | private bool
//! SignedEntry     CatalogueEntry | signature 64 by the node key over "keyferry catalogue entry v2\0" CatalogueEntry
//! ```
//! What it is not: the list of what a node has stored; a catalogue is what it chooses to show.

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    address::ShareName,
    codec::{self, CodecError},
    collection::FileAttributes,
    hash::{ContentFormat, ContentHash},
    identity::{NodeKey, NodeSecret},
};

/// The greatest length of a signed entry, in bytes.
pub const MAX_SIGNED_ENTRY_LEN: usize = 8 + ShareName::MAX_LEN + 32 + 4 + 8 + 8 + (1 + 8 + 1 + 1) + SIGNATURE_LEN;

const DOMAIN: &[u8] = b"keyferry catalogue entry v2\0";
const SIGNATURE_LEN: usize = 64;

/// One name of a catalogue, and what it stands for. Size and count are what the node says; the content proves itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueEntry {
    /// The name, unique in its catalogue.
    pub name: ShareName,
    /// The root of the content.
    pub hash: ContentHash,
    /// A file or a folder.
    pub format: ContentFormat,
    /// The bytes of all files together.
    pub size: u64,
    /// How many files there are; 1 for a blob.
    pub files: u64,
    /// What else is carried of a file that is shared on its own; those of a folder are in its manifest.
    pub attributes: Option<FileAttributes>,
}

/// An entry with a signature that has not been checked: all that one can do with it is [`Self::verify`] it or pass it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignedEntry(Vec<u8>);

/// Why a signed entry is not one of a node. The fault lies with the peer that sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Longer than an entry can be, or too short for a signature.
    #[error("a catalogue entry of {got} bytes where {SIGNATURE_LEN} to {MAX_SIGNED_ENTRY_LEN} are allowed")]
    Length {
        /// Length, in bytes.
        got: usize,
    },
    /// The signature is not one of the node that was asked.
    #[error("the catalogue entry is not signed by {expected}")]
    BadSignature {
        /// The node that should have signed it.
        expected: Box<NodeKey>,
    },
    /// The entry does not decode.
    #[error("the catalogue entry is {0}")]
    Malformed(#[from] CodecError),
}

impl SignedEntry {
    /// Signs an entry.
    pub fn sign(entry: &CatalogueEntry, secret: &NodeSecret) -> Self {
        let body = codec::encode(entry);
        let signature = secret.sign(&[DOMAIN, &body].concat());
        Self([&body[..], &signature].concat())
    }

    /// Takes the bytes of a signed entry as they came; only their length is checked here.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, EntryError> {
        if !(SIGNATURE_LEN..=MAX_SIGNED_ENTRY_LEN).contains(&bytes.len()) {
            return Err(EntryError::Length { got: bytes.len() });
        }
        Ok(Self(bytes))
    }

    /// Checks that `node` signed the entry, and gives what it says.
    pub fn verify(&self, node: &NodeKey) -> Result<CatalogueEntry, EntryError> {
        let (body, signature) =
            self.0.split_last_chunk::<SIGNATURE_LEN>().ok_or(EntryError::Length { got: self.0.len() })?;
        if !node.verifies(&[DOMAIN, body].concat(), signature) {
            return Err(EntryError::BadSignature { expected: Box::new(*node) });
        }
        Ok(codec::decode(body, MAX_SIGNED_ENTRY_LEN)?)
    }

    /// The bytes, for [`Self::from_bytes`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for SignedEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = codec::at_most::<MAX_SIGNED_ENTRY_LEN, u8, D>(deserializer)?;
        Self::from_bytes(bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collection::FileTime;

    fn entry() -> CatalogueEntry {
        CatalogueEntry {
            name: "holiday".parse().unwrap(),
            hash: ContentHash::of(b"content"),
            format: ContentFormat::Collection,
            size: 12_345,
            files: 3,
            attributes: None,
        }
    }

    #[test]
    fn a_signed_entry_verifies_for_its_node_only() {
        let [one, other] = [1, 2].map(|seed| NodeSecret::from_bytes(&[seed; 32]));
        let signed = SignedEntry::sign(&entry(), &one);
        assert_eq!(signed.verify(&one.public()), Ok(entry()));
        assert_eq!(
            signed.verify(&other.public()),
            Err(EntryError::BadSignature { expected: Box::new(other.public()) })
        );
    }

    #[test]
    fn the_longest_entry_fits_its_limit_exactly() {
        let attributes = Some(FileAttributes { modified: FileTime(-1), executable: true, private: false });
        let longest = CatalogueEntry { name: "a".repeat(ShareName::MAX_LEN).parse().unwrap(), attributes, ..entry() };
        let secret = NodeSecret::from_bytes(&[1; 32]);
        assert_eq!(SignedEntry::sign(&longest, &secret).as_bytes().len(), MAX_SIGNED_ENTRY_LEN);
    }

    #[test]
    fn an_entry_within_a_message_is_refused_by_its_length_alone() {
        let secret = NodeSecret::from_bytes(&[1; 32]);
        let signed = SignedEntry::sign(&entry(), &secret);
        let encoded = codec::encode(&signed);
        assert_eq!(codec::decode(&encoded, 1000), Ok(signed));
        for length in [0, 63, MAX_SIGNED_ENTRY_LEN + 1] {
            let encoded = codec::encode(&vec![0_u8; length]);
            assert!(matches!(codec::decode::<SignedEntry>(&encoded, 1000), Err(CodecError::Malformed(_))), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_signed_or_not_never_panic_and_decode_as_they_encode(
            noise in prop::collection::vec(any::<u8>(), 0..120),
            change_at in 0_usize..100,
            change in any::<u8>(),
        ) {
            let secret = NodeSecret::from_bytes(&[1; 32]);
            let mut changed = codec::encode(&entry());
            let at = change_at % changed.len();
            changed[at] = change;
            for body in [noise.clone(), changed] {
                let signature = secret.sign(&[DOMAIN, &body].concat());
                let signed = SignedEntry::from_bytes([&body[..], &signature].concat()).unwrap();
                if let Ok(entry) = signed.verify(&secret.public()) {
                    prop_assert_eq!(SignedEntry::sign(&entry, &secret), signed);
                }
            }
            if let Ok(signed) = SignedEntry::from_bytes(noise) {
                prop_assert!(signed.verify(&secret.public()).is_err());
            }
        }
    }
}
