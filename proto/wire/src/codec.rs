//! The one binary encoding of Keyferry: bincode 2, fixed-width little-endian integers, always with a limit.
//!
//! ```text
//! u8 u16 u32 u64   little endian, fixed width
//! bool             one byte, 0 or 1
//! Option           one byte (0 or 1), then the value
//! enum             u32 variant index, then its fields
//! array [T; N]     the elements
//! list, string     u64 count, then the elements (UTF-8 bytes for a string)
//! struct           its fields in order
//! ```
//!
//! What it is not: a frame. Where a message begins and ends on a stream is [`crate::frame`]'s business.

pub use keyferry_net::bounded::at_most;
use serde::{Serialize, de::DeserializeOwned};

/// Why some bytes are not the value that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// More bytes than the limit for this kind of value; nothing was parsed.
    #[error("{got} bytes where at most {limit} are allowed")]
    TooLong {
        /// Length of the input, in bytes.
        got: usize,
        /// The limit for this kind of value, in bytes.
        limit: usize,
    },
    /// The bytes do not decode to the expected type.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A whole value was read, and bytes remain behind it.
    #[error("{extra} bytes left over after the value")]
    TrailingBytes {
        /// How many bytes remain.
        extra: usize,
    },
}

/// The greatest encoded length of any value, in bytes; every call gives its own, smaller limit.
pub const MAX_ENCODED_LEN: usize = 64 * 1024 * 1024;

/// Inputs up to this length, in bytes, are decoded under a tighter limit; see [`decode`].
const SMALL_LEN: usize = 4 * 1024;

/// The second step of the same ladder, in bytes.
const MIDDLE_LEN: usize = 64 * 1024;

fn config<const LIMIT: usize>() -> impl bincode::config::Config {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<LIMIT>()
}

/// Encodes a value.
///
/// # Panics
/// Only for a type that serde cannot represent in bincode (none of this crate's) or a value above [`MAX_ENCODED_LEN`].
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, config::<MAX_ENCODED_LEN>()).expect("this crate's types encode")
}

/// Decodes exactly one value from the whole of `bytes`; refuses more than `limit` bytes before parsing.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLong { got: bytes.len(), limit });
    }
    // bincode allocates a string as soon as it has read its length, up to the configured limit. That limit is a constant
    // of the type, so a ladder of three keeps what a few hostile bytes can claim near to what they are.
    let decoded = if bytes.len() <= SMALL_LEN {
        bincode::serde::decode_from_slice(bytes, config::<SMALL_LEN>())
    } else if bytes.len() <= MIDDLE_LEN {
        bincode::serde::decode_from_slice(bytes, config::<MIDDLE_LEN>())
    } else {
        bincode::serde::decode_from_slice(bytes, config::<MAX_ENCODED_LEN>())
    };
    let (value, used) = decoded.map_err(|error| CodecError::Malformed(error.to_string()))?;
    if used != bytes.len() {
        return Err(CodecError::TrailingBytes { extra: bytes.len() - used });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Sample {
        flag: bool,
        name: String,
        #[serde(deserialize_with = "at_most::<3, _, _>")]
        numbers: Vec<u16>,
        maybe: Option<u64>,
    }

    #[test]
    fn layout_is_fixed_width_little_endian() {
        let sample = Sample { flag: true, name: "ab".into(), numbers: vec![0x0102], maybe: Some(5) };
        let expected = [
            &[1][..],
            &[2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b'],
            &[1, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x01],
            &[1, 5, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(encode(&sample), expected);
        assert_eq!(decode(&expected, 100), Ok(sample));
    }

    #[test]
    fn long_trailing_truncated_and_over_counted_input_is_refused() {
        let bytes = encode(&7_u32);
        assert_eq!(decode::<u32>(&bytes, 3), Err(CodecError::TooLong { got: 4, limit: 3 }));
        assert_eq!(decode::<u16>(&bytes, 4), Err(CodecError::TrailingBytes { extra: 2 }));
        assert!(matches!(decode::<u64>(&bytes, 8), Err(CodecError::Malformed(_))));
        let four = encode(&(false, "", vec![0_u16; 4], None::<u64>));
        assert!(matches!(decode::<Sample>(&four, 100), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn a_short_input_that_claims_a_long_text_is_refused_by_the_limit_and_not_by_reading_on() {
        let over_limit = CodecError::Malformed(bincode::error::DecodeError::LimitExceeded.to_string());
        for claimed in [SMALL_LEN as u64 + 1, MAX_ENCODED_LEN as u64 - 100, 1 << 40, u64::MAX] {
            assert_eq!(decode::<String>(&claimed.to_le_bytes(), 100), Err(over_limit.clone()), "{claimed}");
        }
    }

    proptest! {
        #[test]
        fn decoding_any_bytes_never_panics_and_is_the_inverse_of_encoding(
            bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..64),
        ) {
            if let Ok(sample) = decode::<Sample>(&bytes, 64) {
                prop_assert_eq!(encode(&sample), bytes);
            }
        }
    }
}
