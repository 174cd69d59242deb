//! What a scenario expects, beside what was seen.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::Value;

use super::{
    journal::Journal,
    lab::Lab,
    processes::Processes,
    traffic::{Samples, bytes_a_minute},
};
use crate::{
    content,
    measure::MIB,
    scenario::{
        model::{EventMatch, Expectation, ExpectationKind, PathClass, ProcessId, Scenario, StepId, Window},
        outcome,
    },
};

/// Events that tell of a path, with the place of it.
const PATH_EVENTS: [(&str, &str); 2] = [("connected", ""), ("pinged", "path")];

/// What is judged.
pub(super) struct Judge<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) lab: &'a Lab<'a>,
    pub(super) processes: &'a Processes,
    pub(super) journal: &'a Journal,
    pub(super) samples: &'a Samples,
    pub(super) steps: &'a [outcome::Step],
    /// When all was over.
    pub(super) end_s: f64,
}

/// Whether something held, and what was seen.
type Seen = (bool, String);

impl Judge<'_> {
    /// Judges everything.
    pub(super) fn judge(&self) -> Vec<outcome::Expectation> {
        let one = |expectation: &Expectation| {
            let seen = self.seen(&expectation.kind);
            let (held, seen) = seen.unwrap_or_else(|error| (false, format!("{error:#}")));
            told(expectation, Some(held), seen)
        };
        self.scenario.expectations.iter().map(one).collect()
    }

    fn seen(&self, kind: &ExpectationKind) -> Result<Seen> {
        Ok(match kind {
            ExpectationKind::Exit { processes, code } => self.each(processes, |name| self.exit(name, *code)),
            ExpectationKind::Event { processes, event, window } => {
                self.each(processes, |name| self.event(name, event, *window, true))
            }
            ExpectationKind::NoEvent { processes, event, window } => {
                self.each(processes, |name| self.event(name, event, *window, false))
            }
            ExpectationKind::Same { content, node, path } => {
                let path = self.lab.path(*node, path, self.journal)?;
                match content::same(&self.lab.content(*content), &path) {
                    Ok(files) => (true, format!("the same, bit for bit ({files} files)")),
                    Err(error) => (false, format!("{error:#}")),
                }
            }
            ExpectationKind::Path { processes, path, strategy, ever } => {
                self.each(processes, |name| self.path(name, *path, strategy.as_deref(), *ever))
            }
            ExpectationKind::Took { processes, at_most } => self.each(processes, |name| self.took(name, *at_most)),
            ExpectationKind::Slower { processes, than, at_most } => {
                let longest = than.iter().map(|other| self.lasted(self.name(*other))).collect::<Option<Vec<f64>>>();
                let longest = longest.map_or(0.0, |all| all.into_iter().fold(0.0, f64::max));
                self.each(processes, |name| self.slower(name, longest, *at_most))
            }
            ExpectationKind::Stall { processes, after, at_most } => {
                self.each(processes, |name| self.stall(name, *after, *at_most))
            }
            ExpectationKind::ReceivedBeyond { processes, at_most_bytes } => {
                self.each(processes, |name| self.received_beyond(name, *at_most_bytes))
            }
            ExpectationKind::Memory { processes, at_most_bytes } => self.each(processes, |name| {
                let peak =
                    self.processes.runs(name).iter().map(|run| run.peak_resident_bytes).max().unwrap_or_default();
                (peak > 0 && peak <= *at_most_bytes, format!("{:.1} MiB at most", peak as f64 / MIB))
            }),
            ExpectationKind::Traffic { nodes, from, to, at_most_bytes_a_minute } => {
                let mut rates = Vec::new();
                for node in nodes {
                    let node = &self.scenario.nodes[node.0];
                    let samples = self.samples.of(node.site);
                    rates.push((bytes_a_minute(&samples, from.as_secs_f64(), to.as_secs_f64()), node.name.as_str()));
                }
                traffic(&rates, *at_most_bytes_a_minute)
            }
            ExpectationKind::NoPacket { from, to, window } => {
                let (begin_s, end_s) = self.window(*window);
                let at = |seconds: f64| self.journal.began() + Duration::from_secs_f64(seconds.max(0.0));
                let packets = self.lab.packets(from, to, at(begin_s), at(end_s).min(Instant::now()))?;
                (packets == 0, format!("{packets} packets"))
            }
            ExpectationKind::AtLeastOk { processes, at_least } => {
                let is_ok = |process: &&ProcessId| {
                    self.processes.runs(self.name(**process)).last().is_some_and(|run| run.code == Some(0))
                };
                let ok = processes.iter().filter(is_ok).count();
                (ok >= *at_least, format!("{ok} of {} ended with 0", processes.len()))
            }
        })
    }

    /// Judges each of some processes; what is told is what did not hold or, where all did, what was seen of the last.
    fn each(&self, processes: &[ProcessId], judge: impl Fn(&str) -> Seen) -> Seen {
        let all: Vec<(&str, Seen)> =
            processes.iter().map(|id| self.name(*id)).map(|name| (name, judge(name))).collect();
        let failed: Vec<&(&str, Seen)> = all.iter().filter(|(_, (held, _))| !held).collect();
        let Some((first, (_, seen))) = failed.first().copied() else {
            return match &all[..] {
                [(_, (_, seen))] => (true, seen.clone()),
                _ => (
                    true,
                    format!(
                        "each of {}; the last: {}",
                        all.len(),
                        all.last().map(|one| one.1.1.as_str()).unwrap_or_default()
                    ),
                ),
            };
        };
        let mut text = if all.len() == 1 { seen.clone() } else { format!("{first}: {seen}") };
        if failed.len() > 1 {
            let _ = write!(text, " (and {} more)", failed.len() - 1);
        }
        (false, text)
    }

    fn exit(&self, name: &str, code: i32) -> Seen {
        let runs = self.processes.runs(name);
        let Some(run) = runs.last() else { return (false, "it was not started".to_owned()) };
        let why = || match self.processes.last_words(name) {
            words if words.is_empty() => String::new(),
            words => format!(": {words}"),
        };
        match (run.ended_s, run.code, run.signal) {
            (None, ..) => (false, "it still ran at the end".to_owned()),
            (_, Some(seen), _) if seen == code => (true, format!("it ended with {seen}")),
            (_, Some(seen), _) => (false, format!("it ended with {seen}{}", why())),
            (_, None, signal) => (false, format!("it was ended by signal {}", signal.unwrap_or_default())),
        }
    }

    fn event(&self, name: &str, wanted: &EventMatch, window: Window, is_wanted: bool) -> Seen {
        let (begin_s, end_s) = self.window(window);
        let told = self.journal.of(name);
        let found = told.iter().find(|(at_s, event)| *at_s >= begin_s && *at_s <= end_s && wanted.matches(event));
        match found {
            Some((at_s, event)) => (is_wanted, format!("at {at_s:.1} s: {event}")),
            None => {
                let last = told
                    .iter()
                    .rev()
                    .find(|(_, event)| wanted.event.as_deref().is_none_or(|name| event["event"] == name));
                let last = last.map(|(at_s, event)| format!("; the last like it, at {at_s:.1} s: {event}"));
                (!is_wanted, format!("none{}", last.filter(|_| is_wanted).unwrap_or_default()))
            }
        }
    }

    fn path(&self, name: &str, class: Option<PathClass>, strategy: Option<&str>, ever: bool) -> Seen {
        let told = self.journal.of(name);
        let paths: Vec<&Value> = told.iter().filter_map(|(_, event)| path_of(event)).collect();
        let fits = |path: &&&Value| {
            let class = class.is_none_or(|class| path["path"] == class_name(class));
            class && strategy.is_none_or(|strategy| path["strategy"] == strategy)
        };
        let words = |path: &Value| format!("{} ({})", text(&path["path"]), text(&path["strategy"]));
        match (paths.last(), ever) {
            (None, _) => (false, "there was no connection".to_owned()),
            (Some(last), false) => (fits(&last), words(last)),
            (Some(last), true) => match paths.iter().find(fits) {
                Some(path) => (true, words(path)),
                None => (false, format!("never; the last was {}", words(last))),
            },
        }
    }

    fn took(&self, name: &str, at_most: Duration) -> Seen {
        let runs = self.processes.runs(name);
        let Some(run) = runs.last() else { return (false, "it was not started".to_owned()) };
        match run.ended_s {
            Some(ended_s) => {
                (ended_s - run.began_s <= at_most.as_secs_f64(), format!("{:.2} s", ended_s - run.began_s))
            }
            None => (false, format!("it still ran after {:.1} s", self.end_s - run.began_s)),
        }
    }

    fn slower(&self, name: &str, others: f64, at_most: f64) -> Seen {
        match self.lasted(name) {
            None => (false, "it did not end".to_owned()),
            Some(_) if others == 0.0 => (false, "what it is compared with did not end".to_owned()),
            Some(lasted) => {
                (lasted <= others * at_most, format!("{:.2} times: {lasted:.2} s, and {others:.2} s", lasted / others))
            }
        }
    }

    /// How long its last run took, if it has ended by itself.
    fn lasted(&self, name: &str) -> Option<f64> {
        self.processes.runs(name).last().and_then(|run| Some(run.ended_s? - run.began_s))
    }

    fn stall(&self, name: &str, after: StepId, at_most: Duration) -> Seen {
        let Some(begin_s) = self.steps[after.0].ended_s else { return (false, "its step was not done".to_owned()) };
        let told = self.journal.of(name);
        let (longest, until) = longest_stall(&told, begin_s, self.end_s);
        let held = longest <= at_most.as_secs_f64() && told.iter().any(|(_, event)| event["event"] == "fetched");
        (held, format!("{longest:.1} s, until {until:.1} s"))
    }

    fn received_beyond(&self, name: &str, at_most_bytes: u64) -> Seen {
        let Some(fetched) = self.journal.last_of(name, "fetched") else {
            return (false, "nothing was fetched".to_owned());
        };
        let number = |field: &str| fetched[field].as_u64().unwrap_or_default();
        let needed = number("size").saturating_sub(number("resumed_bytes"));
        let beyond = number("received_bytes").saturating_sub(needed);
        (beyond <= at_most_bytes, format!("{:.2} MiB beyond {:.1} MiB", beyond as f64 / MIB, needed as f64 / MIB))
    }

    fn window(&self, window: Window) -> (f64, f64) {
        let begin_s = begin_of(window, self.steps);
        (begin_s, window.within.map_or(f64::INFINITY, |within| begin_s + within.as_secs_f64()).min(self.end_s))
    }

    fn name(&self, process: ProcessId) -> &str {
        &self.scenario.processes[process.0].name
    }
}

