//! What both ways of a joined connection share: its part of the rates, its bytes for the quotas, and how long it has been idle.
//!
//! What it is not: moving bytes.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use keyferry_turn::server::Holder;
use tokio::time::{Instant, sleep_until};

use super::super::{
    link::{Link, RelayInput},
    rates::HolderShare,
};
use crate::base::counters::Counter;

/// How long a connection may carry nothing. What NATs keep for TCP (RFC 5382 §5: 2 h 4 min) is hardly longer; Keyferry's
/// own sessions say something every 15 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
/// How many bytes to read, at most, before paying for them and writing them.
pub(super) const MAX_SLICE: usize = 64 * 1024;
/// How many bytes one connection may move before others get their turn.
const MAX_TURN: u64 = 256 * 1024;
/// How many bytes to move before telling the quotas of them.
const TELL_AFTER: u64 = 256 * 1024;

/// What both ways of a joined connection share.
pub(super) struct Flow<'a> {
    share: Option<HolderShare>,
    holder: Holder,
    pub(super) link: &'a Link,
    untold: AtomicU64,
    moved_at: Mutex<Instant>,
}

/// How much one way has moved since others had their turn.
#[derive(Default)]
pub(super) struct Quantum(u64);

impl<'a> Flow<'a> {
    pub(super) fn new(share: Option<HolderShare>, holder: Holder, link: &'a Link) -> Self {
        Self { share, holder, link, untold: AtomicU64::new(0), moved_at: Mutex::new(Instant::now()) }
    }

    /// Waits until bytes that were read may be written.
    pub(super) async fn admit(&self, bytes: usize) {
        if let Some(share) = &self.share {
            share.take(bytes as u64).await;
        }
    }

    /// Counts bytes that were written, and lets others go on.
    pub(super) async fn moved(&self, turn: &mut Quantum, bytes: usize, by: &Counter) {
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

    /// Tells the quotas. If the actor is busy, the next bytes try again.
    fn tell(&self) {
        let bytes = self.untold.swap(0, Ordering::Relaxed);
        if bytes > 0 && self.link.inputs.try_send(self.relayed(bytes)).is_err() {
            self.untold.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(super) async fn tell_rest(&self) {
        let bytes = self.untold.swap(0, Ordering::Relaxed);
        if bytes > 0 {
            let _ = self.link.inputs.send(self.relayed(bytes)).await;
        }
    }

    fn relayed(&self, bytes: u64) -> RelayInput {
        RelayInput::Relayed { client: self.link.client, holder: self.holder.clone(), bytes }
    }

    /// Ends when nothing has been moved for too long.
    pub(super) async fn idle(&self) {
        loop {
            let until = *self.moved_at.lock().unwrap_or_else(PoisonError::into_inner) + IDLE_TIMEOUT;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}
