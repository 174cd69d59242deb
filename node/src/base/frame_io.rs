//! Whole frames on a stream, and not one byte beyond them: raw bytes may follow, or another owner.
//!
//! What it is not: what a frame says. Nor is it `tokio_util::codec`, which reads ahead.

use std::io;

use keyferry_proto::frame::{FrameDecoder, FrameError, encode_frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes that are read at once; frames that need more are read in steps.
const READ_STEP: usize = 4 * 1024;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFrameError {
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    /// The frame is wrong; the peer is at fault.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Puts frames together from what a stream brings.
#[derive(Debug)]
pub(crate) struct StreamFrameReader(FrameDecoder);

impl StreamFrameReader {
    /// Makes a reader of frames whose bodies have at most `limit` bytes.
    pub(crate) const fn new(limit: usize) -> Self {
        Self(FrameDecoder::new(limit))
    }

    /// Waits for the body of the next frame; `None` if the stream has ended between two frames. Dropping the future loses
    /// nothing.
    pub(crate) async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Vec<u8>>, ReadFrameError> {
        let mut buffer = [0; READ_STEP];
        loop {
            let wanted = self.0.wants().min(READ_STEP);
            let n = stream.read(&mut buffer[..wanted]).await?;
            if n == 0 {
                self.0.finish()?;
                return Ok(None);
            }
            if let Some(body) = self.0.accept(&mut &buffer[..n])? {
                return Ok(Some(body));
            }
        }
    }
}

/// Writes a body as a frame, and flushes.
pub(crate) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    let mut frame = Vec::new();
    encode_frame(body, &mut frame);
    stream.write_all(&frame).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn leaves_what_follows_a_frame_and_tells_an_end_within_one() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &[7; 2 * READ_STEP]).await.unwrap();
        wire.extend_from_slice(b"raw");
        let mut stream = wire.as_slice();
        let mut reader = StreamFrameReader::new(2 * READ_STEP);
        assert_eq!(reader.next(&mut stream).await.unwrap(), Some(vec![7; 2 * READ_STEP]));
        assert_eq!(stream, b"raw");
        let cut = reader.next(&mut stream).await;
        assert!(matches!(cut, Err(ReadFrameError::Frame(FrameError::Truncated { .. }))), "{cut:?}");
        assert!(StreamFrameReader::new(1).next(&mut &[][..]).await.unwrap().is_none());
    }
}
