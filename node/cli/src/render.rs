//! What each event looks like to a person: pure functions from an event to text.
//!
//! What it is not: where and when it is shown (`screen.rs`). Text that came from a peer is made safe here.

use std::{fmt::Write as _, time::Duration};

mod doctor;
mod path;
mod ping;
mod progress;
mod status;

use self::{
    doctor::diagnosis_text,
    path::path_text,
    ping::{pinged_text, reply_text, stage_text},
    status::{seen_text, status_text},
};
pub use self::{
    progress::{ProgressLine, progress_text, short_progress_text},
    status::{serving_text, up_text},
};
use super::text::{count, plural, rate, safe, shell_word, size, span};
use keyferry::{
    Audience, ContentFormat, Entry, Fetched, NodeKey, PathInfo, Shared, Waiting,
    control::{
        ChangeCounts, ChangeInfo, ChangeKind, Compared, ContactInfo, Event, Failure, FetcherInfo, FolderEntry,
        FolderEntryKind, MissingInfo, RenewedInfo, RootInfo, RootState, SameKeyInfo, ShareInfo, UnservedFault,
        UnservedInfo,
    },
};

/// What the rendering needs to know beside the event.
#[derive(Debug, Clone)]
pub struct RenderContext {
    /// How this program is called on the other side, such as `keyferry`.
    pub program: String,
    /// The node that is being listed, as it was typed.
    pub listed_node: Option<String>,
    /// The nodes that were connected to so far, by their keys.
    pub connected: Vec<String>,
}

impl RenderContext {
    /// Notes what later events are to be seen against.
    pub fn note(&mut self, event: &Event) {
        if let Event::Connected(path) = event
            && let Some(node) = &path.node
            && !self.connected.contains(node)
        {
            self.connected.push(node.clone());
        }
    }
}

/// Where a text belongs.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// A result, for standard output: whole lines.
    Result(String),
    /// A remark, for standard error: one line without its end.
    Notice(String),
    /// What is being done now, in words; replaced by what comes next.
    Stage(String),
    /// Who is waited for; replaced by what comes next, such as the same some seconds later.
    Waiting(String),
    /// How far it has come; replaced by what comes next.
    Progress(ProgressLine),
    /// Nothing: failures are shown once, at the end.
    Nothing,
}

