//! Whole messages on a call's stream.
//!
//! What it is not: what they say.

use std::{io, time::Duration};

use keyferry_proto::{
    frame::{FrameDecoder, FrameError, encode_frame},
    signalling::MAX_MESSAGE_LEN,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How long a message may take to be handed to the network.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no message could be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameIoError {
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    /// The frame is wrong; the peer is at fault.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Puts messages together from what a stream brings.
pub(super) struct FrameReader(FrameDecoder);

impl FrameReader {
    pub(super) const fn new() -> Self {
        Self(FrameDecoder::new(MAX_MESSAGE_LEN))
    }

    /// Waits for the next message; `None` if the stream has ended. Dropping the future loses nothing.
    pub(super) async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Vec<u8>>, FrameIoError> {
        let mut buffer = [0; MAX_MESSAGE_LEN];
        loop {
            let wanted = self.0.wants().min(buffer.len());
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

/// Writes one message and hands it to the network.
pub(super) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> Result<(), FrameIoError> {
    let mut frame = Vec::new();
    encode_frame(body, &mut frame);
    let write = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    let written = tokio::time::timeout(WRITE_TIMEOUT, write).await;
    Ok(written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?)
}
