//! `get --dry-run`: what a fetch would change at its target.
//!
//! What it is not: the comparison itself (`crate::content::transfer::comparing`).

use keyferry_proto::{address::Address, hash::ContentFormat};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Node,
    api::{Compared, Wait},
    events::Events,
    fetch_events::tell_all_changes,
};
use crate::content::transfer::{
    comparing::{Comparison, compare},
    destination::Destination,
};

impl Node {
    /// Tells what fetching what an address names would change at its target.
    pub(super) async fn compare_with(
        &self,
        address: &Address,
        place: Destination,
        wait: Wait,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Compared, Error> {
        let comparing = async {
            let (job, session) = self.job_for(address, place, wait, events).await?;
            let is_known = match job.format {
                Some(ContentFormat::Blob) => true,
                _ => {
                    let root = job.root;
                    self.quick(move |store| Ok::<_, Error>(matches!(store.manifest(&root), Ok(Some(_))))).await?
                }
            };
            let description = match is_known {
                true => None,
                false => Some(self.describe(address, job.root, job.format, session, wait, events).await?),
            };
            let hash = job.root;
            let stop = cancel.clone();
            let compared = self.quick(move |_| compare(&job, description, &stop)).await?;
            let Comparison { format, path, size, files, missing_bytes, changes } = compared;
            tell_all_changes(&changes, events).await;
            Ok(Compared { hash, format, path, size, files, missing_bytes, changes: (&changes).into() })
        };
        cancel.run_until_cancelled(comparing).await.unwrap_or(Err(Error::Interrupted))
    }
}