/// Renders an event.
pub fn render(event: &Event, context: &RenderContext) -> Shown {
    match event {
        Event::Identity { node } => Shown::Result(format!("{node}\n")),
        Event::Notice { message } => Shown::Notice(safe(message)),
        Event::Stage { message } => Shown::Stage(safe(message)),
        Event::Connected(path) => Shown::Notice(connected_text(path, context)),
        // Who is waited for, if anybody is, is shown at once.
        Event::Disconnected(_) => Shown::Nothing,
        Event::Importing { done_bytes, total_bytes, done_files, total_files } => Shown::Progress(ProgressLine {
            what: "Reading",
            done_bytes: *done_bytes,
            total_bytes: *total_bytes,
            files: Some((*done_files, *total_files)),
        }),
        // Nobody who has it is found yet: what is shown already says so.
        Event::Fetching { done_bytes: 0, total_bytes: 0, .. } => Shown::Nothing,
        Event::Fetching { done_bytes, total_bytes, done_files, total_files } => Shown::Progress(ProgressLine {
            what: "Fetching",
            done_bytes: *done_bytes,
            total_bytes: *total_bytes,
            files: Some((*done_files, *total_files)),
        }),
        Event::Waiting(waiting) => Shown::Waiting(waiting_text(waiting)),
        Event::Verifying { done_bytes, total_bytes } => Shown::Progress(ProgressLine {
            what: "Verifying",
            done_bytes: *done_bytes,
            total_bytes: *total_bytes,
            files: None,
        }),
        Event::Shared(shared) => Shown::Result(shared_text(shared, context)),
        Event::Unshared { name } => Shown::Result(format!("{} is no longer shared\n", safe(name.as_str()))),
        Event::Withdrawn { hash } => Shown::Result(format!("{hash} is no longer offered to anybody\n")),
        Event::Change(change) => change_shown(change),
        Event::Compared(compared) => Shown::Result(compared_text(compared)),
        Event::Missing(MissingInfo { path, why }) => Shown::Notice(format!("missing: {}: {}", safe(path), safe(why))),
        Event::SameKey(info) => Shown::Notice(same_key_text(info)),
        Event::Renewed(renewed) => Shown::Notice(renewed_text(renewed)),
        Event::Unserved(unserved) => Shown::Notice(unserved_text(unserved)),
        Event::Fetched(fetched) => Shown::Result(fetched_text(fetched)),
        Event::Streamed { size: bytes, .. } => Shown::Notice(format!("Read {}, all of it verified", size(*bytes))),
        Event::Entry(entry) => Shown::Result(entry_line(entry)),
        Event::FolderEntry(entry) => Shown::Result(folder_entry_line(entry)),
        Event::Listed { count } => Shown::Notice(listed_text(*count, context)),
        Event::PingStage(stage) => Shown::Result(stage_text(stage)),
        Event::PingReply(reply) => Shown::Result(reply_text(reply)),
        Event::Pinged(pinged) => Shown::Result(pinged_text(pinged)),
        Event::Contact(contact) => Shown::Result(format!("{}  {}\n", safe(&contact.node), safe(&contact.name))),
        Event::Contacts { count: 0 } => Shown::Notice("there are no contacts yet".to_owned()),
        Event::Contacts { count } => Shown::Notice(plural(*count, "contact", "contacts")),
        Event::ContactAdded(contact) => {
            Shown::Result(format!("{} is a contact: {}\n", safe(&contact.name), safe(&contact.node)))
        }
        Event::ContactRemoved(contact) => {
            Shown::Result(format!("{} is no longer a contact: {}\n", safe(&contact.name), safe(&contact.node)))
        }
        Event::Diagnosed(found) => Shown::Result(diagnosis_text(found)),
        Event::Status(status) => Shown::Result(status_text(status)),
        Event::Share(share) => Shown::Result(share_lines(share)),
        Event::Shares { count: 0 } => Shown::Notice("nothing is offered to anybody".to_owned()),
        Event::Shares { count } => Shown::Notice(plural(*count, "item", "items")),
        Event::Root(root) => Shown::Result(root_lines(root, &[])),
        Event::Roots { count: 0 } => Shown::Notice("nothing is stored here yet".to_owned()),
        Event::Roots { count } => Shown::Notice(plural(*count, "item", "items")),
        Event::Removed { hash } => Shown::Result(format!("dropped {hash}\n")),
        Event::Damaged { hash, path, problem } => {
            Shown::Result(format!("damaged: {}: {} ({hash})\n", safe(&path.display().to_string()), safe(problem)))
        }
        Event::Verified { sound, damaged: 0 } => {
            Shown::Result(format!("{} verified, all sound\n", plural(*sound, "blob", "blobs")))
        }
        Event::Verified { sound, damaged } => {
            Shown::Result(format!("{} sound, {} damaged\n", plural(*sound, "blob", "blobs"), count(*damaged)))
        }
        Event::Collected { files, bytes } => {
            Shown::Result(format!("removed {}, freed {}\n", plural(*files, "file", "files"), size(*bytes)))
        }
        Event::Failed(_) => Shown::Nothing,
    }
}

/// Renders a failure: one line, and one of advice.
pub fn failure_text(failure: &Failure) -> String {
    let mut text = format!("error: {}\n", safe(&failure.message));
    if let Some(advice) = &failure.advice {
        let _ = writeln!(text, "  try: {}", safe(advice));
    }
    text
}

