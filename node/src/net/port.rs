//! The node's one TCP port: its listeners, who gets which connection, and connections that leave from it.
//!
//! A person forwards one port, so libp2p, sessions (TLS) and STUN share it; the first bytes tell them apart
//! (`classify`). Nothing is consumed from a stream before its owner has it.
//!
//! Connections leave from the same port, so that a NAT shows others the mapping that leads back to it, until there is a sign that
//! NATs on the way hold something dead: from then on they leave from a fresh one ([`Port::depart_afresh`]).
//!
//! What it is not: any of these protocols.

mod classify;
mod connecting;
mod min_ttl;
#[cfg(test)]
#[cfg(target_os = "linux")]
pub(crate) mod nat_lab;
pub(crate) mod socket;
mod undecided;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use socket2::Socket;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
};

pub use self::connecting::{CAN_OPEN, Connecting};
pub(crate) use self::undecided::{Undecided, UndecidedPlace};
use self::{
    classify::{PEEK_LEN, PortVerdict, classify},
    undecided::MAX_IN_ALL,
};
use crate::base::{counters::counters, traffic::Traffic};

/// The port that a node listens on unless it is told otherwise, and where nodes of one machine look for each other.
pub const DEFAULT_PORT: u16 = 41414;

/// How long a connection may take to show its first bytes.
pub const DECIDE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an outgoing connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Decided connections that may wait for each owner; more are closed.
pub const MAX_WAITING: usize = 128;
/// Listening addresses a port may have.
pub const MAX_LISTENERS: usize = 16;

/// Pause between two looks at a connection that has sent too few bytes; doubles each time.
const FIRST_LOOK_PAUSE: Duration = Duration::from_millis(2);
const MAX_LOOK_PAUSE: Duration = Duration::from_millis(250);
/// Pause after accept fails for want of memory or file descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How many times to look for a port that is free for all listening addresses.
const BIND_TRIES: usize = 8;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No address to listen on was given, or too many.
    #[error("expected 1 to {MAX_LISTENERS} addresses to listen on, got {got}")]
    Count {
        /// How many were given.
        got: usize,
    },
    /// Another program, or another keyferry, listens there.
    #[error("{addr} is in use by another program; choose another with --listen, or port 0 for any")]
    InUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The system refuses the address.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        #[source]
        error: io::Error,
    },
}

/// A connection that has come in and shown what it is. Nothing has been read from the stream.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// Its other end.
    pub remote: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
}

/// The connections that come in, by what they are. Each queue is bounded by [`MAX_WAITING`].
#[derive(Debug)]
pub struct IncomingConnections {
    /// libp2p.
    pub libp2p: mpsc::Receiver<Accepted>,
    /// TLS: sessions.
    pub sessions: mpsc::Receiver<Accepted>,
    /// STUN, TURN and ICE checks.
    pub stun: mpsc::Receiver<Accepted>,
}

/// The open port. Dropping it closes it; connections that were handed out stay.
#[derive(Debug)]
pub struct Port {
    local_addrs: Vec<SocketAddr>,
    owners: Owners,
    undecided: Undecided,
    traffic: Traffic,
    entrance: PortEntrance,
    /// From where connections leave if not from `local_addrs`.
    departure: RwLock<Option<Departure>>,
}

/// A port of its own for connections that leave, with an entrance like that of the node's port.
#[derive(Debug)]
struct Departure {
    addrs: Vec<SocketAddr>,
    _entrance: PortEntrance,
}

/// The way in at the addresses of a port.
#[derive(Debug)]
enum PortEntrance {
    /// Each has a task that accepts.
    Open(Vec<AbortHandle>),
    /// They are this node's, and refuse every connection, as if nobody had them.
    Shut { _held: Vec<Socket> },
}

