//! The local socket: how a second command uses the node that runs on the data folder already.
//!
//! ```text
//! HOME/control.sock   unix stream socket, mode 0600
//! client -> node      one [`Command`] as a line of JSON (at most 1 MiB), or `{"command": "under", "terms": …, "sees": …, "then": …}`:
//!                     a command that is carried out if the node meets these [`NetworkTerms`] and sees the same files at the
//!                     paths of the command, and refused if not, also by a node that does not know the terms
//! node -> client      [`Event`]s as lines of JSON (at most 1 MiB each); after the last one the node closes
//! ```
//! One command per connection. A client that closes, or only ends its side of the stream, cancels its command.
//!
//! What it is not: a way in from the network, or for other users of the machine; the folder and the socket are open to
//! one user alone.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use self::terms::NetworkTerms;
use self::view::{SeenPath, seen_paths};
use super::{
    api::{Command, Event, Failure, FailureKind},
    config::NodeConfig,
    runner::{EVENT_QUEUE, Runner},
};

mod terms;
mod view;

/// The name of the socket in the data folder.
pub const SOCKET_NAME: &str = "control.sock";
/// How many commands may run over the socket at a time.
pub const MAX_CONNECTIONS: usize = 32;
/// How many more may be waiting to be accepted.
const BACKLOG: i32 = 32;
/// The longest line, either way, in bytes.
pub const MAX_LINE: usize = 1024 * 1024;
/// How long a client may take to send its command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may leave an event unread.
const READ_PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait after an accept failed, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Where the kernel's limit for a socket's path is (`sun_path`, less its final zero), in bytes.
const MAX_SOCKET_PATH: usize = 107;

/// Why the socket cannot be offered. All of it is about this machine.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The data folder's path is too long for a socket in it.
    #[error("the path of the data folder is too long for a socket: {got} bytes, of at most {MAX_SOCKET_PATH}")]
    PathTooLong {
        /// The length of the socket's path, in bytes.
        got: usize,
    },
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// How long the process that offers the socket stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenure {
    /// Until it is told to stop.
    Lasting,
    /// Until its own command is done. It refuses to share, since it would not be there to serve.
    Passing,
}

/// Who carries out the commands of others.
struct Host {
    runner: Arc<dyn Runner>,
    tenure: Tenure,
    /// What the node was started with.
    config: NodeConfig,
}

/// The socket, served. Dropping it stops everything at once.
#[derive(Debug)]
pub struct LocalServer {
    socket: PathBuf,
    stop: CancellationToken,
    places: Arc<Semaphore>,
    accepting: JoinHandle<()>,
}

impl LocalServer {
    /// Offers the socket in a data folder that this process has locked, and carries out what comes by `runner`, a node that was
    /// started with `config`.
    pub fn start(home: &Path, runner: Arc<dyn Runner>, tenure: Tenure, config: NodeConfig) -> Result<Self, LocalError> {
        let socket = socket_path(home)?;
        let listener = bind(&socket)?;
        let stop = CancellationToken::new();
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accepting = tokio::spawn(accept(listener, Host { runner, tenure, config }, places.clone(), stop.clone()));
        Ok(Self { socket, stop, places, accepting })
    }

    /// How many commands are being carried out.
    pub fn active(&self) -> usize {
        MAX_CONNECTIONS - self.places.available_permits()
    }

    /// Waits until no command is being carried out.
    pub async fn idle(&self) {
        let _all = self.places.acquire_many(MAX_CONNECTIONS as u32).await;
    }

