//! Sessions: one authenticated, encrypted, multiplexed connection to one peer.
//!
//! ```text
//! byte stream (a `Path`) → TLS 1.3, raw ed25519 keys both ways, ALPN keyferry/1 → yamux → streams
//! ```
//! The dialling side opens the first stream, the control stream; every other stream carries one request.
//!
//! What it is not: how the socket came about (`path`), or what the requests mean (`transfer`).

mod control;
mod counters;
mod driver;
mod early;
mod error;
mod memory;
mod messages;
mod proven;
mod silence;
mod stream;
mod tls;

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use keyferry_proto::{
    identity::{NodeKey, NodeSecret},
    message::{Goodbye, Hello},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::Instant,
};

use self::{control::Closing, proven::Proven};
pub use self::{
    counters::{SessionCounters, Traffic},
    driver::{MAX_INBOUND_STREAMS, MAX_OUTBOUND_STREAMS, RECEIVE_MEMORY},
    early::EarlyDial,
    error::{Breakage, ConnectError, IdentityRefused, ProtocolError, SessionError},
    messages::{MessageReader, ReadError, read_message, write_message},
    silence::{MAX_MISSED_PINGS, PING_INTERVAL},
    stream::{InboundStreams, Stream},
    tls::ALPN,
};
use crate::net::{
    path::{self, AddressPolicy, Admitted, Connect, Path, PathKind, PathReport, RelayReason, race},
    port::Undecided,
};

/// How long a peer may take for the TLS handshake and for the first messages, each.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many accepted connections may be in the middle of their handshake at once. One more pushes out the oldest of the
/// host that has most.
pub const MAX_HANDSHAKES: usize = 64;

/// The TLS identity of a node, with what all of its sessions share: limits and counters.
pub struct SessionTls {
    identity: tls::Identity,
    handshake_timeout: Duration,
    handshakes: Undecided,
    counters: Arc<SessionCounters>,
}

impl SessionTls {
    /// Makes the TLS identity of a node from its secret.
    pub fn new(secret: &NodeSecret) -> Result<Arc<Self>, SessionError> {
        Self::with_limits(secret, HANDSHAKE_TIMEOUT, MAX_HANDSHAKES)
    }

    fn with_limits(
        secret: &NodeSecret,
        handshake_timeout: Duration,
        max_handshakes: usize,
    ) -> Result<Arc<Self>, SessionError> {
        memory::keep_freed_memory();
        let identity = tls::Identity::new(secret).map_err(|error| SessionError::OwnKey(Arc::new(error)))?;
        let handshakes = Undecided::new(max_handshakes);
        Ok(Arc::new(Self { identity, handshake_timeout, handshakes, counters: Arc::default() }))
    }

    /// The node that this identity proves.
    pub fn node(&self) -> NodeKey {
        self.identity.node()
    }

    /// Counts over all sessions of this node.
    pub fn counters(&self) -> &SessionCounters {
        &self.counters
    }
}

impl fmt::Debug for SessionTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionTls(of {})", self.node())
    }
}

/// Why a session ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionEnd {
    /// This side closed it, or dropped every handle.
    #[error("closed by this side")]
    ClosedHere,
    /// The peer closed it.
    #[error("closed by the peer{}", in_words(reason))]
    ClosedByPeer {
        /// The peer's reason, if it gave one.
        reason: Option<Goodbye>,
    },
    /// The peer has not been heard for too long.
    #[error("the peer has not been heard for {0:?}")]
    Silent(Duration),
    /// The connection broke, or the peer broke the protocol.
    #[error("the connection broke: {0}")]
    Broken(#[from] Breakage),
}

fn in_words(reason: &Option<Goodbye>) -> &'static str {
    match reason {
        None => "",
        Some(Goodbye::Finished) => " (it has finished)",
        Some(Goodbye::Stopping) => " (it stops)",
        Some(Goodbye::Busy) => " (it is busy)",
        Some(Goodbye::Protocol) => " (it says that this node broke the protocol)",
    }
}

/// A session with a peer whose key is proven. Clones are handles to the same session; when the last one goes, the
/// session is closed with all its streams.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

/// A handle that does not keep the session up.
#[derive(Clone)]
pub struct WeakSession(Weak<Shared>);

struct Shared {
    peer: NodeKey,
    path: watch::Sender<PathReport>,
    local: Option<SocketAddr>,
    hello: watch::Receiver<Option<Hello>>,
    traffic: Arc<Traffic>,
    open: mpsc::Sender<driver::OpenRequest>,
    places: Arc<Semaphore>,
    close: watch::Sender<Option<Closing>>,
    measure: mpsc::Sender<oneshot::Sender<Duration>>,
    ended: watch::Receiver<Option<SessionEnd>>,
}

impl Session {
    /// Dials the admitted addresses and takes the first at which the right node proves itself: `expect`, or any node if
    /// there is none. Another node at one address neither wins nor stops the others.
    pub async fn connect<C: Connect>(
        connector: &C,
        admitted: &Admitted,
        policy: &AddressPolicy,
        tls: &Arc<SessionTls>,
        expect: Option<NodeKey>,
    ) -> Result<(Self, InboundStreams), ConnectError> {
        if admitted.addrs.is_empty() {
            return Err(ConnectError::NothingToDial { refused: admitted.refused.clone() });
        }
        let started = Instant::now();
        let attempt = |remote| async move {
            let path = path::dial(connector, remote, policy, started).await;
            let path = path.map_err(|error| SessionError::Io(Arc::new(error)))?;
            Proven::dial(path, tls, expect).await
        };
        let late = || SessionError::HandshakeTimeout { limit: race::RaceLimits::default().deadline };
        let failed = |failed| ConnectError::AllFailed { failed, refused: admitted.refused.clone() };
        let mut proven =
            race::race(&admitted.addrs, race::RaceLimits::default(), attempt, late).await.map_err(failed)?;
        proven.path.took = started.elapsed();
        let remote = proven.path.remote;
        proven.establish(tls).await.map_err(|error| failed(vec![(remote, error)]))
    }

