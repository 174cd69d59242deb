//! What a stranger tries, and how often all of them have.
//!
//! What it is not: trying it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use keyferry::{ContentHash, NodeKey, ShareName, net::session::SessionTls};
use serde_json::{Value, json};

/// How long a stranger waits who was turned away.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// A node, as strangers know it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) port: SocketAddr,
    pub(super) node: NodeKey,
    pub(super) name: ShareName,
    pub(super) content: ContentHash,
}

/// What a stranger tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    Silence,
    HalfHello,
    BadHello,
    Session,
    Upload,
    Question,
    SmallFrame,
    Peer,
    Addresses,
    Record,
    Provider,
}

impl Attempt {
    const ALL: [(Attempt, &'static str); 11] = [
        (Self::Silence, "silent_connections"),
        (Self::HalfHello, "half_hellos"),
        (Self::BadHello, "bad_hellos"),
        (Self::Session, "sessions"),
        (Self::Upload, "uploads"),
        (Self::Question, "questions"),
        (Self::SmallFrame, "frames_of_one_byte"),
        (Self::Peer, "dht_peers"),
        (Self::Addresses, "dht_addresses"),
        (Self::Record, "dht_records"),
        (Self::Provider, "dht_providers"),
    ];
}

/// How often what was tried, by all strangers of this process.
#[derive(Debug, Default)]
pub(super) struct Tried([AtomicU64; Attempt::ALL.len()]);

impl Tried {
    fn note(&self, attempt: Attempt) {
        self.0[attempt as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn told(&self, began: Instant, strangers: u32) -> Value {
        let counts = Attempt::ALL.map(|(attempt, name)| {
            let count = self.0[attempt as usize].load(Ordering::Relaxed);
            (name.to_owned(), json!(count))
        });
        let counts: serde_json::Map<_, _> = counts.into_iter().collect();
        json!({ "event": "tried", "strangers": strangers, "seconds": began.elapsed().as_secs_f64(), "tried": counts })
    }
}

/// One of them, with a key of its own.
#[derive(Clone)]
pub(super) struct Stranger {
    pub(super) target: Arc<Target>,
    pub(super) tls: Arc<SessionTls>,
    pub(super) tried: Arc<Tried>,
}

impl Stranger {
    /// Counts a try.
    pub(super) fn note(&self, attempt: Attempt) {
        self.tried.note(attempt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_is_counted_under_its_own_name() {
        let tried = Tried::default();
        for (at, (attempt, _)) in Attempt::ALL.into_iter().enumerate() {
            (0..=at).for_each(|_| tried.note(attempt));
        }
        let told = tried.told(Instant::now(), 3);
        for (at, (_, name)) in Attempt::ALL.into_iter().enumerate() {
            assert_eq!(told["tried"][name], at as u64 + 1, "{told}");
        }
    }
}
