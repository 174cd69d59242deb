//! The byte stream of a path: a TCP connection, or TLS to a TURN server around what goes to the peer.
//!
//! What it is not: the session's own TLS, which runs from node to node inside either of them.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// A connected byte stream towards a peer.
#[derive(Debug)]
pub enum PathStream {
    /// One TCP connection, to the peer or to a relay.
    Tcp(TcpStream),
    /// A data connection to a `turns:` server (RFC 7065 §3.1). What is written counts as sent only once it is flushed.
    Tls(Box<TlsStream<TcpStream>>),
    /// One of them, with what has to last as long as it does.
    Holding(Box<Holding>),
}

/// A stream, and something that is dropped with it: the allocation through which it goes.
pub struct Holding {
    stream: PathStream,
    _held: Box<dyn Send + Sync>,
}

impl PathStream {
    /// The TCP connection that carries it, for its addresses and socket options.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Holding(holding) => holding.stream.tcp(),
        }
    }

    /// Keeps something for as long as the stream lasts.
    pub(crate) fn holding(self, held: impl Send + Sync + 'static) -> Self {
        Self::Holding(Box::new(Holding { stream: self, _held: Box::new(held) }))
    }
}

impl std::fmt::Debug for Holding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holding").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl From<TcpStream> for PathStream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<TlsStream<TcpStream>> for PathStream {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(stream))
    }
}

impl AsyncRead for PathStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Holding(holding) => Pin::new(&mut holding.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for PathStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Holding(holding) => Pin::new(&mut holding.stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Holding(holding) => Pin::new(&mut holding.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Holding(holding) => holding.stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Holding(holding) => Pin::new(&mut holding.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Holding(holding) => Pin::new(&mut holding.stream).poll_shutdown(cx),
        }
    }
}
