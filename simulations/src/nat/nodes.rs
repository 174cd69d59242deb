//! Real `keyferry` processes in places of a world.
//!
//! What it is not: a judgement of what they say.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::IpAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    relays::{Coturn, Relays, coturn_line},
    scenario::{PUBLIC_NODES, PUBLIC_PORT, line_of_public_node},
    world::{World, public_addrs, public_place},
};
use crate::network::Line;

/// How long a node may take to come up, or to share something.
const START: Duration = Duration::from_secs(40);

/// The number of the signal that ends a process at once.
const SIGKILL: i32 = 9;

/// How many events may wait to be read; a process that says more has to wait.
const EVENT_QUEUE: usize = 1024;

/// How nodes are started.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The binary.
    pub(crate) keyferry: PathBuf,
    /// Whether their logs are wanted.
    pub(crate) logs: bool,
    /// Who relays for them.
    pub(crate) relays: Relays,
}

/// What runs on public hosts. Dropping it kills the processes.
pub(crate) struct PublicHosts {
    nodes: Vec<Node>,
    coturns: Vec<Coturn>,
}

/// A running `keyferry --json …`. Dropping it kills the process.
pub(crate) struct Node {
    child: Child,
    events: Receiver<Value>,
}

impl Program {
    /// Starts a program in a place, with a data folder named `home` in the world's folder.
    pub(crate) fn start(&self, world: &World, place: &str, home: &str, args: &[&str]) -> Result<Node> {
        let home = world.dir().join(home);
        fs::create_dir_all(&home)?;
        let mut command = world.command(place, &self.keyferry);
        command.arg("--json").arg("--home").arg(&home);
        if self.logs {
            command.arg("-vv");
        }
        command.args(args);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYFERRY_")) {
            command.env_remove(name);
        }
        command.env("KEYFERRY_NO_MDNS", "1").env("KEYFERRY_BOOTSTRAP", bootstrap());
        if let Some(relays) = self.relays.configured() {
            command.env("KEYFERRY_TURN", relays);
        }
        let log = fs::File::options().create(true).append(true).open(home.with_extension("log"))?;
        let mut copy = match self.logs {
            true => Some(fs::File::options().create(true).append(true).open(home.with_extension("events"))?),
            false => None,
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.keyferry.display()))?;
        let stdout = BufReader::new(child.stdout.take().context("standard output was piped")?);
        let (sender, events) = mpsc::sync_channel(EVENT_QUEUE);
        thread::spawn(move || {
            for line in stdout.lines().map_while(std::io::Result::ok) {
                if let Some(copy) = &mut copy {
                    let _ = std::io::Write::write_all(copy, format!("{line}\n").as_bytes());
                }
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        Ok(Node { child, events })
    }

    /// The last line that a program wrote to standard error.
    pub(crate) fn last_words(&self, world: &World, home: &str) -> String {
        let log = fs::read_to_string(world.dir().join(home).with_extension("log")).unwrap_or_default();
        log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
    }

    /// Starts the public nodes that everybody enters the network through, and the relays, and waits until they are up.
    pub(crate) fn start_public(&self, world: &World) -> Result<PublicHosts> {
        let coturns = (0..self.relays.coturns()).map(|index| Coturn::start(world, index)).collect::<Result<_>>()?;
        let (port, relaying) = (PUBLIC_PORT.to_string(), self.relays.options_of_public_node());
        let start = |index| {
            let place = public_place(index);
            let mut args = vec!["node", "--public", "--listen", &port];
            args.extend(relaying.iter().map(String::as_str));
            self.start(world, &place, &place, &args)
        };
        let mut nodes = (0..PUBLIC_NODES).map(start).collect::<Result<Vec<_>>>()?;
        for node in &mut nodes {
            node.wait_for("status", START).context("a public node")?;
        }
        Ok(PublicHosts { nodes, coturns })
    }
}

impl PublicHosts {
    /// Kills what runs on the host with this address, which must still run, without a chance to tidy up.
    pub(super) fn kill_at(&mut self, ip: IpAddr) -> Result<()> {
        let has = |line: Line| [IpAddr::from(line.v4), line.v6.into()].contains(&ip);
        let nodes = self.nodes.iter_mut().enumerate().map(|(at, node)| (line_of_public_node(at), &mut node.child));
        let coturns = self.coturns.iter_mut().enumerate().map(|(at, coturn)| (coturn_line(at), coturn.process()));
        let (_, process) =
            nodes.chain(coturns).find(|(line, _)| has(*line)).with_context(|| format!("nobody is at {ip}"))?;
        process.kill()?;
        let status = process.wait()?;
        ensure!(status.signal() == Some(SIGKILL), "what ran at {ip} had ended before: {status}");
        Ok(())
    }
}

impl Node {
    /// Waits for an event of that name.
    pub(crate) fn wait_for(&mut self, name: &str, patience: Duration) -> Result<Value> {
        let deadline = Instant::now() + patience;
        while let Some(event) = self.next(deadline)? {
            if event["event"] == name {
                return Ok(event);
            }
            if event["event"] == "failed" {
                bail!("failed: {}", event["message"]);
            }
        }
        bail!("ended without {name:?}")
    }

    /// Waits until something is shared.
    pub(crate) fn wait_shared(&mut self) -> Result<Value> {
        self.wait_for("shared", START)
    }

    /// The next event; none when the process has ended.
    pub(crate) fn next(&mut self, deadline: Instant) -> Result<Option<Value>> {
        match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("took too long"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The multiaddrs of the public nodes.
pub(super) fn bootstrap() -> String {
    let multiaddr = |addr: std::net::SocketAddr| {
        let family = if addr.is_ipv4() { "ip4" } else { "ip6" };
        format!("/{family}/{}/tcp/{}", addr.ip(), addr.port())
    };
    public_addrs().into_iter().map(multiaddr).collect::<Vec<_>>().join(",")
}

/// Empties a data folder.
pub(crate) fn forget(world: &World, home: &str) -> Result<()> {
    let path: PathBuf = world.dir().join(home);
    remove(&path)
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() { fs::remove_dir_all(path).map_err(Into::into) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_knows_all_public_nodes() {
        let bootstrap = bootstrap();
        assert_eq!(bootstrap.split(',').count(), 2 * PUBLIC_NODES);
        assert!(bootstrap.contains("/ip4/192.0.2.18/tcp/443,/ip6/2001:db8:10::2/tcp/443"), "{bootstrap}");
    }
}
