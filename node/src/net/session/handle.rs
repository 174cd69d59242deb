//! The handles to a session that stands: what its users ask of it.
//!
//! What it is not: how it is made (the parent module), or the tasks that carry it (`driver`, `control`).

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use keyferry_proto::{
    dialling::Sought,
    identity::NodeKey,
    message::{Goodbye, Hello},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::{
    control::Closing,
    counters::SessionTraffic,
    driver::{MAX_OUTBOUND_STREAMS, OpenRequest},
    error::{Breakage, SessionEnd, SessionError},
    stream::SessionStream,
};
use crate::{
    base::data_dir::DayShift,
    net::path::{PathKind, PathReport, RelayReason},
};

/// A session with a peer whose key is proven. Clones are handles to the same session; when the last one goes, the
/// session is closed with all its streams.
#[derive(Clone)]
pub struct Session {
    shared: Arc<SessionState>,
}

/// Who is at the other end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerName {
    /// A node, by its key.
    Node(NodeKey),
    /// Whoever is at this address, under a key that will be thrown away.
    At(SocketAddr),
}

/// A handle that does not keep the session up.
#[derive(Clone)]
pub struct WeakSession(Weak<SessionState>);

pub(super) struct SessionState {
    pub(super) peer: NodeKey,
    pub(super) sought: Sought,
    pub(super) day_shift: Option<DayShift>,
    pub(super) path: watch::Sender<PathReport>,
    pub(super) local: Option<SocketAddr>,
    pub(super) hello: watch::Receiver<Option<Hello>>,
    pub(super) traffic: Arc<SessionTraffic>,
    pub(super) open: mpsc::Sender<OpenRequest>,
    pub(super) places: Arc<Semaphore>,
    pub(super) close: watch::Sender<Option<Closing>>,
    pub(super) measure: mpsc::Sender<oneshot::Sender<Duration>>,
    pub(super) doubted: watch::Receiver<bool>,
    pub(super) ended: watch::Receiver<Option<SessionEnd>>,
}

impl Session {
    pub(super) fn new(shared: SessionState) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// The node at the other end.
    pub fn peer(&self) -> NodeKey {
        self.shared.peer
    }

    /// What the side that has dialled seeks, and has proven to know: the node at the other end, or a content, for which alone the
    /// session is then; both sides are under keys of this session alone.
    pub fn sought(&self) -> Sought {
        self.shared.sought
    }

    /// How many days the peer's clock is ahead of this machine's, as it has proven by dialling; none where this side has dialled.
    pub(crate) fn day_shift(&self) -> Option<DayShift> {
        self.shared.day_shift
    }

    /// Who the peer is, as it is known beyond this session.
    pub fn peer_name(&self) -> PeerName {
        match self.sought() {
            Sought::Node(_) => PeerName::Node(self.peer()),
            Sought::Content(_) => PeerName::At(self.path().remote),
        }
    }

    /// What the peer says of itself: its version, features and program. The side that has dialled hears it a round trip after
    /// the session stands. None if the session ends before.
    pub async fn hello(&self) -> Option<Hello> {
        let mut hello = self.shared.hello.clone();
        hello.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// How the connection came about, as far as it is known by now.
    pub fn path(&self) -> PathReport {
        self.shared.path.borrow().clone()
    }

    /// The same, for whoever waits until more is known of it. It does not keep the session up, and ends with it.
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
    pub fn traffic(&self) -> &SessionTraffic {
        &self.shared.traffic
    }

    /// Opens a stream; waits while [`MAX_OUTBOUND_STREAMS`] are open.
    pub async fn open(&self) -> Result<SessionStream, SessionError> {
        let acquire = self.shared.places.clone().acquire_owned();
        let place = tokio::select! {
            Ok(place) = acquire => place,
            end = self.closed() => return Err(SessionError::Ended(end)),
        };
        match open_stream(&self.shared.open, place).await {
            Some(stream) => Ok(stream),
            None => Err(SessionError::Ended(self.closed().await)),
        }
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

    /// Whether the path may be dead: something is under way, and nothing comes. It ends soon then, or goes on.
    pub fn is_doubted(&self) -> bool {
        *self.shared.doubted.borrow()
    }

    /// The same, for whoever waits for it to change. It does not keep the session up, and ends with it.
    pub fn watch_doubt(&self) -> watch::Receiver<bool> {
        self.shared.doubted.clone()
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

    /// Whether this side has a stream open, of those that it may have open at once.
    pub(crate) fn is_asking(&self) -> bool {
        self.shared.places.available_permits() < MAX_OUTBOUND_STREAMS
    }

    /// Measures one round trip. The caller sets the deadline.
    pub async fn ping(&self) -> Result<Duration, SessionError> {
        let (reply, answer) = oneshot::channel();
        if self.shared.measure.send(reply).await.is_ok()
            && let Ok(took) = answer.await
        {
            return Ok(took);
        }
        Err(SessionError::Ended(self.closed().await))
    }

    /// This end of the connection; none if the system does not tell.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.shared.local
    }

    /// A handle that does not keep the session up.
    pub fn downgrade(&self) -> WeakSession {
        WeakSession(Arc::downgrade(&self.shared))
    }
}

impl PeerName {
    /// The key of the node, if it has shown it.
    pub fn node(&self) -> Option<NodeKey> {
        match self {
            Self::Node(node) => Some(*node),
            Self::At(_) => None,
        }
    }
}

impl From<NodeKey> for PeerName {
    fn from(node: NodeKey) -> Self {
        Self::Node(node)
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
pub(super) async fn open_stream(
    open: &mpsc::Sender<OpenRequest>,
    place: OwnedSemaphorePermit,
) -> Option<SessionStream> {
    let (reply, opened) = oneshot::channel();
    open.send(OpenRequest { place, reply }).await.ok()?;
    opened.await.ok()
}
