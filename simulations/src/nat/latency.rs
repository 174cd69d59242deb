//! From a call to the session, step by step: the median and the slow end of many runs, in milliseconds and in round trips.
//!
//! What it is not: a measurement of this machine; at 40 ms between hosts most of it is waiting for answers.

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::json;

use super::{
    expectation::PathKind,
    matrix::CellReport,
    scenario::{Cell, Site},
};
use crate::measure::median;

/// The round trip that the targets are for.
pub(crate) const ROUND_TRIP_MS: u64 = 40;

/// What is measured: the cell, and the most round trips that 95 of 100 runs may take.
pub(crate) const TARGETS: [(Cell, f64); 2] = [
    (Cell::Apart(Site::Public, Site::PortDependent), 8.0),
    (Cell::Apart(Site::PortDependentRst, Site::PortDependentRst), 14.0),
];

/// The times of one cell.
#[derive(Debug, Serialize)]
struct Latency {
    a: String,
    b: String,
    rtt_ms: u64,
    runs: usize,
    target_round_trips: Option<f64>,
    within_target: Option<bool>,
    whole: Times,
    stages: Vec<(String, Times)>,
}

/// The median and the slow end.
#[derive(Debug, Serialize)]
struct Times {
    p50_ms: f64,
    p95_ms: f64,
    p95_round_trips: f64,
}

/// Prints the steps of each cell, and fails if a target was missed.
pub(crate) fn print(reports: &[CellReport], json: bool) -> Result<()> {
    let all: Vec<Latency> = reports.iter().map(Latency::of).collect();
    if json {
        println!("{}", json!({ "latency": all }));
    } else {
        all.iter().for_each(Latency::print);
    }
    let missed: Vec<String> = all
        .iter()
        .filter(|latency| latency.within_target == Some(false))
        .map(|latency| format!("{}:{}", latency.a, latency.b))
        .collect();
    ensure!(missed.is_empty(), "slower than the target: {}", missed.join(", "));
    Ok(())
}

impl Latency {
    fn of(report: &CellReport) -> Self {
        let good: Vec<_> = report.each.iter().filter(|run| run.path == Some(PathKind::Direct)).collect();
        let whole = Times::of(good.iter().map(|run| run.ms).collect(), report.rtt_ms);
        let mut names: Vec<&str> = Vec::new();
        for stage in good.iter().flat_map(|run| &run.stages) {
            if !names.contains(&stage.stage.as_str()) {
                names.push(&stage.stage);
            }
        }
        let stage = |name: &&str| {
            let of_run = |run: &&&super::pair::Run| {
                let steps = run.stages.iter().filter(|stage| stage.stage == *name);
                steps.map(|stage| stage.ms).reduce(|one, other| one + other)
            };
            ((*name).to_owned(), Times::of(good.iter().filter_map(|run| of_run(&run)).collect(), report.rtt_ms))
        };
        let stages = names.iter().map(stage).collect();
        let target = TARGETS
            .iter()
            .find(|(cell, _)| cell.a() == report.a && cell.b() == report.b && report.rtt_ms == ROUND_TRIP_MS)
            .map(|(_, most)| *most);
        Self {
            a: report.a.clone(),
            b: report.b.clone(),
            rtt_ms: report.rtt_ms,
            runs: good.len(),
            target_round_trips: target,
            within_target: target.map(|most| !good.is_empty() && whole.p95_round_trips <= most),
            whole,
            stages,
        }
    }

    fn print(&self) {
        println!("\n{} : {}, {} ms between all hosts, {} runs", self.a, self.b, self.rtt_ms, self.runs);
        println!("  {:<14} {:>9} {:>9} {:>12}", "", "middle", "95 %", "round trips");
        for (name, times) in &self.stages {
            times.print(name);
        }
        self.whole.print("in all");
        if let Some(most) = self.target_round_trips {
            println!("  target: at most {most} round trips");
        }
    }
}

impl Times {
    fn of(mut times: Vec<f64>, rtt_ms: u64) -> Self {
        times.sort_by(f64::total_cmp);
        // The nearest rank.
        let rank = (times.len() as f64 * 0.95).ceil() as usize;
        let p95_ms = times.get(rank.max(1) - 1).copied().unwrap_or_default();
        let p95_round_trips = if rtt_ms == 0 { 0.0 } else { p95_ms / rtt_ms as f64 };
        Self { p50_ms: median(&times), p95_ms, p95_round_trips }
    }

    fn print(&self, name: &str) {
        println!("  {name:<14} {:>6.0} ms {:>6.0} ms {:>12.1}", self.p50_ms, self.p95_ms, self.p95_round_trips);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::nat::{
        matrix::Task,
        pair::{Run, Stage},
    };

    fn run(ms: f64, checks: f64) -> Run {
        let stage = |stage: &str, ms| Stage { stage: stage.to_owned(), ms, detail: String::new() };
        Run {
            path: Some(PathKind::Direct),
            ms,
            stages: vec![stage("offer", 1.0), stage("checks", checks)],
            ..Run::default()
        }
    }

    #[test]
    fn the_slow_ones_have_to_be_within_the_target() {
        let (cell, most) = TARGETS[0];
        let task = Task { cell, round_trip: Duration::from_millis(ROUND_TRIP_MS), relays: false };
        let mut runs: Vec<Run> = (1..=20).map(|n| run(f64::from(n) * 10.0, 2.0)).collect();
        let latency = Latency::of(&CellReport::of(task, runs.clone()));
        assert_eq!((latency.whole.p50_ms, latency.whole.p95_ms), (105.0, 190.0));
        assert_eq!((latency.within_target, latency.stages.len()), (Some(true), 2));
        runs[18..].iter_mut().for_each(|run| run.ms = most * 40.0 + 1.0);
        assert_eq!(Latency::of(&CellReport::of(task, runs)).within_target, Some(false));
    }

    #[test]
    fn a_cell_with_no_session_misses_its_target() {
        let task = Task { cell: TARGETS[1].0, round_trip: Duration::from_millis(ROUND_TRIP_MS), relays: false };
        assert_eq!(Latency::of(&CellReport::of(task, vec![Run::default()])).within_target, Some(false));
    }
}
