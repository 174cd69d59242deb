//! What a process' own events say about it over time: by which path it had peers, when it waited and for what, and how
//! far its fetch had come.
//!
//! What it is not: measured by the lab; a process that tells nothing has an empty track.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::scenario::outcome::{Entry, Outcome, Process};

/// Verified bytes that stand still for longer than that are told of.
const STANDSTILL_SECONDS: f64 = 1.0;

/// Points of the curve of a fetch.
const MAX_POINTS: usize = 500;

/// Spans, and waits, of one process; later ones are left out.
const MAX_SPANS: usize = 500;

/// How long the words of a span or wait may be.
const MAX_WORDS_BYTES: usize = 300;

/// Connections that a process has at a time.
const MAX_PEERS: usize = 1_000;

/// A process over time.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Track {
    process: String,
    /// Without gaps within a run; empty where the process tells of no paths.
    spans: Vec<Span>,
    waits: Vec<Wait>,
    /// Verified bytes that stood still.
    standstills: Vec<Wait>,
    /// When, bytes that were there, bytes in all (0: not known).
    progress: Vec<(f64, u64, u64)>,
}

/// A time with the same paths.
#[derive(Debug, PartialEq, Serialize)]
struct Span {
    from_s: f64,
    to_s: f64,
    path: Paths,
    words: String,
}

/// Which paths to peers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Paths {
    None,
    Direct,
    Relay,
    /// Direct ones and relayed ones.
    Both,
}

/// A time in which something was waited for.
#[derive(Debug, PartialEq, Serialize)]
struct Wait {
    from_s: f64,
    to_s: f64,
    words: String,
}

/// The tracks of all processes, in their order.
pub(super) fn tracks(outcome: &Outcome, entries: &[Entry]) -> Vec<Track> {
    let mut told: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        told.entry(&entry.process).or_default().push(entry);
    }
    let none = Vec::new();
    outcome
        .processes
        .iter()
        .map(|process| track(process, told.get(&*process.name).unwrap_or(&none), outcome.took_seconds))
        .collect()
}

fn track(process: &Process, told: &[&Entry], over_s: f64) -> Track {
    let mut track = Track { process: process.name.clone(), ..Track::default() };
    let mut rest = told;
    for (index, run) in process.runs.iter().enumerate() {
        // The last lines of a run are read after it has ended.
        let next = process.runs.get(index + 1).map_or(f64::INFINITY, |next| next.began_s);
        let (this, later) = rest.split_at(rest.partition_point(|entry| entry.at_s < next));
        rest = later;
        let end = run.ended_s.unwrap_or(over_s).max(run.began_s);
        RunTracker::new(run.began_s, end).follow(this, &mut track);
    }
    track.spans.truncate(MAX_SPANS);
    track.waits.truncate(MAX_SPANS);
    track.standstills.truncate(MAX_SPANS);
    track.progress = thinned(&track.progress);
    track
}

/// Follows the events of one run.
struct RunTracker {
    began_s: f64,
    end_s: f64,
    /// The paths by peer, with their words.
    peers: BTreeMap<String, (Paths, String)>,
    span_since: f64,
    /// Whether it has told of anything that has to do with paths.
    speaks: bool,
    waiting: Option<(f64, String)>,
    /// When verified bytes last grew, and to what.
    grew: Option<(f64, u64)>,
    is_complete: bool,
}

impl RunTracker {
    fn new(began_s: f64, end_s: f64) -> Self {
        Self {
            began_s,
            end_s,
            peers: BTreeMap::new(),
            span_since: began_s,
            speaks: false,
            waiting: None,
            grew: None,
            is_complete: false,
        }
    }

    fn follow(mut self, told: &[&Entry], track: &mut Track) {
        for entry in told {
            self.see(entry.at_s.clamp(self.began_s, self.end_s), &entry.event, track);
        }
        let end = self.end_s;
        self.stop_waiting(end, track);
        if self.speaks {
            self.end_span(end, track);
        }
        if !self.is_complete {
            self.end_standstill(end, track);
        }
    }

    fn see(&mut self, at_s: f64, event: &Value, track: &mut Track) {
        match text(event, "event") {
            "stage" => {
                self.stop_waiting(at_s, track);
                self.speaks = true;
                self.waiting = Some((at_s, bounded(text(event, "message"))));
            }
            "connected" => self.connected(at_s, event, track),
            "pinged" => self.connected(at_s, &event["path"], track),
            "disconnected" => {
                let peer = text(event, "node").to_owned();
                self.change(at_s, track, |peers| drop(peers.remove(&peer)));
            }
            "fetching" => self.fetching(at_s, event, track),
            "fetched" => {
                self.stop_waiting(at_s, track);
                self.is_complete = true;
            }
            "failed" => self.stop_waiting(at_s, track),
            _ => {}
        }
    }