/// When a window begins, in seconds after the steps do.
pub(super) fn begin_of(window: Window, steps: &[outcome::Step]) -> f64 {
    window.after.and_then(|StepId(step)| steps[step].ended_s).unwrap_or_default()
}

/// An expectation, judged or not.
pub(super) fn told(expectation: &Expectation, held: Option<bool>, seen: String) -> outcome::Expectation {
    outcome::Expectation { words: expectation.words.clone(), place: expectation.place.to_string(), held, seen }
}

/// The longest time that `done_bytes` stood still from a time on, until the process had fetched all or all was over; and when it ended.
fn longest_stall(told: &[(f64, Value)], begin_s: f64, end_s: f64) -> (f64, f64) {
    let (mut moved_s, mut most, mut longest) = (begin_s, 0, (0.0, begin_s));
    let mut note = |from_s: f64, to_s: f64| {
        if to_s - from_s > longest.0 {
            longest = (to_s - from_s, to_s);
        }
    };
    for (at_s, event) in told {
        let is_fetched = event["event"] == "fetched";
        let done = event["done_bytes"].as_u64().filter(|_| event["event"] == "fetching").unwrap_or_default();
        if !is_fetched && done <= most {
            continue;
        }
        most = most.max(done);
        if *at_s > begin_s {
            note(moved_s, *at_s);
            moved_s = *at_s;
        }
        if is_fetched {
            return longest;
        }
    }
    note(moved_s, end_s);
    longest
}

