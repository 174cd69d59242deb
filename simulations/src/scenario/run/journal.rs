//! What all processes of a run tell, and what the runner does, on one clock: kept to be waited for and judged, and written to
//! `events.jsonl`.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::scenario::{model::Capture, model::EventMatch, outcome::Entry};

/// How many events of one run are kept. Later ones are only written.
const MOST_KEPT: usize = 400_000;

/// The name of the runner among those who tell.
const RUNNER: &str = "runner";

/// The events of a run.
pub(super) struct Journal {
    began: Instant,
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    entries: Vec<Entry>,
    /// Which entries each process has told.
    by_process: HashMap<String, Vec<usize>>,
    /// How often each process has ended, with all that it had to tell.
    ends: HashMap<String, usize>,
    file: BufWriter<File>,
    captured: HashMap<String, String>,
}

impl Journal {
    /// Begins one now.
    pub(super) fn begin(file: &Path) -> Result<Self> {
        let created = File::create(file).with_context(|| file.display().to_string())?;
        let inner = Inner {
            entries: Vec::new(),
            by_process: HashMap::new(),
            ends: HashMap::new(),
            file: BufWriter::new(created),
            captured: HashMap::new(),
        };
        Ok(Self { began: Instant::now(), inner: Mutex::new(inner), changed: Condvar::new() })
    }

    /// When it began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// The time since then, in seconds.
    pub(super) fn now_s(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Adds what a process has told.
    pub(super) fn add(&self, process: &str, event: Value) {
        let mut inner = self.inner();
        // Under the lock, so that times are in order.
        let entry = Entry { at_s: self.now_s(), process: process.to_owned(), event };
        if let Ok(line) = serde_json::to_string(&entry) {
            let _ = writeln!(inner.file, "{line}");
        }
        if inner.entries.len() < MOST_KEPT {
            let at = inner.entries.len();
            inner.by_process.entry(entry.process.clone()).or_default().push(at);
            inner.entries.push(entry);
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Adds what the runner does with a step.
    pub(super) fn note(&self, event: &str, step: &str) {
        self.add(RUNNER, json!({ "event": event, "step": step }));
    }

    /// Notes that a process has ended, and that all it had to tell is here.
    pub(super) fn ended(&self, process: &str) {
        *self.inner().ends.entry(process.to_owned()).or_default() += 1;
        self.changed.notify_all();
    }

    /// Waits until a process has told such an event, at or after a time; none if it has not by then, or has ended for the last time:
    /// it is started so often.
    pub(super) fn wait_for(
        &self,
        (process, starts): (&str, usize),
        since_s: f64,
        wanted: &EventMatch,
        deadline: Instant,
    ) -> Option<Value> {
        let (mut inner, mut looked_at) = (self.inner(), 0);
        loop {
            let told = inner.by_process.get(process).map(Vec::as_slice).unwrap_or_default();
            for at in &told[looked_at..] {
                let entry = &inner.entries[*at];
                if entry.at_s >= since_s && wanted.matches(&entry.event) {
                    return Some(entry.event.clone());
                }
            }
            looked_at = told.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let is_over = inner.ends.get(process).is_some_and(|ends| *ends >= starts);
            if left.is_zero() || is_over {
                return None;
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last event of that name of a process.
    pub(super) fn last_of(&self, process: &str, event: &str) -> Option<Value> {
        let inner = self.inner();
        let told = inner.by_process.get(process)?;
        told.iter().rev().map(|at| &inner.entries[*at].event).find(|told| told["event"] == event).cloned()
    }

    /// What a process has told, with the times.
    pub(super) fn of(&self, process: &str) -> Vec<(f64, Value)> {
        let inner = self.inner();
        let told = inner.by_process.get(process).map(Vec::as_slice).unwrap_or_default();
        told.iter().map(|at| &inner.entries[*at]).map(|entry| (entry.at_s, entry.event.clone())).collect()
    }

    /// Gives values of an event their names.
    pub(super) fn capture(&self, captures: &[Capture], event: &Value) -> Result<()> {
        for Capture { name, field } in captures {
            let value = field.of(event).with_context(|| format!("the event has no field {field}: {event}"))?;
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            self.inner().captured.insert(name.clone(), text);
        }
        Ok(())
    }

    /// What was captured under a name.
    pub(super) fn captured(&self, name: &str) -> Option<String> {
        self.inner().captured.get(name).cloned()
    }

    /// Writes what has not been written yet.
    pub(super) fn flush(&self) -> Result<()> {
        Ok(self.inner().file.flush()?)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