fn shared_text(shared: &Shared, context: &RenderContext) -> String {
    let Shared { name, hash, format, size: bytes, files, audience, address, address_with_hints } = shared;
    let get = |address: &str| format!("  {} get {}\n", context.program, shell_word(&safe(address)));
    let mut text = format!("Shared {}: {}\n", safe(name.as_str()), content_text(*format, *bytes, *files));
    text.push_str("\nOn the other machine, type:\n");
    text.push_str(&get(&address.to_string()));
    if address_with_hints != address {
        text.push_str("\nIf the two do not find each other that way:\n");
        text.push_str(&get(&address_with_hints.to_string()));
    }
    if let Audience::Only(_) = audience {
        let _ = writeln!(text, "\nIt is there for these only: {audience}");
    }
    if let Audience::Everyone { announced: true, .. } = audience {
        text.push_str("\nBy its content, from anyone who offers it:\n");
        // A hash has no name: without one, the file would be called by its digits.
        let _ = writeln!(text, "  {} get keyferry:{hash} -o {}", context.program, shell_word(&safe(name.as_str())));
    }
    text.push('\n');
    text
}

fn fetched_text(fetched: &Fetched) -> String {
    let Fetched {
        hash,
        format,
        path,
        was_there,
        changes,
        seeded,
        size: bytes,
        files,
        received_bytes,
        resumed_bytes,
        from,
        took,
        first_byte,
    } = fetched;
    let what = if *was_there { "Already there" } else { "Fetched" };
    let mut text = format!("{what} {}: {}\n", safe(&path.display().to_string()), content_text(*format, *bytes, *files));
    for source in from {
        let _ = write!(text, "  from {}", path_text(&source.path));
        if from.len() > 1 {
            let _ = write!(text, ": {}", size(source.bytes));
        }
        text.push('\n');
    }
    if *resumed_bytes > 0 && !was_there {
        let _ = writeln!(text, "  {} of it was here already, and was verified", size(*resumed_bytes));
    }
    if *received_bytes > 0 {
        let seconds = took.as_secs_f64().max(0.001);
        let _ =
            write!(text, "  {} in {}, {}", size(*received_bytes), span(*took), rate(*received_bytes as f64 / seconds));
        if let Some(first) = first_byte {
            let _ = write!(text, "; first byte after {}", span(*first));
        }
        text.push('\n');
    } else if *was_there {
        let _ = writeln!(text, "  every byte is as it should be; nothing was fetched");
    } else {
        let _ = writeln!(text, "  nothing had to be fetched; done in {}", span(*took));
    }
    if !was_there && *changes != ChangeCounts::default() {
        let _ = writeln!(text, "  {}", changes_text(changes, "replaced", "added", "removed"));
    }
    if changes.gone > 0 {
        let these = plural(changes.gone, "file is", "files are");
        let _ = writeln!(text, "  {these} not in it any more; --mirror removes what nobody has changed");
    }
    if *seeded {
        let _ = writeln!(text, "  offered to others as keyferry:{hash} whenever a node runs here: keyferry node");
    }
    text
}

fn compared_text(compared: &Compared) -> String {
    let Compared { format, path, size: bytes, files, missing_bytes, changes, .. } = compared;
    let path = safe(&path.display().to_string());
    let content = content_text(*format, bytes.unwrap_or_default(), *files);
    let untouched = ChangeCounts { gone: 0, kept: 0, ..*changes } == ChangeCounts::default();
    let mut text = match untouched {
        true => format!("Nothing would change in {path}: {content}\n"),
        false => {
            format!("Would fetch {path}: {content}\n  {}\n", changes_text(changes, "to replace", "to add", "to remove"))
        }
    };
    match missing_bytes {
        Some(0) => {}
        Some(missing) => {
            let _ = writeln!(text, "  at most {} to fetch", size(*missing));
        }
        None => {
            let _ = writeln!(text, "  how much there is to fetch is not known");
        }
    }
    if changes.kept > 0 {
        let _ = writeln!(
            text,
            "  {} in the way; --overwrite replaces what is there",
            plural(changes.kept, "file of yours is", "files of yours are")
        );
    }
    if changes.gone > 0 {
        let _ = writeln!(
            text,
            "  {} not in it any more; --mirror removes what nobody has changed",
            plural(changes.gone, "file is", "files are")
        );
    }
    text
}

