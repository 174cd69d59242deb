//! A temporary place with nodes in it: real processes of the `keyferry` binary on loopback, killed when dropped.
//!
//! What it is not: a network; everybody reaches everybody.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use keyferry::node::api::{Event, Fetched, Shared, Status};
use tempfile::TempDir;

use crate::measure::{Sampler, Usage};

/// The longest that any one step may take.
pub(crate) const STEP: Duration = Duration::from_secs(600);

/// A temporary folder with data folders in it. Removed when dropped.
pub(crate) struct Lab {
    dir: TempDir,
    keyferry: PathBuf,
    bootstrap: Vec<String>,
}

impl Lab {
    /// Makes a lab in `dir`, or in the system's folder for temporary files.
    pub(crate) fn new(dir: Option<&Path>) -> Result<Self> {
        let parent = dir.map_or_else(env::temp_dir, Path::to_owned);
        let dir = tempfile::Builder::new().prefix("keyferry-sim-").tempdir_in(&parent)?;
        Ok(Self { dir, keyferry: keyferry_binary()?, bootstrap: Vec::new() })
    }

    /// A path in the lab.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// An empty folder in the lab.
    pub(crate) fn folder(&self, relative: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.path(relative);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Has every node started from now on bootstrap from these addresses.
    pub(crate) fn bootstrap_from(&mut self, hints: &[String]) {
        self.bootstrap = hints.to_vec();
    }

    /// Forgets a node: its data folder is removed.
    pub(crate) fn forget(&self, node: &str) -> Result<()> {
        let home = self.path(node);
        if home.exists() { fs::remove_dir_all(home).map_err(Into::into) } else { Ok(()) }
    }

    /// Starts `keyferry --json ARGS` with the data folder of that name.
    pub(crate) fn start<A: AsRef<OsStr>>(&self, node: &str, args: impl IntoIterator<Item = A>) -> Result<Process> {
        let mut command = Command::new(&self.keyferry);
        command.arg("--json").arg("--home").arg(self.path(node)).args(args).current_dir(self.dir.path());
        command.env("KEYFERRY_NO_MDNS", "1").env("KEYFERRY_LISTEN", "127.0.0.1:0").env_remove("KEYFERRY_PUBLIC");
        command.env("KEYFERRY_BOOTSTRAP", self.bootstrap.join(","));
        if self.bootstrap.is_empty() {
            command.env_remove("KEYFERRY_BOOTSTRAP");
        }
        Process::start(command)
    }

    /// Starts a node that stays up and waits until it is.
    pub(crate) fn node(&self, node: &str) -> Result<(Process, Status)> {
        let mut process = self.start(node, ["node"])?;
        let status =
            process.wait_for(|e| if let Event::Status(status) = e { Some((**status).clone()) } else { None })?;
        Ok((process, status))
    }

    /// Shares a path and waits until it is shared.
    pub(crate) fn share(&self, node: &str, path: &Path) -> Result<(Process, Shared)> {
        let mut process = self.start(node, [OsStr::new("share"), path.as_os_str()])?;
        let shared = process.wait_shared()?;
        Ok((process, shared))
    }

    /// Starts to fetch an address into a folder, which is made where it is not there.
    pub(crate) fn start_get(&self, node: &str, address: impl std::fmt::Display, into: &Path) -> Result<Process> {
        fs::create_dir_all(into)?;
        self.start(node, [OsStr::new("get"), OsStr::new(&address.to_string()), OsStr::new("-o"), into.as_os_str()])
    }

    /// Fetches an address into a folder: the result, the time from the start of the process until its end, and what
    /// it used.
    pub(crate) fn get(
        &self,
        node: &str,
        address: impl std::fmt::Display,
        into: &Path,
    ) -> Result<(Fetched, Duration, Usage)> {
        let began = Instant::now();
        measured(self.start_get(node, address, into)?, began)
    }

    /// The same, of a node that offers to others what it has fetched.
    pub(crate) fn get_to_seed(
        &self,
        node: &str,
        address: impl std::fmt::Display,
        into: &Path,
    ) -> Result<(Fetched, Duration, Usage)> {
        fs::create_dir_all(into)?;
        let (began, address) = (Instant::now(), address.to_string());
        let words = ["get", "--seed", &address, "-o"].map(OsStr::new);
        measured(self.start(node, words.into_iter().chain([into.as_os_str()]))?, began)
    }
}

/// Whole commands.
impl Lab {
    /// Runs a command that has to succeed, and says how long it took.
    pub(crate) fn timed<A: AsRef<OsStr>>(&self, node: &str, args: impl IntoIterator<Item = A>) -> Result<CommandTimes> {
        let began = Instant::now();
        let outcome = self.start(node, args)?.finish()?;
        let whole = began.elapsed();
        ensure!(outcome.status.success(), "the command failed ({}): {:?}", outcome.status, outcome.events.last());
        Ok(CommandTimes { whole, leaving: outcome.leaving })
    }
}

/// What a `get` that began then has fetched, once it has ended, with the time and what it used.
fn measured(get: Process, began: Instant) -> Result<(Fetched, Duration, Usage)> {
    let sampler = Sampler::start(get.pid());
    let outcome = get.finish()?;
    let took = began.elapsed();
    Ok((outcome.fetched()?.clone(), took, sampler.usage()))
}

/// The binary that was built beside this one, or `KEYFERRY_BIN`.
pub(crate) fn keyferry_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("KEYFERRY_BIN") {
        return fs::canonicalize(&path).with_context(|| format!("KEYFERRY_BIN is {path:?}"));
    }
    let path = env::current_exe()?.with_file_name("keyferry");
    ensure!(
        path.is_file(),
        "there is no keyferry binary at {}; build it with `cargo build --release -p keyferry-cli -p keyferry-sim`",
        path.display()
    );
    Ok(path)
}

