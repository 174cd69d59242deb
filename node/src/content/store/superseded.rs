//! Versions of a share that a newer one has taken the place of: whoever is fetching one goes on with it for a while, as far as its files are
//! still there.
//!
//! What it is not: something that is offered anew. Such a version has no name, is not announced, and is there for those alone to whom the
//! share is offered now.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use keyferry_proto::hash::ContentHash;

use super::{Asker, Root};

/// How long a version can still be fetched.
pub(super) const SUPERSEDED_GRACE: Duration = Duration::from_secs(10 * 60);
/// How many versions are kept; of more, the oldest goes.
const MAX_SUPERSEDED: usize = 16;

/// The versions, the oldest first.
#[derive(Debug, Default)]
pub(super) struct SupersededRoots(Mutex<VecDeque<(Root, Instant)>>);

impl SupersededRoots {
    /// Keeps a version. Gives back those that are kept no longer.
    pub(super) fn add(&self, root: Root, now: Instant) -> Vec<Root> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(old, _)| old.hash != root.hash);
        kept.push_back((root, now));
        let is_over = |(at, (_, since)): (usize, &(Root, Instant)), len: usize| {
            len - at > MAX_SUPERSEDED || now.saturating_duration_since(*since) >= SUPERSEDED_GRACE
        };
        let over = kept.iter().enumerate().take_while(|(at, entry)| is_over((*at, *entry), kept.len())).count();
        kept.drain(..over).map(|(root, _)| root).collect()
    }

    /// Gives back all.
    pub(super) fn take(&self) -> Vec<Root> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.drain(..).map(|(root, _)| root).collect()
    }

    /// All that are kept.
    pub(super) fn roots(&self) -> Vec<Root> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(root, _)| root.clone()).collect()
    }

    /// The version with this hash, if the share that it was a version of is offered to this asker by these roots.
    pub(super) fn offered(&self, hash: &ContentHash, asker: &Asker, roots: &[Root], now: Instant) -> Option<Root> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |since: &Instant| now.saturating_duration_since(*since) < SUPERSEDED_GRACE;
        let (old, _) = kept.iter().find(|(old, since)| old.hash == *hash && is_recent(since))?;
        let newer = roots.iter().find(|root| root.name().is_some() && root.name() == old.name())?;
        newer.is_offered_to(asker).then(|| old.clone())
    }
}
