//! What each event looks like to a person: pure functions from an event to text.
//!
//! What it is not: where and when it is shown (`screen.rs`). Text that came from a peer is made safe here.

use std::fmt::Write as _;

use keyferry::{ContentFormat, ShareName};

mod doctor;
mod ping;

use self::doctor::diagnosis_text;
use self::ping::{pinged_text, reply_text, stage_text};
use super::{
    pace::Pace,
    text::{count, plural, rate, safe, shell_word, size, span},
};
use keyferry::{
    Entry, Fetched, PathInfo, Shared, Status,
    control::{CandidateInfo, Event, Failure, MappingInfo, RelayInfo, RootInfo, TurnInfo},
};

/// What the rendering needs to know beside the event.
#[derive(Debug, Clone)]
pub struct Context {
    /// How this program is called on the other side, such as `keyferry`.
    pub program: String,
    /// The node that is being listed, as it was typed.
    pub listed_node: Option<String>,
    /// The nodes that were connected to so far, by their keys.
    pub connected: Vec<String>,
}

impl Context {
    /// Notes what later events are to be seen against.
    pub fn note(&mut self, event: &Event) {
        if let Event::Connected(path) = event
            && !self.connected.contains(&path.node)
        {
            self.connected.push(path.node.clone());
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
    /// How far it has come; replaced by what comes next.
    Progress(Progress),
    /// Nothing: failures are shown once, at the end.
    Nothing,
}

/// How far something has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub what: &'static str,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all; 0 if not known.
    pub total_bytes: u64,
    /// Files done and in all, if files are counted; 0 in all if not known.
    pub files: Option<(u64, u64)>,
}

/// Renders an event.
pub fn render(event: &Event, context: &Context) -> Shown {
    match event {
        Event::Identity { node } => Shown::Result(format!("{node}\n")),
        Event::Notice { message } => Shown::Notice(safe(message)),
        Event::Stage { message } => Shown::Stage(safe(message)),
        Event::Connected(path) => Shown::Notice(connected_text(path, context)),
        Event::Importing { done_bytes, total_bytes, done_files, total_files } => Shown::Progress(Progress {
            what: "Reading",
            done_bytes: *done_bytes,
            total_bytes: *total_bytes,
            files: Some((*done_files, *total_files)),
        }),
        // Nobody who has it is found yet: what is shown already says so.
        Event::Fetching { done_bytes: 0, total_bytes: 0, .. } => Shown::Nothing,
        Event::Fetching { done_bytes, total_bytes, done_files, total_files } => Shown::Progress(Progress {
            what: "Fetching",
            done_bytes: *done_bytes,
            total_bytes: *total_bytes,
            files: Some((*done_files, *total_files)),
        }),
        Event::Verifying { done_bytes, total_bytes } => Shown::Progress(Progress {
            what: "Verifying",
            done_bytes: *done_bytes,
            total_bytes: *total_bytes,
            files: None,
        }),
        Event::Shared(shared) => Shown::Result(shared_text(shared, context)),
        Event::Unshared { name } => Shown::Result(format!("{} is no longer shared\n", safe(name.as_str()))),
        Event::Fetched(fetched) => Shown::Result(fetched_text(fetched)),
        Event::Entry(entry) => Shown::Result(entry_line(entry)),
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
        Event::Root(root) => Shown::Result(root_lines(root)),
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

/// Renders progress as one line without its end: what stands beside the bar, or the whole where there is none.
pub fn progress_text(progress: &Progress, pace: &Pace) -> String {
    let Progress { done_bytes, total_bytes, files, .. } = *progress;
    let mut parts = vec![share_done(progress)];
    if total_bytes > 0 {
        parts.push(format!("{} of {}", size(done_bytes), size(total_bytes)));
    }
    match files {
        Some((done, total)) if total > 1 => parts.push(format!("{} of {} files", count(done), count(total))),
        _ => {}
    }
    parts.extend(pace_parts(progress, pace));
    parts.join(", ")
}

/// The same for a terminal of few columns: how far, how fast, how long.
pub fn short_progress_text(progress: &Progress, pace: &Pace) -> String {
    let mut parts = vec![share_done(progress)];
    parts.extend(pace_parts(progress, pace));
    parts.join(", ")
}

/// How much is done: in percent, or as a size while the whole is not known.
fn share_done(progress: &Progress) -> String {
    let Progress { done_bytes, total_bytes, .. } = *progress;
    match total_bytes {
        0 => size(done_bytes),
        // Rounded down: 100 % is said only when nothing is missing.
        _ => format!("{} %", u128::from(done_bytes.min(total_bytes)) * 100 / u128::from(total_bytes)),
    }
}

fn pace_parts(progress: &Progress, pace: &Pace) -> impl Iterator<Item = String> {
    let Progress { done_bytes, total_bytes, .. } = *progress;
    let left = pace.left(done_bytes, total_bytes).filter(|_| total_bytes > done_bytes);
    pace.rate().map(rate).into_iter().chain(left.map(|left| format!("{} left", span(left))))
}

/// Renders what a node says when it is up.
pub fn up_text(status: &Status) -> String {
    let mut text = format!("{}\n", status.node);
    for addr in &status.listen {
        let _ = writeln!(text, "  listening on {addr}");
    }
    for hint in &status.hints {
        let _ = writeln!(text, "  others may use --bootstrap {}", safe(hint));
    }
    if status.shared > 0 {
        let _ = writeln!(text, "  sharing {}", plural(status.shared, "name", "names"));
    }
    text
}

/// Renders what a serving node does now, in one line without its end.
pub fn serving_text(status: &Status) -> String {
    let mut parts = vec!["serving until Ctrl-C".to_owned(), plural(status.sessions, "session", "sessions")];
    if status.sent_bytes > 0 {
        parts.push(format!("{} sent", size(status.sent_bytes)));
    }
    if status.received_bytes > 0 {
        parts.push(format!("{} received", size(status.received_bytes)));
    }
    parts.push(plural(status.wan_peers + status.lan_peers, "other node known", "other nodes known"));
    parts.join(", ")
}

fn shared_text(shared: &Shared, context: &Context) -> String {
    let Shared { name, hash, format, size: bytes, files, address, address_with_hints } = shared;
    let get = |address: &str| format!("  {} get {}\n", context.program, shell_word(&safe(address)));
    let mut text = format!("Shared {}: {}\n", safe(name.as_str()), content_text(*format, *bytes, *files));
    text.push_str("\nOn the other machine, type:\n");
    text.push_str(&get(&address.to_string()));
    if address_with_hints != address {
        text.push_str("\nIf the two do not find each other that way:\n");
        text.push_str(&get(&address_with_hints.to_string()));
    }
    text.push_str("\nBy its content, from anyone who has it:\n");
    text.push_str(&get(&format!("keyferry:{hash}")));
    text.push('\n');
    text
}

fn fetched_text(fetched: &Fetched) -> String {
    let Fetched { format, path, size: bytes, files, received_bytes, resumed_bytes, from, took, first_byte, .. } =
        fetched;
    let mut text =
        format!("Fetched {}: {}\n", safe(&path.display().to_string()), content_text(*format, *bytes, *files));
    for source in from {
        let _ = write!(text, "  from {}", path_text(&source.path));
        if from.len() > 1 {
            let _ = write!(text, ": {}", size(source.bytes));
        }
        text.push('\n');
    }
    if *resumed_bytes > 0 {
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
    } else {
        let _ = writeln!(text, "  nothing had to be fetched; done in {}", span(*took));
    }
    text
}

/// A node that is connected already is there by another path now, or the same one is better known.
fn connected_text(path: &PathInfo, context: &Context) -> String {
    match context.connected.contains(&path.node) {
        false => format!("connected to {}", path_text(path)),
        true => format!("now {}, to {} at {}", safe(&path.description), safe(&path.node), path.remote),
    }
}

fn path_text(path: &PathInfo) -> String {
    format!("{} at {}, {}", safe(&path.node), path.remote, safe(&path.description))
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

fn root_lines(root: &RootInfo) -> String {
    let name = root.name.as_ref().map(ShareName::as_str).map_or_else(|| "(not shared)".to_owned(), safe);
    let place = match &root.path {
        Some(path) => safe(&path.display().to_string()),
        None => "a copy in the data folder".to_owned(),
    };
    format!("{}  {name}\n    {}\n    {place}\n", content_columns(root.format, root.size, root.files), root.hash)
}

/// Size and number of files in columns of fixed width, so that lines can be shown as they come.
fn content_columns(format: ContentFormat, bytes: u64, files: u64) -> String {
    let files = match format {
        ContentFormat::Blob => "file".to_owned(),
        ContentFormat::Collection => plural(files, "file", "files"),
    };
    format!("{:>10}  {files:>13}", size(bytes))
}

fn listed_text(names: u64, context: &Context) -> String {
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

fn status_text(status: &Status) -> String {
    let mut text = format!("node        {}\n", safe(&status.node));
    let mut row = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<11} {value}");
    };
    row("version", safe(&status.version));
    row("data", safe(&status.home.display().to_string()));
    row("sharing", plural(status.shared, "name", "names"));
    if !status.running {
        row("state", "not running".to_owned());
        return text;
    }
    row("state", "running".to_owned());
    status.listen.iter().for_each(|addr| row("listening", addr.to_string()));
    status.hints.iter().for_each(|hint| row("hint", safe(hint)));
    status.candidates.iter().for_each(|candidate| row("candidate", candidate_text(candidate)));
    row("NAT", nat_text(status.mapping));
    status.circuits.iter().for_each(|circuit| row("callable at", safe(circuit)));
    row("calls", format!("of {}", safe(&status.calls)));
    row("DHT", dht_text(status));
    row("sessions", count(status.sessions));
    status.paths.iter().for_each(|path| row("session", path_text(path)));
    status.turn.iter().flatten().for_each(|relay| row("may relay", turn_text(relay)));
    if let Some(relay) = &status.relay {
        row("relay", relay_text(relay));
        row("turns: pin", safe(&relay.pin));
        relay.refused.iter().for_each(|(why, times)| row("refused", format!("{} {}", safe(why), count(*times))));
    }
    row("sent", size(status.sent_bytes));
    row("received", size(status.received_bytes));
    let nonzero = status.counters.iter().filter(|(_, value)| **value > 0);
    nonzero.for_each(|(name, value)| row("counter", format!("{} {}", safe(name), count(*value))));
    text
}

/// A relay that this node may use.
fn turn_text(relay: &TurnInfo) -> String {
    let mut text = safe(&relay.server);
    match (&relay.reason, relay.took_ms) {
        (Some(reason), _) => {
            let _ = write!(text, ": {}", safe(reason));
        }
        (None, Some(took)) => {
            let _ = write!(text, " gave an address after {took} ms");
        }
        (None, None) => text.push_str(" has not been asked yet"),
    }
    if relay.allocations > 0 {
        let _ = write!(text, "; {} now", plural(relay.allocations, "address", "addresses"));
    }
    if relay.found {
        text.push_str(" (found)");
    }
    text
}

fn relay_text(relay: &RelayInfo) -> String {
    let (allocations, connections) = (
        plural(relay.allocations, "allocation", "allocations"),
        plural(relay.connections, "connection", "connections"),
    );
    format!("for {}; {allocations}, {connections}, {} relayed", safe(&relay.whom), size(relay.bytes))
}

fn candidate_text(candidate: &CandidateInfo) -> String {
    format!("{} ({}, {})", candidate.addr, safe(&candidate.kind), safe(&candidate.tcp_type))
}

fn nat_text(mapping: MappingInfo) -> String {
    let text = match mapping {
        MappingInfo::EndpointIndependent => "none, or it shows everyone the same address",
        MappingInfo::EndpointDependent => "maps by destination: others cannot tell where to connect",
        MappingInfo::Unknown => "not known yet",
    };
    text.to_owned()
}

fn dht_text(status: &Status) -> String {
    let role = if status.public { "served to others" } else { "used, not served" };
    format!(
        "{role}; {} wide, {} local",
        plural(status.wan_peers, "node", "nodes"),
        plural(status.lan_peers, "node", "nodes")
    )
}

#[cfg(test)]
mod tests;
