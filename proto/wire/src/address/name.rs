//! The name of a share in its node's catalogue.
//!
//! What it is not: a path. A name is one component, safe as the name of a file on any system.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};
use unicode_normalization::UnicodeNormalization;

use crate::path::{PathError, SafePath};

/// A name in a catalogue: 1 to 255 bytes of UTF-8 in NFC, safe as a file name everywhere, and not like a content hash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ShareName(String);

/// Why a text is not a name. The fault is the user's, or the peer's that sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or too long.
    #[error("a name has 1 to {max} bytes, this one has {got}", max = ShareName::MAX_LEN)]
    Length {
        /// Length, in bytes.
        got: usize,
    },
    /// 64 hexadecimal digits, which would be taken for a content hash.
    #[error("a name must not look like a content hash (64 hexadecimal digits)")]
    LikeHash,
    /// Not in Unicode normalization form C.
    #[error("the name is not in Unicode normalization form C")]
    NotNfc,
    /// Not usable as the name of a file on every system.
    #[error("{name:?} cannot be the name of a file everywhere ({reason})")]
    Unsafe {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: PathError,
    },
    /// A slash in it.
    #[error("{name:?} has a slash; a name is a single one, not a path")]
    Slash {
        /// The name.
        name: String,
    },
}

impl ShareName {
    /// The greatest length of a name, in bytes.
    pub const MAX_LEN: usize = 255;

    /// The name that a file of this machine is shared under: its own as far as it can be typed and passed on, with `_` for the rest.
    pub fn from_file_name(name: &[u8]) -> Self {
        let mut text: String = String::from_utf8_lossy(name).replace(['\u{fffd}', '/'], "_").nfc().collect();
        // Each step mends one thing, of which there are no more than characters, and a few of the whole.
        for _ in 0..=name.len() + 8 {
            let end = text.floor_char_boundary(Self::MAX_LEN);
            text.truncate(end);
            match text.parse() {
                Ok(name) => return name,
                Err(error) => text = mended(text, &error),
            }
        }
        Self("shared".to_owned())
    }

    /// The name, as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ShareName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if !(1..=Self::MAX_LEN).contains(&text.len()) {
            return Err(NameError::Length { got: text.len() });
        }
        if looks_like_hash(text) {
            return Err(NameError::LikeHash);
        }
        if text.contains('/') {
            return Err(NameError::Slash { name: text.to_owned() });
        }
        SafePath::new(text).map_err(|reason| match reason {
            PathError::NotNormalized => NameError::NotNfc,
            reason => NameError::Unsafe { name: text.to_owned(), reason },
        })?;
        Ok(Self(text.to_owned()))
    }
}

/// A text without the first thing that is wrong with it.
fn mended(text: String, error: &NameError) -> String {
    match error {
        NameError::Unsafe { reason: PathError::Character { found }, .. } => text.replace(*found, "_"),
        NameError::Unsafe { reason: PathError::TrailingDotOrSpace { .. }, .. } => {
            format!("{}_", text.trim_end_matches(['.', ' ']))
        }
        NameError::NotNfc => text.nfc().collect(),
        _ => {
            // Room for what is put in front.
            let end = text.floor_char_boundary(ShareName::MAX_LEN - 1);
            format!("_{}", &text[..end])
        }
    }
}

impl PartialEq<str> for ShareName {
    fn eq(&self, other: &str) -> bool {
        self.0 == *other
    }
}

impl AsRef<str> for ShareName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShareName({:?})", self.0)
    }
}

impl<'de> Deserialize<'de> for ShareName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Whether a text would be taken for a content hash, in either case of letters.
pub(super) fn looks_like_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_name_becomes_one_that_can_be_typed() {
        assert_eq!("u\u{308}.txt".parse::<ShareName>(), Err(NameError::NotNfc));
        let cases: [(&[u8], &str); 9] = [
            ("u\u{308}.txt".as_bytes(), "ü.txt"),
            (b"12:30\\a.log", "12_30_a.log"),
            (b"caf\xe9", "caf_"),
            (b"aux.c", "_aux.c"),
            (b"what. .", "what_"),
            (b"Icon\r", "Icon_"),
            (b"..", "__"),
            (b"", "_"),
            (b"plain", "plain"),
        ];
        for (file, name) in cases {
            assert_eq!(ShareName::from_file_name(file).as_str(), name);
        }
        let hash = "0".repeat(64);
        assert_eq!(ShareName::from_file_name(hash.as_bytes()).as_str(), format!("_{hash}"));
        assert_eq!(ShareName::from_file_name("\u{fb2c}".repeat(80).as_bytes()).as_str().len(), 254);
    }

    #[test]
    fn the_length_counts_bytes() {
        assert!("ü".repeat(127).parse::<ShareName>().is_ok());
        assert_eq!("ü".repeat(128).parse::<ShareName>(), Err(NameError::Length { got: 256 }));
    }

    #[test]
    fn what_would_be_taken_for_a_hash_is_refused_in_either_case() {
        for text in ["0".repeat(64), "aB".repeat(32)] {
            assert_eq!(text.parse::<ShareName>(), Err(NameError::LikeHash));
        }
        assert!("0".repeat(63).parse::<ShareName>().is_ok());
        assert!("g".repeat(64).parse::<ShareName>().is_ok());
    }
}
