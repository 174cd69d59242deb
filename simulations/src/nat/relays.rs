//! The relays of the lab: who relays there, and how nodes come to know of it.
//!
//! What it is not: a relay; those are the public nodes themselves, or coturn.

use std::{net::SocketAddr, path::Path, process::Stdio, thread, time::Duration};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::{
    scenario::{Line, PUBLIC_NODES, PUBLIC_PORT},
    world::{World, public_addrs},
};

/// The place of coturn.
pub(super) const COTURN: &str = "t";

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
    /// Nobody: nodes that need a relay are told so.
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
}

impl Relays {
    /// What public nodes are started with besides.
    pub(super) fn options_of_public_node(self) -> Vec<String> {
        match self {
            Self::None | Self::Coturn => Vec::new(),
            Self::Found => vec!["--relay".to_owned()],
            // Nobody is to find them: the user and the password are what is tried.
            Self::Nodes => ["--relay", "contacts", "--relay-user", &user()].map(str::to_owned).to_vec(),
            Self::Slow => {
                ["--relay", "contacts", "--relay-user", &user(), "--relay-rate", SLOW].map(str::to_owned).to_vec()
            }
        }
    }

    /// The relays that nodes are told of, as `KEYFERRY_TURN` has them.
    pub(super) fn configured(self) -> Option<String> {
        let uri = |addr: SocketAddr| format!("turn:{}@{addr}", user());
        match self {
            Self::None | Self::Found => None,
            Self::Nodes | Self::Slow => Some(public_addrs().into_iter().map(uri).collect::<Vec<_>>().join(",")),
            Self::Coturn => Some(coturn_addrs().map(uri).join(",")),
        }
    }
}

fn user() -> String {
    format!("{USER}:{PASSWORD}")
}

/// The line of the host that coturn runs on.
pub(super) fn coturn_line() -> Line {
    Line::of_public_node(PUBLIC_NODES)
}

fn coturn_addrs() -> [SocketAddr; 2] {
    let line = coturn_line();
    [SocketAddr::new(line.v4.into(), PUBLIC_PORT), SocketAddr::new(line.v6.into(), PUBLIC_PORT)]
}

/// Starts coturn in its place and waits until it takes connections.
pub(super) fn start_coturn(world: &World) -> Result<()> {
    let file = |name: &str| world.dir().join(name);
    let line = coturn_line();
    let log = std::fs::File::create(file("coturn.log"))?;
    let mut command = world.command(COTURN, "turnserver");
    command.args(["-n", "--lt-cred-mech", "--realm", "lab", "--no-cli", "--no-tls", "--no-dtls", "--no-udp"]);
    command.args(["--no-software-attribute", "--log-file", "stdout"]);
    command.arg("--user").arg(user()).arg("--listening-port").arg(PUBLIC_PORT.to_string());
    for addr in [line.v4.to_string(), line.v6.to_string()] {
        command.args(["--listening-ip", &addr, "--relay-ip", &addr]);
    }
    command.arg("--userdb").arg(file("coturn.db")).arg("--pidfile").arg(file("coturn.pid"));
    let daemon = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start turnserver (Debian: coturn)")?;
    world.keep(daemon);
    wait_until_up(world)
}

fn wait_until_up(world: &World) -> Result<()> {
    let connect = |addr: SocketAddr| format!("exec 3<>/dev/tcp/{}/{}", addr.ip(), addr.port());
    let tries = START.as_millis() / 50;
    for _ in 0..tries {
        let is_up = |addr: SocketAddr| {
            let mut command = world.command(COTURN, "bash");
            command.args(["-c", &connect(addr)]).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if coturn_addrs().into_iter().all(is_up) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("coturn is not up: see {}", Path::new("coturn.log").display())
}
