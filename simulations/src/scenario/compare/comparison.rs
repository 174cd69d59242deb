//! Two results, with what has the same name in one row.
//!
//! What it is not: how they are shown.

use std::{collections::HashMap, path::PathBuf};

use serde::Serialize;

use crate::scenario::outcome::{Expectation, Outcome, Process, Verdict};

/// Two results.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) a: Side,
    pub(super) b: Side,
    pub(super) expectations: Vec<Row<Judged>>,
    /// How long each step took, in seconds.
    pub(super) steps: Vec<Row<f64>>,
    pub(super) processes: Vec<Row<Used>>,
    pub(super) figures: Vec<Row<Measured>>,
    /// What the line of each site carried.
    pub(super) lines: Vec<Row<Carried>>,
    pub(super) all_lines: Row<Carried>,
}

/// What a result is, in short.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    pub(super) folder: String,
    pub(super) scenario: String,
    pub(super) question: String,
    pub(super) values: Vec<String>,
    pub(super) seed: u64,
    pub(super) engine: String,
    pub(super) began: String,
    pub(super) took_seconds: f64,
    pub(super) verdict: Verdict,
    pub(super) summary: String,
}

/// The same thing on both sides, where it is there.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Row<T> {
    pub(super) name: String,
    pub(super) a: Option<T>,
    pub(super) b: Option<T>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Judged {
    pub(super) held: Option<bool>,
    pub(super) seen: String,
}

