//! One run of the program: finds or starts the node that a command needs, has the command done, and stays if it must.
//!
//! What it is not: reading the command line (`args.rs`), or the work itself (`engine`).

use std::{
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{
    args::{Action, GetArgs, NetworkOptions, NodeArgs, PingArgs, RelayArgs, ShareArgs, StoreAction},
    drive::{Completion, STOP_GRACE, drive, status_of},
    launch::{Folder, Launcher, OwnNode},
    passphrase::{PASSPHRASE_VARIABLE, PassphraseSource},
    pasted, render,
    screen::Screen,
    standard_input,
};
use keyferry::{
    AddressTarget, Excludes, NameError, NodeConfig, NodeSecret, Wait,
    config::{RelayConfig, RelayMode, SecretText},
    control::{
        Command, Destination, Event, Failure, FailureKind, LocalClient, LocalServer, NetworkTerms, Placement, Runner,
        Tenure, Umask,
    },
    data_dir::Home,
};

mod audience;
mod contacts;
mod identity;
mod streaming;

/// How long to wait for a process that holds the data folder, but does not answer yet.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);
/// How often to look in that time.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);
/// How often a serving command shows what it does.
const SERVING_INTERVAL: Duration = Duration::from_secs(1);

/// How often it looks whether the machine's clock is wrong.
const CLOCK_INTERVAL: Duration = Duration::from_secs(5);

/// What a run of the program works with.
pub struct Run<'a> {
    /// What starts nodes.
    pub launcher: &'a dyn Launcher,
    /// The data folder.
    pub home: PathBuf,
    /// Where the passphrase of its key stands, if it is not to be asked for.
    pub passphrase_file: Option<PathBuf>,
    /// Where to show things.
    pub screen: &'a mut Screen,
    /// Cancelled at the first Ctrl-C.
    pub cancel: CancellationToken,
}

/// Who carries out a command.
enum Executor {
    /// A node in another process.
    Other(LocalClient),
    /// A node in this process, and what it was started with.
    Own(Arc<dyn OwnNode>, Box<NodeConfig>),
}

/// What a command needs of a node that is started for it.
#[derive(Clone, Copy)]
enum Need<'a> {
    /// Only the data folder.
    Folder,
    /// The network, to fetch.
    Fetch(&'a NetworkOptions),
    /// The network, to serve, and to relay if so.
    Serve(&'a NetworkOptions, Option<&'a RelayConfig>),
    /// The network, to relay and no more.
    Relay(&'a NetworkOptions, &'a RelayConfig),
}

