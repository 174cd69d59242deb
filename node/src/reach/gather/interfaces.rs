//! Tells when this machine's addresses may have changed.
//!
//! What it is not: which addresses count; see `hosts`.

use std::time::Duration;

use futures::StreamExt;
use if_watch::tokio::IfWatcher;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

/// How long to wait for further changes: an interface that comes up gets its addresses one after the other.
const TOGETHER: Duration = Duration::from_millis(100);
/// How often to look at the addresses even if the system tells nothing.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The system's word of changes.
pub(super) struct Interfaces {
    watcher: Option<IfWatcher>,
    /// When the change that is going on counts as done.
    settled_at: Option<Instant>,
    look: Interval,
}

impl Interfaces {
    pub(super) fn new() -> Self {
        let watcher = IfWatcher::new();
        let watcher = watcher.inspect_err(|error| tracing::info!(%error, "the system does not tell of new addresses"));
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { watcher: watcher.ok(), settled_at: None, look }
    }

    /// Returns when something may have changed; soon after the start in any case. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        loop {
            let settled_at = self.settled_at;
            tokio::select! {
                told = next(self.watcher.as_mut()) => match told {
                    true => drop(self.settled_at.get_or_insert_with(|| Instant::now() + TOGETHER)),
                    false => {
                        tracing::info!("the system tells no more of new addresses; they are looked at instead");
                        self.watcher = None;
                    }
                },
                () = sleep_until(settled_at.unwrap_or_else(Instant::now)), if settled_at.is_some() => {
                    self.settled_at = None;
                    return;
                }
                _ = self.look.tick() => return,
            }
        }
    }
}

/// Waits for the next word of the system: true for a change, false if there will be no more. Waits for ever if the system tells
/// nothing.
async fn next(watcher: Option<&mut IfWatcher>) -> bool {
    match watcher {
        Some(watcher) => matches!(watcher.next().await, Some(Ok(_))),
        None => std::future::pending().await,
    }
}
