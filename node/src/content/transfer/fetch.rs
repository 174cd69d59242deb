//! Fetching one root from whoever has it: attempts, until one brings everything.
//!
//! An attempt goes by a plan, which is what the content's shape is believed to be. Of a folder the plan is proven, as its
//! list of files is verified; of a file its size is, for a while, only what some holder said. If that turns out to be a
//! lie, the next attempt makes a new plan, and what was verified stays.
//!
//! Whether a hash names a file or a folder is nothing that the hash tells. Where no signed entry tells it either, bytes
//! that are a list of files are taken for one.
//!
//! What it is not: the decision who is asked for what (`keyferry_proto::transfer::schedule`), or finding holders.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use keyferry_proto::{
    hash::{ContentFormat, ContentHash},
    identity::NodeKey,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    FetchError, InternalError,
    attempt::{Attempt, AttemptError, Patience, Setback},
    plan::Plan,
    receive::Received,
    staging::Target,
};
use crate::{
    base::clock,
    content::store::{Origin, Root, Store},
    net::{path::PathReport, session::Session},
};

/// What to fetch, and where to.
#[derive(Debug, Clone)]
pub struct Job {
    /// The store that knows what is here already, and that seeds the content afterwards.
    pub store: Store,
    /// The root hash.
    pub root: ContentHash,
    /// What the publisher's signed entry says that it is, if there is one.
    pub format: Option<ContentFormat>,
    /// The size of the root blob, if a signed entry says so.
    pub root_size: Option<u64>,
    /// Where the content goes.
    pub target: Target,
}

/// How far a fetch has come. All numbers count verified content only, that of earlier runs included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Bytes in all; 0 until known.
    pub total_bytes: u64,
    /// Files that are complete.
    pub done_files: u64,
    /// Files in all; 0 until known.
    pub total_files: u64,
}

/// The result of a fetch.
#[derive(Debug)]
pub struct Outcome {
    /// A file or a folder.
    pub format: ContentFormat,
    /// Where the content is now.
    pub path: PathBuf,
    /// Bytes of content in all.
    pub size: u64,
    /// Files in it.
    pub files: u64,
    /// Bytes that came over the network.
    pub received_bytes: u64,
    /// Bytes of content that were here before.
    pub resumed_bytes: u64,
    /// Those who gave something, by each path on its own; who gave most comes first.
    pub from: Vec<Given>,
    /// When the first byte was verified; none if nothing had to be fetched.
    pub first_byte: Option<Instant>,
}

/// What came from a holder by one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The holder.
    pub node: NodeKey,
    /// How it was connected.
    pub path: PathReport,
    /// The bytes of content that were kept.
    pub bytes: u64,
}

/// Fetches until everything is in its final place.
///
/// `holders` brings sessions to nodes that may have the content, now and while the fetch runs; `progress` is called
/// some times a second.
pub async fn fetch(
    job: Job,
    holders: mpsc::Receiver<Session>,
    progress: impl Fn(FetchProgress),
    cancel: CancellationToken,
) -> Result<Outcome, FetchError> {
    fetch_with(job, &Patience::default(), holders, progress, cancel).await
}

pub(super) async fn fetch_with(
    job: Job,
    patience: &Patience,
    mut holders: mpsc::Receiver<Session>,
    progress: impl Fn(FetchProgress),
    cancel: CancellationToken,
) -> Result<Outcome, FetchError> {
    let mut ledger = Ledger::new();
    let mut sessions = Vec::new();
    loop {
        let mut attempt = Attempt::start(&job, ledger, sessions, patience, &cancel).await?;
        let ended = attempt.run(&mut holders, &progress, &cancel).await;
        attempt.stop_requests().await;
        match ended {
            Ok(()) => {
                let plan = attempt.plan()?;
                if job.format.is_some() || !take_for_manifest(&job, &plan).await? {
                    return finish(&job, plan, attempt.into_ledger()).await;
                }
            }
            Err(AttemptError::Failed(error)) => return Err(error),
            Err(AttemptError::PlanWasWrong) => attempt.discard_if_empty().await,
        }
        (ledger, sessions) = attempt.into_parts();
    }
}