impl Run<'_> {
    /// Does what was typed.
    ///
    /// # Errors
    ///
    /// Why it could not be done.
    pub async fn act(&mut self, action: Action) -> Result<Completion, Failure> {
        match action {
            Action::Id(args) => self.id(&args).await,
            Action::Share(args) => self.share(args).await,
            Action::Get(args) => self.get(args).await,
            Action::Ls { node, network } => {
                let address = pasted::address_in_words(std::slice::from_ref(&node))?;
                let command = match address.target() {
                    AddressTarget::Name(_) => Command::ListFolder { address, wait: Wait::default() },
                    _ => Command::List { node: pasted::node(&node)? },
                };
                self.once(command, Need::Fetch(&network)).await
            }
            Action::Ping(PingArgs { node, count, network }) => {
                self.once(Command::Ping { node: pasted::node(&node)?, count }, Need::Fetch(&network)).await
            }
            Action::Doctor { network } => self.once(Command::Doctor, Need::Fetch(&network)).await,
            Action::Node(args) => {
                let NodeArgs { network, relay, relay_options } = *args;
                let relay = relay.map(|policy| relay_options.config(policy));
                self.node(Need::Serve(&network, relay.as_ref())).await
            }
            Action::Relay(args) => {
                let RelayArgs { network, whom, relay_options } = *args;
                self.node(Need::Relay(&network, &relay_options.config(whom))).await
            }
            Action::Contacts { action } => self.contacts(action).await,
            Action::Unshare { what } => {
                let command = match what.parse() {
                    Ok(hash) => Command::Withdraw { hash },
                    Err(_) => Command::Unshare { name: what.parse().map_err(no_share_of_that_name)? },
                };
                self.once(command, Need::Folder).await
            }
            Action::Shares => self.once(Command::Shares, Need::Folder).await,
            Action::Status => self.once(Command::Status, Need::Folder).await,
            Action::Store { action } => self.once(store_command(action), Need::Folder).await,
            // These need no node, and are done before there is a run.
            Action::Completions { .. } | Action::Man { .. } => Ok(Completion::Done),
        }
    }

    async fn share(&mut self, args: ShareArgs) -> Result<Completion, Failure> {
        if args.name.is_some() && args.paths.len() > 1 {
            return Err(Failure::new(FailureKind::Usage, "--name goes with one path, and there are several")
                .try_to("share them one by one, or the folder that they are in"));
        }
        let audience = audience::audience(&self.home, &args)?;
        let reads_input = standard_input::is_meant(&args)?;
        let paths = match reads_input {
            true => Vec::new(),
            false => args.paths.iter().map(|path| existing(path)).collect::<Result<_, _>>()?,
        };
        let name = args.name.map(|name| name.parse()).transpose()?;
        let exclude = Excludes::new(args.exclude).map_err(|error| {
            Failure::new(FailureKind::Usage, error.to_string())
                .try_to("--exclude takes a line of a .gitignore, such as '*.tmp'")
        })?;
        let share = |paths| Command::Share {
            paths,
            name,
            copy: args.copy,
            taken: reads_input,
            watch: args.watch,
            strict: args.strict,
            exclude,
            audience,
        };
        let executor = self.executor(Need::Serve(&args.network, None)).await?;
        // What was written is removed at the end, unless it was moved into the store.
        let (paths, _spooled) = match reads_input {
            false => (paths, None),
            true => match standard_input::spool(&self.home, self.screen, &self.cancel).await {
                Ok(spooled) => (vec![spooled.to_path_buf()], Some(spooled)),
                Err(failure) => {
                    if let Executor::Own(node, _) = executor {
                        leave(node, None).await;
                    }
                    return Err(failure);
                }
            },
        };
        let (node, config) = match executor {
            Executor::Own(node, config) => (node, config),
            Executor::Other(client) => {
                let outcome = drive(&client, share(paths), self.screen, &self.cancel).await?;
                self.screen.notice("the node that runs on this data folder serves it from now on");
                return Ok(outcome);
            }
        };
        let server = self.offer(&node, Tenure::Lasting, *config);
        let outcome = match drive(&*node, share(paths), self.screen, &self.cancel).await {
            Ok(_) => self.serve(&*node).await,
            Err(failure) => Err(failure),
        };
        leave(node, server).await;
        outcome
    }

    async fn get(&mut self, args: GetArgs) -> Result<Completion, Failure> {
        if args.is_streamed() {
            return self.stream(args).await;
        }
        let GetArgs { address, more, out, overwrite, mirror, dry_run, sync, seed, wait, network } = args;
        let words: Vec<String> = [address].into_iter().chain(more).collect();
        let address = pasted::address_in_words(&words)?;
        let Placement { folder, name, may_be_itself } = Placement::of(&out)?;
        let umask = Umask::of_process();
        let place = Destination { folder, name, may_be_itself, umask, overwrite, mirror, sync, seed };
        let command = Command::Get { address, place, dry_run, wait };
        self.once(command, Need::Fetch(&network)).await
    }

    async fn node(&mut self, need: Need<'_>) -> Result<Completion, Failure> {
        let (node, config) = match self.executor(need).await? {
            Executor::Own(node, config) => (node, config),
            Executor::Other(_) => {
                let what = format!("a node is running on {} already", self.home.display());
                return Err(Failure::new(FailureKind::Local, what).try_to("`keyferry status`, or another --home"));
            }
        };
        let server = self.offer(&node, Tenure::Lasting, *config);
        let outcome = match self.tell_state(&*node).await {
            Ok(()) => self.serve(&*node).await,
            Err(failure) => Err(failure),
        };
        leave(node, server).await;
        outcome
    }

    /// Shows the state of a node that came up, and what its owner has to know of how it did.
    async fn tell_state(&mut self, node: &dyn OwnNode) -> Result<(), Failure> {
        let (status, notices) = status_of(node, &self.cancel).await?;
        let mut shown = self.screen.present(&render::up_text(&status), &Event::Status(status));
        for message in notices {
            shown = shown.and(self.screen.show(std::time::Instant::now(), &Event::Notice { message }));
        }
        shown.map_err(|error| unwritable(&error))
    }

    /// Has a command done that nothing follows.
    async fn once(&mut self, command: Command, need: Need<'_>) -> Result<Completion, Failure> {
        command.check()?;
        let executor = self.executor(need).await?;
        self.carry_out(command, executor, need).await
    }

    /// Has a command carried out by whoever was found for it, who then has nothing more to do for this process.
    async fn carry_out(&mut self, command: Command, by: Executor, need: Need<'_>) -> Result<Completion, Failure> {
        let (node, config) = match by {
            Executor::Other(client) => return drive(&client, command, self.screen, &self.cancel).await,
            Executor::Own(node, config) => (node, config),
        };
        // Without the network it could not do what others ask for; and it is soon done.
        let server = match need {
            Need::Folder => None,
            Need::Fetch(_) | Need::Serve(..) | Need::Relay(..) => self.offer(&node, Tenure::Passing, *config),
        };
        let outcome = drive(&*node, command, self.screen, &self.cancel).await;
        if let Some(server) = &server
            && server.active() > 0
            && !self.cancel.is_cancelled()
        {
            self.screen.stage("done; another command still uses this process (Ctrl-C ends both)");
            self.cancel.run_until_cancelled(server.idle()).await;
            self.screen.clear();
        }
        leave(node, server).await;
        outcome
    }

    /// Finds the node that runs on the data folder, which carries out nothing against the options that were given, or starts one.
    async fn executor(&mut self, need: Need<'_>) -> Result<Executor, Failure> {
        let (relay_mode, terms) = match need {
            Need::Folder => (RelayMode::default(), NetworkTerms::default()),
            Need::Fetch(network) | Need::Serve(network, _) | Need::Relay(network, _) => {
                (network.relay_mode()?, network.terms())
            }
        };
        let begin = tokio::time::Instant::now();
        loop {
            if let Some(client) = LocalClient::find(&self.home).await {
                return Ok(Executor::Other(client.under(terms)));
            }
            let (home, secret) = match self.launcher.open(&self.home)? {
                Folder::Empty(home) => self.new_key(home, None).await?,
                Folder::Open(home, secret) => (home, *secret),
                Folder::Encrypted(home) => self.unlock(home).await?,
                Folder::Busy if begin.elapsed() >= BUSY_PATIENCE => return Err(busy(&self.home)),
                Folder::Busy => {
                    let pause = tokio::time::sleep(BUSY_INTERVAL);
                    self.cancel.run_until_cancelled(pause).await.ok_or_else(interrupted)?;
                    continue;
                }
            };
            let config = config(need, relay_mode);
            let start = self.launcher.start(home, secret, config.clone());
            let node = self.cancel.run_until_cancelled(start).await.ok_or_else(interrupted)??;
            return Ok(Executor::Own(node, Box::new(config)));
        }
    }

    /// Lets other commands use the node of this process.
    fn offer(&mut self, node: &Arc<dyn OwnNode>, tenure: Tenure, config: NodeConfig) -> Option<LocalServer> {
        let runner: Arc<dyn Runner> = node.clone();
        match LocalServer::start(&self.home, runner, tenure, config) {
            Ok(server) => Some(server),
            Err(error) => {
                self.screen.notice(&format!("other commands cannot use this node while it runs: {error}"));
                None
            }
        }
    }

    /// Stays until Ctrl-C, and shows what the node does.
    async fn serve(&mut self, node: &dyn OwnNode) -> Result<Completion, Failure> {
        // From before it is said that it serves.
        let mut happenings = node.happenings();
        if !self.screen.is_live() {
            self.screen.notice("serving until Ctrl-C");
        }
        let cancel = self.cancel.clone();
        let mut look = tokio::time::interval(SERVING_INTERVAL);
        let (mut look_at_clock, mut is_clock_wrong) = (tokio::time::interval(CLOCK_INTERVAL), false);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(event) = happenings.next() => {
                    self.screen.show(std::time::Instant::now(), &event).map_err(|error| unwritable(&error))?;
                }
                _ = look_at_clock.tick() => is_clock_wrong = self.tell_of_clock(node, is_clock_wrong).await?,
                _ = look.tick(), if self.screen.is_live() => {
                    if let Ok((status, _)) = status_of(node, &cancel).await {
                        self.screen.stage(&render::serving_text(&status));
                    }
                }
            }
        }
        self.screen.clear();
        Ok(Completion::Done)
    }

    /// Says once that the machine's clock is wrong, until it is right again. Returns whether it is wrong.
    async fn tell_of_clock(&mut self, node: &dyn OwnNode, is_told: bool) -> Result<bool, Failure> {
        let Ok((status, _)) = status_of(node, &self.cancel).await else { return Ok(is_told) };
        let Some(skew) = status.clock.filter(|skew| skew.is_too_much()) else { return Ok(false) };
        if !is_told {
            let message = format!("this machine's clock is {skew}; set it, or others may not take this node's offers");
            let shown = self.screen.show(std::time::Instant::now(), &Event::Notice { message });
            shown.map_err(|error| unwritable(&error))?;
        }
        Ok(true)
    }

    /// Opens the key of a folder with the passphrase. On a thread of its own: that takes its time, on purpose.
    async fn unlock(&mut self, home: Home) -> Result<(Home, NodeSecret), Failure> {
        let source = self.passphrase_source();
        let passphrase = self.off_thread(move || source.ask()).await?;
        self.off_thread(move || {
            let secret = home.unlock(&passphrase)?;
            Ok((home, secret))
        })
        .await
    }

    /// Where passphrases come from. One that others may see is warned of.
    fn passphrase_source(&mut self) -> PassphraseSource {
        let source = PassphraseSource::of(self.passphrase_file.clone());
        if source.is_seen() {
            self.screen.notice(&format!(
                "others may see a passphrase that stands in ${PASSPHRASE_VARIABLE}: name a file that holds it by --passphrase-file"
            ));
        }
        source
    }

    /// Makes the key of a folder that has none.
    async fn new_key(&self, home: Home, passphrase: Option<SecretText>) -> Result<(Home, NodeSecret), Failure> {
        self.off_thread(move || {
            let secret = home.new_identity(passphrase.as_deref())?;
            Ok((home, secret))
        })
        .await
    }

    /// Does what blocks, or asks the user, on a thread of its own, so that Ctrl-C is still heard.
    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        match self.cancel.run_until_cancelled(tokio::task::spawn_blocking(work)).await {
            Some(done) => done.map_err(|error| Failure::local(error.to_string()))?,
            None => Err(interrupted()),
        }
    }
}