counters! {
    /// What the port has seen: connections by protocol, and those that were closed with the reason.
    pub struct PortCounters {
        /// Handed to libp2p.
        pub libp2p = "port_libp2p",
        /// Handed to sessions.
        pub sessions = "port_sessions",
        /// Handed to STUN.
        pub stun = "port_stun",
        /// Closed: the first bytes are of no protocol that is spoken here.
        pub unknown = "port_closed_unknown_protocol",
        /// Closed: they showed nothing in time.
        pub silent = "port_closed_silent",
        /// Closed: they gave way to others.
        pub pushed_out = "port_closed_too_many",
        /// Closed: too many waited for their owner.
        pub queue_full = "port_closed_queue_full",
    }
}

/// Gives connections whose first message has been answered to the owner of what follows.
#[derive(Debug, Clone)]
pub(crate) struct Readmission {
    owners: Owners,
    undecided: Undecided,
}

#[derive(Debug, Clone)]
struct Owners {
    libp2p: mpsc::Sender<Accepted>,
    sessions: mpsc::Sender<Accepted>,
    stun: mpsc::Sender<Accepted>,
    counters: Arc<PortCounters>,
}

impl Port {
    /// Listens on all given addresses. Those with port 0 get one port, the same for all of them.
    ///
    /// An address family that the system lacks is left out, as long as one address remains.
    pub async fn bind(listen: &[SocketAddr]) -> Result<(Port, IncomingConnections), PortError> {
        Self::bind_with(listen, true)
    }

    /// Has all given addresses, as [`Self::bind`], and lets nobody in: whoever connects to them is refused, as where nobody listens.
    pub async fn bind_shut(listen: &[SocketAddr]) -> Result<(Port, IncomingConnections), PortError> {
        Self::bind_with(listen, false)
    }

    fn bind_with(listen: &[SocketAddr], is_open: bool) -> Result<(Port, IncomingConnections), PortError> {
        if listen.is_empty() || listen.len() > MAX_LISTENERS {
            return Err(PortError::Count { got: listen.len() });
        }
        let (libp2p, libp2p_receiver) = mpsc::channel(MAX_WAITING);
        let (sessions, sessions_receiver) = mpsc::channel(MAX_WAITING);
        let (stun, stun_receiver) = mpsc::channel(MAX_WAITING);
        let owners = Owners { libp2p, sessions, stun, counters: Arc::default() };
        let undecided = Undecided::new(MAX_IN_ALL);
        let (local_addrs, entrance) = enter_at(listen, is_open, &owners, &undecided)?;
        let incoming =
            IncomingConnections { libp2p: libp2p_receiver, sessions: sessions_receiver, stun: stun_receiver };
        Ok((
            Port {
                local_addrs,
                owners,
                undecided,
                traffic: Traffic::default(),
                entrance,
                departure: RwLock::default(),
            },
            incoming,
        ))
    }

