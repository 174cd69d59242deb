//! A coturn of the test's own, on loopback.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use keyferry_turn::long_term::UserCredentials;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{super::TurnServer, relaying::PATIENCE};
use crate::net::path::PathStream;

pub(super) const USER: &str = "alice";
pub(super) const PASSWORD: &str = "s3:cr@t";

/// Ports below those that systems give out by themselves, in blocks: each server has one to itself.
const FIRST_PORT: u32 = 20_000;
const BLOCK: u32 = 20;
const BLOCKS: u32 = 600;
/// Listeners at the start of a block: plain, TLS, and the alternative ports of both. The rest is for relayed addresses.
const LISTENERS: u32 = 4;

/// A running server. Dropping it kills it.
pub(super) struct Coturn {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

/// Skips a test where there is no coturn.
pub(super) fn is_missing() -> bool {
    keyferry_needs::lacks(&["turnserver"])
}

impl Coturn {
    /// Starts a server for [`USER`], with further options, and waits until it listens.
    pub(super) fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        let first = free_block();
        let port = |offset: u32| (first + offset).to_string();
        let is_plain = !options.contains(&"--cert");
        let process = Command::new("turnserver")
            .args(["-n", "-L", "127.0.0.1", "-L", "::1", "-E", "127.0.0.1", "-E", "::1", "-m", "1", "--no-udp"])
            .args(["--no-dtls", "--no-cli", "--cli-password", "x", "--allow-loopback-peers", "--lt-cred-mech"])
            .args(["--user", &format!("{USER}:{PASSWORD}"), "--realm", "example.org"])
            .args(["-p", &port(0), "--tls-listening-port", &port(1)])
            .args(["--alt-listening-port", &port(2), "--alt-tls-listening-port", &port(3)])
            .args(["--min-port", &port(LISTENERS), "--max-port", &port(BLOCK - 1)])
            .args(["--log-file", "stdout", "--userdb", &file("db"), "--pidfile", &file("pid")])
            .args(is_plain.then_some("--no-tls"))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let coturn = Self { process, port: u16::try_from(first).unwrap(), _dir: dir };
        let listens = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        let end = Instant::now() + Duration::from_secs(20);
        while !listens(coturn.port) || (!is_plain && !listens(coturn.port + 1)) {
            assert!(Instant::now() < end, "coturn does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        coturn
    }

    /// The server, for its user.
    pub(super) fn server(&self) -> TurnServer {
        TurnServer::new("127.0.0.1", self.port, false).with_credentials(credentials(PASSWORD))
    }

    /// The server within TLS.
    pub(super) fn tls_server(&self) -> TurnServer {
        TurnServer::new("127.0.0.1", self.port + 1, true).with_credentials(credentials(PASSWORD))
    }

    pub(super) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn credentials(password: &str) -> UserCredentials {
    UserCredentials::new(USER, password).unwrap()
}

/// A block of which the listeners' ports are free.
fn free_block() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let block = std::process::id().wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % BLOCKS;
        let first = FIRST_PORT + block * BLOCK;
        let is_free = |port: u32| TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).is_ok();
        if (first..first + BLOCK).all(is_free) {
            return first;
        }
    }
}

/// Sends bytes each way, both at the same time, and checks them.
pub(super) async fn exchange(relayed: &mut PathStream, peer: &mut TcpStream, len: usize) {
    let (mut peer_in, mut peer_out) = peer.split();
    let (mut our_in, mut our_out) = tokio::io::split(relayed);
    let there = carry(&mut our_out, &mut peer_in, 1, len);
    let back = carry(&mut peer_out, &mut our_in, 2, len);
    let both = timeout(PATIENCE, async { tokio::join!(there, back) });
    both.await.expect("the relay carries on");
}

/// Sends bytes first there and then back, and checks them.
pub(super) async fn exchange_in_turn(relayed: &mut PathStream, peer: &mut TcpStream, len: usize) {
    let in_turn = async {
        carry(relayed, peer, 1, len).await;
        carry(peer, relayed, 2, len).await;
    };
    timeout(PATIENCE, in_turn).await.expect("the relay carries on");
}

async fn carry(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin), seed: u64, len: usize) {
    let (sent, mut got) = (bytes(seed, len), vec![0; len]);
    let write = async {
        from.write_all(&sent).await?;
        from.flush().await
    };
    tokio::try_join!(write, to.read_exact(&mut got)).unwrap();
    assert!(sent == got, "other bytes than were sent");
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