fn store_command(action: StoreAction) -> Command {
    match action {
        StoreAction::Ls => Command::StoreList,
        StoreAction::Rm { what } => Command::StoreRemove { what },
        StoreAction::Verify => Command::StoreVerify,
        StoreAction::Gc => Command::StoreGc,
    }
}

fn config(need: Need<'_>, relay_mode: RelayMode) -> NodeConfig {
    let config = NodeConfig { relay_mode, ..NodeConfig::default() };
    match need {
        Need::Folder => NodeConfig { offline: true, ..config },
        Need::Fetch(network) | Need::Serve(network, _) | Need::Relay(network, _) => NodeConfig {
            listen: network.listen_addrs(),
            public: network.public,
            bootstrap: network.bootstrap.clone(),
            mdns: !network.no_mdns,
            stun: network.stun.clone(),
            port_mapping: !network.no_port_mapping,
            calls: network.calls.unwrap_or_default(),
            turn: network.turn.clone(),
            turn_proxy: network.turn_proxy.clone(),
            announce: matches!(need, Need::Serve(..)),
            relay: match need {
                Need::Serve(_, relay) => relay.cloned(),
                Need::Relay(_, relay) => Some(relay.clone()),
                Need::Folder | Need::Fetch(_) => None,
            },
            ..config
        },
    }
}

