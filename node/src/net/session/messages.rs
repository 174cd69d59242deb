//! Messages on a stream: frames in, frames out.
//!
//! What it is not: which message may come when.

use std::io;

use keyferry_proto::{
    frame::{FrameDecoder, FrameError},
    message::{Message, MessageError},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes that are read at once; messages that need more are read in steps.
const READ_STEP: usize = 4 * 1024;

/// Why no message could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    /// The frame is wrong; the peer is at fault.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The message is wrong; the peer is at fault.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// Reads messages of one kind, and not one byte beyond the last one.
#[derive(Debug)]
pub struct MessageReader {
    decoder: FrameDecoder,
}

impl MessageReader {
    /// A reader for the messages `M` and no others.
    pub fn new<M: Message>() -> Self {
        Self { decoder: FrameDecoder::new(M::LIMIT) }
    }

    /// Waits for the next message; `None` if the stream has ended between two messages. Dropping the future loses nothing.
    pub async fn next<M: Message>(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<M>, ReadError> {
        let mut buffer = [0; READ_STEP];
        loop {
            let wanted = self.decoder.wants().min(READ_STEP);
            let n = stream.read(&mut buffer[..wanted]).await?;
            if n == 0 {
                self.decoder.finish()?;
                return Ok(None);
            }
            if let Some(body) = self.decoder.accept(&mut &buffer[..n])? {
                return Ok(Some(M::decode(&body)?));
            }
        }
    }
}

/// Reads one message and not one byte beyond it; `None` if the stream ends before it.
pub async fn read_message<M: Message>(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<M>, ReadError> {
    MessageReader::new::<M>().next(stream).await
}

/// Writes one message as a frame, and flushes.
pub async fn write_message<M: Message>(stream: &mut (impl AsyncWrite + Unpin), message: &M) -> io::Result<()> {
    stream.write_all(&message.to_frame()).await?;
    stream.flush().await
}
