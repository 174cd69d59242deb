//! The byte stream below the multiplexer, with fewer writes and fewer frames: the header of a frame goes with its body, and small
//! frames are put together as they are read.
//!
//! Once nothing can be written, the rest of what the peer has sent is still read: its last words say why it is gone.
//!
//! What it is not: which frames are put together ([`FrameMerger`]).

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::io::{AsyncRead as FuturesRead, AsyncWrite as FuturesWrite};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame_merger::{FrameMerger, UnreadStreams};

/// Puts the header of a multiplexer frame (which comes as a write of its own) together with its body, so that each
/// frame costs one system call and no small TLS record.
pub(super) struct FrameJoiner<T> {
    inner: T,
    merger: FrameMerger,
    held: [u8; FrameJoiner::<()>::ROOM],
    held_len: usize,
    /// Whether a write has failed. What is written then goes nowhere, and reading comes to an end soon.
    is_write_lost: bool,
}

impl FrameJoiner<()> {
    /// A multiplexer's header has 12 bytes.
    const ROOM: usize = 12;
}

impl<T: AsyncWrite + Unpin> FrameJoiner<T> {
    pub(super) fn new(inner: T, unread: UnreadStreams) -> Self {
        let held = [0; FrameJoiner::ROOM];
        Self { inner, merger: FrameMerger::new(unread), held, held_len: 0, is_write_lost: false }
    }

    /// Takes `n` written bytes off the front of what is held; returns how many of them were not held.
    fn written(&mut self, n: usize) -> usize {
        let of_held = n.min(self.held_len);
        self.held.copy_within(of_held..self.held_len, 0);
        self.held_len -= of_held;
        n - of_held
    }

    /// Writes what is held and then some of `buf`, and says how much of that.
    fn poll_write_after_held(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        while self.held_len > 0 {
            let parts = [IoSlice::new(&self.held[..self.held_len]), IoSlice::new(buf)];
            let n = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &parts))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_body = self.written(n);
            if of_body > 0 || buf.is_empty() && self.held_len == 0 {
                return Poll::Ready(Ok(of_body));
            }
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held_len > 0 {
            ready!(self.poll_write_after_held(cx, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    /// What comes of writing: as if all went well once it has failed, which reading tells.
    fn or_lost<R>(&mut self, result: io::Result<R>, if_lost: R) -> io::Result<R> {
        result.or_else(|error| {
            tracing::debug!(%error, "nothing can be written any more; what has come is still read");
            self.is_write_lost = true;
            Ok(if_lost)
        })
    }
}

impl<T: AsyncRead + Unpin> FuturesRead for FrameJoiner<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut buf = ReadBuf::new(buf);
        ready!(this.merger.poll_read(&mut this.inner, cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl<T: AsyncWrite + Unpin> FuturesWrite for FrameJoiner<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_write_lost {
            return Poll::Ready(Ok(buf.len()));
        }
        if self.held_len == 0 && buf.len() <= FrameJoiner::ROOM {
            self.held[..buf.len()].copy_from_slice(buf);
            self.held_len = buf.len();
            return Poll::Ready(Ok(buf.len()));
        }
        let written = ready!(self.poll_write_after_held(cx, buf));
        Poll::Ready(self.or_lost(written, buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_write_lost {
            return Poll::Ready(Ok(()));
        }
        let flushed = match ready!(self.poll_release(cx)) {
            Ok(()) => ready!(Pin::new(&mut self.inner).poll_flush(cx)),
            error => error,
        };
        Poll::Ready(self.or_lost(flushed, ()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_write_lost {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::io::{duplex, join};

    use super::*;

    #[tokio::test]
    async fn what_the_peer_has_said_last_is_read_after_writing_has_failed() {
        let (lost, peer) = duplex(1);
        drop(peer);
        // The header of a ping.
        let said = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7];
        let mut io = FrameJoiner::new(join(&said[..], lost), UnreadStreams::default());

        io.write_all(&[0; FrameJoiner::ROOM]).await.unwrap();
        io.flush().await.unwrap();
        io.write_all(&[1; 100]).await.unwrap();
        io.close().await.unwrap();
        let mut read = Vec::new();
        io.read_to_end(&mut read).await.unwrap();

        assert_eq!(read, said);
    }
}
