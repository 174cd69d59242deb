//! Making the plan where no holder is needed for it: the publisher has signed what it is, or the store knows it.
//!
//! What it is not: a plan from what a holder says; see `receive`.

use std::{sync::Arc, time::Duration};

use keyferry_proto::{hash::ContentFormat, transfer::units::UnitRanges};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::{FetchError, fetch::blocking, plan::Plan, receive::FetchContext};

/// Looking at what is here already may take this long to notice that the fetch was cancelled.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Makes the plan where no holder is needed for it, and says what is here already.
pub(super) async fn plan_here(
    shared: &Arc<FetchContext>,
    root_size: Option<u64>,
    cancel: &CancellationToken,
) -> Result<Option<UnitRanges>, FetchError> {
    let (planning, stop) = (Arc::clone(shared), cancel.child_token());
    let mut planned = std::pin::pin!(blocking(move || plan_without_network(&planning, root_size, &stop)));
    tokio::select! {
        planned = &mut planned => return planned,
        () = cancel.cancelled() => {}
    }
    let _ = timeout(STOP_PATIENCE, planned).await;
    Err(FetchError::Interrupted)
}

fn plan_without_network(
    shared: &FetchContext,
    root_size: Option<u64>,
    cancel: &CancellationToken,
) -> Result<Option<UnitRanges>, FetchError> {
    let FetchContext { store, target, root, format, .. } = shared;
    // What the store has there may also be a file, or damaged.
    let manifest = match format {
        Some(ContentFormat::Blob) => None,
        _ => store.manifest(root).ok().flatten(),
    };
    let blob = |size| Plan::blob(store.clone(), target.clone(), *root, size);
    let plan = match (manifest, format, root_size) {
        (Some(manifest), ..) => Plan::collection(store.clone(), target.clone(), *root, &manifest.encode())?,
        (None, Some(ContentFormat::Collection), _) => return Ok(None),
        (None, Some(ContentFormat::Blob), Some(size)) => blob(size)?,
        (None, ..) => match store.blob(root) {
            Ok(Some(here)) => blob(here.size())?,
            _ => return Ok(None),
        },
    };
    let have = plan.take_stock(cancel)?;
    shared.plan.get_or_init(|| Arc::new(plan));
    Ok(Some(have))
}
