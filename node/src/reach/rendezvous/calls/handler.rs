//! What happens to calls on one connection.
//!
//! What it is not: a choice among connections; that is the behaviour's.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_proto::signalling::PROTOCOL;
use libp2p::{
    Multiaddr, Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol, handler::ConnectionEvent,
        handler::DialUpgradeError, handler::FullyNegotiatedInbound, handler::FullyNegotiatedOutbound,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use crate::reach::rendezvous::{
    call_stream::{CallStream, OpenCallError},
    counters::WhichCounter,
};

/// Streams for calls that a peer may have open on one connection.
const MAX_STREAMS: usize = 2;
/// Streams that this side may be opening on one connection.
const MAX_OPENING: usize = 8;
/// How long a circuit may stand without carrying a call.
const SILENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stream may take to be agreed on.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);

/// Who waits for a stream.
pub(in super::super) type OpenReply = oneshot::Sender<Result<CallStream, OpenCallError>>;

/// The two ends of a connection, and what is between.
#[derive(Debug, Clone)]
pub(in super::super) struct CallConnection {
    pub(super) local: [u8; 32],
    pub(super) remote: [u8; 32],
    pub(super) via: Multiaddr,
}

/// What ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Ends {
    /// Calls have nothing to do with it.
    ByItself,
    /// It is a circuit, and only there for a call.
    WithItsCall,
}

/// What a handler reports.
#[derive(Debug)]
pub(in super::super) enum HandlerEvent {
    /// A call has come in.
    Stream(Box<CallStream>),
    /// A stream was dropped; the counter says why.
    Dropped(WhichCounter),
    /// The circuit has done its work, or never had any.
    Over,
}

/// The handler.
pub(in super::super) struct CallHandler {
    connection: Option<CallConnection>,
    ends: Ends,
    opening: VecDeque<OpenReply>,
    /// Streams that were asked for and are not there yet.
    asked: usize,
    /// The other ends are dropped with the streams.
    open: Vec<oneshot::Receiver<Infallible>>,
    events: VecDeque<HandlerEvent>,
    silent: Option<BoxFuture<'static, ()>>,
    is_over: bool,
    waker: Option<Waker>,
}

/// A stream that tells its handler when it is dropped.
struct HeldCall {
    stream: Compat<Stream>,
    _open: oneshot::Sender<Infallible>,
}

impl CallHandler {
    pub(super) fn new(connection: Option<CallConnection>, ends: Ends, opening: Option<OpenReply>) -> Self {
        let silent = (ends == Ends::WithItsCall).then(|| tokio::time::sleep(SILENT_TIMEOUT).boxed());
        let opening = opening.into_iter().collect();
        let (open, events) = (Vec::new(), VecDeque::new());
        Self { connection, ends, opening, asked: 0, open, events, silent, is_over: false, waker: None }
    }

    fn call_stream(&mut self, stream: Stream) -> Option<CallStream> {
        let CallConnection { local, remote, via } = self.connection.clone()?;
        let (sender, receiver) = oneshot::channel();
        self.open.push(receiver);
        self.silent = None;
        let io = Box::pin(HeldCall { stream: stream.compat(), _open: sender });
        Some(CallStream { io, via, local, remote })
    }

    fn on_incoming(&mut self, stream: Stream) {
        let has_room = self.open.len() < MAX_STREAMS;
        let event = match has_room.then(|| self.call_stream(stream)).flatten() {
            Some(stream) => HandlerEvent::Stream(Box::new(stream)),
            None => HandlerEvent::Dropped(|counters| &counters.call_too_many_streams),
        };
        // Events are bounded: libp2p takes one before it reads on, and a flood of streams may leave some uncounted.
        if self.events.len() <= MAX_STREAMS {
            self.events.push_back(event);
        }
    }

    /// Whether the circuit has nothing more to do.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.open.len();
        self.open.retain_mut(|stream| stream.poll_unpin(cx).is_pending());
        if self.ends == Ends::ByItself || self.is_over {
            return false;
        }
        let has_ended = before > 0 && self.open.is_empty();
        let was_silent = self.silent.as_mut().is_some_and(|silent| silent.poll_unpin(cx).is_ready());
        (has_ended || was_silent) && self.asked == 0 && self.opening.is_empty()
    }
}

impl ConnectionHandler for CallHandler {
    type FromBehaviour = OpenReply;
    type ToBehaviour = HandlerEvent;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenReply;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(upgrade(), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.asked > 0 || !self.opening.is_empty()
    }

    fn on_behaviour_event(&mut self, reply: Self::FromBehaviour) {
        if self.opening.len() >= MAX_OPENING {
            let _ = reply.send(Err(OpenCallError::TooMany));
            return;
        }
        self.opening.push_back(reply);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, OpenReply, Self::ToBehaviour>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        self.opening.retain(|reply| !reply.is_closed());
        if let Some(reply) = self.opening.pop_front() {
            self.asked += 1;
            let protocol = SubstreamProtocol::new(upgrade(), reply).with_timeout(STREAM_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        if self.poll_over(cx) {
            self.is_over = true;
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(HandlerEvent::Over));
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), OpenReply>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.on_incoming(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info: reply }) => {
                self.asked -= 1;
                let opened = self.call_stream(protocol);
                let _ = reply.send(opened.ok_or(OpenCallError::Key));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: reply }) => {
                self.asked -= 1;
                let why = match error {
                    StreamUpgradeError::NegotiationFailed => OpenCallError::TakesNone,
                    other => OpenCallError::Stream(Arc::new(io::Error::other(other))),
                };
                let _ = reply.send(Err(why));
            }
            _ => {}
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn upgrade() -> ReadyUpgrade<StreamProtocol> {
    ReadyUpgrade::new(StreamProtocol::new(PROTOCOL))
}

impl AsyncRead for HeldCall {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for HeldCall {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
