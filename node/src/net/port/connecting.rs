//! One connection on its way out, as an ICE agent asks for it: from exactly the source it names, plainly or by an
//! *opening SYN*.
//!
//! ```text
//! opening SYN   TTL = t, MINTTL = t | connect: the SYN leaves, passes this side's NAT, dies before the peer's
//!               | TTL = default     | told to the peer, whose own SYN now comes in and meets this socket in SYN_SENT
//! ```
//! The least TTL hides the ICMP error about the dead SYN from the socket (`min_ttl`). IPv6 has hop limits for TTLs, and its
//! sockets must hear nothing at all until that error has passed; the way is open only after that ([`Connecting::opened`]).
//!
//! What it is not: a choice of where to connect to, or another way when this one fails; both are the agent's.

use std::{io, net::SocketAddr, time::Duration};

use keyferry_ice::{ConnectFailure, ConnectMethod, Source};
use socket2::Socket;
use tokio::net::TcpStream;

use super::{min_ttl, socket};

/// A connection whose SYN has left. Dropping it gives it up without a further packet.
#[derive(Debug)]
pub struct Connecting {
    stream: TcpStream,
    remote: SocketAddr,
    hearing: Hearing,
}

/// Which packets a socket takes for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// None yet, not even the peer's SYN.
    Nothing,
    /// Those that have come no further than an opening SYN is to go are not heard.
    FromAfar,
    Everything,
}

/// How long an opening socket of IPv6 hears nothing: the ICMP error has come by then from all routers that are near, and those
/// are where the SYN dies. The peer's SYN must not come earlier, because it would be repeated only after a second.
const DEAF: Duration = Duration::from_millis(60);

/// Whether this system can send an opening SYN.
pub const CAN_OPEN: bool = min_ttl::SUPPORTED;

impl Connecting {
    /// Sends the first SYN. When this returns, an opening SYN has left and its TTL has been raised again.
    pub fn start(source: Source, remote: SocketAddr, method: ConnectMethod) -> Result<Self, ConnectFailure> {
        let started = bind(source, remote).and_then(|socket| send_syn(socket, remote, method));
        started.map_err(|failed| {
            tracing::debug!(%remote, ?source, ?method, error = %failed.error, "a connection could not be started");
            failed.reason()
        })
    }

    /// Waits until the peer's SYN can meet this one: it must not be told earlier that the way is open.
    pub async fn opened(mut self) -> Result<Self, ConnectFailure> {
        match self.begin_to_hear().await {
            Ok(()) => Ok(self),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Waits until the connection stands. The caller sets the deadline.
    pub async fn established(mut self) -> Result<TcpStream, ConnectFailure> {
        let wait = async {
            self.begin_to_hear().await?;
            self.wait().await
        };
        wait.await.map_err(|error| failed(&error))
    }

    async fn begin_to_hear(&mut self) -> io::Result<()> {
        if self.hearing == Hearing::Nothing {
            tokio::time::sleep(DEAF).await;
            self.hear_everything()?;
        }
        Ok(())
    }

    fn hear_everything(&mut self) -> io::Result<()> {
        min_ttl::set(&socket2::SockRef::from(&self.stream), self.remote.is_ipv4(), 0)?;
        self.hearing = Hearing::Everything;
        Ok(())
    }

    async fn wait(mut self) -> io::Result<TcpStream> {
        self.stream.writable().await?;
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        if self.stream.local_addr()? == self.remote {
            // TCP lets a socket open a connection to itself when its own address is dialled from the listening port.
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "that address is this node's own"));
        }
        if self.hearing == Hearing::FromAfar {
            self.hear_everything()?;
        }
        Ok(self.stream)
    }
}

fn failed(error: &io::Error) -> ConnectFailure {
    tracing::debug!(%error, "a connection failed");
    failure_of(error)
}

/// A failure before the SYN left, with the step at which it happened.
struct Failed {
    step: ConnectStep,
    error: io::Error,
}

#[derive(PartialEq, Eq)]
enum ConnectStep {
    Bind,
    Options,
    Connect,
}

impl Failed {
    fn reason(&self) -> ConnectFailure {
        match (&self.step, self.error.kind()) {
            // The interface has gone, or never was ours.
            (ConnectStep::Bind, io::ErrorKind::AddrNotAvailable) => ConnectFailure::Unreachable,
            (ConnectStep::Options, _) => ConnectFailure::Unsupported,
            _ => failure_of(&self.error),
        }
    }
}

fn bind(source: Source, remote: SocketAddr) -> Result<Socket, Failed> {
    let open = || {
        let socket = socket::new_socket(remote)?;
        let local = match source {
            Source::Port(local) => {
                socket::allow_sharing(&socket)?;
                socket::free_at_once(&socket)?;
                local
            }
            Source::AnyPort(ip) => SocketAddr::new(ip, 0),
            // Relays are another module's.
            Source::Relayed(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        socket.bind(&local.into())?;
        Ok(socket)
    };
    open().map_err(|error| Failed { step: ConnectStep::Bind, error })
}

fn send_syn(socket: Socket, remote: SocketAddr, method: ConnectMethod) -> Result<Connecting, Failed> {
    let options = |error| Failed { step: ConnectStep::Options, error };
    let connect = |error| Failed { step: ConnectStep::Connect, error };
    let hearing = match method {
        ConnectMethod::Plain => {
            begin_connect(&socket, remote).map_err(connect)?;
            Hearing::Everything
        }
        ConnectMethod::Opening { ttl } => {
            let usual = hops(&socket, remote).map_err(options)?;
            let least = if remote.is_ipv4() { ttl } else { u8::MAX };
            min_ttl::set(&socket, remote.is_ipv4(), least).map_err(options)?;
            set_hops(&socket, remote, u32::from(ttl)).map_err(options)?;
            begin_connect(&socket, remote).map_err(connect)?;
            set_hops(&socket, remote, usual).map_err(options)?;
            if remote.is_ipv4() { Hearing::FromAfar } else { Hearing::Nothing }
        }
    };
    let stream = TcpStream::from_std(socket.into()).map_err(connect)?;
    Ok(Connecting { stream, remote, hearing })
}

/// Starts a connect that does not block: the SYN has left when this returns.
fn begin_connect(socket: &Socket, remote: SocketAddr) -> io::Result<()> {
    match socket.connect(&remote.into()) {
        // The one is what Unix says, the other Windows.
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}

fn hops(socket: &Socket, remote: SocketAddr) -> io::Result<u32> {
    if remote.is_ipv4() { socket.ttl_v4() } else { socket.unicast_hops_v6() }
}

fn set_hops(socket: &Socket, remote: SocketAddr, hops: u32) -> io::Result<()> {
    if remote.is_ipv4() { socket.set_ttl_v4(hops) } else { socket.set_unicast_hops_v6(hops) }
}

/// What the agent needs to know of an error of the system.
fn failure_of(error: &io::Error) -> ConnectFailure {
    match error.kind() {
        // A RST that meets a socket after the SYNs have crossed says "reset".
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            ConnectFailure::Refused
        }
        // Permission is what a firewall on the way, or on this machine, denies.
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::PermissionDenied => ConnectFailure::Unreachable,
        io::ErrorKind::TimedOut => ConnectFailure::TimedOut,
        // The second is what Linux says of two connections with the same four numbers.
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => ConnectFailure::AddrInUse,
        io::ErrorKind::Unsupported => ConnectFailure::Unsupported,
        _ => ConnectFailure::Other,
    }
}

#[cfg(test)]
mod tests;