/// What a process has used, all its runs together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Used {
    pub(super) runs: usize,
    pub(super) took_seconds: f64,
    pub(super) cpu_seconds: f64,
    /// The greatest of its runs.
    pub(super) peak_resident_bytes: u64,
    /// How the last run ended: `exit code 0`, `signal 9`, `running`.
    pub(super) end: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Measured {
    pub(super) value: f64,
    pub(super) unit: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Carried {
    pub(super) out_bytes: u64,
    pub(super) in_bytes: u64,
}

impl Carried {
    pub(super) fn total(self) -> u64 {
        self.out_bytes.saturating_add(self.in_bytes)
    }
}

impl Comparison {
    pub(super) fn new((folder_a, a): (PathBuf, Outcome), (folder_b, b): (PathBuf, Outcome)) -> Self {
        Self {
            expectations: rows(expectations(&a), expectations(&b)),
            steps: rows(steps(&a), steps(&b)),
            processes: rows(processes(&a), processes(&b)),
            figures: rows(figures(&a), figures(&b)),
            all_lines: Row { name: "all lines".to_owned(), a: Some(sum(&lines(&a))), b: Some(sum(&lines(&b))) },
            lines: rows(lines(&a), lines(&b)),
            a: Side::new(folder_a, a),
            b: Side::new(folder_b, b),
        }
    }
}

impl Side {
    fn new(folder: PathBuf, outcome: Outcome) -> Self {
        Self {
            folder: folder.display().to_string(),
            values: outcome.values.iter().map(|(name, value)| format!("{name} = {value}")).collect(),
            scenario: outcome.scenario,
            question: outcome.question,
            seed: outcome.seed,
            engine: outcome.engine,
            began: outcome.began,
            took_seconds: outcome.took_seconds,
            verdict: outcome.verdict,
            summary: outcome.summary,
        }
    }
}

fn expectations(outcome: &Outcome) -> Vec<(String, Judged)> {
    let judged = |it: &Expectation| (it.words.clone(), Judged { held: it.held, seen: it.seen.clone() });
    outcome.expectations.iter().map(judged).collect()
}

fn steps(outcome: &Outcome) -> Vec<(String, f64)> {
    let took = |began: Option<f64>, ended: Option<f64>| Some(ended? - began?);
    let steps = outcome.steps.iter();
    steps.filter_map(|step| Some((step.name.clone(), took(step.began_s, step.ended_s)?))).collect()
}

fn processes(outcome: &Outcome) -> Vec<(String, Used)> {
    outcome.processes.iter().map(|process| (process.name.clone(), used(process, outcome.took_seconds))).collect()
}

fn used(process: &Process, over_s: f64) -> Used {
    let runs = &process.runs;
    Used {
        runs: runs.len(),
        took_seconds: runs.iter().map(|run| run.ended_s.unwrap_or(over_s) - run.began_s).sum(),
        cpu_seconds: runs.iter().map(|run| run.cpu_seconds).sum(),
        peak_resident_bytes: runs.iter().map(|run| run.peak_resident_bytes).max().unwrap_or(0),
        end: match runs.last().map(|run| (run.code, run.signal)) {
            None => "never ran".to_owned(),
            Some((Some(code), _)) => format!("exit code {code}"),
            Some((None, Some(signal))) => format!("signal {signal}"),
            Some((None, None)) => "running".to_owned(),
        },
    }
}

fn figures(outcome: &Outcome) -> Vec<(String, Measured)> {
    let figures = outcome.figures.iter();
    figures.map(|it| (it.name.clone(), Measured { value: it.value, unit: it.unit.clone() })).collect()
}

fn lines(outcome: &Outcome) -> Vec<(String, Carried)> {
    let carried = |samples: &[(f64, u64, u64)]| {
        let (first, last) = (samples.first().copied().unwrap_or_default(), samples.last().copied().unwrap_or_default());
        Carried { out_bytes: last.1.saturating_sub(first.1), in_bytes: last.2.saturating_sub(first.2) }
    };
    outcome.lines.iter().map(|line| (line.site.clone(), carried(&line.samples))).collect()
}

fn sum(lines: &[(String, Carried)]) -> Carried {
    let add = |sum: Carried, it: Carried| Carried {
        out_bytes: sum.out_bytes.saturating_add(it.out_bytes),
        in_bytes: sum.in_bytes.saturating_add(it.in_bytes),
    };
    lines.iter().map(|(_, carried)| *carried).fold(Carried { out_bytes: 0, in_bytes: 0 }, add)
}

/// What has the same name stands in one row, in the order of the first side and then of the second; those of a name that
/// is there several times, one by one.
fn rows<T>(a: Vec<(String, T)>, b: Vec<(String, T)>) -> Vec<Row<T>> {
    let mut rows: Vec<Row<T>> = Vec::new();
    let mut places: HashMap<(String, usize), usize> = HashMap::new();
    for (key, value) in numbered(a) {
        rows.push(Row { name: key.0.clone(), a: Some(value), b: None });
        places.insert(key, rows.len() - 1);
    }
    for (key, value) in numbered(b) {
        match places.get(&key) {
            Some(place) => rows[*place].b = Some(value),
            None => rows.push(Row { name: key.0, a: None, b: Some(value) }),
        }
    }
    rows
}

/// Each with how many before it have the same name.
fn numbered<T>(named: Vec<(String, T)>) -> Vec<((String, usize), T)> {
    let mut before: HashMap<String, usize> = HashMap::new();
    let number = |(name, value): (String, T)| {
        let count = before.entry(name.clone()).or_default();
        *count += 1;
        ((name, *count), value)
    };
    named.into_iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::sample;

    #[test]
    fn what_is_on_one_side_only_has_a_row_too() {
        let named = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), ())).collect::<Vec<_>>();
        let rows = rows(named(&["x", "y", "x"]), named(&["x", "z", "x", "x"]));
        let seen: Vec<_> = rows.iter().map(|row| (&*row.name, row.a.is_some(), row.b.is_some())).collect();
        let expected =
            [("x", true, true), ("y", true, false), ("x", true, true), ("z", false, true), ("x", false, true)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_process_counts_with_all_its_runs() {
        let mut process = sample::outcome().processes.remove(0);
        let mut killed = process.runs[0].clone();
        (killed.began_s, killed.ended_s, killed.code, killed.signal) = (12.0, None, None, None);
        killed.peak_resident_bytes = 1;
        process.runs.push(killed);
        let used = used(&process, 15.0);
        assert_eq!((used.runs, used.took_seconds, used.cpu_seconds), (2, 12.0, 2.5));
        assert_eq!((used.peak_resident_bytes, &*used.end), (40 << 20, "running"));
    }
}
