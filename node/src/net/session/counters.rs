//! What is counted: bytes of each session, and bad input and limits of all sessions of a node.
//!
//! What it is not: a metrics library; whoever reports them reads them here.

use std::{
    io::Cursor,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::{IdentityRefused, SessionError};
use crate::base::counters::{Counter, counters};

counters! {
    /// Counts of what went wrong or was refused, over all sessions of a node.
    pub struct SessionCounters {
        /// Peers that proved to be somebody else.
        pub wrong_identity = "session_wrong_identity",
        /// Connections of diallers that did not know whom or what they sought.
        pub unproven = "session_unproven",
        /// TLS handshakes that failed.
        pub tls_failures = "session_tls_failures",
        /// Handshakes that took too long.
        pub handshake_timeouts = "session_handshake_timeouts",
        /// Connections that found too many handshakes under way.
        pub too_many_handshakes = "session_too_many_handshakes",
        /// Peers that broke the protocol.
        pub protocol_errors = "session_protocol_errors",
        /// Streams of peers that were refused.
        pub streams_refused = "session_streams_refused",
        /// Sessions whose peer fell silent.
        pub silent_peers = "session_silent_peers",
    }
}

impl SessionCounters {
    pub(super) fn count(&self, error: &SessionError) {
        let counter = match error {
            SessionError::Identity(IdentityRefused::Ourselves | IdentityRefused::Twin)
            | SessionError::Io(_)
            | SessionError::NotThere => return,
            SessionError::Unproven => &self.unproven,
            SessionError::Identity(_) => &self.wrong_identity,
            SessionError::Tls(_) => &self.tls_failures,
            SessionError::HandshakeTimeout { .. } => &self.handshake_timeouts,
            SessionError::Busy { .. } => &self.too_many_handshakes,
            SessionError::Protocol(_) | SessionError::Version { .. } => &self.protocol_errors,
            SessionError::Ended(_)
            | SessionError::OwnKey(_)
            | SessionError::NothingToDial { .. }
            | SessionError::AllFailed { .. } => return,
        };
        counter.add_one();
    }
}

/// Bytes that went over the socket of one session, TLS included.
#[derive(Debug, Default)]
pub struct SessionTraffic {
    sent: Counter,
    received: Counter,
    /// Whether the socket has taken nothing when it was last written to.
    is_blocked: AtomicBool,
}

impl SessionTraffic {
    /// Bytes written to the socket so far.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Bytes read from the socket so far.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Whether bytes wait for the socket to take them.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Relaxed)
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.received.add(bytes as u64);
    }
}

/// A socket whose bytes are counted.
pub(super) struct Metered<T> {
    inner: T,
    traffic: Arc<SessionTraffic>,
    /// Bytes that were read from the socket already, and are read once more.
    first: Cursor<Vec<u8>>,
}

impl<T> Metered<T> {
    pub(super) fn new(inner: T, traffic: Arc<SessionTraffic>) -> Self {
        Self::beginning_with(Vec::new(), inner, traffic)
    }

    /// A socket from which these bytes were read already; they are counted when they are read here.
    pub(super) fn beginning_with(first: Vec<u8>, inner: T, traffic: Arc<SessionTraffic>) -> Self {
        Self { inner, traffic, first: Cursor::new(first) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let mut result = Pin::new(&mut self.first).poll_read(cx, buf);
        if buf.filled().len() == before {
            result = Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        self.traffic.count_received(buf.filled().len() - before);
        result
    }
}

impl<T: AsyncWrite + Unpin> Metered<T> {
    fn count_sent(&self, result: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        self.traffic.is_blocked.store(result.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(n)) = &result {
            self.traffic.sent.add(*n as u64);
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.count_sent(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.count_sent(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
