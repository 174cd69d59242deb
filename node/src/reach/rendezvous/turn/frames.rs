//! One frame each way on a stream.
//!
//! What it is not: what the frames say; see `keyferry_proto::relaying`.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use keyferry_proto::{
    frame::{FrameDecoder, FrameError, encode_frame},
    relaying::{MAX_REPLY_LEN, MAX_REQUEST_LEN},
};
use libp2p::{StreamProtocol, request_response::Codec};

/// The codec.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct Frames;

impl Codec for Frames {
    type Protocol = StreamProtocol;
    /// What is no frame is handed on as well: libp2p tells nobody of a request that could not be read.
    type Request = Result<Vec<u8>, FrameError>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Self::Request> {
        match read_frame(io, MAX_REQUEST_LEN).await {
            Ok(message) => Ok(Ok(message)),
            Err(ReadError::Frame(error)) => Ok(Err(error)),
            Err(ReadError::Io(error)) => Err(error),
        }
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read_frame(io, MAX_REPLY_LEN).await.map_err(|error| match error {
            ReadError::Frame(error) => io::Error::new(io::ErrorKind::InvalidData, error),
            ReadError::Io(error) => error,
        })
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Self::Request,
    ) -> io::Result<()> {
        let request = request.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        write_frame(io, &request).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        reply: Vec<u8>,
    ) -> io::Result<()> {
        write_frame(io, &reply).await
    }
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

async fn read_frame(io: &mut (impl AsyncRead + Unpin), limit: usize) -> Result<Vec<u8>, ReadError> {
    let mut decoder = FrameDecoder::new(limit);
    let mut buffer = [0; MAX_REPLY_LEN];
    loop {
        let wanted = decoder.wants().min(buffer.len());
        let got = io.read(&mut buffer[..wanted]).await?;
        if got == 0 {
            decoder.finish()?;
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(body) = decoder.accept(&mut &buffer[..got])? {
            return Ok(body);
        }
    }
}

async fn write_frame(io: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    let mut frame = Vec::new();
    encode_frame(body, &mut frame);
    io.write_all(&frame).await?;
    io.flush().await
}