fn changes_text(changes: &ChangeCounts, replaced: &str, added: &str, removed: &str) -> String {
    let kinds = [(changes.replaced, replaced), (changes.added, added), (changes.removed, removed)];
    let parts = kinds.iter().filter(|(files, _)| *files > 0);
    let parts: Vec<String> = parts.map(|(files, what)| format!("{} {what}", plural(*files, "file", "files"))).collect();
    parts.join(", ")
}

fn change_shown(change: &ChangeInfo) -> Shown {
    let path = safe(&change.path);
    let what = match change.change {
        ChangeKind::Added => "new",
        ChangeKind::Replaced => "replaced",
        ChangeKind::Gone => "not in it any more",
        ChangeKind::Removed => "removed",
        ChangeKind::Kept => "kept, as it is not what a fetch put there",
    };
    Shown::Notice(format!("{path}: {what}"))
}

fn renewed_text(renewed: &RenewedInfo) -> String {
    let RenewedInfo { name, format, size, files, .. } = renewed;
    format!("new version of {}: {}", safe(name.as_str()), content_text(*format, *size, *files))
}

fn same_key_text(info: &SameKeyInfo) -> String {
    format!(
        "warning: another running node has this node's key ({}): whoever looks for the key finds the one or the other; stop one of the two, or \
         give this one a key of its own: stop it, move {} away, and start it again",
        seen_text(info.seen),
        safe(&info.key_file.display().to_string())
    )
}

fn unserved_text(unserved: &UnservedInfo) -> String {
    let UnservedInfo { path, name, fault, detail } = unserved;
    let path = safe(&path.display().to_string());
    let name = name.as_ref().map(|name| safe(name.as_str()));
    let again = match &name {
        Some(name) => format!("; share {name} again"),
        None => String::new(),
    };
    match (fault, detail) {
        (UnservedFault::Changed, _) => {
            format!("{path} has changed since it was shared, and is given to nobody any more{again}")
        }
        (UnservedFault::Gone, _) => {
            format!("{path} is gone since it was shared: nobody gets it any more; put it back{again}")
        }
        (UnservedFault::Unreadable, detail) => {
            let why = detail.as_ref().map_or_else(String::new, |detail| format!(": {}", safe(detail)));
            format!("{path} cannot be read, so nobody gets it{why}")
        }
    }
}

/// What matters most comes first: of a long line, a narrow terminal shows the beginning.
fn waiting_text(waiting: &Waiting) -> String {
    let Waiting { whom, contact, reason, waited, left, next_try, .. } = waiting;
    let whom = match (contact, whom.parse::<NodeKey>()) {
        (Some(name), _) => name.clone(),
        (None, Ok(node)) => node.short(),
        (None, Err(_)) => format!("a provider of {}…", whom.chars().take(10).collect::<String>()),
    };
    let mut text = format!("waiting for {} for {}", safe(&whom), whole_seconds(*waited));
    text.push_str(&match left {
        Some(left) => format!(", {} left", whole_seconds(*left)),
        None => ", for as long as it takes".to_owned(),
    });
    text.push_str(&match next_try.is_zero() {
        true => "; trying now".to_owned(),
        false => format!("; next try in {}", whole_seconds(*next_try)),
    });
    let _ = write!(text, " ({})", safe(reason));
    text
}

/// A duration of which tenths do not matter.
fn whole_seconds(duration: Duration) -> String {
    match duration.as_secs_f64().round() as u64 {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => span(Duration::from_secs(seconds)),
    }
}

/// A node that is connected already is there by another path now, or the same one is better known.
fn connected_text(path: &PathInfo, context: &RenderContext) -> String {
    match &path.node {
        Some(node) if context.connected.contains(node) => {
            format!("now {}, to {} at {}", safe(&path.description), safe(node), path.remote)
        }
        _ => format!("connected to {}", path_text(path)),
    }
}

