//! All cells, each some times, several at once; and what came of each as a whole.
//!
//! What it is not: a picture or a table (`report`, `picture`).

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;

use super::{
    expectation::{Expected, PathKind},
    pair::{self, Plan, Run},
    scenario::Cell,
    world::World,
};
use crate::network::core::Way;

/// The longest time to the first byte through a relay or, where there is none, to the message that one is needed.
pub(crate) const RELAYED_WITHIN: Duration = Duration::from_secs(3);

/// One cell to run at one latency.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    /// Which.
    pub(crate) cell: Cell,
    /// The round trip between any two hosts.
    pub(crate) round_trip: Duration,
    /// Whether there are relays.
    pub(crate) relays: bool,
}

/// How all are run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// What each run does.
    pub(crate) plan: Plan,
    /// How often.
    pub(crate) runs: u32,
    /// How often where a relay is needed, if that differs.
    pub(crate) relay_runs: Option<u32>,
    /// How the way between two hosts is, but for its delay.
    pub(crate) way: Way,
    /// How many cells run at once.
    pub(crate) parallel: usize,
}

impl Settings {
    fn runs_of(&self, cell: Cell) -> u32 {
        match Expected::of(cell) {
            Expected::Direct => self.runs,
            Expected::Relay(_) => self.relay_runs.unwrap_or(self.runs),
        }
    }
}

/// What came of one cell at one latency.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CellReport {
    /// The sharer's site.
    pub(crate) a: String,
    /// The caller's site.
    pub(crate) b: String,
    /// The round trip between any two hosts.
    pub(crate) rtt_ms: u64,
    /// `direct` or `relay` if every run was; `none` if none had a session; `mixed` otherwise.
    pub(crate) path: &'static str,
    /// How the path was found, the most frequent way.
    pub(crate) strategy: Option<String>,
    /// The hop limits of the opening SYNs that opened the path.
    pub(crate) ttls: Vec<u64>,
    /// What theory says.
    pub(crate) expected: PathKind,
    /// Why theory says that a relay is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expected_reason: Option<&'static str>,
    /// Whether each run was as theory says, its bytes arrived or its reason was told.
    pub(crate) as_expected: bool,
    /// The time until the session or the reason: the median run.
    pub(crate) ms: f64,
    /// The same, the slowest run.
    pub(crate) ms_max: f64,
    /// How many runs there were.
    pub(crate) runs: usize,
    /// How many of them were as expected.
    pub(crate) good: usize,
    /// Where a relay is needed: whether each run had its first byte within 3 s or, without a relay, said that it needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_time: Option<bool>,
    /// Bytes that arrived and were right.
    pub(crate) bytes: u64,
    /// Why there was no path, the first reason that was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Each run.
    pub(crate) each: Vec<Run>,
}