    fn connected(&mut self, at_s: f64, path: &Value, track: &mut Track) {
        self.stop_waiting(at_s, track);
        let class = if text(path, "path") == "relay" { Paths::Relay } else { Paths::Direct };
        let words = bounded(text(path, "description"));
        let peer = text(path, "node").to_owned();
        self.change(at_s, track, |peers| {
            if peers.len() < MAX_PEERS || peers.contains_key(&peer) {
                peers.insert(peer, (class, words));
            }
        });
    }

    fn fetching(&mut self, at_s: f64, event: &Value, track: &mut Track) {
        let number = |name: &str| event[name].as_u64().unwrap_or(0);
        let (done, total) = (number("done_bytes"), number("total_bytes"));
        track.progress.push((at_s, done, total));
        if self.grew.is_none_or(|(_, before)| done > before) {
            self.end_standstill(at_s, track);
            if self.grew.is_some() {
                self.stop_waiting(at_s, track);
            }
            self.grew = Some((at_s, done));
        }
        self.is_complete = total > 0 && done >= total;
    }

    /// Changes the paths, and begins a span where that makes a difference.
    fn change(&mut self, at_s: f64, track: &mut Track, change: impl FnOnce(&mut BTreeMap<String, (Paths, String)>)) {
        self.speaks = true;
        let mut peers = self.peers.clone();
        change(&mut peers);
        if peers != self.peers {
            self.end_span(at_s, track);
            self.peers = peers;
        }
    }

    fn end_span(&mut self, at_s: f64, track: &mut Track) {
        let since = std::mem::replace(&mut self.span_since, at_s);
        if at_s > since && track.spans.len() < MAX_SPANS {
            track.spans.push(Span { from_s: since, to_s: at_s, path: self.paths(), words: self.words() });
        }
    }

    fn end_standstill(&self, at_s: f64, track: &mut Track) {
        let Some((since, _)) = self.grew else { return };
        if at_s - since > STANDSTILL_SECONDS {
            let words = format!("no verified byte for {:.1} s", at_s - since);
            track.standstills.push(Wait { from_s: since, to_s: at_s, words });
        }
    }

    fn stop_waiting(&mut self, at_s: f64, track: &mut Track) {
        if let Some((from_s, words)) = self.waiting.take().filter(|(since, _)| at_s > *since) {
            track.waits.push(Wait { from_s, to_s: at_s, words });
        }
    }

    fn paths(&self) -> Paths {
        let has = |wanted| self.peers.values().any(|(path, _)| *path == wanted);
        match (has(Paths::Direct), has(Paths::Relay)) {
            (true, true) => Paths::Both,
            (true, false) => Paths::Direct,
            (false, true) => Paths::Relay,
            (false, false) => Paths::None,
        }
    }

    fn words(&self) -> String {
        let mut words: Vec<&str> = self.peers.values().map(|(_, words)| &**words).collect();
        let more = words.len().saturating_sub(3);
        words.truncate(3);
        match more {
            0 if words.is_empty() => "no path".to_owned(),
            0 => words.join("; "),
            _ => format!("{}; and {more} more", words.join("; ")),
        }
    }
}

