//! The programs that are compared: each started on a free port of 127.0.0.1, and killed when dropped.
//!
//! What it is not: what goes through them.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::lab::keyferry_binary;

/// How long a program may take to be up.
const START: Duration = Duration::from_secs(20);

/// The user and the password on relays.
const USER: &str = "sim:sim";

/// A process that is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A plain TCP proxy.
pub(super) struct Socat {
    _process: Running,
    port: u16,
}

impl Socat {
    /// Starts it in front of a port.
    pub(super) fn start(target: u16) -> Result<Self> {
        let port = free_port()?;
        let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay");
        let process = Command::new("socat")
            .arg(listen)
            .arg(format!("TCP:127.0.0.1:{target},nodelay"))
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start socat (Debian: socat)")?;
        let process = Running(process);
        wait_for_port(port)?;
        Ok(Self { _process: process, port })
    }

    /// Reads all that the target has to say, by a client of its own.
    pub(super) fn fetch(&self) -> Result<Duration> {
        let began = Instant::now();
        let status = Command::new(std::env::current_exe()?).arg("plain-fetch").arg(self.port.to_string()).status()?;
        ensure!(status.success(), "the client of socat failed: {status}");
        Ok(began.elapsed())
    }
}

/// `keyferry relay`.
pub(super) struct KeyferryRelay {
    process: Running,
    uri: String,
}

impl KeyferryRelay {
    /// Starts it with a user, and lets it connect to this machine.
    pub(super) fn start(dir: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut child = Command::new(keyferry_binary()?)
            .args(["--json", "--home"])
            .arg(dir.join("relay"))
            .args(["relay", "--listen", &format!("127.0.0.1:{port}"), "--no-mdns", "--no-port-mapping"])
            .args(["--relay-user", USER, "--relay-allow-peer", "127.0.0.0/8"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("standard output was piped")?;
        let process = Running(child);
        // Read to its end, so that the relay never waits for us.
        thread::spawn(move || BufReader::new(stdout).lines().map_while(std::io::Result::ok).for_each(drop));
        wait_for_port(port)?;
        Ok(Self { process, uri: format!("turn:{USER}@127.0.0.1:{port}") })
    }

    /// How to reach it.
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// What is resident of it now, in bytes.
    pub(super) fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the relay has ended")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }
}

/// coturn.
pub(super) struct Coturn {
    _process: Running,
    uri: String,
}

impl Coturn {
    /// Starts it with a user, and lets it connect to this machine.
    pub(super) fn start(dir: &Path) -> Result<Self> {
        let port = free_port()?;
        let log = File::create(dir.join("coturn.log"))?;
        let process = Command::new("turnserver")
            .args(["-n", "--lt-cred-mech", "--realm", "sim", "--user", USER, "--no-cli", "--no-tls", "--no-dtls"])
            .args(["--no-udp", "--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1", "--allow-loopback-peers"])
            .args(["--listening-port", &port.to_string(), "--log-file", "stdout"])
            .args([OsStr::new("--userdb"), dir.join("coturn.db").as_os_str()])
            .args([OsStr::new("--pidfile"), dir.join("coturn.pid").as_os_str()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start turnserver (Debian: coturn)")?;
        let process = Running(process);
        wait_for_port(port)?;
        Ok(Self { _process: process, uri: format!("turn:{USER}@127.0.0.1:{port}") })
    }

    /// How to reach it.
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn wait_for_port(port: u16) -> Result<()> {
    let (addr, deadline) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Instant::now() + START);
    while Instant::now() < deadline {
        if TcpStream::connect(addr).is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("nobody listens on {addr} after {} s", START.as_secs())
}
