//! Before the groups of what has changed are asked for: the list of files of a folder, and the parents of files of which an older version is
//! here.
//!
//! Both come from the first provider that can be had. Without them the fetch goes on all the same, and fetches more.
//!
//! What it is not: the comparison (`plan::base`), or the fetch of groups ([`super::fetch`]).

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use keyferry_proto::{
    hash::ContentFormat,
    message::{ContentHeader, ContentPart, ContentRequest, ItemStatus},
    transfer::{
        groups::{GroupDecoder, PARENT_LEN, Verified},
        layout::Item,
        units::UnitRanges,
    },
};
use tokio::io::{AsyncRead, BufReader};
use tokio_util::sync::CancellationToken;

use super::{
    FetchError, Lie, ProviderError,
    attempt::FetchProgress,
    context::{FetchContext, FoundSources},
    describing::{ContentDescription, ask_what_it_is, read_exact, read_header},
    plan::{FetchPlan, blocking},
    receive::{ReceiveError, ask},
};
use crate::net::session::Session;

/// How many items are asked for in one request.
const MAX_ASKED_TOGETHER: usize = 1024;
/// How many providers are asked in vain.
const MAX_IN_VAIN: usize = 3;

/// Learns from a provider what makes a smaller fetch of it, and plans anew what is here. Returns that; `sessions` are those that were used.
pub(super) async fn learn_what_changed(
    context: &Arc<FetchContext>,
    mut planned: Option<UnitRanges>,
    providers: &mut FoundSources,
    sessions: &mut Vec<Session>,
    progress: &impl Fn(FetchProgress),
    cancel: &CancellationToken,
) -> Result<Option<UnitRanges>, FetchError> {
    let mut untried = VecDeque::from(std::mem::take(sessions));
    let mut in_vain = 0;
    while in_vain < MAX_IN_VAIN {
        let with_base = match (&planned, context.plan.get().cloned()) {
            (Some(have), Some(plan)) => items_with_base(plan, have.clone()).await?,
            _ if context.job.may_have_older() => Vec::new(),
            _ => break,
        };
        if planned.is_some() && with_base.is_empty() {
            break;
        }
        let session = match untried.pop_front() {
            Some(session) => session,
            None => {
                progress(FetchProgress { is_stuck: true, ..FetchProgress::default() });
                let next = cancel.run_until_cancelled(providers.next_within(Duration::MAX)).await;
                let Some(session) = next.ok_or(FetchError::Interrupted)? else { break };
                progress(FetchProgress::default());
                session
            }
        };
        let learning = learn_from(context, planned.clone(), with_base, &session, cancel);
        let learned = cancel.run_until_cancelled(learning).await.ok_or(FetchError::Interrupted)?;
        match learned {
            // It may tell more.
            Ok(Learned::List(have)) => {
                planned = Some(have);
                untried.push_front(session);
            }
            Ok(Learned::All(have)) => {
                planned = Some(have);
                sessions.push(session);
                break;
            }
            Ok(Learned::IsNoFolder) => {
                sessions.push(session);
                break;
            }
            Err(ReceiveError::Local(error)) => return Err(error),
            Err(ReceiveError::Provider(error)) => {
                tracing::debug!(%error, "a provider does not tell what has changed");
                sessions.push(session);
                in_vain += 1;
            }
        }
    }
    sessions.extend(untried);
    Ok(planned)
}

/// What a provider told.
enum Learned {
    /// The list of files; this is here by it.
    List(UnitRanges),
    /// The parents of what has changed; this is here by them.
    All(UnitRanges),
    /// That there is no list.
    IsNoFolder,
}

async fn learn_from(
    context: &Arc<FetchContext>,
    planned: Option<UnitRanges>,
    with_base: Vec<usize>,
    session: &Session,
    cancel: &CancellationToken,
) -> Result<Learned, ReceiveError> {
    let Some(mut have) = planned else { return learn_list(context, session, cancel).await };
    let Some(plan) = context.plan.get().cloned() else { return Ok(Learned::IsNoFolder) };
    for items in with_base.chunks(MAX_ASKED_TOGETHER) {
        for index in fetch_parents(context, &plan, items, session).await? {
            let (plan, stop) = (Arc::clone(&plan), cancel.clone());
            let same = blocking(move || plan.take_over_base(index, &stop)).await?;
            have = have.union(&same);
        }
    }
    Ok(Learned::All(have))
}

async fn learn_list(
    context: &Arc<FetchContext>,
    session: &Session,
    cancel: &CancellationToken,
) -> Result<Learned, ReceiveError> {
    let (root, store) = (context.job.root, context.job.store.clone());
    match ask_what_it_is(session, root, context.job.format).await? {
        ContentDescription::File(_) => Ok(Learned::IsNoFolder),
        ContentDescription::Folder(bytes, _) => {
            context.arrivals.received_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            blocking(move || Ok(store.put_blob_bytes(root, &bytes)?)).await?;
            let planned = context.plan_here(cancel).await?;
            Ok(planned.map_or(Learned::IsNoFolder, Learned::List))
        }
    }
}

async fn items_with_base(plan: Arc<FetchPlan>, have: UnitRanges) -> Result<Vec<usize>, FetchError> {
    blocking(move || plan.items_with_base(&have)).await
}

/// Fetches all parents of some items. Returns those of which they came.
async fn fetch_parents(
    context: &FetchContext,
    plan: &FetchPlan,
    items: &[usize],
    session: &Session,
) -> Result<Vec<usize>, ReceiveError> {
    let first_units = items.iter().map(|index| plan.layout.items()[*index].first_unit);
    let ranges: UnitRanges = first_units.map(|unit| unit..unit + 1).collect();
    let request = ContentRequest { root: plan.root, ranges, part: ContentPart::Parents };
    let mut stream = BufReader::new(ask(session, request).await?);
    let ContentHeader { format, size } = read_header(&mut stream).await?;
    if !plan.agrees_with(format, size) {
        return Err(ProviderError::Disagrees { format, size }.into());
    }
    let mut came = Vec::new();
    for index in items {
        let mut status = [0];
        read_exact(&mut stream, &mut status).await?;
        if ItemStatus::from_byte(status[0]).map_err(Lie::from)? == ItemStatus::Data {
            let item = plan.layout.items()[*index];
            let len = fetch_parents_of(plan, &item, &mut stream).await?;
            context.arrivals.received_bytes.fetch_add(len, Ordering::Relaxed);
            came.push(*index);
        }
    }
    Ok(came)
}

async fn fetch_parents_of(
    plan: &FetchPlan,
    item: &Item,
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<u64, ReceiveError> {
    let mut decoder = GroupDecoder::of_parents(item.hash, item.size)?;
    let outboard = plan.outboard_of(item)?;
    let (mut parent, mut len) = ([0; PARENT_LEN], 0);
    while decoder.expects().is_some() {
        read_exact(stream, &mut parent).await?;
        if let Verified::Parent { outboard_offset } = decoder.accept(&parent)? {
            outboard.write_parent(outboard_offset, &parent).map_err(FetchError::from)?;
        }
        len += PARENT_LEN as u64;
    }
    Ok(len)
}

impl super::context::Job {
    /// Whether an older version of a folder may be here, which is worth a round trip to be told apart from this one.
    fn may_have_older(&self) -> bool {
        self.format != Some(ContentFormat::Blob) && super::staging::has_older(&self.target)
    }
}