    /// Has all connections leave from another port from now on, at which the node lets in whom its own port lets in, until the next call.
    ///
    /// What NATs, firewalls and other hosts still hold of connections that are dead is in the way of new ones with the same
    /// port: a NAT that has not forgotten them gives these another outer port for each destination, and a host that takes them
    /// for alive answers a SYN with nothing that helps.
    pub fn depart_afresh(&self) -> Result<(), PortError> {
        let fresh: Vec<SocketAddr> = self.local_addrs.iter().map(|addr| SocketAddr::new(addr.ip(), 0)).collect();
        let is_open = matches!(self.entrance, PortEntrance::Open(_));
        let (addrs, entrance) = enter_at(&fresh, is_open, &self.owners, &self.undecided)?;
        *self.departure.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Departure { addrs, _entrance: entrance });
        Ok(())
    }

    /// The addresses from which connections leave, as bound.
    pub fn departing_addrs(&self) -> Vec<SocketAddr> {
        let departure = self.departure.read().unwrap_or_else(PoisonError::into_inner);
        departure.as_ref().map_or(&self.local_addrs, |departure| &departure.addrs).clone()
    }

    /// Whether connections from this local address have left as those of now do.
    pub fn departs_from(&self, local: SocketAddr) -> bool {
        let same = |addr: &SocketAddr| addr.port() == local.port() && addr.is_ipv4() == local.is_ipv4();
        self.departing_addrs().iter().any(same)
    }

    /// The addresses that are listened on, as bound: with the real port, but unspecified addresses as they are.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// The port number, that of the first listener.
    pub fn number(&self) -> u16 {
        self.local_addrs.first().map_or(0, SocketAddr::port)
    }

    /// Connects from this port, so that a NAT shows others the mapping that leads back here. Where the port cannot be
    /// used (such a connection is up already), the connection leaves from another one.
    pub async fn connect(&self, remote: SocketAddr) -> io::Result<TcpStream> {
        bounded(socket::connect(self.source_for(remote), remote)).await
    }

    /// Connects from a port of the kernel's choice: inside a LAN, where there is no mapping to show, two nodes that call
    /// each other at one moment from their listening ports would meet in one simultaneous open.
    pub async fn connect_from_any_port(&self, remote: SocketAddr) -> io::Result<TcpStream> {
        let source = self.source_for(remote).map(|addr| SocketAddr::new(addr.ip(), 0));
        bounded(socket::connect(source, remote)).await
    }

    /// The way back for connections whose first message was one to be answered and no more.
    pub(crate) fn readmission(&self) -> Readmission {
        Readmission { owners: self.owners.clone(), undecided: self.undecided.clone() }
    }

    /// What the port has seen.
    pub fn counters(&self) -> &PortCounters {
        &self.owners.counters
    }

    /// What the bytes of the port's connections were for, of those protocols that count them.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The local address from which `remote` can be reached: that of a listener of the same family.
    pub fn source_for(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let fits = |local: &&SocketAddr| {
            local.is_ipv4() == remote.is_ipv4()
                && (local.ip().is_unspecified() || local.ip().is_loopback() == remote.ip().is_loopback())
        };
        self.departing_addrs().iter().find(fits).copied()
    }
}

impl Readmission {
    /// Waits for what comes next on a connection. STUN has had its turn, and is not taken any more.
    pub(crate) fn readmit(&self, Accepted { stream, remote, .. }: Accepted) {
        let place = self.undecided.enter(remote.ip());
        let (stun, _) = mpsc::channel(1);
        let owners = Owners { stun, ..self.owners.clone() };
        tokio::spawn(decide(stream, remote, place, owners));
    }
}

impl Drop for PortEntrance {
    fn drop(&mut self) {
        if let Self::Open(accept_loops) = self {
            accept_loops.iter().for_each(AbortHandle::abort);
        }
    }
}