/// A running `keyferry --json …`. Dropping it kills the process.
pub(crate) struct Process {
    child: Child,
    events: Receiver<(Event, Instant)>,
    seen: Vec<Event>,
    last_line: Option<Instant>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    status: ExitStatus,
    events: Vec<Event>,
    /// From its last line until it had ended.
    leaving: Duration,
}

/// How long a command took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommandTimes {
    /// From the start of the process until its end.
    pub(crate) whole: Duration,
    /// From its last line until its end.
    pub(crate) leaving: Duration,
}

impl Process {
    fn start(mut command: Command) -> Result<Self> {
        // Standard error goes where ours goes: warnings are worth seeing.
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let (sender, events) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().context("standard output was piped")?);
        thread::spawn(move || {
            for line in stdout.lines().map_while(std::io::Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(event) => drop(sender.send((event, Instant::now()))),
                    Err(error) => eprintln!("keyferry-sim: no event: {error} in {line:?}"),
                }
            }
        });
        Ok(Self { child, events, seen: Vec::new(), last_line: None })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads events until one is what the caller looks for.
    pub(crate) fn wait_for<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + STEP;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((event, at)) = self.events.recv_timeout(left) else {
                bail!("ended, or took longer than {STEP:?}; last events: {:?}", self.seen.iter().rev().take(3));
            };
            let found = pick(&event);
            self.note(event, at);
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    /// All that it has told, after waiting for more no longer than this; none once it has ended.
    pub(crate) fn heard(&mut self, within: Duration) -> Option<&[Event]> {
        match self.events.recv_timeout(within) {
            Ok((event, at)) => self.note(event, at),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        Some(&self.seen)
    }

    fn note(&mut self, event: Event, at: Instant) {
        self.seen.push(event);
        self.last_line = Some(at);
    }

    /// Waits until something is shared.
    pub(crate) fn wait_shared(&mut self) -> Result<Shared> {
        self.wait_for(|event| if let Event::Shared(shared) = event { Some(shared.clone()) } else { None })
    }

    /// Kills it with no chance to tidy up, and gives the events that it had written.
    pub(crate) fn kill(mut self) -> Result<Outcome> {
        self.begin_to_kill()?;
        self.finish()
    }

    /// Has it do nothing more. It is gone once it does not wait for a disk any more.
    pub(crate) fn begin_to_kill(&mut self) -> Result<()> {
        Ok(self.child.kill()?)
    }

    /// Asks it to stop and waits for that.
    pub(crate) fn stop(self) -> Result<Outcome> {
        let status = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.pid())]).status()?;
        ensure!(status.success(), "kill -TERM {} failed", self.pid());
        self.finish()
    }

    /// Waits until it ends by itself.
    pub(crate) fn finish(mut self) -> Result<Outcome> {
        let deadline = Instant::now() + STEP;
        while let Ok((event, at)) = self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.note(event, at);
        }
        ensure!(Instant::now() < deadline, "took longer than {STEP:?}");
        // Its standard output is closed: it is at its end.
        let status = self.child.wait()?;
        let leaving = self.last_line.map(|at| at.elapsed()).unwrap_or_default();
        Ok(Outcome { status, events: std::mem::take(&mut self.seen), leaving })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// The events, in order.
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }

    /// The events of a command that succeeded.
    pub(crate) fn done(self) -> Result<Vec<Event>> {
        ensure!(self.status.success(), "the command failed ({}): {:?}", self.status, self.events.last());
        Ok(self.events)
    }

    /// The result of a `get` that succeeded.
    pub(crate) fn fetched(&self) -> Result<&Fetched> {
        match self.events.last() {
            Some(Event::Fetched(fetched)) if self.status.success() => Ok(fetched),
            other => bail!("the fetch failed ({}): {other:?}", self.status),
        }
    }

    /// The last verified byte count that was reported.
    pub(crate) fn last_progress(&self) -> u64 {
        let progress = |e: &Event| if let Event::Fetching { done_bytes, .. } = e { Some(*done_bytes) } else { None };
        self.events.iter().rev().find_map(progress).unwrap_or(0)
    }
}
