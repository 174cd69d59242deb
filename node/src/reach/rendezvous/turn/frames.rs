//! The exchange of a request and a reply, each one frame on a stream of its own, with its limits.
//!
//! What it is not: what the frames say; see `keyferry_proto::relaying`.

use std::{io, time::Duration};

use futures::{AsyncRead, AsyncWrite};
use keyferry_proto::{
    frame::FrameError,
    relaying::{MAX_REPLY_LEN, MAX_REQUEST_LEN, PROTOCOL},
};
use libp2p::{
    StreamProtocol,
    request_response::{self, Codec, ProtocolSupport},
};
use tokio_util::compat::{FuturesAsyncReadCompatExt, FuturesAsyncWriteCompatExt};

use crate::base::frame_io::{ReadFrameError, StreamFrameReader, write_frame};

/// Streams of this protocol on one connection, in both directions.
const MAX_STREAMS: usize = 4;
/// How long a request may take, with its reply.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The behaviour that carries requests and replies.
pub(in super::super) type TurnExchange = request_response::Behaviour<Frames>;

/// What it reports.
pub(in super::super) type TurnEvent = request_response::Event<Result<Vec<u8>, FrameError>, Vec<u8>>;

/// Makes the behaviour. Only a node that relays says that it speaks the protocol.
pub(in super::super) fn behaviour(relays: bool) -> TurnExchange {
    let support = if relays { ProtocolSupport::Full } else { ProtocolSupport::Outbound };
    let config = request_response::Config::default()
        .with_request_timeout(EXCHANGE_TIMEOUT)
        .with_max_concurrent_streams(MAX_STREAMS);
    request_response::Behaviour::with_codec(Frames, [(StreamProtocol::new(PROTOCOL), support)], config)
}

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
            Err(ReadFrameError::Frame(error)) => Ok(Err(error)),
            Err(ReadFrameError::Io(error)) => Err(error),
        }
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read_frame(io, MAX_REPLY_LEN).await.map_err(|error| match error {
            ReadFrameError::Frame(error) => io::Error::new(io::ErrorKind::InvalidData, error),
            ReadFrameError::Io(error) => error,
        })
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Self::Request,
    ) -> io::Result<()> {
        let request = request.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        write_frame(&mut io.compat_write(), &request).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        reply: Vec<u8>,
    ) -> io::Result<()> {
        write_frame(&mut io.compat_write(), &reply).await
    }
}

async fn read_frame(io: &mut (impl AsyncRead + Unpin), limit: usize) -> Result<Vec<u8>, ReadFrameError> {
    let body = StreamFrameReader::new(limit).next(&mut io.compat()).await?;
    body.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof).into())
}
