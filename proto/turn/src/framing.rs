//! STUN messages on a TCP connection (RFC 8489 §6.2.2).
//!
//! ```text
//! message   type u16 | length u16, a multiple of 4 | magic cookie 21 12 a4 42 | transaction id 12 bytes | `length` bytes
//! ```
//! The reader asks for exact lengths, since what follows the last message on a data connection belongs to the peer.
//!
//! What it is not: a look into messages; see [`stun_types`].

/// The header of each message.
pub const HEADER_LEN: usize = 20;
/// The longest message to read, with its header. RFC 8489 allows 64 KiB; a challenge with realm, nonce, software and reason of
/// the greatest length (§14: 763 bytes each) has 3.2 KiB.
pub const MAX_MESSAGE_LEN: usize = 4096;

/// RFC 8489 §5.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Bytes that are no STUN message. The other side's fault, but for the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StunFrameError {
    /// A header without the magic cookie, or with a length that no message has.
    #[error("the other side sent something that is no STUN message")]
    NotStun,
    /// A message longer than [`MAX_MESSAGE_LEN`].
    #[error("the other side announced a message of {got} bytes; at most {MAX_MESSAGE_LEN} are allowed")]
    TooLong {
        /// The announced length, with the header.
        got: usize,
    },
    /// More bytes than [`StunReader::wanted`] asked for. The caller's fault.
    #[error("{got} bytes were read where {wanted} were wanted")]
    Overread {
        /// Bytes given.
        got: usize,
        /// Bytes asked for.
        wanted: usize,
    },
}

/// Reads messages in pieces of exact lengths.
#[derive(Debug, Clone, Default)]
pub struct StunReader {
    message: Vec<u8>,
}

impl StunReader {
    /// A reader at the start of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes to read next, at most; never 0.
    pub fn wanted(&self) -> usize {
        announced(&self.message).unwrap_or(HEADER_LEN) - self.message.len()
    }

    /// Takes bytes that have been read, at most [`Self::wanted`], and returns the message that they complete. After an error the
    /// connection is of no more use.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, StunFrameError> {
        if bytes.len() > self.wanted() {
            return Err(StunFrameError::Overread { got: bytes.len(), wanted: self.wanted() });
        }
        self.message.extend_from_slice(bytes);
        let Some(announced) = announced(&self.message) else { return Ok(None) };
        if let Err(error) = check(&self.message, announced) {
            // So that `wanted` is never 0.
            self.message.clear();
            return Err(error);
        }
        Ok((self.message.len() == announced).then(|| std::mem::take(&mut self.message)))
    }
}

/// The length of the message at hand, once its header is there.
fn announced(message: &[u8]) -> Option<usize> {
    let header: &[u8; HEADER_LEN] = message.first_chunk()?;
    Some(HEADER_LEN + usize::from(u16::from_be_bytes([header[2], header[3]])))
}

fn check(message: &[u8], announced: usize) -> Result<(), StunFrameError> {
    let is_stun = message[0] >> 6 == 0 && message[4..8] == MAGIC_COOKIE && announced.is_multiple_of(4);
    match is_stun {
        false => Err(StunFrameError::NotStun),
        true if announced > MAX_MESSAGE_LEN => Err(StunFrameError::TooLong { got: announced }),
        true => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[0x01, 0x03], length.as_slice(), &MAGIC_COOKIE, &[7; 12], body].concat()
    }

    #[test]
    fn what_is_no_stun_and_what_is_too_long_are_refused() {
        let with = |change: fn(&mut [u8])| {
            let mut header = message(&[]);
            change(&mut header);
            StunReader::new().push(&header)
        };
        assert_eq!(with(|header| header[0] = 0x40), Err(StunFrameError::NotStun));
        assert_eq!(with(|header| header[5] = 0), Err(StunFrameError::NotStun));
        assert_eq!(with(|header| header[3] = 3), Err(StunFrameError::NotStun));
        assert_eq!(with(|header| header[2] = 0x10), Err(StunFrameError::TooLong { got: 4116 }));
        assert_eq!(StunReader::new().push(&message(&[0; MAX_MESSAGE_LEN - HEADER_LEN])[..HEADER_LEN]), Ok(None));
    }

    #[test]
    fn more_than_was_wanted_is_refused() {
        let error = StunFrameError::Overread { got: 24, wanted: 20 };
        assert_eq!(StunReader::new().push(&message(&[0; 4])), Err(error));
    }

    proptest! {
        #[test]
        fn messages_survive_any_split_and_what_follows_is_left(
            words in proptest::collection::vec(0_usize..60, 1..4),
            pieces in proptest::collection::vec(1_usize..64, 1..16),
            raw in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let messages: Vec<Vec<u8>> = words.iter().map(|words| message(&vec![9; words * 4])).collect();
            let (mut wire, stun_len) = (messages.concat(), messages.concat().len());
            wire.extend_from_slice(&raw);
            let (mut reader, mut read, mut got) = (StunReader::new(), 0, Vec::new());
            let mut pieces = pieces.into_iter().cycle();
            while got.len() < messages.len() {
                let piece = reader.wanted().min(pieces.next().expect("endless"));
                got.extend(reader.push(&wire[read..read + piece]).expect("whole messages"));
                read += piece;
            }
            prop_assert_eq!(got, messages);
            prop_assert_eq!(read, stun_len);
            prop_assert_eq!(reader.wanted(), HEADER_LEN, "it is within no message");
        }

        #[test]
        fn no_bytes_make_it_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..10_000)) {
            let (mut reader, mut rest) = (StunReader::new(), bytes.as_slice());
            while !rest.is_empty() {
                let wanted = reader.wanted();
                prop_assert!((1..=MAX_MESSAGE_LEN).contains(&wanted));
                let (piece, others) = rest.split_at(wanted.min(rest.len()));
                drop(reader.push(piece));
                rest = others;
            }
        }
    }
}
