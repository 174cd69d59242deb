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
mod stream;
mod tls;

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use keyferry_proto::{
    identity::{NodeKey, NodeSecret},
    message::{Goodbye, Hello},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_rustls::TlsStream;

use self::{
    control::{Closing, ControlLinks, MAX_MEASURED},
    counters::Metered,
    driver::DriverLinks,
};
pub use self::{
    control::{MAX_MISSED_PINGS, PING_INTERVAL},
    counters::{SessionCounters, Traffic},
    driver::{MAX_INBOUND_STREAMS, MAX_OUTBOUND_STREAMS, RECEIVE_MEMORY},
    early::EarlyDial,
    error::{ConnectError, IdentityRefused, SessionError},
    messages::{MessageReader, ReadError, read_message, write_message},
    stream::{InboundStreams, Stream},
    tls::ALPN,
};
use crate::{
    path::{self, AddressPolicy, Admitted, Connect, Path, PathReport, PathStream, race},
    port::Undecided,
};

/// How long a peer may take for the TLS handshake and for the first messages, each.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many accepted connections may be in the middle of their handshake at once. One more pushes out the oldest of the
/// host that has most.
pub const MAX_HANDSHAKES: usize = 64;

/// How much is read from the socket at once; rustls by itself asks for 4 KiB at a time.
const READ_BUFFER: usize = 128 * 1024;

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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    Broken(String),
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
    path: PathReport,
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

    /// How the connection came about.
    pub fn path(&self) -> &PathReport {
        &self.shared.path
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
                Err(_) => SessionEnd::Broken("its task is gone".to_owned()),
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
    pub fn break_off(&self, why: impl Into<String>) {
        self.ask_to_close(Closing::BreakOff(why.into()));
    }

    fn ask_to_close(&self, how: Closing) {
        self.shared.close.send_if_modified(|asked| asked.replace(how).is_none());
    }

    /// Whether this side has no stream open, and waits for none.
    pub fn is_idle(&self) -> bool {
        self.shared.places.available_permits() == MAX_OUTBOUND_STREAMS
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

type Tls<T> = TlsStream<BufReader<Metered<T>>>;

/// A connection whose peer has proven its key, and over which nothing else has been said.
struct Proven<T> {
    stream: Tls<T>,
    peer: NodeKey,
    path: PathReport,
    local: Option<SocketAddr>,
    traffic: Arc<Traffic>,
    mode: yamux::Mode,
}

impl Proven<PathStream> {
    async fn dial(path: Path, tls: &SessionTls, expect: Option<NodeKey>) -> Result<Self, SessionError> {
        Self::prove_path(path, tls, yamux::Mode::Client, expect).await
    }

    async fn accept(path: Path, tls: &SessionTls) -> Result<Self, SessionError> {
        Self::prove_path(path, tls, yamux::Mode::Server, None).await
    }

    async fn prove_path(
        path: Path,
        tls: &SessionTls,
        mode: yamux::Mode,
        expect: Option<NodeKey>,
    ) -> Result<Self, SessionError> {
        let local = path.stream.tcp().local_addr().ok();
        let proven = Self::prove(path.stream, path.report, tls, mode, expect).await?;
        Ok(Self { local, ..proven })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Proven<T> {
    async fn prove(
        stream: T,
        path: PathReport,
        tls: &SessionTls,
        mode: yamux::Mode,
        expect: Option<NodeKey>,
    ) -> Result<Self, SessionError> {
        let traffic = Arc::new(Traffic::default());
        let io = BufReader::with_capacity(READ_BUFFER, Metered::new(stream, traffic.clone()));
        let handshake = async {
            match mode {
                yamux::Mode::Client => tls.identity.connect(io, expect).await,
                yamux::Mode::Server => tls.identity.accept(io).await,
            }
        };
        Self::after(handshake, path, tls, mode, traffic).await
    }

    /// What a handshake on a path has proven, if it ends in time.
    async fn after(
        handshake: impl Future<Output = io::Result<(Tls<T>, NodeKey)>>,
        path: PathReport,
        tls: &SessionTls,
        mode: yamux::Mode,
        traffic: Arc<Traffic>,
    ) -> Result<Self, SessionError> {
        let result = match timeout(tls.handshake_timeout, handshake).await {
            Ok(result) => result.map_err(SessionError::of_handshake),
            Err(_) => Err(SessionError::HandshakeTimeout { limit: tls.handshake_timeout }),
        };
        let (stream, peer) = result.inspect_err(|error| {
            tracing::debug!(%error, remote = %path.remote, "a handshake failed");
            tls.counters.count(error);
        })?;
        Ok(Self { stream, peer, path, local: None, traffic, mode })
    }

    /// Starts the multiplexer, says hello on the control stream and makes the handles.
    ///
    /// The side that has dialled does not wait for the peer's hello: TLS has proven who is there, and its first requests go with
    /// its own hello.
    async fn establish(self, tls: &Arc<SessionTls>) -> Result<(Session, InboundStreams), SessionError> {
        let result = match timeout(tls.handshake_timeout, self.greet(tls)).await {
            Ok(result) => result,
            Err(_) => Err(SessionError::HandshakeTimeout { limit: tls.handshake_timeout }),
        };
        result.inspect_err(|error| {
            tracing::debug!(%error, "a session could not be established");
            tls.counters.count(error);
        })
    }

    async fn greet(self, tls: &SessionTls) -> Result<(Session, InboundStreams), SessionError> {
        let (open, open_requests) = mpsc::channel(MAX_OUTBOUND_STREAMS);
        let (inbound, inbound_streams) = mpsc::channel(MAX_INBOUND_STREAMS);
        let (end, end_asked) = watch::channel(None);
        let (ended_sender, ended) = watch::channel(None);
        let links = DriverLinks { open: open_requests, inbound, end_asked, counters: tls.counters.clone() };
        let (stream, mode) = (self.stream, self.mode);
        tokio::spawn(async move {
            let end = driver::run(stream, mode, links).await;
            tracing::info!(%end, "a session has ended");
            ended_sender.send_replace(Some(end));
        });
        let (close, close_asked) = watch::channel(None);
        let (measure, measure_asked) = mpsc::channel(MAX_MEASURED);
        let places = Arc::new(Semaphore::new(MAX_OUTBOUND_STREAMS));
        let mut inbound = InboundStreams::new(inbound_streams);
        let ping_interval = PING_INTERVAL;
        let links = ControlLinks {
            close_asked,
            measure: measure_asked,
            places: places.clone(),
            end,
            ping_interval,
            traffic: self.traffic.clone(),
            counters: tls.counters.clone(),
        };
        let (heard, hello) = watch::channel(None);
        match mode {
            yamux::Mode::Client => {
                let place = Arc::new(Semaphore::new(1)).acquire_owned().await.map_err(|_| gone())?;
                let mut stream = open_stream(&open, place).await.ok_or_else(gone)?;
                control::greet(&mut stream).await?;
                tokio::spawn(control::run_greeted(stream, links, heard, tls.handshake_timeout));
            }
            yamux::Mode::Server => {
                let mut stream = inbound.next().await.ok_or_else(gone)?;
                heard.send_replace(Some(control::welcome(&mut stream).await?));
                tokio::spawn(control::run(stream, links));
            }
        }
        let shared = Shared {
            peer: self.peer,
            hello,
            path: self.path,
            local: self.local,
            traffic: self.traffic,
            open,
            places,
            close,
            measure,
            ended,
        };
        Ok((Session { shared: Arc::new(shared) }, inbound))
    }
}

/// The error of a connection that ended before the hellos were through.
fn gone() -> SessionError {
    SessionError::Ended(SessionEnd::ClosedByPeer { reason: None })
}

/// Asks the driver for a stream; none if the driver is gone.
async fn open_stream(open: &mpsc::Sender<driver::OpenRequest>, place: OwnedSemaphorePermit) -> Option<Stream> {
    let (reply, opened) = oneshot::channel();
    open.send(driver::OpenRequest { place, reply }).await.ok()?;
    opened.await.ok()
}

#[cfg(test)]
mod tests;
