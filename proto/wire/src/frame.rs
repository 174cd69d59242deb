//! Frames: where a message begins and ends on a stream.
//!
//! ```text
//! frame   u32 length of the body (little endian), then the body
//! ```
//! Every kind of message has its own limit for the body.
//!
//! What it is not: what a body says ([`crate::message`]), or the raw bytes that follow some frames ([`crate::transfer`]).

/// Bytes in front of a body.
pub const HEADER_LEN: usize = 4;

/// Memory for a body is taken in steps of this many bytes as it arrives, never on the word of the length alone.
const GROW_STEP: usize = 64 * 1024;

/// Why a stream is not a sequence of frames. All are the peer's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is above the limit; nothing of the body was taken.
    #[error("the peer announced a frame of {got} bytes; at most {limit} are allowed")]
    TooLong {
        /// The announced length of the body, in bytes.
        got: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame, {missing} bytes short at least")]
    Truncated {
        /// How many bytes are missing at least.
        missing: usize,
    },
}

/// Puts frames together from a stream that arrives in pieces of any size.
#[derive(Debug)]
pub struct FrameDecoder {
    limit: usize,
    header: [u8; HEADER_LEN],
    header_len: usize,
    body: Vec<u8>,
}

impl FrameDecoder {
    /// A decoder for frames whose bodies have at most `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self { limit, header: [0; HEADER_LEN], header_len: 0, body: Vec::new() }
    }

    /// How many bytes to read next: never more than belong to the present frame, so that what follows it (raw data,
    /// perhaps) stays in the stream. At least 1.
    pub fn wants(&self) -> usize {
        match self.body_len() {
            None => HEADER_LEN - self.header_len,
            Some(len) => (len - self.body.len()).clamp(1, GROW_STEP),
        }
    }

    /// Takes bytes from the front of `input`, up to the end of the present frame; returns its body when it is whole.
    ///
    /// Call again while `input` has bytes left. After an error the stream is of no more use.
    pub fn accept(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        while self.header_len < HEADER_LEN {
            let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
            self.header[self.header_len] = byte;
            self.header_len += 1;
            *input = rest;
        }
        let len = u32::from_le_bytes(self.header) as usize;
        if len > self.limit {
            return Err(FrameError::TooLong { got: len, limit: self.limit });
        }
        let (taken, rest) = input.split_at(input.len().min(len - self.body.len()));
        self.body.extend_from_slice(taken);
        *input = rest;
        if self.body.len() < len {
            return Ok(None);
        }
        self.header_len = 0;
        Ok(Some(std::mem::take(&mut self.body)))
    }

    /// Says whether the stream may end here.
    pub fn finish(&self) -> Result<(), FrameError> {
        match (self.header_len, self.body_len()) {
            (0, _) => Ok(()),
            (_, None) => Err(FrameError::Truncated { missing: HEADER_LEN - self.header_len }),
            (_, Some(len)) => Err(FrameError::Truncated { missing: len.saturating_sub(self.body.len()) }),
        }
    }

    fn body_len(&self) -> Option<usize> {
        (self.header_len == HEADER_LEN).then(|| u32::from_le_bytes(self.header) as usize)
    }
}

/// Appends a frame with this body to `out`.
///
/// # Panics
/// If the body has 4 GiB or more; no message of this crate has.
pub fn encode_frame(body: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(body.len()).expect("messages are far below 4 GiB");
    out.reserve(HEADER_LEN + body.len());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests;
