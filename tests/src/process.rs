//! One process of the `keyferry` binary: its events as they come, its end, and the certainty that it has an end.
//!
//! What it is not: a client of the library; only what a person or a script would see is used.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use keyferry::node::api::{Event, Failure, Fetched, Shared, Status};

/// How many bytes of standard error are kept, for messages of failed tests.
const MAX_STDERR: usize = 256 * 1024;

/// How often a process is asked whether it has ended.
const EXIT_POLL: Duration = Duration::from_millis(5);

/// A running `keyferry --json …`. Dropping it kills the process.
pub struct Keyferry {
    child: Child,
    events: Receiver<std::result::Result<Event, String>>,
    stderr: Arc<Mutex<String>>,
    seen: Vec<Event>,
    what: String,
}

/// How a process ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status.
    pub status: ExitStatus,
    /// Every event, in order.
    pub events: Vec<Event>,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Keyferry {
    /// Starts a command whose standard output is events.
    pub fn start(command: Command) -> Result<Self> {
        Self::spawn(command, Stdio::null())
    }

    /// Starts a command that reads its standard input, too.
    pub fn start_with_input(command: Command) -> Result<(Self, ChildStdin)> {
        let mut started = Self::spawn(command, Stdio::piped())?;
        let input = started.child.stdin.take().context("standard input was piped")?;
        Ok((started, input))
    }

    fn spawn(mut command: Command, input: Stdio) -> Result<Self> {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        let (sender, events) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().context("standard output was piped")?);
        thread::spawn(move || {
            for line in stdout.lines().map_while(std::io::Result::ok) {
                let event = serde_json::from_str(&line).map_err(|error| format!("{error} in {line:?}"));
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().context("standard error was piped")?, stderr.clone());
        Ok(Self { child, events, stderr, seen: Vec::new(), what })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The events that were read so far.
    pub fn seen(&self) -> &[Event] {
        &self.seen
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().map(|text| text.clone()).unwrap_or_default()
    }

    /// The next event; none when standard output has been closed.
    pub fn next_event(&mut self, deadline: Instant) -> Result<Option<Event>> {
        match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(event)) => {
                self.seen.push(event.clone());
                Ok(Some(event))
            }
            Ok(Err(problem)) => bail!("{}: a line that is no event: {problem}", self.what),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("{}: no event in time\n{}", self.what, self.report()),
        }
    }

    /// Reads events until one is what the caller looks for.
    pub fn wait_for<T>(&mut self, within: Duration, mut pick: impl FnMut(&Event) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + within;
        while let Some(event) = self.next_event(deadline)? {
            if let Some(found) = pick(&event) {
                return Ok(found);
            }
        }
        bail!("{}: ended before the event that was waited for\n{}", self.what, self.report())
    }

    /// Waits until a node is up.
    pub fn wait_status(&mut self, within: Duration) -> Result<Status> {
        self.wait_for(within, |event| if let Event::Status(status) = event { Some((**status).clone()) } else { None })
    }

    /// Waits until something is shared.
    pub fn wait_shared(&mut self, within: Duration) -> Result<Shared> {
        self.wait_for(within, |event| if let Event::Shared(shared) = event { Some(shared.clone()) } else { None })
    }

    /// Waits until a fetch has verified `bytes` bytes, those of earlier runs included, or is complete. Says how many.
    pub fn wait_fetching(&mut self, bytes: u64, within: Duration) -> Result<u64> {
        self.wait_for(within, |event| match event {
            Event::Fetching { done_bytes, .. } if *done_bytes >= bytes => Some(*done_bytes),
            Event::Fetched(fetched) => Some(fetched.size),
            _ => None,
        })
    }

    /// Sends a signal, such as `INT`, by the system's `kill`.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status()?;
        ensure!(status.success(), "kill -{name} {} failed", self.pid());
        Ok(())
    }

    /// Kills it with no chance to tidy up, and gives the events that it had written before.
    pub fn kill(mut self) -> Result<Vec<Event>> {
        self.child.kill()?;
        self.child.wait()?;
        self.drain(Instant::now() + Duration::from_secs(5))?;
        Ok(std::mem::take(&mut self.seen))
    }

    /// Asks it to stop with SIGTERM and waits for that.
    pub fn stop(self, within: Duration) -> Result<Outcome> {
        self.signal("TERM")?;
        self.finish(within)
    }

    /// Waits until it ends by itself.
    pub fn finish(mut self, within: Duration) -> Result<Outcome> {
        let deadline = Instant::now() + within;
        self.drain(deadline)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let status =
            wait_for_end(&mut self.child, left).with_context(|| format!("{}\n{}", self.what, self.report()))?;
        Ok(Outcome { status, events: std::mem::take(&mut self.seen), stderr: self.stderr() })
    }

    fn drain(&mut self, deadline: Instant) -> Result<()> {
        while self.next_event(deadline)?.is_some() {}
        Ok(())
    }

    fn report(&self) -> String {
        let last: Vec<_> = self.seen.iter().rev().take(8).rev().collect();
        format!("last events: {last:#?}\nstandard error:\n{}", self.stderr())
    }
}

/// Waits until a process has ended.
pub fn wait_for_end(child: &mut Child, within: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        ensure!(Instant::now() < deadline, "process {} is still running", child.id());
        thread::sleep(EXIT_POLL);
    }
}

impl Drop for Keyferry {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill and nothing to say.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// The result of a `get` that succeeded.
    pub fn fetched(&self) -> Result<&Fetched> {
        match self.events.last() {
            Some(Event::Fetched(fetched)) if self.status.success() => Ok(fetched),
            _ => bail!("no fetch: {}, {:#?}\n{}", self.status, self.events.last(), self.stderr),
        }
    }

    /// The failure that ended a command, whose exit code must agree with it.
    pub fn failure(&self) -> Result<&Failure> {
        let Some(Event::Failed(failure)) = self.events.last() else {
            bail!("no failure: {}, {:#?}\n{}", self.status, self.events.last(), self.stderr);
        };
        use keyferry::node::api::FailureKind::{Interrupted, Local, Network, Usage};
        let code = match failure.kind {
            Usage => 2,
            Network => 3,
            Local => 4,
            Interrupted => 130,
        };
        ensure!(self.status.code() == Some(code), "exit code of {failure:?} is {}", self.status);
        ensure!(!failure.message.trim().is_empty() && !failure.message.contains('\n'), "not one line: {failure:?}");
        Ok(failure)
    }

    /// The last verified byte count that the command reported.
    pub fn last_progress(&self) -> u64 {
        last_progress(&self.events)
    }
}

/// The last verified byte count in some events of a `get`.
pub fn last_progress(events: &[Event]) -> u64 {
    events
        .iter()
        .rev()
        .find_map(|e| if let Event::Fetching { done_bytes, .. } = e { Some(*done_bytes) } else { None })
        .unwrap_or(0)
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            let Ok(mut text) = into.lock() else { break };
            if text.len() < MAX_STDERR {
                text.push_str(&String::from_utf8_lossy(&buffer[..len]));
            }
        }
    });
}
