//! What is counted: bytes of each session, and bad input and limits of all sessions of a node.
//!
//! What it is not: a metrics library; whoever reports them reads them here.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::{IdentityRefused, SessionError};

/// Counts of what went wrong or was refused, over all sessions of a node.
#[derive(Debug, Default)]
pub struct SessionCounters {
    pub(super) wrong_identity: AtomicU64,
    pub(super) tls_failures: AtomicU64,
    pub(super) handshake_timeouts: AtomicU64,
    pub(super) too_many_handshakes: AtomicU64,
    pub(super) protocol_errors: AtomicU64,
    pub(super) streams_refused: AtomicU64,
    pub(super) silent_peers: AtomicU64,
}

impl SessionCounters {
    /// The counts by name, for `status`.
    pub fn snapshot(&self) -> BTreeMap<String, u64> {
        [
            ("session_wrong_identity", &self.wrong_identity),
            ("session_tls_failures", &self.tls_failures),
            ("session_handshake_timeouts", &self.handshake_timeouts),
            ("session_too_many_handshakes", &self.too_many_handshakes),
            ("session_protocol_errors", &self.protocol_errors),
            ("session_streams_refused", &self.streams_refused),
            ("session_silent_peers", &self.silent_peers),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed)))
        .collect()
    }

    pub(super) fn count(&self, error: &SessionError) {
        let counter = match error {
            SessionError::Identity(IdentityRefused::Ourselves) | SessionError::Io(_) => return,
            SessionError::Identity(_) => &self.wrong_identity,
            SessionError::Tls(_) => &self.tls_failures,
            SessionError::HandshakeTimeout { .. } => &self.handshake_timeouts,
            SessionError::Busy { .. } => &self.too_many_handshakes,
            SessionError::Protocol(_) | SessionError::Version { .. } => &self.protocol_errors,
            SessionError::Ended(_) | SessionError::OwnKey(_) => return,
        };
        add(counter);
    }
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Bytes that went over the socket of one session, TLS included.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Bytes written to the socket so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes read from the socket so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A socket whose bytes are counted.
pub(super) struct Metered<T> {
    inner: T,
    traffic: Arc<Traffic>,
}

impl<T> Metered<T> {
    pub(super) fn new(inner: T, traffic: Arc<Traffic>) -> Self {
        Self { inner, traffic }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.traffic.count_received(buf.filled().len() - before);
        result
    }
}

impl<T: AsyncWrite + Unpin> Metered<T> {
    fn count_sent(&self, result: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &result {
            self.traffic.sent.fetch_add(*n as u64, Ordering::Relaxed);
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
