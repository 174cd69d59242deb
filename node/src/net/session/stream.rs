//! One stream of a session: ordered bytes both ways, each direction closed on its own.
//!
//! What it is not: messages; framing is the `keyferry_proto::frame` module's business.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::io::{AsyncRead as _, AsyncWrite as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, mpsc},
};

use super::frame_merger::UnreadStreams;

/// A stream within a session. Dropping it without [`shutdown`](tokio::io::AsyncWriteExt::shutdown) resets it.
///
/// The peer learns of a stream with the first byte that is written to it.
#[derive(Debug)]
pub struct SessionStream {
    inner: yamux::Stream,
    write_closed: bool,
    /// Where it is told what was read.
    unread: UnreadStreams,
    /// Its place among the streams that a session may have at once.
    _place: OwnedSemaphorePermit,
}

impl SessionStream {
    pub(super) fn new(inner: yamux::Stream, place: OwnedSemaphorePermit, unread: UnreadStreams) -> Self {
        unread.open(inner.id().val());
        Self { inner, write_closed: false, unread, _place: place }
    }
}

impl AsyncRead for SessionStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let n = ready!(Pin::new(&mut this.inner).poll_read(cx, buf.initialize_unfilled()))?;
        buf.advance(n);
        this.unread.read(this.inner.id().val(), n);
        // The multiplexer shows a reset as an end. As long as this side has not closed, a closed stream means a reset.
        if n == 0 && !this.write_closed && this.inner.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SessionStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_close(cx))?;
        self.write_closed = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for SessionStream {
    fn drop(&mut self) {
        self.unread.close(self.inner.id().val());
    }
}

/// The streams that the peer opens, in order. Those that nobody takes are reset beyond a limit.
#[derive(Debug)]
pub struct InboundStreams {
    receiver: mpsc::Receiver<SessionStream>,
}

impl InboundStreams {
    pub(super) fn new(receiver: mpsc::Receiver<SessionStream>) -> Self {
        Self { receiver }
    }

    /// Waits for the next stream; `None` when the session has ended.
    pub async fn next(&mut self) -> Option<SessionStream> {
        self.receiver.recv().await
    }
}
