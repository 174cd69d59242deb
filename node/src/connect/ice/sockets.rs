//! The connections of one negotiation: those under way, and those that stand and carry framed checks.
//!
//! ```text
//! length u16 big-endian | STUN message       (RFC 4571 §2)
//! ```
//! Reading goes up to the end of the next message and no further, and only after the agent has dealt with the one before: what
//! follows the last message belongs to whoever takes the connection over.
//!
//! What it is not: a task. Everything happens in [`Sockets::poll_event`], so that dropping [`Sockets`] closes everything at once.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use keyferry_ice::{ConnId, ConnectFailure, ConnectMethod, FrameReader, Source, frame};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::net::{path::PathStream, port::Connecting};

/// Messages to take from one connection. A negotiation needs a handful.
pub(super) const MAX_MESSAGES: usize = 64;
/// Bytes that may wait for one connection. More is a peer that does not read.
const MAX_UNSENT: usize = 8 * 1024;
/// How long the last message of the connection that was found may take to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes to read at a time.
const READ_LEN: usize = 512;

/// What has happened to a connection.
#[derive(Debug)]
pub(super) enum Event {
    /// An opening SYN has opened the way: the peer's can meet it.
    Opened {
        conn: ConnId,
    },
    Connected {
        conn: ConnId,
        local: SocketAddr,
    },
    ConnectFailed {
        conn: ConnId,
        failure: ConnectFailure,
    },
    Received {
        conn: ConnId,
        message: Vec<u8>,
    },
    Closed {
        conn: ConnId,
    },
}

/// A connection under way.
enum ConnectAttempt {
    /// Its opening SYN has left, and the peer's cannot meet it yet.
    Opening(BoxFuture<'static, Result<Connecting, ConnectFailure>>),
    /// It will stand or fail.
    Connecting(BoxFuture<'static, Result<PathStream, ConnectFailure>>),
}

/// All connections of a negotiation.
#[derive(Default)]
pub(super) struct Sockets {
    connecting: BTreeMap<ConnId, ConnectAttempt>,
    wires: BTreeMap<ConnId, Wire>,
    /// The connection that had something to say last: the others come first now.
    last: Option<ConnId>,
}

impl Sockets {
    /// Starts to connect. When this returns, the first SYN has left.
    pub(super) fn connect(
        &mut self,
        conn: ConnId,
        source: Source,
        remote: SocketAddr,
        method: ConnectMethod,
    ) -> Result<(), ConnectFailure> {
        let connecting = Connecting::start(source, remote, method)?;
        let attempt = match method {
            ConnectMethod::Plain => ConnectAttempt::awaiting(connecting),
            ConnectMethod::Opening { .. } => ConnectAttempt::Opening(connecting.opened().boxed()),
        };
        self.connecting.insert(conn, attempt);
        Ok(())
    }

    /// Waits for a connection that somebody else makes: a relay.
    pub(super) fn await_connection(
        &mut self,
        conn: ConnId,
        connecting: BoxFuture<'static, Result<PathStream, ConnectFailure>>,
    ) {
        self.connecting.insert(conn, ConnectAttempt::Connecting(connecting));
    }

    /// Takes over a connection that has come in.
    pub(super) fn adopt(&mut self, conn: ConnId, stream: PathStream) {
        self.wires.insert(conn, Wire::new(stream));
    }

    /// Writes a message, at once or as soon as there is room.
    pub(super) fn send(&mut self, conn: ConnId, message: &[u8]) {
        if let Some(wire) = self.wires.get_mut(&conn) {
            wire.send(message);
        }
    }

    /// Writes raw bytes behind what was sent.
    pub(super) fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(wire) = self.wires.get_mut(&conn) {
            wire.write(Some(bytes));
        }
    }

    /// Closes a connection, or gives up the attempt at it, at once: its four numbers are free when this returns.
    pub(super) fn close(&mut self, conn: ConnId) {
        self.connecting.remove(&conn);
        self.wires.remove(&conn);
    }

    /// Takes out a connection for other use, after everything sent on it has left.
    pub(super) async fn release(&mut self, conn: ConnId) -> io::Result<PathStream> {
        let wire = self.wires.remove(&conn).ok_or(io::ErrorKind::NotConnected)?;
        tokio::time::timeout(FLUSH_TIMEOUT, wire.into_raw())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The next thing that happens to one of the connections.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(event) = self.poll_connecting(cx) {
            return Poll::Ready(event);
        }
        for conn in self.in_turn() {
            let Some(wire) = self.wires.get_mut(&conn) else { continue };
            let Poll::Ready(result) = wire.poll_message(cx) else { continue };
            self.last = Some(conn);
            return Poll::Ready(match result {
                Ok(message) => Event::Received { conn, message },
                Err(error) => {
                    tracing::debug!(?conn, %error, "a connection with checks has ended");
                    self.wires.remove(&conn);
                    Event::Closed { conn }
                }
            });
        }
        Poll::Pending
    }

    fn poll_connecting(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        for (&conn, attempt) in &mut self.connecting {
            let result = match attempt {
                ConnectAttempt::Opening(opening) => match opening.poll_unpin(cx) {
                    Poll::Pending => continue,
                    Poll::Ready(Ok(connecting)) => {
                        *attempt = ConnectAttempt::awaiting(connecting);
                        return Poll::Ready(Event::Opened { conn });
                    }
                    Poll::Ready(Err(failure)) => Err(failure),
                },
                ConnectAttempt::Connecting(connecting) => match connecting.poll_unpin(cx) {
                    Poll::Pending => continue,
                    Poll::Ready(result) => result,
                },
            };
            self.connecting.remove(&conn);
            return Poll::Ready(self.connected(conn, result));
        }
        Poll::Pending
    }

    fn connected(&mut self, conn: ConnId, result: Result<PathStream, ConnectFailure>) -> Event {
        let local = |stream: &PathStream| stream.tcp().local_addr().map_err(|_| ConnectFailure::Other);
        match result.and_then(|stream| Ok((local(&stream)?, stream))) {
            Ok((local, stream)) => {
                self.adopt(conn, stream);
                Event::Connected { conn, local }
            }
            Err(failure) => Event::ConnectFailed { conn, failure },
        }
    }

    /// The connections, beginning behind the one that had its turn last: none can keep the others waiting.
    fn in_turn(&self) -> Vec<ConnId> {
        let behind = |conn: &&ConnId| Some(**conn) > self.last;
        let up_to = |conn: &&ConnId| Some(**conn) <= self.last;
        self.wires.keys().filter(behind).chain(self.wires.keys().filter(up_to)).copied().collect()
    }
}

impl ConnectAttempt {
    fn awaiting(connecting: Connecting) -> Self {
        Self::Connecting(connecting.established().map_ok(PathStream::from).boxed())
    }
}

/// A connection that carries framed messages.
struct Wire {
    /// `None` only once it has been handed over.
    stream: Option<PathStream>,
    reader: FrameReader,
    unsent: Vec<u8>,
    taken: usize,
    overflown: bool,
}

impl Wire {
    fn new(stream: PathStream) -> Self {
        Self { stream: Some(stream), reader: FrameReader::new(), unsent: Vec::new(), taken: 0, overflown: false }
    }

