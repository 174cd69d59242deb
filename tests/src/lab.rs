//! A temporary place with any number of nodes in it, each with a data folder of its own, on loopback.
//!
//! What it is not: a simulation of a network; see the `keyferry-sim` package.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use keyferry::node::api::{Shared, Status};
use tempfile::TempDir;

use crate::{
    binary,
    process::{Keyferry, Outcome},
};

/// Long enough for anything that is not a transfer, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(20);

/// Long enough for a transfer of the sizes that these tests use.
pub const TRANSFER: Duration = Duration::from_secs(90);

/// A temporary folder: `homes/NAME` are the data folders, the rest is the test's own. Removed when dropped.
pub struct Lab {
    dir: TempDir,
    bootstrap: Vec<String>,
}

impl Lab {
    /// Makes an empty lab.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("keyferry-test-").tempdir()?;
        fs::create_dir(dir.path().join("homes"))?;
        Ok(Self { dir, bootstrap: Vec::new() })
    }

    /// A path in the lab.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// A folder in the lab, made if it is not there.
    pub fn folder(&self, relative: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.path(relative);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// The data folder of a node.
    pub fn home(&self, node: &str) -> PathBuf {
        self.path("homes").join(node)
    }

    /// Has every node started from now on bootstrap from these addresses.
    pub fn bootstrap_from(&mut self, status: &Status) -> Result<()> {
        ensure!(!status.hints.is_empty(), "the bootstrap node gives no hints: {status:?}");
        self.bootstrap = status.hints.clone();
        Ok(())
    }

    /// `keyferry --json ARGS` of one node, not started yet.
    pub fn command<A: AsRef<OsStr>>(&self, node: &str, args: impl IntoIterator<Item = A>) -> Result<Command> {
        let mut command = Command::new(binary::keyferry()?);
        self.arguments(&mut command, node, args);
        Ok(command)
    }

    /// Puts the arguments of `keyferry --json ARGS` of one node behind a command, such as `unshare`.
    pub fn arguments<A: AsRef<OsStr>>(&self, command: &mut Command, node: &str, args: impl IntoIterator<Item = A>) {
        command.arg("--json").arg("--home").arg(self.home(node));
        // By the environment, because not every command takes network options.
        command.env("KEYFERRY_NO_MDNS", "1").env("KEYFERRY_LISTEN", "127.0.0.1:0");
        // The router of the machine that the tests run on is left alone.
        command.env("KEYFERRY_NO_PORT_MAPPING", "1").env_remove("KEYFERRY_STUN").env_remove("KEYFERRY_CALLS");
        command.env("KEYFERRY_BOOTSTRAP", self.bootstrap.join(",")).env_remove("KEYFERRY_PUBLIC");
        if self.bootstrap.is_empty() {
            command.env_remove("KEYFERRY_BOOTSTRAP");
        }
        command.args(args).current_dir(self.dir.path()).env_remove("KEYFERRY_HOME").env("TMPDIR", self.dir.path());
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "keyferry=info,warn");
        }
    }

    /// Starts `keyferry --json ARGS` of one node.
    pub fn start<A: AsRef<OsStr>>(&self, node: &str, args: impl IntoIterator<Item = A>) -> Result<Keyferry> {
        Keyferry::start(self.command(node, args)?)
    }

    /// Runs `keyferry --json ARGS` of one node to its end.
    pub fn run<A: AsRef<OsStr>>(&self, node: &str, args: impl IntoIterator<Item = A>) -> Result<Outcome> {
        self.start(node, args)?.finish(TRANSFER)
    }

    /// Starts a node that stays up and waits until it is.
    pub fn node(&self, node: &str) -> Result<(Keyferry, Status)> {
        let mut process = self.start(node, ["node"])?;
        let status = process.wait_status(SOON).with_context(|| format!("node {node}"))?;
        Ok((process, status))
    }

    /// Shares a path and waits until it is shared.
    pub fn share(&self, node: &str, path: &Path) -> Result<(Keyferry, Shared)> {
        let mut process = self.start(node, [OsStr::new("share"), path.as_os_str()])?;
        let shared = process.wait_shared(TRANSFER).with_context(|| format!("{node} shares {}", path.display()))?;
        Ok((process, shared))
    }

    /// Starts to fetch an address into a folder.
    pub fn start_get(&self, node: &str, address: impl std::fmt::Display, into: &Path) -> Result<Keyferry> {
        self.start(node, [OsStr::new("get"), OsStr::new(&address.to_string()), OsStr::new("-o"), into.as_os_str()])
    }

    /// Fetches an address into a folder.
    pub fn get(&self, node: &str, address: impl std::fmt::Display, into: &Path) -> Result<Outcome> {
        self.start_get(node, address, into)?.finish(TRANSFER)
    }
}

/// Tries again until it works, for what becomes true a little later, such as a record that has to arrive in the DHT.
pub fn eventually<T>(within: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = std::time::Instant::now() + within;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if std::time::Instant::now() >= deadline => bail!("not within {within:?}: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
