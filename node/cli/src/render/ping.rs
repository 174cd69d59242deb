//! What `ping` looks like: a line for each step with its time, the pairs of addresses below it.
//!
//! What it is not: the events (`keyferry::node::api`).

use std::{fmt::Write as _, time::Duration};

use keyferry::control::{CandidateInfo, PairInfo, PingReply, PingStage, Pinged, StageName};

use super::path::path_text;
use crate::text::safe;

pub(super) fn stage_text(stage: &PingStage) -> String {
    let mut text = row(name(stage.stage), stage.took, &safe(&stage.detail));
    for pair in &stage.pairs {
        let _ = writeln!(text, "    {}", pair_text(pair));
    }
    text
}

pub(super) fn reply_text(reply: &PingReply) -> String {
    row("round trip", reply.took, "")
}

pub(super) fn pinged_text(pinged: &Pinged) -> String {
    let mut text = format!("reached {} after {}", path_text(&pinged.path), millis(pinged.total).trim_start());
    if let Some(round_trip) = pinged.round_trip {
        let _ = write!(text, "; round trip {}", millis(round_trip).trim_start());
    }
    text.push('\n');
    text
}

fn name(stage: StageName) -> &'static str {
    match stage {
        StageName::Offer => "offer",
        StageName::Signalling => "signalling",
        StageName::Relay => "relay",
        StageName::Checks => "checks",
        StageName::Tls => "TLS",
    }
}

fn pair_text(pair: &PairInfo) -> String {
    let end = |candidate: &CandidateInfo| format!("{} {}", safe(&candidate.kind), candidate.addr);
    let mut text = format!("{} to {}: {}", end(&pair.local), end(&pair.remote), safe(&pair.state));
    match pair.attempts {
        0 => {}
        1 => {
            let _ = write!(text, " ({})", millis(pair.took).trim_start());
        }
        attempts => {
            let _ = write!(text, " ({attempts} attempts, {})", millis(pair.took).trim_start());
        }
    }
    text
}

fn row(label: &str, took: Duration, detail: &str) -> String {
    format!("{label:<11} {}  {detail}", millis(took)).trim_end().to_owned() + "\n"
}

/// Milliseconds in a column, finer the fewer they are.
fn millis(took: Duration) -> String {
    let millis = took.as_secs_f64() * 1000.0;
    let digits = if millis < 10.0 { 2 } else { usize::from(millis < 100.0) };
    format!("{millis:>8.digits$} ms")
}
