//! Messages on a stream: frames in, frames out.
//!
//! What it is not: which message may come when.

use std::io;

use keyferry_proto::{
    frame::FrameError,
    message::{Message, MessageError},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::base::frame_io::{ReadFrameError, StreamFrameReader};

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

impl From<ReadFrameError> for ReadError {
    fn from(error: ReadFrameError) -> Self {
        match error {
            ReadFrameError::Io(error) => Self::Io(error),
            ReadFrameError::Frame(error) => Self::Frame(error),
        }
    }
}

/// Reads messages of one kind, and not one byte beyond the last one.
#[derive(Debug)]
pub struct StreamMessageReader {
    frames: StreamFrameReader,
}

impl StreamMessageReader {
    /// A reader for the messages `M` and no others.
    pub fn new<M: Message>() -> Self {
        Self { frames: StreamFrameReader::new(M::LIMIT) }
    }

    /// Waits for the next message; `None` if the stream has ended between two messages. Dropping the future loses nothing.
    pub async fn next<M: Message>(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<M>, ReadError> {
        let body = self.frames.next(stream).await?;
        Ok(body.map(|body| M::decode(&body)).transpose()?)
    }
}

/// Reads one message and not one byte beyond it; `None` if the stream ends before it.
pub async fn read_message<M: Message>(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<M>, ReadError> {
    StreamMessageReader::new::<M>().next(stream).await
}

/// Writes one message as a frame, and flushes.
pub async fn write_message<M: Message>(stream: &mut (impl AsyncWrite + Unpin), message: &M) -> io::Result<()> {
    stream.write_all(&message.to_frame()).await?;
    stream.flush().await
}
