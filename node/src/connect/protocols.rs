//! Streams of protocols that applications speak over this node's sessions: who listens for which, and the streams themselves.
//!
//! What it is not: how sessions are made (`connector`), or what is said on such a stream.

use std::{
    collections::{BTreeMap, btree_map},
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use keyferry_proto::{
    identity::NodeKey,
    message::{ProtocolName, ProtocolReply, Refusal},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use crate::{
    base::places::PlaceUse,
    net::{
        path::PathReport,
        session::{Session, SessionStream, write_message},
    },
};

/// Connections of one protocol that may wait until the application takes them.
pub const MAX_WAITING: usize = 16;
/// Connections of one session that are open at once, over all protocols.
pub const MAX_CONNECTIONS_OF_SESSION: usize = 8;
/// How long a peer may take to take the answer.
const REPLY_DEADLINE: Duration = Duration::from_secs(15);

/// Who listens for which protocol. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Protocols(Arc<Mutex<BTreeMap<ProtocolName, mpsc::Sender<Connection>>>>);

/// The connections of one protocol that peers open. Dropping it ends the listening; connections that were taken stay.
#[derive(Debug)]
pub struct Listener {
    protocol: ProtocolName,
    connections: mpsc::Receiver<Connection>,
    protocols: Protocols,
}

/// A stream of bytes between two applications, over a session of their nodes: encrypted, in order, and each knows the other's
/// key. It keeps the session up.
#[derive(Debug)]
pub struct Connection {
    stream: SessionStream,
    session: Session,
    /// Its place among those of its session; none if this side has opened it.
    _place: Option<OwnedSemaphorePermit>,
    /// Says that its session is in use, if the peer has made that.
    _in_use: Option<PlaceUse<NodeKey>>,
}

impl Protocols {
    /// Begins to listen; none if somebody does already.
    pub(crate) fn listen(&self, protocol: ProtocolName) -> Option<Listener> {
        let (sender, connections) = mpsc::channel(MAX_WAITING);
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(protocol.clone()) {
            btree_map::Entry::Occupied(_) => None,
            btree_map::Entry::Vacant(free) => {
                free.insert(sender);
                Some(Listener { protocol, connections, protocols: self.clone() })
            }
        }
    }

    /// Ends all listening.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The places of one session.
    pub(crate) fn places() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_CONNECTIONS_OF_SESSION))
    }

    /// Gives a stream that a peer has opened to whoever listens for its protocol, or tells the peer why not.
    pub(crate) async fn hand_over(
        &self,
        protocol: &ProtocolName,
        mut stream: SessionStream,
        session: Session,
        (places, in_use): (Arc<Semaphore>, Option<PlaceUse<NodeKey>>),
    ) {
        let listener = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(protocol).cloned();
        let admitted = match listener {
            None => Err(Refusal::NotFound),
            Some(listener) => match (listener.try_reserve_owned(), places.try_acquire_owned()) {
                (Ok(room), Ok(place)) => Ok((room, place)),
                _ => Err(Refusal::Busy),
            },
        };
        let reply = match &admitted {
            Ok(_) => ProtocolReply::Accepted,
            Err(refusal) => ProtocolReply::Refused(*refusal),
        };
        let told = timeout(REPLY_DEADLINE, write_message(&mut stream, &reply)).await;
        tracing::debug!(%protocol, ?reply, "a peer opens a stream for an application");
        if let (Ok((room, place)), Ok(Ok(()))) = (admitted, told) {
            room.send(Connection { stream, session, _place: Some(place), _in_use: in_use });
        }
    }
}

impl Listener {
    /// The next connection; none once the node has stopped. Cancel-safe.
    pub async fn accept(&mut self) -> Option<Connection> {
        self.connections.recv().await
    }

    /// The protocol that it listens for.
    pub fn protocol(&self) -> &ProtocolName {
        &self.protocol
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.protocols.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.protocol);
    }
}

impl Connection {
    /// A connection that this side has opened, and the peer has accepted.
    pub(crate) fn opened(stream: SessionStream, session: Session) -> Self {
        Self { stream, session, _place: None, _in_use: None }
    }

    /// The node at the other end, proven by its key.
    pub fn peer(&self) -> NodeKey {
        self.session.peer()
    }

    /// Which path the bytes take, and why.
    pub(crate) fn path_report(&self) -> PathReport {
        self.session.path()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
