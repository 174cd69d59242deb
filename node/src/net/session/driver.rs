//! The task that owns the multiplexer of one session: it opens streams, accepts streams and moves bytes.
//!
//! What it is not: the meaning of any stream.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::io::{AsyncRead as FuturesRead, AsyncWrite as FuturesWrite};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    counters::SessionCounters,
    error::{Breakage, SessionEnd},
    frame_joiner::FrameJoiner,
    frame_merger::UnreadStreams,
    stream::SessionStream,
};

/// Streams that this node may have open towards the peer in one session.
pub const MAX_OUTBOUND_STREAMS: usize = 16;

/// Streams that the peer may have open towards this node in one session; further ones are reset. Above
/// [`MAX_OUTBOUND_STREAMS`], because the peer's end of a stream lives a little longer than ours.
pub const MAX_INBOUND_STREAMS: usize = 24;

/// Where the multiplexer itself gives up on the session: above both limits together, with room for resets on their way.
const MAX_STREAMS: usize = 64;

/// What a peer can make this node hold of data that nobody has read yet, in one session: 256 KiB for each of
/// 64 streams, the rest as windows that grow with the bandwidth-delay product, and what is kept beside the bytes.
pub const RECEIVE_MEMORY: usize = 32 * 1024 * 1024;

/// What of that is kept beside the bytes, whatever the frames: small ones are put together.
const FRAME_MEMORY: usize = 1024 * 1024;

/// Bytes of one frame. A smaller one costs throughput: a frame costs a wake-up on each side and a system call. A greater
/// one costs memory: the multiplexer queues up to 12 of a stream whose peer takes nothing in.
const FRAME_SIZE: usize = 128 * 1024;

/// How long the goodbye of a session may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A request for a new stream.
pub(super) struct OpenRequest {
    pub(super) place: OwnedSemaphorePermit,
    pub(super) reply: oneshot::Sender<SessionStream>,
}

/// What the driver is told and tells.
pub(super) struct DriverLinks {
    pub(super) open: mpsc::Receiver<OpenRequest>,
    pub(super) inbound: mpsc::Sender<SessionStream>,
    pub(super) end_asked: watch::Receiver<Option<SessionEnd>>,
    pub(super) counters: Arc<SessionCounters>,
}

fn config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config.set_max_connection_receive_window(Some(RECEIVE_MEMORY - FRAME_MEMORY));
    config.set_split_send_size(FRAME_SIZE);
    config
}

/// Runs the session until it ends; the returned value says why.
pub(super) async fn run<T>(io: T, mode: yamux::Mode, links: DriverLinks) -> SessionEnd
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let unread = UnreadStreams::default();
    let mut conn = yamux::Connection::new(FrameJoiner::new(io, unread.clone()), config(), mode);
    let mut end_asked = links.end_asked.clone();
    let mut driver =
        SessionDriver { links, places: Arc::new(Semaphore::new(MAX_INBOUND_STREAMS)), waiting: None, unread };
    let own_end = tokio::select! {
        biased;
        end = asked(&mut end_asked) => return close(conn, end).await,
        end = poll_fn(|cx| driver.poll(&mut conn, cx)) => end,
    };
    // The peer's goodbye may be among what was read last, or ours may be why the peer is gone: once the connection is dropped, the
    // control stream comes to its end and tells.
    drop(conn);
    match timeout(CLOSE_TIMEOUT, asked(&mut end_asked)).await {
        Ok(told @ (SessionEnd::ClosedHere | SessionEnd::ClosedByPeer { reason: Some(_) })) => told,
        _ => own_end,
    }
}

/// Ends the connection as the control stream says.
async fn close<T>(mut conn: yamux::Connection<T>, end: SessionEnd) -> SessionEnd
where
    T: FuturesRead + FuturesWrite + Unpin,
{
    if let SessionEnd::ClosedHere | SessionEnd::ClosedByPeer { .. } = end {
        let closed = timeout(CLOSE_TIMEOUT, poll_fn(|cx| conn.poll_close(cx))).await;
        tracing::debug!(graceful = matches!(closed, Ok(Ok(()))), "the session is closed");
    }
    end
}