    /// Takes the socket away, cancels what is being carried out, and waits until it has ended.
    pub async fn stop(self) {
        self.stop.cancel();
        self.idle().await;
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        self.stop.cancel();
        self.accepting.abort();
        // It may be gone already, with the folder; then there is nothing to do.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// A node in another process of this user, on the same data folder.
#[derive(Debug, Clone)]
pub struct LocalClient {
    socket: PathBuf,
    terms: NetworkTerms,
}

impl LocalClient {
    /// Finds the node that runs on a data folder; none if nobody answers.
    pub async fn find(home: &Path) -> Option<Self> {
        let socket = socket_path(home).ok()?;
        UnixStream::connect(&socket).await.ok()?;
        Some(Self { socket, terms: NetworkTerms::default() })
    }

    /// Has commands carried out only if the node meets these terms.
    #[must_use]
    pub fn under(self, terms: NetworkTerms) -> Self {
        Self { terms, ..self }
    }

    async fn carry_out(
        &self,
        command: Command,
        events: &mpsc::Sender<Event>,
        cancel: CancellationToken,
    ) -> Result<(), Failure> {
        let expected = expected_results(&command);
        let (looked_at, terms) = (command.clone(), self.terms.clone());
        let line = tokio::task::spawn_blocking(move || command_line(looked_at, &terms)).await;
        let line = line.map_err(|error| Failure::local(error.to_string()))??;
        let stream = UnixStream::connect(&self.socket).await.map_err(gone)?;
        let (read, mut write) = stream.into_split();
        write.write_all(line.as_bytes()).await.map_err(gone)?;
        let mut lines = Lines::new(read);
        let mut write = Some(write);
        let mut results = 0;
        loop {
            let next = tokio::select! {
                next = lines.next() => next.map_err(gone)?,
                () = cancel.cancelled(), if write.is_some() => {
                    // Ends our side only: the node then cancels the command and still tells how it ended.
                    write = None;
                    continue;
                }
            };
            let Some(line) = next else { break };
            match serde_json::from_str(&line).map_err(|_| another_version())? {
                Event::Failed(failure) => return Err(failure),
                event => {
                    results += usize::from(event.is_result());
                    // Nobody listens any more: the command still has its end.
                    let _ = events.send(event).await;
                }
            }
        }
        if results >= expected { Ok(()) } else { Err(gone(io::ErrorKind::UnexpectedEof.into())) }
    }
}

impl Runner for LocalClient {
    fn run(
        &self,
        command: Command,
        events: mpsc::Sender<Event>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let outcome = self.carry_out(command, &events, cancel).await;
            if let Err(failure) = &outcome {
                let _ = events.send(Event::Failed(failure.clone())).await;
            }
            outcome
        }
        .boxed()
    }
}

fn socket_path(home: &Path) -> Result<PathBuf, LocalError> {
    let socket = home.join(SOCKET_NAME);
    match socket.as_os_str().len() {
        got if got > MAX_SOCKET_PATH => Err(LocalError::PathTooLong { got }),
        _ => Ok(socket),
    }
}

fn bind(socket: &Path) -> Result<UnixListener, LocalError> {
    let failed = |action| move |source| LocalError::Io { action, path: socket.to_owned(), source };
    // Whoever made it is gone: this process holds the lock of the folder.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove")(error)),
        _ => {}
    }
    let listener = listen(socket).map_err(failed("listen on"))?;
    // Where the socket's own mode is not that of its file. In between, the folder's mode (0700) keeps others out.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(failed("protect"))?;
    Ok(listener)
}

/// Listens at a socket whose file is for this user alone from the first moment, on Linux: there it gets the mode of the socket. A umask
/// would do the same, to the files of all other threads too.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    let _ = rustix::fs::fchmod(&listener, rustix::fs::Mode::from_raw_mode(0o600));
    listener.bind(&socket2::SockAddr::unix(socket)?)?;
    listener.listen(BACKLOG)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener.into())
}

async fn accept(listener: UnixListener, host: Host, places: Arc<Semaphore>, stop: CancellationToken) {
    let host = Arc::new(host);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "the local socket did not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            debug!("more local commands than allowed");
            continue;
        };
        let (host, stop) = (host.clone(), stop.child_token());
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &host, stop).await {
                debug!(%error, "a local command lost its client");
            }
            drop(place);
        });
    }
}

/// Carries out the one command of a connection.
async fn serve(stream: UnixStream, host: &Host, cancel: CancellationToken) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = Lines::new(read);
    let command = tokio::select! {
        line = timeout(COMMAND_TIMEOUT, lines.next()) => match line?? {
            // Only a check whether somebody answers.
            None => return Ok(()),
            Some(line) => host.parse_command(&line),
        },
        () = cancel.cancelled() => return Ok(()),
    };
    let command = match command {
        Ok(command) => command,
        Err(failure) => return send(&mut write, &Event::Failed(failure)).await,
    };
    let (events, mut pending) = mpsc::channel(EVENT_QUEUE);
    let hung_up = async {
        let _ = lines.next().await;
        cancel.cancel();
        // What cancels must not also end the wait below.
        std::future::pending::<()>().await;
    };
    let work = async {
        let mut run = host.runner.run(command, events, cancel.clone()).fuse();
        let mut outcome = None;
        let mut told = Ok(());
        loop {
            tokio::select! {
                event = pending.recv() => match event {
                    // Told once, below, also if the runner does not send it.
                    Some(Event::Failed(_)) => {}
                    Some(event) if told.is_ok() => {
                        told = send(&mut write, &event).await;
                        if told.is_err() {
                            cancel.cancel();
                        }
                    }
                    Some(_) => {}
                    None => break,
                },
                done = &mut run, if outcome.is_none() => {
                    outcome = Some(done);
                    // What has been told by now is all there is, even if a straggler holds the other end.
                    pending.close();
                }
            }
        }
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => run.await,
        };
        told?;
        match outcome {
            Ok(()) => Ok(()),
            Err(failure) => send(&mut write, &Event::Failed(failure)).await,
        }
    };
    tokio::select! {
        done = work => done,
        () = hung_up => Ok(()),
    }
}

