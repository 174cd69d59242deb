//! What one fetch keeps over its attempts: who gave what, who is not asked again, and what last went wrong.
//!
//! What it is not: what is verified; a new attempt takes stock of that again.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{ProviderError, context::Arrivals};
use crate::net::{
    path::PathReport,
    session::{PeerName, Session},
};

/// What came from a provider by one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The provider.
    pub by: PeerName,
    /// How it was connected.
    pub path: PathReport,
    /// The bytes of content that were kept.
    pub bytes: u64,
}

/// What one fetch keeps over its attempts.
pub(super) struct Ledger {
    arrivals: Arc<Arrivals>,
    /// Those who sent what does not hash to what was asked for; they are not asked again.
    banned: HashSet<PeerName>,
    /// What was kept of whom. No session: one that is left for a better one is to end.
    given: Vec<Contribution>,
    /// Bytes of content that were here before the first attempt.
    resumed_bytes: u64,
    /// What last went wrong with a provider.
    setback: Option<ProviderError>,
    last_progress: Instant,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            arrivals: Arc::default(),
            banned: HashSet::new(),
            given: Vec::new(),
            resumed_bytes: 0,
            setback: None,
            last_progress: Instant::now(),
        }
    }

    /// What arrives, for those who receive it.
    pub(super) fn arrivals(&self) -> &Arc<Arrivals> {
        &self.arrivals
    }

    /// Never asks a provider again.
    pub(super) fn ban(&mut self, provider: PeerName) {
        self.banned.insert(provider);
    }

    pub(super) fn is_banned(&self, provider: &PeerName) -> bool {
        self.banned.contains(provider)
    }

    /// Notes what has gone wrong with a provider.
    pub(super) fn note(&mut self, setback: ProviderError) {
        self.setback = Some(setback);
    }

    /// The same, unless something else is noted already.
    pub(super) fn note_if_none(&mut self, setback: ProviderError) {
        self.setback.get_or_insert(setback);
    }

    pub(super) fn has_setback(&self) -> bool {
        self.setback.is_some()
    }

    /// What last went wrong with a provider, for the error that ends the fetch.
    pub(super) fn take_setback(&mut self) -> Option<ProviderError> {
        self.setback.take()
    }

    /// Notes that the fetch has come further, or that it is at work on what was received.
    pub(super) fn progressed(&mut self, now: Instant) {
        self.last_progress = now;
    }

    /// How long ago that was.
    pub(super) fn fruitless(&self) -> Duration {
        self.last_progress.elapsed()
    }

    /// Notes that bytes were kept which came over a session.
    pub(super) fn give(&mut self, session: &Session, bytes: u64) {
        // The same path may be made several times.
        match self.given.iter_mut().find(|kept| kept.is_of(session)) {
            Some(kept) => {
                kept.bytes += bytes;
                if !kept.path.borrow().kind.is_settled() {
                    kept.path = session.watch_path();
                }
            }
            None => self.given.push(Contribution { by: session.peer_name(), path: session.watch_path(), bytes }),
        }
    }

    /// Notes how many bytes an attempt has found here. An attempt before it may have fetched some of them.
    pub(super) fn found_here(&mut self, bytes: u64) {
        let given: u64 = self.given.iter().map(|kept| kept.bytes).sum();
        self.resumed_bytes = self.resumed_bytes.max(bytes.saturating_sub(given));
    }

    /// Bytes of content that were here before the first attempt.
    pub(super) fn resumed_bytes(&self) -> u64 {
        self.resumed_bytes
    }

    /// Those who gave something, by each path on its own; who gave most comes first.
    pub(super) fn into_given(self) -> Vec<Given> {
        let mut given: Vec<Given> = self.given.into_iter().map(Contribution::into_given).collect();
        given.sort_by_key(|given| std::cmp::Reverse(given.bytes));
        given
    }
}

/// What was kept of what came from a provider by one path, of which more may still become known.
struct Contribution {
    by: PeerName,
    path: watch::Receiver<PathReport>,
    bytes: u64,
}

impl Contribution {
    /// Whether a session is with this provider, by this path.
    fn is_of(&self, session: &Session) -> bool {
        let (known, path) = (self.path.borrow(), session.path());
        self.by == session.peer_name()
            && known.remote == path.remote
            && known.kind.is_relayed() == path.kind.is_relayed()
    }

    fn into_given(self) -> Given {
        Given { by: self.by, path: self.path.borrow().clone(), bytes: self.bytes }
    }
}