/// What one fetch keeps over its attempts.
pub(super) struct Ledger {
    pub(super) arrivals: Arc<Received>,
    /// Those who sent what does not hash to what was asked for; they are not asked again.
    pub(super) banned: HashSet<NodeKey>,
    /// What was kept of whom. No session: one that is left for a better one is to end.
    given: Vec<Kept>,
    /// Bytes of content that were here before the first attempt.
    pub(super) resumed_bytes: u64,
    /// What last went wrong with a holder.
    pub(super) setback: Option<Setback>,
    /// When there was last something to be glad of.
    pub(super) last_gain: Instant,
}

/// What was kept of what came from a holder by one path, of which more may still become known.
struct Kept {
    node: NodeKey,
    path: watch::Receiver<PathReport>,
    bytes: u64,
}

impl Kept {
    /// Whether a session is with this holder, by this path.
    fn is_of(&self, session: &Session) -> bool {
        let (known, path) = (self.path.borrow(), session.path());
        self.node == session.peer() && known.remote == path.remote && known.kind.is_relayed() == path.kind.is_relayed()
    }

    fn into_given(self) -> Given {
        Given { node: self.node, path: self.path.borrow().clone(), bytes: self.bytes }
    }
}

impl Ledger {
    fn new() -> Self {
        Self {
            arrivals: Arc::default(),
            banned: HashSet::new(),
            given: Vec::new(),
            resumed_bytes: 0,
            setback: None,
            last_gain: Instant::now(),
        }
    }

    /// Bytes of content that came over the network and were kept.
    pub(super) fn given_bytes(&self) -> u64 {
        self.given.iter().map(|kept| kept.bytes).sum()
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
            None => self.given.push(Kept { node: session.peer(), path: session.watch_path(), bytes }),
        }
    }
}

/// Whether the bytes that were fetched as a file are the list of files of a folder, which is then fetched.
async fn take_for_manifest(job: &Job, plan: &Arc<Plan>) -> Result<bool, FetchError> {
    let (plan, store) = (Arc::clone(plan), job.store.clone());
    blocking(move || {
        let Some(manifest) = plan.manifest_in_disguise()? else { return Ok(false) };
        store.put_blob_bytes(plan.root, &manifest)?;
        plan.discard()?;
        Ok(true)
    })
    .await
}

async fn finish(job: &Job, plan: Arc<Plan>, ledger: Ledger) -> Result<Outcome, FetchError> {
    let store = job.store.clone();
    let (plan, path) = blocking(move || {
        let path = plan.finish()?;
        let root = Root {
            hash: plan.root,
            format: plan.format,
            size: plan.content_len(),
            files: plan.file_count(),
            name: None,
            origin: Origin::Fetched { path: path.clone() },
            added: clock::now(),
        };
        if let Err(error) = store.add_fetched(root, plan.placed(&path)) {
            // What the user wanted is there all the same.
            tracing::warn!(%error, "what was fetched cannot be given to others from here");
        }
        Ok((plan, path))
    })
    .await?;
    let mut from: Vec<Given> = ledger.given.into_iter().map(Kept::into_given).collect();
    from.sort_by_key(|given| std::cmp::Reverse(given.bytes));
    Ok(Outcome {
        format: plan.format,
        path,
        size: plan.content_len(),
        files: plan.file_count(),
        received_bytes: ledger.arrivals.received_bytes.load(Ordering::Relaxed),
        resumed_bytes: ledger.resumed_bytes,
        from,
        first_byte: ledger.arrivals.first_byte.get().copied(),
    })
}

/// Runs blocking work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(InternalError::from)?
}
