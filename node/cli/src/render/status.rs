//! What a node says of itself: when it is up, while it serves, and when it is asked.

use std::fmt::Write as _;

use keyferry::{
    Status,
    control::{CandidateInfo, MappingInfo, RelayInfo, SameKeySeen},
};

use super::path::{path_text, turn_text};
use crate::text::{count, plural, safe, size};

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

/// Renders the answer to `status`.
pub(super) fn status_text(status: &Status) -> String {
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
    if let Some(skew) = status.clock.filter(|skew| skew.is_too_much()) {
        row("clock", skew.to_string());
    }
    if let Some(other) = &status.same_key {
        row("same key", format!("another running node has this key, {}", seen_text(other.seen)));
    }
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
    for (name, bytes) in &status.traffic {
        row("traffic", format!("{}: {} in, {} out", safe(name), size(bytes.in_bytes), size(bytes.out_bytes)));
    }
    let nonzero = status.counters.iter().filter(|(_, value)| **value > 0);
    nonzero.for_each(|(name, value)| row("counter", format!("{} {}", safe(name), count(*value))));
    text
}

/// Where another node with the same key is.
pub(super) fn seen_text(seen: SameKeySeen) -> String {
    match seen {
        SameKeySeen::At(addr) => format!("it is at {addr}"),
        SameKeySeen::From(host) => format!("it has connected from {host}"),
        SameKeySeen::ByCall => "it was reached through a third node".to_owned(),
        SameKeySeen::ByOffer => "it publishes where it is, and was not reached there".to_owned(),
    }
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
