//! Incoming connections whose handshake is not done: how many there may be, and which one gives way.
//!
//! Whoever begins to speak libp2p and stops is dropped after a time, but many of them at once must not keep a real peer
//! out: where there are too many, the oldest of the host that has most is cut off.
//!
//! What it is not: the handshake, which is libp2p's.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncWrite, FutureExt};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::{metered::ConnectionMeter, observed::NotedDeparture};
use crate::{
    base::traffic::Traffic,
    net::{
        path::PathStream,
        port::{Undecided, UndecidedPlace},
    },
};

/// Incoming handshakes that may be under way at a time.
pub(super) const MAX_HANDSHAKES: usize = 256;

/// The handshakes that are under way, by remote address.
#[derive(Clone, Debug)]
pub(super) struct Handshakes {
    places: Undecided,
    under_way: Arc<Mutex<HashMap<SocketAddr, Weak<IncomingState>>>>,
    traffic: Traffic,
}

/// What is known of an incoming connection below libp2p.
#[derive(Debug)]
struct IncomingState {
    is_done: AtomicBool,
    begun: Instant,
    /// When something was received last, in milliseconds since it has begun.
    received_ms: AtomicU64,
}

/// When something was received last on an incoming connection.
#[derive(Debug, Clone)]
pub(super) struct LastReceived(Arc<IncomingState>);

impl LastReceived {
    pub(super) fn at(&self) -> Instant {
        self.0.begun + Duration::from_millis(self.0.received_ms.load(Ordering::Relaxed))
    }
}

/// A connection that can be cut off until its handshake is done.
pub(super) struct Guarded {
    stream: Compat<PathStream>,
    guard: Option<Guard>,
    incoming: Option<Arc<IncomingState>>,
    meter: ConnectionMeter,
    /// From where it has left, if it was dialled.
    _departure: Option<Arc<NotedDeparture>>,
}

struct Guard {
    place: UndecidedPlace,
    state: Arc<IncomingState>,
    remote: SocketAddr,
    handshakes: Handshakes,
}

impl Handshakes {
    /// None is under way yet. The bytes of each connection are counted in `traffic`.
    pub(super) fn new(traffic: Traffic) -> Self {
        Self { places: Undecided::new(MAX_HANDSHAKES), under_way: Arc::default(), traffic }
    }

    /// Lets an incoming connection begin its handshake.
    pub(super) fn guard(&self, stream: TcpStream, remote: SocketAddr) -> Guarded {
        let (is_done, received_ms) = (AtomicBool::new(false), AtomicU64::new(0));
        let state = Arc::new(IncomingState { is_done, begun: Instant::now(), received_ms });
        self.lock().insert(remote, Arc::downgrade(&state));
        let place = self.places.enter(remote.ip());
        let meter = ConnectionMeter::new(false, self.traffic.clone());
        let guard = Some(Guard { place, state: Arc::clone(&state), remote, handshakes: self.clone() });
        Guarded { stream: PathStream::from(stream).compat(), guard, incoming: Some(state), meter, _departure: None }
    }

    /// Wraps a connection that this node dialled: nobody can make it do that too often.
    pub(super) fn dialled(&self, stream: PathStream, departure: Option<Arc<NotedDeparture>>) -> Guarded {
        let meter = ConnectionMeter::new(true, self.traffic.clone());
        Guarded { stream: stream.compat(), guard: None, incoming: None, meter, _departure: departure }
    }

    /// Notes that the handshake with a remote address is done.
    pub(super) fn done(&self, remote: SocketAddr) -> Option<LastReceived> {
        let state = self.lock().remove(&remote)?.upgrade()?;
        state.is_done.store(true, Ordering::Relaxed);
        Some(LastReceived(state))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Weak<IncomingState>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guarded {
    /// Fails when the connection has been cut off; forgets about it when the handshake is done.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(guard) = &mut self.guard else { return Ok(()) };
        if guard.state.is_done.load(Ordering::Relaxed) {
            self.guard = None;
        } else if guard.place.pushed_out.poll_unpin(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "too many handshakes under way"));
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut under_way = self.handshakes.lock();
        // A later connection may have the same remote address.
        if under_way.get(&self.remote).is_some_and(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(&self.state))) {
            under_way.remove(&self.remote);
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let got = ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.meter.received(&buf[..got]);
        if let Some(state) = &self.incoming {
            let since = state.begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
            state.received_ms.store(since, Ordering::Relaxed);
        }
        Poll::Ready(Ok(got))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.meter.sent(&buf[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
