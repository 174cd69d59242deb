//! A handshake that begins before its path is there: the first words of the side that dials, its ClientHello, go right behind the last
//! frame of its negotiation, and the peer's answer is a round trip earlier.
//!
//! What it is not: early data. Nothing but the ClientHello leaves before the peer has answered.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_proto::{dialling::Sought, identity::NodeKey};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf},
    time::timeout,
};

use super::{
    counters::{Metered, SessionTraffic},
    dial_days::DialDay,
    error::SessionError,
    handle::Session,
    proven::{ProvenPeer, READ_BUFFER, Tls},
    stream::InboundStreams,
    tls::SessionTls,
};
use crate::{
    base::clock,
    net::path::{Path, PathStream},
};

/// The longest ClientHello that this side makes.
const MAX_WORDS: usize = 4096;
/// How long the first words may take to leave, if they did not go with the negotiation.
const SAY_TIMEOUT: Duration = Duration::from_secs(2);

/// A handshake that waits for its path.
pub struct EarlyDial {
    tls: Arc<SessionTls>,
    sought: Sought,
    day: DialDay,
    coming: Arc<Mutex<Coming>>,
    handshake: BoxFuture<'static, io::Result<(Tls<Awaited>, NodeKey)>>,
    first_words: Vec<u8>,
    traffic: Arc<SessionTraffic>,
}

/// What a stream is before its path is there, and the path once it is.
enum Coming {
    Words(Vec<u8>),
    Here(Option<PathStream>),
}

/// A stream that is not there yet.
pub(super) struct Awaited {
    coming: Arc<Mutex<Coming>>,
    stream: Option<PathStream>,
}

impl EarlyDial {
    /// Begins the handshake with a node, or with whoever has a content.
    pub fn begin(tls: &Arc<SessionTls>, sought: Sought) -> Result<Self, SessionError> {
        let (coming, traffic) = (Arc::new(Mutex::new(Coming::Words(Vec::new()))), Arc::new(SessionTraffic::default()));
        let stream = Awaited { coming: Arc::clone(&coming), stream: None };
        let io = BufReader::with_capacity(READ_BUFFER, Metered::new(stream, traffic.clone()));
        let own = Arc::clone(tls);
        let day = tls.days.to_dial(&sought, clock::now());
        let mut handshake = async move { own.identity.connect(io, sought, day.day).await }.boxed();
        // It writes its first words, and then waits for an answer.
        if let Some(Err(error)) = (&mut handshake).now_or_never() {
            return Err(SessionError::of_handshake(error));
        }
        let first_words = match &*lock(&coming) {
            Coming::Words(words) => words.clone(),
            Coming::Here(_) => Vec::new(),
        };
        Ok(Self { tls: Arc::clone(tls), sought, day, coming, handshake, first_words, traffic })
    }

    /// What to send to the peer on the path before anything else.
    pub fn first_words(&self) -> &[u8] {
        &self.first_words
    }

    /// Makes the session on a path. `said` tells whether the first words have gone over it already.
    pub async fn finish(self, path: Path, said: bool) -> Result<(Session, InboundStreams), SessionError> {
        let Path { mut stream, report } = path;
        if !said {
            let say = timeout(SAY_TIMEOUT, stream.write_all(&self.first_words));
            say.await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(|error| SessionError::Io(Arc::new(error)))?;
        }
        let local = stream.tcp().local_addr().ok();
        *lock(&self.coming) = Coming::Here(Some(stream));
        let mut proven =
            ProvenPeer::dialled(self.handshake, report, &self.tls, (self.sought, self.day), self.traffic).await?;
        proven.local = local;
        proven.establish(&self.tls).await
    }
}

impl Awaited {
    fn stream(&mut self) -> Option<&mut PathStream> {
        if self.stream.is_none()
            && let Coming::Here(stream) = &mut *lock(&self.coming)
        {
            self.stream = stream.take();
        }
        self.stream.as_mut()
    }

    /// Takes first words.
    fn note(&self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *lock(&self.coming) {
            Coming::Words(words) if words.len() + bytes.len() <= MAX_WORDS => {
                words.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            _ => Err(io::Error::other("too much is said before there is a path")),
        }
    }
}

fn lock(coming: &Mutex<Coming>) -> MutexGuard<'_, Coming> {
    coming.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncRead for Awaited {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().stream() {
            Some(stream) => Pin::new(stream).poll_read(cx, buf),
            // Whoever brings the path polls the handshake again.
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Awaited {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.stream() {
            Some(stream) => Pin::new(stream).poll_write(cx, buf),
            None => Poll::Ready(this.note(buf)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().stream() {
            Some(stream) => Pin::new(stream).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().stream() {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl std::fmt::Debug for EarlyDial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EarlyDial").field("first_words", &self.first_words.len()).finish_non_exhaustive()
    }
}
