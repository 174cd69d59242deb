//! The relays of the lab: who relays there, and how nodes come to know of it.
//!
//! What it is not: a relay; those are the public nodes themselves, or coturn.

use std::{
    net::SocketAddr,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::{
    scenario::{PUBLIC_NODES, PUBLIC_PORT, line_of_public_node},
    world::{World, public_addrs},
};
use crate::network::Line;

/// The user and the password of relays that want one.
const USER: &str = "lab";
const PASSWORD: &str = "lab";

/// What a slow relay carries in a second.
const SLOW: &str = "20M";

/// How long coturn may take to be up.
const START: Duration = Duration::from_secs(10);

/// Who relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Relays {
    /// Nobody: a node that needs a relay says so.
    #[default]
    None,
    /// The public nodes, for everyone: nodes find them through the DHT.
    Found,
    /// The public nodes, for a user with a password that all nodes are given.
    Nodes,
    /// The same, with little to give to each.
    #[value(skip)]
    Slow,
    /// coturn on a public host of its own, for a user with a password that all nodes are given.
    Coturn,
    /// The same, two of them.
    #[value(skip)]
    TwoCoturns,
}

impl Relays {
    /// As options and reports have it.
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Found => "found",
            Self::Nodes | Self::Slow => "nodes",
            Self::Coturn | Self::TwoCoturns => "coturn",
        }
    }

    /// How many hosts have a coturn.
    pub(super) fn coturns(self) -> usize {
        match self {
            Self::Coturn => 1,
            Self::TwoCoturns => 2,
            Self::None | Self::Found | Self::Nodes | Self::Slow => 0,
        }
    }

    /// Kinds of relays of which there is another one when one is lost: all, or this one.
    pub(super) fn to_lose(self) -> Vec<Self> {
        match self {
            Self::None => vec![Self::Found, Self::TwoCoturns],
            Self::Found | Self::Nodes | Self::Slow => vec![self],
            Self::Coturn | Self::TwoCoturns => vec![Self::TwoCoturns],
        }
    }

    /// What public nodes are started with besides.
    pub(super) fn options_of_public_node(self) -> Vec<String> {
        match self {
            Self::None | Self::Coturn | Self::TwoCoturns => Vec::new(),
            Self::Found => vec!["--relay".to_owned()],
            // Nobody is to find them: the user and the password are what is tried.
            Self::Nodes => ["--relay", "contacts", "--relay-user", &user()].map(str::to_owned).to_vec(),
            Self::Slow => {
                ["--relay", "contacts", "--relay-user", &user(), "--relay-rate", SLOW].map(str::to_owned).to_vec()
            }
        }
    }

    /// The relays that nodes may use, in the form of `KEYFERRY_TURN`.
    pub(super) fn configured(self) -> Option<String> {
        let uri = |addr: SocketAddr| format!("turn:{}@{addr}", user());
        match self {
            Self::None | Self::Found => None,
            Self::Nodes | Self::Slow => Some(public_addrs().into_iter().map(uri).collect::<Vec<_>>().join(",")),
            Self::Coturn | Self::TwoCoturns => {
                let addrs = (0..self.coturns()).flat_map(|index| coturn_addrs(&coturn_line(index)));
                Some(addrs.map(uri).collect::<Vec<_>>().join(","))
            }
        }
    }
}

fn user() -> String {
    format!("{USER}:{PASSWORD}")
}

/// The line of a host that coturn runs on.
pub(super) fn coturn_line(index: usize) -> Line {
    line_of_public_node(PUBLIC_NODES + index)
}

fn coturn_addrs(line: &Line) -> [SocketAddr; 2] {
    [SocketAddr::new(line.v4.into(), PUBLIC_PORT), SocketAddr::new(line.v6.into(), PUBLIC_PORT)]
}

/// A running coturn. Dropping it kills the process.
pub(super) struct Coturn(Child);

impl Coturn {
    /// Starts one on a host of its own and waits until it takes connections.
    pub(super) fn start(world: &World, index: usize) -> Result<Self> {
        let (place, line) = (format!("t{index}"), coturn_line(index));
        world.add_public_host(&place, line)?;
        let file = |extension: &str| world.dir().join(&place).with_extension(extension);
        let log = std::fs::File::create(file("log"))?;
        let mut command = world.command(&place, "turnserver");
        command.args(["-n", "--lt-cred-mech", "--realm", "lab", "--no-cli", "--no-tls", "--no-dtls", "--no-udp"]);
        command.args(["--no-software-attribute", "--log-file", "stdout"]);
        command.arg("--user").arg(user()).arg("--listening-port").arg(PUBLIC_PORT.to_string());
        for addr in [line.v4.to_string(), line.v6.to_string()] {
            command.args(["--listening-ip", &addr, "--relay-ip", &addr]);
        }
        command.arg("--userdb").arg(file("db")).arg("--pidfile").arg(file("pid"));
        let daemon = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start turnserver (Debian: coturn)")?;
        let coturn = Self(daemon);
        wait_until_up(world, &place, &line)?;
        Ok(coturn)
    }

    /// The process.
    pub(super) fn process(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until_up(world: &World, place: &str, line: &Line) -> Result<()> {
    let connect = |addr: SocketAddr| format!("exec 3<>/dev/tcp/{}/{}", addr.ip(), addr.port());
    let tries = START.as_millis() / 50;
    for _ in 0..tries {
        let is_up = |addr: SocketAddr| {
            let mut command = world.command(place, "bash");
            command.args(["-c", &connect(addr)]).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if coturn_addrs(line).into_iter().all(is_up) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("coturn is not up: see {place}.log")
}
