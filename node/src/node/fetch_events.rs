//! What is told of a fetch besides how far it has come: what is missing, what is not as its sender has it, and what became of what was at its
//! target before.

use super::{
    api::{ChangeCounts, ChangeInfo, ChangeKind, Event, MissingInfo},
    events::{Events, tell},
};
use crate::content::transfer::{
    FetchError, Incomplete, KeptFiles, MissingFile,
    fetch::{Changes, Paths},
    staging::tree::NotAsSent,
};

/// Tells which files of a folder were not to be had.
pub(super) async fn tell_missing(incomplete: &Incomplete, events: &Events) {
    for MissingFile { path, why } in &incomplete.missing {
        tell(events, Event::Missing(MissingInfo { path: path.clone(), why: why.to_string() })).await;
    }
    let more = incomplete.missing_count.saturating_sub(incomplete.missing.len() as u64);
    if more > 0 {
        tell(events, Event::Notice { message: format!("{more} more files are missing") }).await;
    }
}

/// Tells what of the content is not here as its sender has it.
pub(super) async fn tell_not_as_sent(found: &NotAsSent, events: &Events) {
    let NotAsSent { renamed, renamed_count, links, links_out, is_open } = found;
    let mut messages: Vec<String> = renamed
        .iter()
        .map(|(name, here)| format!("{name} is called {here} here: the file system takes no such name"))
        .collect();
    match renamed_count - renamed.len() as u64 {
        0 => {}
        more => messages.push(format!("{more} more have other names here")),
    }
    if *links > 0 {
        messages.push(format!("{links} symbolic links are left out: the file system there has none"));
    }
    if *links_out > 0 {
        messages.push(format!("{links_out} symbolic links are left out: they lead out of this part of the folder"));
    }
    if *is_open {
        messages
            .push("some files are private where they come from, and the file system there keeps no rights".to_owned());
    }
    for message in messages {
        tell(events, Event::Notice { message }).await;
    }
}

/// Tells of what an earlier version had.
pub(super) async fn tell_changes(changes: &Changes, events: &Events) {
    tell_paths(&changes.removed, ChangeKind::Removed, events).await;
    tell_paths(&changes.gone, ChangeKind::Gone, events).await;
}

/// Tells which files of their owner's are in the way of others.
pub(super) async fn tell_kept(error: &FetchError, events: &Events) {
    let FetchError::Kept(kept) = error else { return };
    let KeptFiles { kept, kept_count, .. } = &**kept;
    tell_paths(&Paths { listed: kept.clone(), count: *kept_count }, ChangeKind::Kept, events).await;
}

/// Tells of everything that would be changed, or kept.
pub(super) async fn tell_all_changes(changes: &Changes, events: &Events) {
    tell_paths(&changes.added, ChangeKind::Added, events).await;
    tell_paths(&changes.replaced, ChangeKind::Replaced, events).await;
    tell_paths(&changes.kept, ChangeKind::Kept, events).await;
    tell_changes(changes, events).await;
}

async fn tell_paths(paths: &Paths, change: ChangeKind, events: &Events) {
    for path in &paths.listed {
        tell(events, Event::Change(ChangeInfo { path: path.clone(), change })).await;
    }
    let more = paths.count.saturating_sub(paths.listed.len() as u64);
    if more > 0 {
        tell(events, Event::Notice { message: format!("and {more} more of that kind") }).await;
    }
}

impl From<&Changes> for ChangeCounts {
    fn from(changes: &Changes) -> Self {
        let Changes { added, replaced, gone, removed, kept } = changes;
        Self {
            added: added.count,
            replaced: replaced.count,
            gone: gone.count,
            removed: removed.count,
            kept: kept.count,
        }
    }
}
