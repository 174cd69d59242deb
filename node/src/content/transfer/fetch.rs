//! Fetching one root from whoever has it: attempts, until one brings everything.
//!
//! An attempt goes by a plan, which is what the content's shape is believed to be. The plan of a folder is proven, as its
//! list of files is verified; the size of a file is, for a while, only what some provider said. If that turns out to be a
//! lie, the next attempt makes a new plan, and what was verified stays.
//!
//! A hash does not tell whether it names a file or a folder. If no signed entry tells it either, bytes that are a list of
//! files are taken for one.
//!
//! What it is not: the decision about who is asked for what (`keyferry_proto::transfer::schedule`), or finding providers.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use keyferry_proto::{hash::ContentFormat, message::Refusal};
use tokio_util::sync::CancellationToken;

use super::{
    FetchError, Incomplete, MAX_MISSING_LISTED, MissingFile,
    attempt::{Attempt, AttemptError},
    context::FetchContext,
    ledger::Ledger,
    parents::learn_what_changed,
    patience::Patience,
    plan::{FetchPlan, blocking, finishing::Finished},
    staging::{StagingError, tree::NotAsSent},
    there::{self, There},
};
pub use super::{
    attempt::FetchProgress,
    changes::{Changes, Paths},
    context::{FoundSources, Job},
    ledger::Given,
};
use crate::{
    base::clock,
    content::store::{PlacedFile, Root, RootOrigin, RootState, Store},
};

/// The result of a fetch.
#[derive(Debug)]
pub struct FetchOutcome {
    /// A file or a folder.
    pub format: ContentFormat,
    /// Where the content is now.
    pub path: PathBuf,
    /// Whether all of it was there before.
    pub was_there: bool,
    /// What was done with a folder that was there before.
    pub changes: Changes,
    /// Bytes of content in all.
    pub size: u64,
    /// Files in it.
    pub files: u64,
    /// What of it is not here as its sender has it.
    pub not_as_sent: NotAsSent,
    /// Bytes that came over the network.
    pub received_bytes: u64,
    /// Bytes of content that were here before.
    pub resumed_bytes: u64,
    /// Those who gave something, by each path on its own; who gave most comes first.
    pub from: Vec<Given>,
    /// When the first byte was verified; none if nothing had to be fetched.
    pub first_byte: Option<Instant>,
}

/// Fetches until everything is in its final place.
///
/// A fetch with nobody to ask waits for as long as the sessions of `providers` may become more. `progress` is called several times a second.
pub async fn fetch(
    job: Job,
    providers: FoundSources,
    progress: impl Fn(FetchProgress),
    cancel: CancellationToken,
) -> Result<FetchOutcome, FetchError> {
    fetch_with(job, &Patience::default(), providers, progress, cancel).await
}

pub(super) async fn fetch_with(
    job: Job,
    patience: &Patience,
    mut providers: FoundSources,
    progress: impl Fn(FetchProgress),
    cancel: CancellationToken,
) -> Result<FetchOutcome, FetchError> {
    let job = cancel.run_until_cancelled(replacing_what_was_lost(job)).await.ok_or(FetchError::Interrupted)??;
    if let Some(there) = find_there(&job, &cancel).await? {
        return Ok(there);
    }
    match fetch_what_is_not_there(&job, patience, &mut providers, progress, &cancel).await {
        // Its list of files is known only now.
        Err(FetchError::Target(StagingError::Exists { path })) => match find_there(&job, &cancel).await? {
            Some(there) => Ok(there),
            None => Err(StagingError::Exists { path }.into()),
        },
        ended => ended,
    }
}

async fn fetch_what_is_not_there(
    job: &Job,
    patience: &Patience,
    providers: &mut FoundSources,
    progress: impl Fn(FetchProgress),
    cancel: &CancellationToken,
) -> Result<FetchOutcome, FetchError> {
    let mut ledger = Ledger::new();
    let mut sessions = Vec::new();
    loop {
        let context = Arc::new(FetchContext::new(job.clone(), Arc::clone(ledger.arrivals())));
        let planned = context.plan_here(cancel).await?;
        let planned = learn_what_changed(&context, planned, providers, &mut sessions, &progress, cancel).await?;
        let mut attempt = Attempt::start(context, planned, ledger, sessions, patience)?;
        let ended = attempt.run(providers, &progress, cancel).await;
        attempt.stop_requests().await;
        match ended {
            Ok(()) => {
                let plan = attempt.plan()?;
                if job.format.is_some() || !take_for_manifest(job, &plan).await? {
                    return finish(job, plan, attempt.into_ledger(), cancel.clone()).await;
                }
            }
            Err(AttemptError::Failed(error)) => return Err(error),
            Err(AttemptError::Partly(missing)) => {
                return finish_partly(job, attempt.plan()?, missing, cancel.clone()).await;
            }
            Err(AttemptError::PlanWasWrong) => attempt.discard_if_empty().await,
        }
        (ledger, sessions) = attempt.into_parts();
    }
}

/// What an earlier fetch put there, and a power cut has damaged, is replaced unasked.
async fn replacing_what_was_lost(mut job: Job) -> Result<Job, FetchError> {
    blocking(move || {
        let path = job.target.out_dir.join(&job.target.name);
        if !job.target.overwrite && path.symlink_metadata().is_ok() && job.store.has_lost(&job.root, &path)? {
            tracing::warn!(path = %path.display(), "what was fetched there is damaged; it is fetched again");
            job.target.overwrite = true;
        }
        Ok(job)
    })
    .await
}

