//! The name of content: its BLAKE3 hash, in the text form that `b3sum` prints.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The BLAKE3 hash of a blob, which names it.
///
/// In JSON it is its text form, on the wire its 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

/// What a root hash names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentFormat {
    /// The bytes of one file.
    Blob,
    /// A manifest: the list of the files of a folder (see `collection`).
    Collection,
}

/// Why a text is not a content hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Wrong number of characters.
    #[error("a content hash has 64 hexadecimal digits, this has {got} characters")]
    Length {
        /// Characters found.
        got: usize,
    },
    /// A character that is not a lower-case hexadecimal digit.
    #[error("{found:?} is not a lower-case hexadecimal digit")]
    Digit {
        /// The offending character.
        found: char,
    },
}

impl ContentHash {
    /// The hash of no bytes at all.
    pub const EMPTY: ContentHash = ContentHash([
        0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9, 0x49, 0x9b, 0xcb,
        0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62,
    ]);

    /// Hashes bytes that are at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Wraps a hash that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first ten hexadecimal digits, for people to read.
    pub fn short(&self) -> String {
        self.to_string()[..10].to_owned()
    }
}

impl From<blake3::Hash> for ContentHash {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl From<ContentHash> for blake3::Hash {
    fn from(hash: ContentHash) -> Self {
        blake3::Hash::from_bytes(hash.0)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

impl FromStr for ContentHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let got = text.chars().count();
        if got != 64 {
            return Err(HashError::Length { got });
        }
        if let Some(found) = text.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='f')) {
            return Err(HashError::Digit { found });
        }
        let mut bytes = [0; 32];
        HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).map_err(|_| HashError::Length { got })?;
        Ok(Self(bytes))
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_the_hash_of_no_bytes() {
        assert_eq!(ContentHash::EMPTY, ContentHash::of(b""));
    }

    #[test]
    fn upper_case_and_wrong_lengths_are_refused() {
        let text = ContentHash::of(b"x").to_string();
        assert_eq!(text.parse(), Ok(ContentHash::of(b"x")));
        assert!(matches!(text.to_uppercase().parse::<ContentHash>(), Err(HashError::Digit { .. })));
        assert_eq!(text[1..].parse::<ContentHash>(), Err(HashError::Length { got: 63 }));
    }

    #[test]
    fn wire_form_is_the_32_bytes_alone() {
        let hash = ContentHash::of(b"x");
        let bytes = bincode::serde::encode_to_vec(hash, bincode::config::standard()).unwrap();
        assert_eq!(bytes, hash.as_bytes());
        let back = bincode::serde::decode_from_slice(&bytes, bincode::config::standard()).unwrap();
        assert_eq!(back, (hash, 32));
    }
}
