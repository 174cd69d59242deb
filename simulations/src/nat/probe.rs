//! A program for one host of the lab that does as it is told: it listens, connects and says what it saw. By it the lab is proven
//! without Keyferry.
//!
//! One JSON object a line on standard input, and one answer to each on standard output:
//!
//! ```text
//! {"listen":4600}                                                         {"done":null}
//! {"connect":{"from":4600,"to":"192.0.2.18:443","hops":4,"wait_ms":500}}  {"seen":"198.51.100.2:4600"} or {"failed":"refused"}
//! {"map_port":4600}                                                       {"mapped":4600}
//! ```
//!
//! Who listens tells each that connects by which address it is seen. Connections stay until the program ends.
//!
//! What it is not: a node; no byte of Keyferry's protocols is spoken.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::world::World;
use crate::network::lan;

/// How long a listener may take to tell what it saw.
const TELL: Duration = Duration::from_secs(2);

/// What a probe is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Listen on a port of all addresses.
    Listen(u16),
    /// Connect, and say how one was seen.
    Connect {
        /// From this port; others may use it too. 0 means any.
        from: u16,
        /// To here.
        to: SocketAddr,
        /// With this hop limit, or the usual one.
        hops: Option<u32>,
        /// How long to wait.
        wait_ms: u64,
    },
    /// Ask the home router for a port by NAT-PMP (RFC 6886).
    MapPort(u16),
}

/// What a probe says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// Done.
    Done(()),
    /// Connected; the other side saw this address.
    Seen(SocketAddr),
    /// Not connected.
    Failed(Failed),
    /// The router gave this port.
    Mapped(u16),
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failed {
    /// RST.
    Refused,
    /// No answer.
    Silence,
    /// ICMP Time Exceeded or Destination Unreachable.
    Unreachable,
    /// ICMP “administratively prohibited”.
    Prohibited,
    /// Anything else.
    Other(String),
}

/// Obeys orders from standard input until it ends.
pub(crate) fn obey() -> Result<()> {
    let mut kept = Vec::new();
    for line in io::stdin().lock().lines() {
        let said = match serde_json::from_str(&line?)? {
            Order::Listen(port) => listen(port).map(Said::Done),
            Order::Connect { from, to, hops, wait_ms } => {
                Ok(match connect(from, to, hops, Duration::from_millis(wait_ms)) {
                    Ok((stream, seen)) => {
                        kept.push(stream);
                        Said::Seen(seen)
                    }
                    Err(error) => Said::Failed(Failed::of(&error)),
                })
            }
            Order::MapPort(port) => map_port(port).map(Said::Mapped),
        };
        let said = said.unwrap_or_else(|error| Said::Failed(Failed::Other(error.to_string())));
        println!("{}", serde_json::to_string(&said)?);
    }
    Ok(())
}

/// A probe that runs in a place of the lab. Ends when dropped.
pub(crate) struct Probe {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Probe {
    /// Starts one.
    pub(crate) fn start(world: &World, place: &str) -> Result<Self> {
        let mut child = world
            .command(place, std::env::current_exe()?)
            .arg("nat-probe")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().context("standard input was piped")?;
        let answers = BufReader::new(child.stdout.take().context("standard output was piped")?);
        Ok(Self { child, orders, answers })
    }

    /// Starts one that listens on some ports.
    pub(crate) fn listening(world: &World, place: &str, ports: &[u16]) -> Result<Self> {
        let mut probe = Self::start(world, place)?;
        for port in ports {
            probe.tell(&Order::Listen(*port))?;
        }
        Ok(probe)
    }

    /// Gives an order and waits for the answer.
    pub(crate) fn tell(&mut self, order: &Order) -> Result<Said> {
        writeln!(self.orders, "{}", serde_json::to_string(order)?)?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the probe has ended at {order:?}");
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Has it connect with the usual hop limit.
    pub(crate) fn connect(&mut self, from: u16, to: SocketAddr, wait: Duration) -> Result<Said> {
        self.tell(&Order::Connect { from, to, hops: None, wait_ms: wait.as_millis() as u64 })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Failed {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Self::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Silence,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::PermissionDenied => Self::Prohibited,
            _ => Self::Other(error.to_string()),
        }
    }
}

fn bound(port: u16, domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    let ip = if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    socket.bind(&SocketAddr::new(ip, port).into())?;
    Ok(socket)
}

fn listen(port: u16) -> io::Result<()> {
    for domain in [Domain::IPV4, Domain::IPV6] {
        let listener = bound(port, domain)?;
        listener.listen(64)?;
        thread::spawn(move || {
            let mut kept = Vec::new();
            while let Ok((mut stream, peer)) = listener.accept() {
                if let Some(peer) = peer.as_socket() {
                    let _ = writeln!(stream, "{peer}");
                }
                kept.push(stream);
            }
        });
    }
    Ok(())
}

fn connect(from: u16, to: SocketAddr, hops: Option<u32>, wait: Duration) -> io::Result<(TcpStream, SocketAddr)> {
    let socket = bound(from, if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 })?;
    if let Some(hops) = hops {
        match to {
            SocketAddr::V4(_) => socket.set_ttl_v4(hops)?,
            SocketAddr::V6(_) => socket.set_unicast_hops_v6(hops)?,
        }
    }
    let deadline = Instant::now() + wait;
    socket.connect_timeout(&to.into(), wait)?;
    SockRef::from(&socket).set_read_timeout(Some(TELL.max(deadline.saturating_duration_since(Instant::now()))))?;
    let mut stream = TcpStream::from(socket);
    let mut line = String::new();
    BufReader::new(&mut stream).take(64).read_line(&mut line)?;
    let seen = line.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no address was told"))?;
    Ok((stream, seen))
}

/// RFC 6886 §3.3: version 0, opcode 2 (TCP), reserved, the port inside, the port wished for, the lifetime.
fn map_port(port: u16) -> io::Result<u16> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(250)))?;
    let [high, low] = port.to_be_bytes();
    let request = [0, 2, 0, 0, high, low, high, low, 0, 0, 2, 88];
    // The daemon may still be starting.
    for _ in 0..8 {
        socket.send_to(&request, (lan::ROUTER, 5351))?;
        let mut answer = [0; 16];
        match socket.recv(&mut answer) {
            Ok(16) if answer[..4] == [0, 130, 0, 0] => return Ok(u16::from_be_bytes([answer[10], answer[11]])),
            Ok(_) => return Err(io::Error::other(format!("the router refuses: {answer:?}"))),
            Err(error) if Failed::of(&error) == Failed::Silence => {}
            // Nobody listens there yet.
            Err(_) => thread::sleep(Duration::from_millis(250)),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}