fn content_text(format: ContentFormat, bytes: u64, files: u64) -> String {
    match format {
        ContentFormat::Blob => format!("file, {}", size(bytes)),
        ContentFormat::Collection => format!("folder, {}, {}", plural(files, "file", "files"), size(bytes)),
    }
}

fn entry_line(entry: &Entry) -> String {
    format!("{}  {}\n", content_columns(entry.format, entry.size, entry.files), safe(entry.name.as_str()))
}

fn folder_entry_line(entry: &FolderEntry) -> String {
    let FolderEntry { name, kind, size, files, target, .. } = entry;
    let name = safe(name);
    match (kind, target) {
        (FolderEntryKind::File, _) => format!("{}  {name}\n", content_columns(ContentFormat::Blob, *size, *files)),
        (FolderEntryKind::Folder, _) => {
            format!("{}  {name}/\n", content_columns(ContentFormat::Collection, *size, *files))
        }
        (FolderEntryKind::Link, target) => {
            let target = target.as_deref().map(safe).unwrap_or_default();
            format!("{:>10}  {:>13}  {name} -> {target}\n", "", "link")
        }
    }
}

/// `contacts` are the names of nodes that an audience may name.
fn root_lines(root: &RootInfo, contacts: &[ContactInfo]) -> String {
    let named = |node: &NodeKey| {
        let key = node.to_string();
        let contact = contacts.iter().find(|contact| contact.node == key);
        contact.map_or(key, |contact| safe(&contact.name))
    };
    let name = match &root.state {
        RootState::Shared { name, audience } => {
            let whom = match audience {
                Audience::Everyone { .. } => audience.to_string(),
                Audience::Only(invited) => invited.in_words(named),
            };
            format!("{}  (shared with {whom})", safe(name.as_str()))
        }
        RootState::Seeded => "(seeded: given to whoever has its hash)".to_owned(),
        RootState::Kept => "(kept: given to nobody)".to_owned(),
    };
    let place = match &root.path {
        Some(path) => safe(&path.display().to_string()),
        None => "a copy in the data folder".to_owned(),
    };
    let place = if root.followed { format!("{place}  (followed)") } else { place };
    format!("{}  {name}\n    {}\n    {place}\n", content_columns(root.format, root.size, root.files), root.hash)
}

fn share_lines(share: &ShareInfo) -> String {
    let mut text = root_lines(&share.root, &share.named_contacts);
    for FetcherInfo { node, contact, bytes, .. } in &share.fetched {
        let whom = match (contact, node) {
            (Some(name), _) => safe(name),
            (None, Some(node)) => safe(node),
            (None, None) => "others, or by its hash".to_owned(),
        };
        let _ = writeln!(text, "    sent to {whom}: {}", size(*bytes));
    }
    text
}

/// Size and number of files in columns of fixed width, so that lines can be shown as they come.
fn content_columns(format: ContentFormat, bytes: u64, files: u64) -> String {
    let files = match format {
        ContentFormat::Blob => "file".to_owned(),
        ContentFormat::Collection => plural(files, "file", "files"),
    };
    format!("{:>10}  {files:>13}", size(bytes))
}

fn listed_text(names: u64, context: &RenderContext) -> String {
    if names == 0 {
        return "this node shares nothing with you".to_owned();
    }
    let mut text = plural(names, "name", "names");
    if let Some(node) = &context.listed_node {
        let typed = node.strip_prefix("keyferry:").unwrap_or(node);
        let (key, hints) = typed.split_once('?').unwrap_or((typed, ""));
        // The address of one share serves as well as that of its node.
        let key = key.split_once('/').map_or(key, |(key, _)| key);
        let mark = if hints.is_empty() { "" } else { "?" };
        let address = safe(&format!("keyferry:{key}/NAME{mark}{hints}"));
        let _ = write!(text, "; fetch one by: {} get {}", context.program, shell_word(&address));
    }
    text
}

#[cfg(test)]
mod tests;