    fn send(&mut self, message: &[u8]) {
        self.write(frame(message).as_deref());
    }

    fn write(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) if self.unsent.len() + bytes.len() <= MAX_UNSENT => self.unsent.extend(bytes),
            _ => self.overflown = true,
        }
        // What does not leave now does so in `poll_message`, and so does an error. Until then nobody need be woken.
        let _ = self.poll_write(&mut Context::from_waker(Waker::noop()));
    }

    /// Writes what waits, until all of it has left.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let mut stream = Pin::new(stream);
        while !self.unsent.is_empty() {
            match ready!(stream.as_mut().poll_write(cx, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.unsent.drain(..written)),
            }
        }
        stream.poll_flush(cx)
    }

    /// Writes what waits, and reads up to the end of the next message.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        if self.overflown {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::WriteZero, "the peer does not read")));
        }
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(Err(error));
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let message = ready!(poll_read_message(&mut self.reader, Pin::new(stream), cx))?;
        self.taken += 1;
        match self.taken > MAX_MESSAGES {
            true => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "too many messages"))),
            false => Poll::Ready(Ok(message)),
        }
    }

    async fn into_raw(mut self) -> io::Result<PathStream> {
        if self.reader.is_within_frame() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "half a message before the raw bytes"));
        }
        let mut stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_all(&self.unsent).await?;
        stream.flush().await?;
        Ok(stream)
    }
}

/// Reads up to the end of the next message.
fn poll_read_message(
    reader: &mut FrameReader,
    mut stream: Pin<&mut impl AsyncRead>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Vec<u8>>> {
    loop {
        let mut bytes = [0; READ_LEN];
        let wanted = reader.wanted().min(READ_LEN);
        let mut piece = ReadBuf::new(&mut bytes[..wanted]);
        ready!(stream.as_mut().poll_read(cx, &mut piece))?;
        if piece.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        match reader.push(piece.filled()) {
            Ok(Some(message)) => return Poll::Ready(Ok(message)),
            Ok(None) => {}
            Err(error) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            // Closed by RST: nothing unsent matters any more, and what lingers would be in the way of the next connection
            // between the same two ports.
            let _ = socket2::SockRef::from(stream.tcp()).set_linger(Some(Duration::ZERO));
        }
    }
}

#[cfg(test)]
mod tests;