/// Whether the bytes that were fetched as a file are the list of files of a folder, which is then fetched.
async fn take_for_manifest(job: &Job, plan: &Arc<FetchPlan>) -> Result<bool, FetchError> {
    let (plan, store) = (Arc::clone(plan), job.store.clone());
    blocking(move || {
        let Some(manifest) = plan.manifest_in_disguise()? else { return Ok(false) };
        store.put_blob_bytes(plan.root, &manifest)?;
        plan.discard()?;
        Ok(true)
    })
    .await
}

/// Puts what there is of a folder into its place, and says what is missing.
async fn finish_partly(
    job: &Job,
    plan: Arc<FetchPlan>,
    missing: Vec<(usize, Refusal)>,
    cancel: CancellationToken,
) -> Result<FetchOutcome, FetchError> {
    let store = job.store.clone();
    let incomplete = blocking(move || {
        let indexes: Vec<usize> = missing.iter().map(|(index, _)| *index).collect();
        let Finished { path, merged } = plan.finish_without(&indexes, &cancel)?;
        note_without_root(&store, plan.placed(&path, &indexes, &merged.kept));
        let names = missing.iter().flat_map(|(index, why)| plan.names_of(*index).map(|name| (name, *why)));
        let listed = names.take(MAX_MISSING_LISTED);
        Ok(Incomplete {
            path,
            files: plan.file_count(),
            missing_count: missing.iter().map(|(index, _)| plan.names_of(*index).count() as u64).sum(),
            missing: listed.map(|(path, why)| MissingFile { path, why }).collect(),
        })
    });
    Err(FetchError::Incomplete(Box::new(incomplete.await?)))
}

async fn finish(
    job: &Job,
    plan: Arc<FetchPlan>,
    ledger: Ledger,
    cancel: CancellationToken,
) -> Result<FetchOutcome, FetchError> {
    let keeping = job.clone();
    let (plan, path, changes) = blocking(move || {
        let Finished { path, merged } = plan.finish(&cancel)?;
        let placed = plan.placed(&path, &[], &merged.kept);
        if let Some(kept) = plan.kept(&merged.kept) {
            note_without_root(&keeping.store, placed);
            return Err(FetchError::Kept(Box::new(kept)));
        }
        match keeping.part {
            None => keep(&keeping, plan.format, (plan.content_len(), plan.file_count()), &path, placed),
            // It is no root, which could be offered.
            Some(_) => note_without_root(&keeping.store, placed),
        }
        let changes = plan.changes(&merged);
        Ok((plan, path, changes))
    })
    .await?;
    Ok(FetchOutcome {
        format: plan.placed_format(),
        path,
        was_there: changes.as_ref().is_some_and(Changes::are_none),
        changes: changes.unwrap_or_default(),
        size: plan.content_len(),
        files: plan.file_count(),
        not_as_sent: plan.not_as_sent(),
        received_bytes: ledger.arrivals().received_bytes.load(Ordering::Relaxed),
        resumed_bytes: ledger.resumed_bytes(),
        first_byte: ledger.arrivals().first_byte.get().copied(),
        from: ledger.into_given(),
    })
}

/// Finds that the content is at its target already. It stays the user's own, who may change it, unless it is to be offered from there.
async fn find_there(job: &Job, cancel: &CancellationToken) -> Result<Option<FetchOutcome>, FetchError> {
    let (job, cancel) = (job.clone(), cancel.clone());
    blocking(move || {
        let Some(found) = there::find(&job, &cancel)? else { return Ok(None) };
        let There { path, format, size, files, is_fetched, changes } = found;
        let count = files.len() as u64;
        // A fetch may have been killed before it came to this.
        let is_left = is_fetched && job.store.root(&job.root).is_none();
        match job.part {
            None if job.seed || is_left => keep(&job, format, (size, count), &path, files),
            Some(_) if is_left => note_without_root(&job.store, files),
            _ => {}
        }
        Ok(Some(FetchOutcome {
            format,
            path,
            was_there: true,
            changes,
            size,
            files: count,
            not_as_sent: NotAsSent::default(),
            received_bytes: 0,
            resumed_bytes: size,
            from: Vec::new(),
            first_byte: None,
        }))
    })
    .await
}

/// Has the store know files of content that is not all there.
fn note_without_root(store: &Store, placed: impl IntoIterator<Item = PlacedFile>) {
    if let Err(error) = store.note_files(placed) {
        tracing::warn!(%error, "what was fetched is not known when it is fetched again");
    }
    // No root leads there when the index is made again.
    store.write_out_index();
}

/// Has the store take over what is there now; what the user wanted is there all the same if it cannot. `len` is bytes and files in all.
fn keep(job: &Job, format: ContentFormat, len: (u64, u64), path: &Path, placed: impl IntoIterator<Item = PlacedFile>) {
    let (size, files) = len;
    let root = Root {
        hash: job.root,
        format,
        size,
        files,
        attributes: job.attributes.filter(|_| format == ContentFormat::Blob),
        state: if job.seed { RootState::Seeded } else { RootState::Kept },
        origin: RootOrigin::Fetched { path: path.to_owned() },
        added: clock::now(),
    };
    if let Err(error) = job.store.add_fetched(root, placed) {
        tracing::warn!(%error, "what was fetched cannot be taken over");
    }
}
