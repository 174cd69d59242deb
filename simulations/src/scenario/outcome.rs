//! What came of one run: `result.json`, and with it `events.jsonl`. Times are seconds since the beginning of the steps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The form of `result.json`; a reader refuses others.
pub(crate) const FORMAT: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) format: u32,
    pub(crate) scenario: String,
    pub(crate) question: String,
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) seed: u64,
    pub(crate) engine: String,
    /// RFC 3339, UTC.
    pub(crate) began: String,
    pub(crate) took_seconds: f64,
    pub(crate) verdict: Verdict,
    /// One line: that all held, or which did not and what was seen, or why the run could not go on.
    pub(crate) summary: String,
    pub(crate) sites: Vec<Site>,
    pub(crate) links: Vec<Link>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) processes: Vec<Process>,
    pub(crate) steps: Vec<Step>,
    pub(crate) expectations: Vec<Expectation>,
    /// What each line carried, a sample a second.
    pub(crate) lines: Vec<Line>,
    /// Numbers that were measured besides, such as bytes a minute and node.
    pub(crate) figures: Vec<Figure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// All expectations held.
    Held,
    /// One did not.
    Failed,
    /// A step could not be done, so that nothing was judged.
    Broken,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) preset: String,
    /// What it is, in a few words.
    pub(crate) words: String,
    /// Routers between its hosts and the core: 0 to 2.
    pub(crate) routers: usize,
    /// Outer addresses.
    pub(crate) addresses: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Link {
    /// Two sites; none: any two.
    pub(crate) between: Option<(String, String)>,
    /// `20 ms, 1 % lost in bursts of 5, 20 Mbit/s`.
    pub(crate) words: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) site: String,
    pub(crate) addresses: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Process {
    /// `NODE` or `NODE.NAME`.
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) command: String,
    /// Each time that it ran.
    pub(crate) runs: Vec<ProcessRun>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProcessRun {
    pub(crate) began_s: f64,
    /// None if it was still running when all was over.
    pub(crate) ended_s: Option<f64>,
    /// The exit code, or none.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) peak_resident_bytes: u64,
    pub(crate) cpu_seconds: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) words: String,
    /// `FILE:LINE`.
    pub(crate) place: String,
    pub(crate) began_s: Option<f64>,
    pub(crate) ended_s: Option<f64>,
    /// Why it could not be done.
    pub(crate) error: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Expectation {
    pub(crate) words: String,
    pub(crate) place: String,
    /// None where nothing was judged.
    pub(crate) held: Option<bool>,
    /// What was seen.
    pub(crate) seen: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) site: String,
    /// (when, bytes out of the site so far, bytes into it so far)
    pub(crate) samples: Vec<(f64, u64, u64)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
}

/// A line of `events.jsonl`: what a process told, or what the runner did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) at_s: f64,
    /// The process; `runner` for what the runner did: events `step_began`, `step_done`, `step_failed` with field `step`.
    pub(crate) process: String,
    /// The event as it was told; what is no JSON is a string.
    pub(crate) event: Value,
}
