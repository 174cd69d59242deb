//! Processes on hosts: started, signalled, waited for, and looked at while they run.
//!
//! What it is not: what they say; that goes to the journal.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use super::journal::Journal;
use crate::{measure::Usage, scenario::outcome};

/// How long a line of output may be. What is longer is cut there.
const LONGEST_LINE: u64 = 1 << 20;

/// How often processes are looked at. The kernel keeps their peak of memory.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a process has to end that was asked to.
const GRACE: Duration = Duration::from_secs(10);

/// All processes of a run. Those that still run are killed when it is dropped.
pub(super) struct Processes {
    journal: Arc<Journal>,
    logs: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    each: Vec<Tracked>,
    is_over: bool,
}

/// One of them, running or not.
struct Tracked {
    name: String,
    command: String,
    runs: Vec<outcome::ProcessRun>,
    live: Option<Live>,
}

struct Live {
    pid: u32,
    pidfd: rustix::fd::OwnedFd,
}

impl Processes {
    /// None yet. Their standard error goes to files in `logs`.
    pub(super) fn new(journal: Arc<Journal>, logs: PathBuf) -> Result<Self> {
        fs::create_dir_all(&logs)?;
        let shared = Arc::new(Shared::default());
        let looked_at = shared.clone();
        thread::Builder::new().name("usage".to_owned()).spawn(move || looked_at.look())?;
        Ok(Self { journal, logs, shared })
    }