/// The path that an event tells of.
fn path_of(event: &Value) -> Option<&Value> {
    let (_, field) = PATH_EVENTS.iter().find(|(name, _)| event["event"] == *name)?;
    Some(if field.is_empty() { event } else { &event[*field] })
}

fn class_name(class: PathClass) -> &'static str {
    match class {
        PathClass::Direct => "direct",
        PathClass::Relay => "relay",
    }
}

/// The median says what a node sends, the greatest who sends more.
fn traffic(rates: &[(f64, &str)], at_most: u64) -> Seen {
    let mut sorted = rates.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let Some((most, name)) = sorted.last() else { return (false, "nothing was measured".to_owned()) };
    let median = crate::measure::median(&sorted.iter().map(|(rate, _)| *rate).collect::<Vec<_>>());
    let kib = |bytes: f64| bytes / 1024.0;
    (median <= at_most as f64, format!("{:.1} KiB a minute (the median; most: {name}, {:.1})", kib(median), kib(*most)))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fetching(done: u64) -> Value {
        json!({ "event": "fetching", "done_bytes": done })
    }

    #[test]
    fn a_stall_is_the_longest_time_without_a_new_byte_after_the_step() {
        let told = [
            (1.0, fetching(10)),
            (5.0, fetching(20)),
            (5.5, fetching(20)),
            (7.5, fetching(30)),
            (8.0, json!({ "event": "fetched" })),
        ];
        assert_eq!(longest_stall(&told, 0.0, 20.0), (4.0, 5.0));
        assert_eq!(longest_stall(&told, 5.2, 20.0), (2.3, 7.5), "what is told without growth does not count");
        assert_eq!(longest_stall(&told, 8.0, 20.0).0, 0.0);
    }

    #[test]
    fn a_fetch_that_never_goes_on_has_stalled_until_the_end() {
        let told = [(1.0, fetching(10)), (6.0, json!({ "event": "failed" }))];
        assert_eq!(longest_stall(&told, 2.0, 20.0), (18.0, 20.0));
    }

    #[test]
    fn what_a_node_sends_is_judged_by_the_median() {
        let (held, seen) = traffic(&[(1024.0, "a"), (2048.0, "b"), (1e6, "c")], 2048);
        assert!(held && seen.contains("2.0 KiB") && seen.contains("c, 976.6"), "{seen}");
        assert!(!traffic(&[(2049.0, "a")], 2048).0 && !traffic(&[], 2048).0);
    }

    #[test]
    fn paths_are_told_by_fetches_and_by_pings() {
        let connected = json!({ "event": "connected", "path": "direct", "strategy": "dialled" });
        let pinged = json!({ "event": "pinged", "path": { "path": "relay", "strategy": "turn" } });
        assert_eq!(path_of(&connected).unwrap()["path"], "direct");
        assert_eq!(path_of(&pinged).unwrap()["path"], "relay");
        assert_eq!(path_of(&fetching(1)), None);
    }
}