/// Ends what runs in this process, which is to end itself then: commands of others first, then the node.
async fn leave(node: Arc<dyn OwnNode>, server: Option<LocalServer>) {
    let leaving = async {
        if let Some(server) = server {
            server.stop().await;
        }
        node.shutdown().await;
    };
    if tokio::time::timeout(STOP_GRACE, leaving).await.is_err() {
        tracing::warn!("the node did not stop in time, and was left");
    }
    // To let go of it would close the index, and no process ends while one of its threads waits for the disk.
    let _left = ManuallyDrop::new(node);
}

/// The absolute path of something that exists, with a name of its own also for `.` and `..`.
fn existing(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(FailureKind::Usage, format!("cannot share {}: {error}", path.display()))
            .try_to("the path of a file or folder that is there")
    };
    let full = std::path::absolute(path).map_err(failed)?;
    std::fs::metadata(&full).map_err(failed)?;
    // The last part as it was typed: it may be a link, and the name of the link is the one to share under.
    let named = path.components().next_back().is_some_and(|last| matches!(last, std::path::Component::Normal(_)));
    if named { Ok(full) } else { full.canonicalize().map_err(failed) }
}

fn no_share_of_that_name(error: NameError) -> Failure {
    Failure::new(FailureKind::Usage, error.to_string()).try_to("a name or a hash that `keyferry shares` lists")
}

fn busy(home: &Path) -> Failure {
    Failure::new(FailureKind::Local, format!("another keyferry is using {}, and does not answer", home.display()))
        .try_to(
            "wait until it is done, or use another --home; `keyferry node` lets many commands share one data folder",
        )
}

fn interrupted() -> Failure {
    Failure::new(FailureKind::Interrupted, "interrupted")
}

fn unwritable(error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::Interrupted, format!("standard output went away: {error}"))
}

#[cfg(test)]
mod tests;