async fn asked(end_asked: &mut watch::Receiver<Option<SessionEnd>>) -> SessionEnd {
    match end_asked.wait_for(Option::is_some).await {
        Ok(end) => end.clone().unwrap_or(SessionEnd::ClosedHere),
        Err(_) => SessionEnd::ClosedHere,
    }
}

struct SessionDriver {
    links: DriverLinks,
    places: Arc<Semaphore>,
    /// A request that the multiplexer had no room for yet.
    waiting: Option<OpenRequest>,
    unread: UnreadStreams,
}

impl SessionDriver {
    /// Opens what is asked for, then moves bytes and takes in what the peer opens, until nothing can go on.
    ///
    /// The socket's cooperative budget ends a round even if the peer never pauses.
    fn poll<T>(&mut self, conn: &mut yamux::Connection<T>, cx: &mut Context<'_>) -> Poll<SessionEnd>
    where
        T: FuturesRead + FuturesWrite + Unpin,
    {
        if let Poll::Ready(end) = self.poll_open(conn, cx) {
            return Poll::Ready(end);
        }
        loop {
            match ready!(conn.poll_next_inbound(cx)) {
                Some(Ok(stream)) => self.take_in(stream),
                Some(Err(error)) => return Poll::Ready(end_of(error)),
                None => return Poll::Ready(SessionEnd::ClosedByPeer { reason: None }),
            }
        }
    }

    fn poll_open<T>(&mut self, conn: &mut yamux::Connection<T>, cx: &mut Context<'_>) -> Poll<SessionEnd>
    where
        T: FuturesRead + FuturesWrite + Unpin,
    {
        loop {
            let request = match self.waiting.take() {
                Some(request) => request,
                None => match ready!(self.links.open.poll_recv(cx)) {
                    Some(request) => request,
                    // Every handle is gone; the control stream says goodbye and then ends the session.
                    None => return Poll::Pending,
                },
            };
            match conn.poll_new_outbound(cx) {
                Poll::Ready(Ok(stream)) => {
                    // Whoever asked may have gone; then the stream is dropped before the peer hears of it.
                    let _ = request.reply.send(SessionStream::new(stream, request.place, self.unread.clone()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(end_of(error)),
                Poll::Pending => {
                    self.waiting = Some(request);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Hands on a stream that the peer opened, or resets it by dropping it.
    fn take_in(&mut self, stream: yamux::Stream) {
        let taken = self
            .places
            .clone()
            .try_acquire_owned()
            .ok()
            .map(|place| SessionStream::new(stream, place, self.unread.clone()));
        if taken.is_none_or(|stream| self.links.inbound.try_send(stream).is_err()) {
            self.links.counters.streams_refused.add_one();
            tracing::debug!(limit = MAX_INBOUND_STREAMS, "a stream of the peer was refused");
        }
    }
}

fn end_of(error: yamux::ConnectionError) -> SessionEnd {
    match error {
        yamux::ConnectionError::Closed => SessionEnd::ClosedByPeer { reason: None },
        other => Breakage::Multiplexer(Arc::new(other)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_goes_because_of_our_goodbye_has_not_ended_the_session() {
        let (ours, theirs) = tokio::io::duplex(1024);
        drop(theirs);
        let (_open, open) = mpsc::channel(1);
        let (inbound, _inbound) = mpsc::channel(1);
        let (tell_end, end_asked) = watch::channel(None);
        let links = DriverLinks { open, inbound, end_asked, counters: Arc::default() };
        let running = tokio::spawn(run(ours, yamux::Mode::Client, links));
        tokio::task::yield_now().await;

        // The task of the control stream comes to this only after the connection is gone.
        tell_end.send_replace(Some(SessionEnd::ClosedHere));

        let end = running.await.unwrap();
        assert!(matches!(end, SessionEnd::ClosedHere), "{end}");
    }
}