/// A curve with few points that still shows where it stood still: both ends of each gap stay.
fn thinned(points: &[(f64, u64, u64)]) -> Vec<(f64, u64, u64)> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let gap = (last.0 - first.0) / (MAX_POINTS / 2) as f64;
    let mut kept: Vec<(f64, u64, u64)> = Vec::new();
    for (index, point) in points.iter().enumerate() {
        let begins_gap = points.get(index + 1).is_none_or(|next| next.0 - point.0 > gap);
        if begins_gap || kept.last().is_none_or(|before| point.0 - before.0 >= gap || point.1 < before.1) {
            kept.push(*point);
        }
    }
    kept
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn bounded(words: &str) -> String {
    words[..words.floor_char_boundary(MAX_WORDS_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scenario::outcome::ProcessRun;

    fn process(runs: &[(f64, Option<f64>)]) -> Process {
        let run = |&(began_s, ended_s): &(f64, Option<f64>)| ProcessRun {
            began_s,
            ended_s,
            code: Some(0),
            signal: None,
            peak_resident_bytes: 0,
            cpu_seconds: 0.0,
        };
        Process {
            name: "getter".to_owned(),
            node: "getter".to_owned(),
            command: "get".to_owned(),
            runs: runs.iter().map(run).collect(),
        }
    }

    fn told(events: &[(f64, Value)]) -> Vec<Entry> {
        let entry =
            |(at_s, event): &(f64, Value)| Entry { at_s: *at_s, process: "getter".to_owned(), event: event.clone() };
        events.iter().map(entry).collect()
    }

    fn follow(runs: &[(f64, Option<f64>)], events: &[(f64, Value)]) -> Track {
        let entries = told(events);
        track(&process(runs), &entries.iter().collect::<Vec<_>>(), 30.0)
    }

    fn connected(node: &str, path: &str) -> Value {
        json!({ "event": "connected", "node": node, "path": path, "description": format!("{path} to {node}") })
    }

    fn fetching(done_bytes: u64) -> Value {
        json!({ "event": "fetching", "done_bytes": done_bytes, "total_bytes": 100 })
    }

    fn spans(track: &Track) -> Vec<(f64, f64, Paths)> {
        track.spans.iter().map(|span| (span.from_s, span.to_s, span.path)).collect()
    }

    #[test]
    fn paths_follow_each_other_without_gaps() {
        let track = follow(
            &[(1.0, Some(10.0))],
            &[
                (1.5, json!({ "event": "stage", "message": "looking for A" })),
                (2.0, connected("A", "relay")),
                (3.0, connected("A", "direct")),
                (4.0, connected("B", "relay")),
                (5.0, json!({ "event": "disconnected", "node": "B" })),
                (11.0, json!({ "event": "disconnected", "node": "A" })),
            ],
        );
        use Paths::*;
        let expected = [(1.0, 2.0, None), (2.0, 3.0, Relay), (3.0, 4.0, Direct), (4.0, 5.0, Both), (5.0, 10.0, Direct)];
        assert_eq!(spans(&track), expected);
        assert_eq!(track.spans[3].words, "direct to A; relay to B");
        assert_eq!(track.waits, [Wait { from_s: 1.5, to_s: 2.0, words: "looking for A".to_owned() }]);
    }

    #[test]
    fn each_run_begins_without_paths_and_one_that_never_ended_goes_on_until_all_was_over() {
        let track = follow(
            &[(0.0, Some(5.0)), (8.0, Option::None)],
            &[(1.0, connected("A", "direct")), (9.0, connected("A", "direct"))],
        );
        use Paths::*;
        assert_eq!(spans(&track), [(0.0, 1.0, None), (1.0, 5.0, Direct), (8.0, 9.0, None), (9.0, 30.0, Direct)]);
    }

    #[test]
    fn bytes_that_stand_still_are_told_of() {
        let track = follow(
            &[(0.0, Some(20.0))],
            &[(1.0, fetching(0)), (1.5, fetching(10)), (4.0, fetching(10)), (5.0, fetching(20)), (5.5, fetching(100))],
        );
        let times: Vec<_> = track.standstills.iter().map(|one| (one.from_s, one.to_s)).collect();
        assert_eq!(times, [(1.5, 5.0)], "a complete fetch does not stand still");
        let cut_off = follow(&[(0.0, Some(20.0))], &[(1.0, fetching(0)), (1.5, fetching(10))]);
        assert_eq!(cut_off.standstills[0].words, "no verified byte for 18.5 s");
    }

    #[test]
    fn a_process_that_tells_no_paths_has_no_spans() {
        assert_eq!(follow(&[(0.0, None)], &[(1.0, json!("a line of curl"))]).spans, []);
    }

    #[test]
    fn a_thinned_curve_keeps_both_ends_of_a_gap() {
        let mut points: Vec<(f64, u64, u64)> = (0..10_000u32).map(|at| (f64::from(at) / 100.0, at.into(), 0)).collect();
        points.drain(4_000..5_000);
        let thin = thinned(&points);
        assert!(thin.len() <= MAX_POINTS + 2, "{}", thin.len());
        for end in [(0.0, 0, 0), (39.99, 3_999, 0), (50.0, 5_000, 0), (99.99, 9_999, 0)] {
            assert!(thin.contains(&end), "{end:?}");
        }
    }
}