impl Host {
    /// Reads a command that this node may carry out.
    fn parse_command(&self, line: &str) -> Result<Command, Failure> {
        let request = serde_json::from_str(line).map_err(|error| {
            Failure::new(FailureKind::Usage, format!("the running node does not understand this command: {error}"))
                .try_to("stop it, and start the same version of keyferry")
        })?;
        let command = match request {
            LocalRequest::Plain(command) => command,
            LocalRequest::Under { terms, sees, then } => {
                terms.met_by(&self.config)?;
                view::check(&sees)?;
                then
            }
        };
        match (command, self.tenure) {
            (Command::Share { .. }, Tenure::Passing) => Err(Failure::new(
                FailureKind::Local,
                "the keyferry on this data folder ends with its download, and would not serve this",
            )
            .try_to("wait until it is done; with `keyferry node` running, commands do not get in each other's way")),
            (command, _) => Ok(command),
        }
    }
}

/// What a client asks for. The two are one line, so that no other node can come between the terms and the command.
#[derive(Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
enum LocalRequest {
    Under {
        terms: Box<NetworkTerms>,
        #[serde(default)]
        sees: Vec<SeenPath>,
        then: Command,
    },
    #[serde(untagged)]
    Plain(Command),
}

async fn send(write: &mut OwnedWriteHalf, event: &Event) -> io::Result<()> {
    let mut line = event.to_line();
    line.push('\n');
    timeout(READ_PATIENCE, write.write_all(line.as_bytes())).await?
}

/// Lines of bounded length from a stream.
struct Lines<R> {
    read: BufReader<R>,
    /// The line so far; kept here, so that nothing is lost when [`Lines::next`] is dropped halfway.
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(read: R) -> Self {
        Self { read: BufReader::new(read), line: Vec::new() }
    }

    /// The next line, without its end; none at the end of the stream.
    async fn next(&mut self) -> io::Result<Option<String>> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let room = (MAX_LINE + 1).saturating_sub(self.line.len()) as u64;
        (&mut self.read).take(room).read_until(b'\n', &mut self.line).await?;
        let mut line = std::mem::take(&mut self.line);
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => String::from_utf8(line).map(Some).map_err(|_| invalid("a line that is not Unicode")),
            Some(_) if line.len() >= MAX_LINE => Err(invalid("a line that is too long")),
            Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn command_line(command: Command, terms: &NetworkTerms) -> Result<String, Failure> {
    let sees = seen_paths(&command);
    let request = match terms.is_empty() && sees.is_empty() {
        true => LocalRequest::Plain(command),
        false => LocalRequest::Under { terms: Box::new(terms.clone()), sees, then: command },
    };
    let mut line = serde_json::to_string(&request).map_err(|error| {
        Failure::new(FailureKind::Usage, format!("this cannot be handed to the running node: {error}"))
            .try_to("rename what is not Unicode, or stop the node first")
    })?;
    line.push('\n');
    if line.len() > MAX_LINE {
        return Err(Failure::new(FailureKind::Usage, "these are more paths than the running node takes at once")
            .try_to("share them in smaller groups, or share the folder that they are in"));
    }
    Ok(line)
}

/// How many results a command has when it has been carried out in full.
fn expected_results(command: &Command) -> usize {
    match command {
        Command::Share { paths, .. } => paths.len(),
        _ => 1,
    }
}

fn gone(error: io::Error) -> Failure {
    Failure::new(FailureKind::Local, format!("the node that runs on this data folder went away ({error})"))
        .try_to("run the same command again")
}

fn another_version() -> Failure {
    Failure::new(FailureKind::Local, "the node that runs on this data folder speaks another version")
        .try_to("stop it, and start the same version of keyferry")
}

#[cfg(test)]
mod tests;
