//! Moving the bytes of a joined connection, both ways, until both are done.
//!
//! Each way reads a bounded number of bytes, waits for its turn where rates are limited, writes them, and lets others go on. The end
//! of one way is passed on as an end of that way alone.
//!
//! What it is not: a look at the bytes.

mod copying;
#[cfg(target_os = "linux")]
mod splicing;

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use keyferry_turn::server::Holder;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tokio_util::either::Either;

use super::{
    actor::Input,
    client::{ClientStream, Joined, Link},
    rates::HolderShare,
};
use crate::base::counters::Counter;

/// How long a connection may carry nothing. What NATs keep for TCP (RFC 5382 §5: 2 h 4 min) is hardly longer; Keyferry's
/// own sessions say something every 15 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
/// A side that has vanished is found by TCP: after a minute of silence it is asked every ten seconds, six times.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMES: u32 = 6;

/// How many bytes are read at most before they are paid for and written.
const MAX_SLICE: usize = 64 * 1024;
/// How many bytes one connection may move before others get their turn.
const MAX_TURN: u64 = 256 * 1024;
/// How many bytes may be moved before they are told to the quotas.
const TELL_AFTER: u64 = 256 * 1024;

/// Moves bytes until both sides have ended, one breaks, nothing comes for too long, or it is closed.
pub(super) async fn run(client: ClientStream, joined: Joined, link: &Link, closed: impl Future<Output = ()>) {
    let Joined { peer, share, holder } = joined;
    keep_alive(&peer);
    let flow = Flow::new(share, holder, link);
    let moving = async {
        match client {
            Either::Left(client) => {
                keep_alive(&client);
                both_plain(client, peer, &flow).await
            }
            Either::Right(client) => {
                keep_alive(client.get_ref().0);
                copying::both(client, peer, &flow).await
            }
        }
    };
    tokio::select! {
        ended = moving => {
            if let Err(error) = ended {
                tracing::trace!(%error, "a relayed connection broke");
            }
        }
        () = closed => {}
        () = flow.idle() => tracing::debug!("a relayed connection has been idle for too long"),
    }
    flow.tell_rest().await;
}

#[cfg(target_os = "linux")]
async fn both_plain(client: TcpStream, peer: TcpStream, flow: &Flow<'_>) -> io::Result<()> {
    splicing::both(&client, &peer, flow).await
}

#[cfg(not(target_os = "linux"))]
async fn both_plain(client: TcpStream, peer: TcpStream, flow: &Flow<'_>) -> io::Result<()> {
    copying::both(client, peer, flow).await
}

/// What both ways of a joined connection share.
struct Flow<'a> {
    share: Option<HolderShare>,
    holder: Holder,
    link: &'a Link,
    untold: AtomicU64,
    moved_at: Mutex<Instant>,
}

/// How much one way has moved since others had their turn.
#[derive(Default)]
struct Quantum(u64);

impl<'a> Flow<'a> {
    fn new(share: Option<HolderShare>, holder: Holder, link: &'a Link) -> Self {
        Self { share, holder, link, untold: AtomicU64::new(0), moved_at: Mutex::new(Instant::now()) }
    }

    /// Waits until bytes that were read may be written.
    async fn admit(&self, bytes: usize) {
        if let Some(share) = &self.share {
            share.take(bytes as u64).await;
        }
    }

    /// Counts bytes that were written, and lets others go on.
    async fn moved(&self, turn: &mut Quantum, bytes: usize, by: &Counter) {
        by.add(bytes as u64);
        *self.moved_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let untold = self.untold.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if untold >= TELL_AFTER {
            self.tell();
        }
        turn.0 += bytes as u64;
        if turn.0 >= MAX_TURN {
            turn.0 = 0;
            tokio::task::yield_now().await;
        }
    }

    /// Tells the quotas. Where the actor is busy, the next bytes try again.
    fn tell(&self) {
        let bytes = self.untold.swap(0, Ordering::Relaxed);
        if bytes > 0 && self.link.inputs.try_send(self.relayed(bytes)).is_err() {
            self.untold.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    async fn tell_rest(&self) {
        let bytes = self.untold.swap(0, Ordering::Relaxed);
        if bytes > 0 {
            let _ = self.link.inputs.send(self.relayed(bytes)).await;
        }
    }

    fn relayed(&self, bytes: u64) -> Input {
        Input::Relayed { client: self.link.client, holder: self.holder.clone(), bytes }
    }

    /// Ends when nothing has been moved for too long.
    async fn idle(&self) {
        loop {
            let until = *self.moved_at.lock().unwrap_or_else(PoisonError::into_inner) + IDLE_TIMEOUT;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

fn keep_alive(stream: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_TIMES);
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "a side that vanishes will be found late");
    }
}

/// Passes on the end of one way.
#[cfg(target_os = "linux")]
fn end(stream: &TcpStream) -> io::Result<()> {
    match SockRef::from(stream).shutdown(std::net::Shutdown::Write) {
        // It has ended already, and the other way will tell.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}
