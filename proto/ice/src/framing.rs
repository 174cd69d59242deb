//! The framing of checks on a TCP connection (RFC 4571 §2, RFC 6544 §3).
//!
//! ```text
//! length u16 big-endian | message            length ≤ MAX_MESSAGE_LEN
//! ```
//! [`FrameReader::wanted`] never asks for more than the rest of one frame, so what follows the last check stays in the
//! socket for the owner of the raw connection.
//!
//! What it is not: an interpreter of messages.

/// The longest message to read: checks have about 100 bytes, error answers a little more.
pub const MAX_MESSAGE_LEN: usize = 1500;

/// Bytes of the length in front of each message.
const LENGTH_LEN: usize = 2;

/// Why the bytes of a connection are not frames of checks. The peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A message of no bytes.
    #[error("the peer sent an empty frame")]
    Empty,
    /// A message longer than [`MAX_MESSAGE_LEN`].
    #[error("the peer announced a frame of {got} bytes; at most {MAX_MESSAGE_LEN} are allowed")]
    TooLong {
        /// The announced length.
        got: usize,
    },
    /// More bytes than [`FrameReader::wanted`] asked for. The caller's fault.
    #[error("{got} bytes were read where {wanted} were wanted")]
    Overread {
        /// Bytes given.
        got: usize,
        /// Bytes asked for.
        wanted: usize,
    },
}

/// Puts the length in front of a message; `None` when it is empty or longer than [`MAX_MESSAGE_LEN`].
pub fn frame(message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok().filter(|_| (1..=MAX_MESSAGE_LEN).contains(&message.len()))?;
    let mut framed = Vec::with_capacity(LENGTH_LEN + message.len());
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    Some(framed)
}

/// Reads frames in pieces of exact lengths.
#[derive(Debug, Clone, Default)]
pub struct FrameReader {
    length: Vec<u8>,
    message: Vec<u8>,
}

impl FrameReader {
    /// A reader at the start of a frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes may be read next, at most; never 0.
    pub fn wanted(&self) -> usize {
        match self.announced() {
            None => LENGTH_LEN - self.length.len(),
            Some(announced) => announced - self.message.len(),
        }
    }

    /// Whether some bytes of an unfinished frame have been read.
    pub fn is_within_frame(&self) -> bool {
        !self.length.is_empty()
    }

    /// Takes bytes that have been read, at most [`Self::wanted`], and returns the message that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, FramingError> {
        if bytes.len() > self.wanted() {
            return Err(FramingError::Overread { got: bytes.len(), wanted: self.wanted() });
        }
        let Some(announced) = self.announced() else {
            self.length.extend_from_slice(bytes);
            return match self.announced() {
                Some(0) => Err(self.broken(FramingError::Empty)),
                Some(got) if got > MAX_MESSAGE_LEN => Err(self.broken(FramingError::TooLong { got })),
                _ => Ok(None),
            };
        };
        self.message.extend_from_slice(bytes);
        if self.message.len() < announced {
            return Ok(None);
        }
        self.length.clear();
        Ok(Some(std::mem::take(&mut self.message)))
    }

    /// The length of the frame at hand, once both its bytes are there.
    fn announced(&self) -> Option<usize> {
        <[u8; LENGTH_LEN]>::try_from(self.length.as_slice()).ok().map(|length| usize::from(u16::from_be_bytes(length)))
    }

    /// Forgets the frame, so that `wanted` is never 0.
    fn broken(&mut self, error: FramingError) -> FramingError {
        self.length.clear();
        error
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_and_an_oversized_frame_are_refused() {
        assert_eq!(FrameReader::new().push(&[0, 0]), Err(FramingError::Empty));
        assert_eq!(FrameReader::new().push(&[0x05, 0xdd]), Err(FramingError::TooLong { got: 1501 }));
        assert_eq!(FrameReader::new().push(&[0x05, 0xdc]), Ok(None));
        assert_eq!(frame(&[]), None);
        assert_eq!(frame(&[0; MAX_MESSAGE_LEN + 1]), None);
    }

    #[test]
    fn more_than_was_wanted_is_refused() {
        assert_eq!(FrameReader::new().push(&[0, 1, 7]), Err(FramingError::Overread { got: 3, wanted: 2 }));
    }

    proptest! {
        #[test]
        fn messages_survive_any_split_and_what_follows_is_left(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 1..4),
            pieces in proptest::collection::vec(1_usize..64, 1..16),
            raw in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut wire: Vec<u8> = messages.iter().flat_map(|message| frame(message).expect("a short message")).collect();
            let framed_len = wire.len();
            wire.extend_from_slice(&raw);
            let (mut reader, mut read, mut got) = (FrameReader::new(), 0, Vec::new());
            let mut pieces = pieces.into_iter().cycle();
            while got.len() < messages.len() {
                let piece = reader.wanted().min(pieces.next().expect("endless"));
                got.extend(reader.push(&wire[read..read + piece]).expect("whole frames"));
                read += piece;
            }
            prop_assert_eq!(got, messages);
            prop_assert_eq!(read, framed_len);
        }
    }
}