/// Runs all tasks. Results come in the order of the tasks.
pub(crate) fn run(tasks: &[Task], settings: &Settings, dir: &Path) -> Result<Vec<CellReport>> {
    let next = AtomicUsize::new(0);
    let reports: Mutex<Vec<(usize, CellReport)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..settings.parallel.clamp(1, tasks.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(index) else { break };
                    let report = CellReport::of(*task, run_cell(*task, settings, dir));
                    eprintln!("[{}/{}] {}", index + 1, tasks.len(), report.line());
                    if let Ok(mut reports) = reports.lock() {
                        reports.push((index, report));
                    }
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_default();
    reports.sort_by_key(|(index, _)| *index);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

fn run_cell(task: Task, settings: &Settings, dir: &Path) -> Vec<Run> {
    let name = format!("{}-{}-{}", task.cell.a(), task.cell.b(), task.round_trip.as_millis());
    let way = Way { delay: task.round_trip / 2, ..settings.way };
    let failed = |error: anyhow::Error| Run { reason: Some(format!("the lab: {error:#}")), ..Run::default() };
    let world = match World::build(settings.plan.engine.clone(), way, dir.join(name)) {
        Ok(world) => world,
        Err(error) => return vec![failed(error)],
    };
    let _public = match settings.plan.program.start_public(&world) {
        Ok(nodes) => nodes,
        Err(error) => return vec![failed(error)],
    };
    let runs = (0..settings.runs_of(task.cell)).map(|_| pair::run(&world, task.cell, &settings.plan)).collect();
    let overflown = world.core().counters().overflown.load(Ordering::Relaxed);
    if overflown > 0 {
        eprintln!("{}: the core had to drop {overflown} packets that its queues did not take", task.cell);
    }
    runs
}

impl CellReport {
    /// Sums the runs of a cell up.
    pub(crate) fn of(task: Task, each: Vec<Run>) -> Self {
        let expected = Expected::of(task.cell);
        let good = each.iter().filter(|run| is_good(run, expected, task.relays)).count();
        let over = |path| each.iter().filter(|run| run.path == path).count() == each.len();
        let times: Vec<f64> = each.iter().map(|run| run.ms).collect();
        let in_time = |run: &Run| {
            let waited = if task.relays { run.first_byte_ms } else { Some(run.ms) };
            waited.is_some_and(|ms| ms <= RELAYED_WITHIN.as_secs_f64() * 1000.0)
        };
        let mut ttls: Vec<u64> = each.iter().filter_map(|run| run.ttl).collect();
        ttls.sort_unstable();
        ttls.dedup();
        Self {
            a: task.cell.a().to_owned(),
            b: task.cell.b().to_owned(),
            rtt_ms: task.round_trip.as_millis() as u64,
            path: match () {
                () if over(None) => "none",
                () if over(Some(PathKind::Direct)) => "direct",
                () if over(Some(PathKind::Relay)) => "relay",
                () => "mixed",
            },
            strategy: most_frequent(each.iter().filter_map(|run| run.strategy.as_deref())),
            ttls,
            expected: expected.path(),
            expected_reason: match expected {
                Expected::Direct => None,
                Expected::Relay(why) => Some(why),
            },
            as_expected: good == each.len() && good > 0,
            ms: crate::measure::median(&times),
            ms_max: times.iter().copied().fold(0.0, f64::max),
            runs: each.len(),
            good,
            in_time: (expected.path() == PathKind::Relay).then(|| each.iter().all(in_time)),
            bytes: each.iter().map(|run| run.bytes).sum(),
            reason: each.iter().find_map(|run| run.reason.clone()),
            each,
        }
    }

    /// One line about it.
    pub(crate) fn line(&self) -> String {
        let mark = if self.as_expected { "as expected" } else { "NOT AS EXPECTED" };
        let how = match (&self.strategy, &self.reason) {
            (Some(strategy), None) => strategy.clone(),
            (Some(strategy), Some(reason)) => format!("{strategy}; {reason}"),
            (None, reason) => reason.clone().unwrap_or_default(),
        };
        format!(
            "{:>13} : {:<13} {:>3} ms  {:<6} {}/{} {mark}, {:.0} ms (at most {:.0}): {how}",
            self.a, self.b, self.rtt_ms, self.path, self.good, self.runs, self.ms, self.ms_max
        )
    }
}

/// A path has to be the one that theory says and carry the file to its end; where there can be none, the reason has to be told.
fn is_good(run: &Run, expected: Expected, relays: bool) -> bool {
    match (expected, run.path) {
        (Expected::Direct, path) => path == Some(PathKind::Direct) && run.reason.is_none(),
        (Expected::Relay(_), path) if relays => path == Some(PathKind::Relay) && run.reason.is_none(),
        (Expected::Relay(_), path) => path.is_none() && run.reason.is_some(),
    }
}

fn most_frequent<'a>(words: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for word in words {
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(word, _)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::scenario::Site;

    fn task(a: Site, b: Site) -> Task {
        Task { cell: Cell::Apart(a, b), round_trip: Duration::from_millis(40), relays: false }
    }

    fn direct(ms: f64) -> Run {
        Run { path: Some(PathKind::Direct), ms, strategy: Some("connected".to_owned()), bytes: 7, ..Run::default() }
    }

    fn refused(ms: f64) -> Run {
        Run { ms, reason: Some("both NATs map by destination".to_owned()), ..Run::default() }
    }

    #[test]
    fn every_run_has_to_be_as_expected() {
        let report =
            CellReport::of(task(Site::Public, Site::Symmetric), vec![direct(10.0), direct(30.0), refused(5.0)]);
        assert_eq!((report.path, report.good, report.as_expected), ("mixed", 2, false));
        assert_eq!((report.ms, report.ms_max, report.bytes), (10.0, 30.0, 14));
        let report = CellReport::of(task(Site::Public, Site::Symmetric), vec![direct(10.0)]);
        assert!(report.as_expected && report.in_time.is_none());
    }

    #[test]
    fn a_relay_is_needed_and_told_in_time() {
        let report = CellReport::of(task(Site::Symmetric, Site::Symmetric), vec![refused(100.0), refused(3001.0)]);
        assert_eq!((report.path, report.as_expected, report.in_time), ("none", true, Some(false)));
        let report = CellReport::of(task(Site::Symmetric, Site::Symmetric), vec![direct(1.0)]);
        assert!(!report.as_expected);
    }

    #[test]
    fn with_relays_the_first_byte_has_to_come_in_time() {
        let relayed = |first_byte_ms| Run { path: Some(PathKind::Relay), first_byte_ms, ..direct(9000.0) };
        let of = |first_byte_ms| {
            let task = Task { relays: true, ..task(Site::Symmetric, Site::Symmetric) };
            CellReport::of(task, vec![relayed(Some(900.0)), relayed(first_byte_ms)])
        };
        let report = of(Some(3000.0));
        assert_eq!((report.path, report.as_expected, report.in_time), ("relay", true, Some(true)));
        assert_eq!(of(Some(3001.0)).in_time, Some(false));
        assert_eq!(of(None).in_time, Some(false));
        let refused =
            CellReport::of(Task { relays: true, ..task(Site::Symmetric, Site::Symmetric) }, vec![refused(1.0)]);
        assert!(!refused.as_expected);
    }

    #[test]
    fn a_cell_that_never_ran_is_not_as_expected() {
        assert!(!CellReport::of(task(Site::Public, Site::Public), Vec::new()).as_expected);
    }
}
