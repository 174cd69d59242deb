//! What all requests of an attempt share: what to fetch, the plan for it once there is one, and what arrives.
//!
//! What it is not: the plan itself (`plan`), or one from what a provider says (`receive`).

use std::{
    sync::{Arc, Mutex, OnceLock, atomic::AtomicU64},
    time::{Duration, Instant},
};

use keyferry_proto::{
    collection::{EntryPath, FileAttributes},
    hash::{ContentFormat, ContentHash},
    transfer::units::UnitRanges,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    FetchError,
    plan::{FetchPlan, blocking},
    staging::FetchTarget,
};
use crate::{content::store::Store, net::session::Session};

/// Looking at what is here already may take this long to notice that the fetch was cancelled.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What to fetch, and where to.
#[derive(Debug, Clone)]
pub struct Job {
    /// The store that knows what is here already, and takes over what was fetched.
    pub store: Store,
    /// The root hash.
    pub root: ContentHash,
    /// What the publisher's signed entry says that it is, if there is one.
    pub format: Option<ContentFormat>,
    /// The size of the root blob, if a signed entry says so.
    pub root_size: Option<u64>,
    /// What the publisher's signed entry says of a file besides its bytes.
    pub attributes: Option<FileAttributes>,
    /// The path in the folder at which it is what is wanted; none for all of it.
    pub part: Option<EntryPath>,
    /// Where the content goes.
    pub target: FetchTarget,
    /// Whether it is offered to others afterwards, by its hash.
    pub seed: bool,
}

/// Where a fetch hears of those who may have the content.
#[derive(Debug)]
pub struct FoundSources {
    /// Sessions with them, now and while the fetch runs.
    pub sessions: mpsc::Receiver<Session>,
    /// How many are known and were not tried yet: while there are any, no fetch ends for want of providers.
    pub untried: watch::Receiver<usize>,
}

impl FoundSources {
    /// Whether somebody is known who was not tried yet.
    pub(super) fn has_untried(&self) -> bool {
        *self.untried.borrow() > 0
    }

    /// The next session, if it comes within this time or somebody may still be tried. Cancel-safe.
    pub(super) async fn next_within(&mut self, limit: Duration) -> Option<Session> {
        loop {
            match timeout(limit, self.sessions.recv()).await {
                Ok(session) => return session,
                Err(_) if self.has_untried() => {}
                Err(_) => return None,
            }
        }
    }
}

/// What all requests of one attempt share.
#[derive(Debug)]
pub(super) struct FetchContext {
    pub(super) job: Job,
    /// Set by the first provider that describes the content, if it was not known before.
    pub(super) plan: OnceLock<Arc<FetchPlan>>,
    /// Held while a plan is made: two would contend for the staging area.
    pub(super) planning: Mutex<()>,
    pub(super) arrivals: Arc<Arrivals>,
}

/// What arrives during a fetch, over all its attempts.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// When the first byte was verified.
    pub(super) first_byte: OnceLock<Instant>,
    /// Bytes that arrived, verified or not, without framing.
    pub(super) received_bytes: AtomicU64,
}

impl FetchContext {
    pub(super) fn new(job: Job, arrivals: Arc<Arrivals>) -> Self {
        Self { job, plan: OnceLock::new(), planning: Mutex::new(()), arrivals }
    }

    /// Makes the plan where no provider is needed for it, and says what is here already: the publisher has signed what the
    /// content is, or the store knows it.
    pub(super) async fn plan_here(
        self: &Arc<Self>,
        cancel: &CancellationToken,
    ) -> Result<Option<UnitRanges>, FetchError> {
        let (context, stop) = (Arc::clone(self), cancel.child_token());
        let mut planned = std::pin::pin!(blocking(move || context.plan_without_network(&stop)));
        tokio::select! {
            planned = &mut planned => return planned,
            () = cancel.cancelled() => {}
        }
        let _ = timeout(STOP_PATIENCE, planned).await;
        Err(FetchError::Interrupted)
    }

    fn plan_without_network(&self, cancel: &CancellationToken) -> Result<Option<UnitRanges>, FetchError> {
        let Job { store, root, format, root_size, attributes, part, target, .. } = &self.job;
        // What the store has there may also be a file, or damaged.
        let manifest = match format {
            Some(ContentFormat::Blob) => None,
            _ => store.manifest(root).ok().flatten(),
        };
        let blob = |size| match part {
            Some(path) => Err(FetchError::NotInFolder { path: path.to_string() }),
            None => FetchPlan::blob(store.clone(), target.clone(), *root, size, *attributes),
        };
        let plan = match (manifest, format, root_size) {
            (Some(manifest), ..) => {
                FetchPlan::collection(store.clone(), target.clone(), *root, manifest.encode(), part.as_ref())?
            }
            (None, Some(ContentFormat::Collection), _) => return Ok(None),
            (None, Some(ContentFormat::Blob), Some(size)) => blob(*size)?,
            (None, ..) => match store.blob(root) {
                Ok(Some(here)) => blob(here.size())?,
                _ => return Ok(None),
            },
        };
        let have = plan.take_stock(cancel)?;
        self.plan.get_or_init(|| Arc::new(plan));
        Ok(Some(have))
    }
}
