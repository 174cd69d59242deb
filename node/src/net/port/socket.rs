//! The sockets of the port: listeners, and connections that leave from the same port.
//!
//! What it is not: which connection is for whom; see [`super`].

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

/// Connections that the kernel may hold for us between two calls of accept.
const BACKLOG: i32 = 1024;

/// Takes an address, with `SO_REUSEADDR` and `SO_REUSEPORT`, so that connections may leave from its port, and listens at it if it is to be
/// open.
///
/// Fails with `AddrInUse` when another listener has the port, which those options alone would allow: the kernel would
/// then deal out our connections between the two programs.
pub(super) fn bind(addr: SocketAddr, is_open: bool) -> io::Result<Socket> {
    if addr.port() != 0 {
        let probe = new_socket(addr)?;
        probe.set_reuse_address(true)?;
        probe.bind(&addr.into())?;
    }
    let socket = new_socket(addr)?;
    allow_sharing(&socket)?;
    socket.bind(&addr.into())?;
    if is_open {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// Connects from `local`, or from a port of the kernel's choice where that is not possible or not asked for.
pub(super) async fn connect(local: Option<SocketAddr>, remote: SocketAddr) -> io::Result<TcpStream> {
    if let Some(local) = local {
        match connect_from(local, remote).await {
            // A connection between these two ports is up already, or was a moment ago.
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse) => {
                tracing::debug!(%error, "the port cannot be used for one more connection to that address");
            }
            result => return result,
        }
    }
    let unspecified = match remote {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // The source address of a node that listens on one address only stays that address.
    let ip = local.map_or(unspecified, |local| local.ip());
    connect_from(SocketAddr::new(ip, 0), remote).await
}

async fn connect_from(local: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = new_socket(remote)?;
    if local.port() != 0 {
        allow_sharing(&socket)?;
        free_at_once(&socket)?;
    }
    if local.port() != 0 || !local.ip().is_unspecified() {
        socket.bind(&local.into())?;
    }
    let stream = TcpSocket::from_std_stream(socket.into()).connect(remote).await?;
    if stream.local_addr()? == remote {
        // TCP lets a socket open a connection to itself when its own address is dialled from the listening port.
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "that address is this node's own"));
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) fn new_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if addr.is_ipv6() {
        // IPv4 has a listener of its own; one address must not appear in two forms.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

pub(crate) fn allow_sharing(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    Ok(())
}

/// Frees the pair of addresses as soon as the connection is closed, by RST: otherwise whoever closes first, such as a
/// short command, could not connect from the same port to the same address again for a minute (TIME_WAIT, RFC 9293
/// §3.6.1). What the peer has not acknowledged by then is lost.
pub(super) fn free_at_once(socket: &Socket) -> io::Result<()> {
    socket.set_linger(Some(std::time::Duration::ZERO))
}