async fn bounded(connecting: impl Future<Output = io::Result<TcpStream>>) -> io::Result<TcpStream> {
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Makes the way in at these addresses, and says which they are.
fn enter_at(
    listen: &[SocketAddr],
    is_open: bool,
    owners: &Owners,
    undecided: &Undecided,
) -> Result<(Vec<SocketAddr>, PortEntrance), PortError> {
    let sockets = bind_all(listen, is_open)?;
    let addrs = sockets.iter().filter_map(|socket| socket.local_addr().ok()?.as_socket()).collect();
    if !is_open {
        return Ok((addrs, PortEntrance::Shut { _held: sockets }));
    }
    let start = |listener| tokio::spawn(accept_loop(listener, owners.clone(), undecided.clone())).abort_handle();
    let listeners = sockets.into_iter().zip(listen).map(|(socket, addr)| {
        TcpListener::from_std(socket.into()).map_err(|error| PortError::Listen { addr: *addr, error })
    });
    Ok((addrs, PortEntrance::Open(listeners.map(|listener| listener.map(start)).collect::<Result<_, _>>()?)))
}

/// Opens all sockets; looks for another port when one that the kernel chose for the first is taken for another.
fn bind_all(listen: &[SocketAddr], is_open: bool) -> Result<Vec<Socket>, PortError> {
    let mut tries = 1;
    loop {
        match bind_once(listen, is_open) {
            Err(PortError::InUse { addr }) if tries < BIND_TRIES && !listen.contains(&addr) => tries += 1,
            result => return result,
        }
    }
}

fn bind_once(listen: &[SocketAddr], is_open: bool) -> Result<Vec<Socket>, PortError> {
    let mut sockets = Vec::with_capacity(listen.len());
    let mut unsupported = None;
    let mut chosen = None;
    for addr in listen {
        let mut addr = *addr;
        if addr.port() == 0 {
            addr.set_port(chosen.unwrap_or(0));
        }
        match socket::bind(addr, is_open) {
            Ok(socket) => {
                chosen = chosen.or(socket.local_addr().ok().and_then(|addr| Some(addr.as_socket()?.port())));
                sockets.push(socket);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(PortError::InUse { addr }),
            Err(error) if lacks_family(&error) => unsupported = Some(PortError::Listen { addr, error }),
            Err(error) => return Err(PortError::Listen { addr, error }),
        }
    }
    match unsupported {
        Some(error) if sockets.is_empty() => Err(error),
        _ => Ok(sockets),
    }
}

/// Whether the system has no such address family, or only `::` without a single IPv6 address behind it.
fn lacks_family(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::Unsupported
}

async fn accept_loop(listener: TcpListener, owners: Owners, undecided: Undecided) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let place = undecided.enter(remote.ip());
                tokio::spawn(decide(stream, remote, place, owners.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits for a connection's first bytes and hands it to its owner, or closes it.
async fn decide(stream: TcpStream, remote: SocketAddr, mut place: UndecidedPlace, owners: Owners) {
    let counters = &owners.counters;
    let verdict = tokio::select! {
        verdict = tokio::time::timeout(DECIDE_TIMEOUT, first_bytes(&stream)) => verdict.unwrap_or(PortVerdict::Undecided),
        _ = &mut place.pushed_out => {
            counters.pushed_out.add_one();
            return;
        }
    };
    drop(place);
    let (owner, counter) = match verdict {
        PortVerdict::Libp2p => (&owners.libp2p, &counters.libp2p),
        PortVerdict::Tls => (&owners.sessions, &counters.sessions),
        PortVerdict::Stun => (&owners.stun, &counters.stun),
        PortVerdict::Unknown => {
            counters.unknown.add_one();
            return;
        }
        PortVerdict::Undecided => {
            counters.silent.add_one();
            return;
        }
    };
    let Ok(local) = stream.local_addr() else { return };
    // Where the option cannot be set, the connection is slower and nothing else.
    let _ = stream.set_nodelay(true);
    match owner.try_send(Accepted { stream, remote, local }) {
        Ok(()) => counter.add_one(),
        Err(_) => counters.queue_full.add_one(),
    };
}

/// Looks at the first bytes until they say what the connection is; [`PortVerdict::Undecided`] if it ends before.
async fn first_bytes(stream: &TcpStream) -> PortVerdict {
    let mut bytes = [0; PEEK_LEN];
    let mut pause = FIRST_LOOK_PAUSE;
    let mut seen = 0;
    loop {
        let Ok(got) = stream.peek(&mut bytes).await else { return PortVerdict::Undecided };
        match classify(&bytes[..got]) {
            PortVerdict::Undecided if got == 0 => return PortVerdict::Undecided,
            PortVerdict::Undecided => {
                // The socket stays readable while these bytes lie there, so only time tells when to look again.
                if got > seen {
                    seen = got;
                    pause = FIRST_LOOK_PAUSE;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_LOOK_PAUSE);
            }
            verdict => return verdict,
        }
    }
}

#[cfg(test)]
mod tests;