    /// Makes a session over a path that this node dialled.
    pub async fn dial(
        path: Path,
        tls: &Arc<SessionTls>,
        expect: Option<NodeKey>,
    ) -> Result<(Self, InboundStreams), SessionError> {
        Proven::dial(path, tls, expect).await?.establish(tls).await
    }

    /// Makes a session over a connection that a peer made to this node.
    pub async fn accept(path: Path, tls: &Arc<SessionTls>) -> Result<(Self, InboundStreams), SessionError> {
        let mut place = tls.handshakes.enter(path.report.remote.ip());
        tokio::select! {
            session = async { Proven::accept(path, tls).await?.establish(tls).await } => session,
            // Whoever dawdles gives way: refusing the newest would let idle connections keep everybody out.
            _ = &mut place.pushed_out => {
                let busy = SessionError::Busy { limit: MAX_HANDSHAKES };
                tls.counters.count(&busy);
                Err(busy)
            }
        }
    }

    /// The node at the other end.
    pub fn peer(&self) -> NodeKey {
        self.shared.peer
    }

    /// What the peer says of itself: its version, features and program. The side that has dialled hears it a round trip after
    /// the session stands. None if the session ends before.
    pub async fn hello(&self) -> Option<Hello> {
        let mut hello = self.shared.hello.clone();
        hello.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// How the connection came about, as far as is known by now.
    pub fn path(&self) -> PathReport {
        self.shared.path.borrow().clone()
    }

    /// The same, for whoever wants to know more of it once more is known. It does not keep the session up, and ends with it.
    pub fn watch_path(&self) -> watch::Receiver<PathReport> {
        self.shared.path.subscribe()
    }

    /// Notes why the path is relayed, which has become known only now.
    pub(crate) fn explain_relay(&self, reason: RelayReason) {
        self.shared.path.send_if_modified(|path| match &mut path.kind {
            PathKind::Relayed { why: why @ None, .. } => {
                *why = Some(reason);
                true
            }
            _ => false,
        });
    }

    /// The bytes that went over the socket so far.
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }

    /// Opens a stream; waits while [`MAX_OUTBOUND_STREAMS`] are open.
    pub async fn open(&self) -> Result<Stream, SessionError> {
        let acquire = self.shared.places.clone().acquire_owned();
        let place = tokio::select! {
            place = acquire => place.map_err(|_| self.end_error())?,
            end = self.closed() => return Err(SessionError::Ended(end)),
        };
        open_stream(&self.shared.open, place).await.ok_or_else(|| self.end_error())
    }

    /// Waits until the session has ended, and says why.
    pub fn closed(&self) -> impl Future<Output = SessionEnd> + Send + 'static {
        let mut ended = self.shared.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(end) => end.clone().unwrap_or(SessionEnd::ClosedHere),
                Err(_) => Breakage::TaskGone.into(),
            }
        }
    }

    /// Why the session has ended; none while it is up.
    pub fn end(&self) -> Option<SessionEnd> {
        self.shared.ended.borrow().clone()
    }

    /// Closes the session because nothing is left to do; see [`close_with`](Self::close_with).
    pub fn close(&self) {
        self.close_with(Goodbye::Finished);
    }

    /// Closes the session and tells the peer why; [`closed`](Self::closed) tells when that is done. What was written to
    /// streams is sent first.
    pub fn close_with(&self, why: Goodbye) {
        self.ask_to_close(Closing::Goodbye(why));
    }

    /// Ends the session at once, with nothing said to the peer: for a path that is known to be dead.
    pub fn break_off(&self, why: &'static str) {
        self.ask_to_close(Closing::BreakOff(why));
    }

    fn ask_to_close(&self, how: Closing) {
        self.shared.close.send_if_modified(|asked| asked.replace(how).is_none());
    }

    /// Measures one round trip. The caller sets the deadline.
    pub async fn ping(&self) -> Result<Duration, SessionError> {
        let (reply, answer) = oneshot::channel();
        self.shared.measure.send(reply).await.map_err(|_| self.end_error())?;
        answer.await.map_err(|_| self.end_error())
    }

    /// This end of the connection; none if the system does not tell.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.shared.local
    }

    /// A handle that does not keep the session up.
    pub fn downgrade(&self) -> WeakSession {
        WeakSession(Arc::downgrade(&self.shared))
    }

    fn end_error(&self) -> SessionError {
        SessionError::Ended(self.end().unwrap_or(SessionEnd::ClosedHere))
    }
}

impl fmt::Debug for WeakSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakSession")
    }
}

impl WeakSession {
    /// The session, if anybody else still keeps it up.
    pub fn upgrade(&self) -> Option<Session> {
        Some(Session { shared: self.0.upgrade()? })
    }

    /// Whether this is that session.
    pub fn is(&self, session: &Session) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&session.shared))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session(with {})", self.shared.peer)
    }
}

/// Asks the driver for a stream; none if the driver is gone.
async fn open_stream(open: &mpsc::Sender<driver::OpenRequest>, place: OwnedSemaphorePermit) -> Option<Stream> {
    let (reply, opened) = oneshot::channel();
    open.send(driver::OpenRequest { place, reply }).await.ok()?;
    opened.await.ok()
}

#[cfg(test)]
mod tests;