    /// Starts a process. One of that name must not be running.
    pub(super) fn start(&self, name: &str, mut command: Command) -> Result<()> {
        ensure!(!self.is_running(name), "{name} is running already");
        let log = fs::File::options().create(true).append(true).open(self.logs.join(format!("{name}.log")))?;
        let words = words(&command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{name} cannot be started: {words}"))?;
        let stdout = child.stdout.take().context("standard output was piped")?;
        let pid = Pid::from_child(&child);
        // Before anybody waits for it: the process cannot be gone yet.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch a process")?;
        let mut table = self.shared.table();
        let at = table.at(name).unwrap_or_else(|| {
            table.each.push(Tracked { name: name.to_owned(), command: words, runs: Vec::new(), live: None });
            table.each.len() - 1
        });
        table.each[at].runs.push(outcome::ProcessRun {
            began_s: self.journal.now_s(),
            ended_s: None,
            code: None,
            signal: None,
            peak_resident_bytes: 0,
            cpu_seconds: 0.0,
        });
        table.each[at].live = Some(Live { pid: child.id(), pidfd });
        drop(table);
        self.read(name, stdout)?;
        self.wait(name, child)
    }

    /// Sends a signal to a process that runs.
    pub(super) fn signal(&self, name: &str, signal: i32) -> Result<()> {
        let table = self.shared.table();
        let live = table.at(name).and_then(|at| table.each[at].live.as_ref());
        let live = live.with_context(|| format!("{name} does not run"))?;
        let signal = Signal::from_named_raw(signal).with_context(|| format!("there is no signal {signal}"))?;
        pidfd_send_signal(&live.pidfd, signal).with_context(|| format!("{name} cannot be sent a signal"))
    }

    /// Asks a process to end, and waits for that.
    pub(super) fn stop(&self, name: &str) -> Result<()> {
        self.signal(name, Signal::TERM.as_raw())?;
        ensure!(
            self.wait_until_ended(name, Instant::now() + GRACE),
            "{name} has not ended within {GRACE:?} of SIGTERM"
        );
        Ok(())
    }

    /// Waits until a process that was started has ended; false if it has not by then.
    pub(super) fn wait_until_ended(&self, name: &str, deadline: Instant) -> bool {
        let mut table = self.shared.table();
        loop {
            let has_ended =
                table.at(name).is_some_and(|at| table.each[at].live.is_none() && !table.each[at].runs.is_empty());
            let left = deadline.saturating_duration_since(Instant::now());
            if has_ended || left.is_zero() {
                return has_ended;
            }
            table = self.shared.changed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether it runs now.
    pub(super) fn is_running(&self, name: &str) -> bool {
        let table = self.shared.table();
        table.at(name).is_some_and(|at| table.each[at].live.is_some())
    }

    /// Each time that it ran.
    pub(super) fn runs(&self, name: &str) -> Vec<outcome::ProcessRun> {
        let table = self.shared.table();
        table.at(name).map(|at| table.each[at].runs.clone()).unwrap_or_default()
    }

    /// How it was started, for a person.
    pub(super) fn command(&self, name: &str) -> String {
        let table = self.shared.table();
        table.at(name).map(|at| table.each[at].command.clone()).unwrap_or_default()
    }

    /// The last line that it wrote to standard error.
    pub(super) fn last_words(&self, name: &str) -> String {
        let log = fs::read_to_string(self.logs.join(format!("{name}.log"))).unwrap_or_default();
        log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
    }

    /// Kills all that still run, and waits for their ends.
    pub(super) fn end(&self) {
        let names: Vec<String> = {
            let table = self.shared.table();
            for live in table.each.iter().filter_map(|tracked| tracked.live.as_ref()) {
                let _ = pidfd_send_signal(&live.pidfd, Signal::KILL);
            }
            table.each.iter().filter(|tracked| tracked.live.is_some()).map(|tracked| tracked.name.clone()).collect()
        };
        let deadline = Instant::now() + GRACE;
        for name in names {
            self.wait_until_ended(&name, deadline);
        }
    }

    /// Hands what it writes to standard output on, line by line.
    fn read(&self, name: &str, stdout: impl Read + Send + 'static) -> Result<()> {
        let (journal, name) = (self.journal.clone(), name.to_owned());
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            let mut stdout = BufReader::new(stdout);
            while let Some(line) = next_line(&mut stdout) {
                journal.add(&name, serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
            journal.ended(&name);
        })?;
        Ok(())
    }

    /// Waits for its end on a thread of its own.
    fn wait(&self, name: &str, mut child: Child) -> Result<()> {
        let (journal, shared, name) = (self.journal.clone(), self.shared.clone(), name.to_owned());
        thread::Builder::new().name("wait".to_owned()).spawn(move || {
            let status = child.wait();
            let mut table = shared.table();
            if let Some(at) = table.at(&name) {
                let tracked = &mut table.each[at];
                tracked.live = None;
                if let Some(run) = tracked.runs.last_mut() {
                    run.ended_s = Some(journal.now_s());
                    run.code = status.as_ref().ok().and_then(|status| status.code());
                    run.signal = status.ok().and_then(|status| status.signal());
                }
            }
            drop(table);
            shared.changed.notify_all();
        })?;
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.end();
        self.shared.table().is_over = true;
    }
}

impl Shared {
    fn look(&self) {
        loop {
            let live: Vec<(usize, u32)> = {
                let table = self.table();
                if table.is_over {
                    return;
                }
                let each = table.each.iter().enumerate();
                each.filter_map(|(at, tracked)| Some((at, tracked.live.as_ref()?.pid))).collect()
            };
            for (at, pid) in live {
                let Ok(usage) = Usage::of(pid) else { continue };
                let mut table = self.table();
                let tracked = &mut table.each[at];
                if tracked.live.as_ref().is_some_and(|live| live.pid == pid)
                    && let Some(run) = tracked.runs.last_mut()
                {
                    run.peak_resident_bytes = run.peak_resident_bytes.max(usage.peak_resident_bytes);
                    run.cpu_seconds = usage.cpu_seconds;
                }
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn at(&self, name: &str) -> Option<usize> {
        self.each.iter().position(|tracked| tracked.name == name)
    }
}

/// The next line, without its end; none at the end of all.
fn next_line(from: &mut impl std::io::BufRead) -> Option<String> {
    let mut line = Vec::new();
    let read = from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).ok()?;
    (read > 0).then(|| String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned())
}

/// A command as one would type it.
fn words(command: &Command) -> String {
    let all = std::iter::once(command.get_program()).chain(command.get_args());
    all.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn processes(dir: &Path) -> Processes {
        let journal = Arc::new(Journal::begin(&dir.join("events.jsonl")).unwrap());
        Processes::new(journal, dir.join("logs")).unwrap()
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_process_says_and_how_it_ends_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let processes = processes(dir.path());
        processes.start("a.say", shell("echo '{\"event\":\"hello\"}'; echo plain; echo oh >&2; exit 7")).unwrap();
        assert!(processes.wait_until_ended("a.say", Instant::now() + GRACE));
        assert_eq!(processes.runs("a.say")[0].code, Some(7));
        assert_eq!(processes.last_words("a.say"), "oh");
        let any = crate::scenario::model::EventMatch { event: Some("hello".to_owned()), conditions: Vec::new() };
        assert!(processes.journal.wait_for(("a.say", 1), 0.0, &any, Instant::now() + GRACE).is_some());
    }

    #[test]
    fn nobody_waits_for_words_of_a_process_that_has_ended_for_the_last_time() {
        let dir = tempfile::tempdir().unwrap();
        let processes = processes(dir.path());
        let never = crate::scenario::model::EventMatch { event: Some("never".to_owned()), conditions: Vec::new() };
        processes.start("a", shell("echo hello")).unwrap();
        let began = Instant::now();
        assert_eq!(processes.journal.wait_for(("a", 1), 0.0, &never, began + GRACE), None);
        assert!(began.elapsed() < GRACE, "it was waited for although it had ended");
        let still_to_start = processes.journal.wait_for(("a", 2), 0.0, &never, Instant::now() + LOOK_EVERY);
        assert_eq!(still_to_start, None);
        assert!(began.elapsed() >= LOOK_EVERY, "it is started once more, and may tell it then");
    }

    #[test]
    fn a_process_is_signalled_stopped_and_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let processes = processes(dir.path());
        processes.start("a", shell("exec sleep 600")).unwrap();
        assert!(processes.start("a", shell("true")).unwrap_err().to_string().contains("running already"));
        processes.signal("a", 9).unwrap();
        assert!(processes.wait_until_ended("a", Instant::now() + GRACE));
        assert_eq!(processes.runs("a")[0].signal, Some(9));
        assert!(processes.signal("a", 9).unwrap_err().to_string().contains("does not run"));
        processes.start("a", shell("exec sleep 600")).unwrap();
        processes.stop("a").unwrap();
        assert_eq!(processes.runs("a").len(), 2);
    }

    #[test]
    fn nobody_waits_for_ever_for_what_does_not_end() {
        let dir = tempfile::tempdir().unwrap();
        let processes = processes(dir.path());
        processes.start("a", shell("exec sleep 600")).unwrap();
        assert!(!processes.wait_until_ended("a", Instant::now()));
        assert!(!processes.wait_until_ended("never started", Instant::now()));
        processes.end();
        assert!(!processes.is_running("a"));
    }

    #[test]
    fn lines_are_bounded() {
        let long = vec![b'x'; 2 * LONGEST_LINE as usize];
        let mut reader = BufReader::new(&long[..]);
        assert_eq!(next_line(&mut reader).unwrap().len() as u64, LONGEST_LINE);
    }
}
