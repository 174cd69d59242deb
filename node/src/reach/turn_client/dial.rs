//! Connections to a server: names resolved, both families tried, through the proxy, within TLS.
//!
//! Data connections go where the control connection went: behind one name there may be several servers.
//!
//! What it is not: what is spoken on them.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{TurnError, TurnServer};
use crate::net::path::{
    PathStream,
    race::{RaceLimits, race},
};

/// How long a connection may take, from the name to the end of TLS.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a control connection is silent before the system asks whether the other end is there, how often it asks again, and how
/// many questions may go unanswered. It also keeps NATs from forgetting the connection.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Where a server was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// At this address.
    Direct(SocketAddr),
    /// At whatever address the proxy found for its name.
    Proxied,
}

/// Opens the control connection.
pub(super) async fn control(server: &TurnServer) -> Result<(PathStream, Route), TurnError> {
    let dialled = async {
        let (tcp, route) = match &server.proxy {
            Some(proxy) => (proxy.connect(&server.host, server.port).await?, Route::Proxied),
            None => {
                let tcp = race_to(server).await?;
                let remote = tcp.peer_addr().map_err(TurnError::Connect)?;
                (tcp, Route::Direct(remote))
            }
        };
        keep_alive(&tcp).map_err(TurnError::Connect)?;
        Ok((secured(server, tcp).await?, route))
    };
    timeout(DIAL_TIMEOUT, dialled).await.unwrap_or(Err(TurnError::TimedOut { patience: DIAL_TIMEOUT }))
}

/// Opens a data connection to the server of a control connection.
pub(super) async fn data(server: &TurnServer, route: Route) -> Result<PathStream, TurnError> {
    let dialled = async {
        let tcp = match (route, &server.proxy) {
            (Route::Proxied, Some(proxy)) => proxy.connect(&server.host, server.port).await?,
            (Route::Direct(remote), _) => connect(remote).await.map_err(TurnError::Connect)?,
            (Route::Proxied, None) => return Err(TurnError::Connect(io::ErrorKind::NotConnected.into())),
        };
        secured(server, tcp).await
    };
    timeout(DIAL_TIMEOUT, dialled).await.unwrap_or(Err(TurnError::TimedOut { patience: DIAL_TIMEOUT }))
}

async fn race_to(server: &TurnServer) -> Result<TcpStream, TurnError> {
    let resolved = lookup_host((server.host.as_str(), server.port)).await;
    let addrs: Vec<SocketAddr> =
        resolved.map_err(|source| TurnError::Resolve { host: server.host.clone(), source })?.collect();
    let late = || io::ErrorKind::TimedOut.into();
    let raced = race(&addrs, RaceLimits { deadline: DIAL_TIMEOUT, ..RaceLimits::default() }, connect, late).await;
    raced.map_err(|failed| {
        let last = failed.into_iter().next_back().map(|(_, error)| error);
        TurnError::Connect(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
    })
}

async fn connect(remote: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(remote).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn secured(server: &TurnServer, tcp: TcpStream) -> Result<PathStream, TurnError> {
    if !server.secure {
        return Ok(tcp.into());
    }
    let connector = TlsConnector::from(Arc::clone(&server.tls_config()?));
    let name = ServerName::try_from(server.host.clone()).map_err(|error| TurnError::Tls(io::Error::other(error)))?;
    Ok(connector.connect(name, tcp).await.map_err(TurnError::Tls)?.into())
}

fn keep_alive(tcp: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    #[cfg(not(windows))]
    let keepalive = keepalive.with_retries(KEEPALIVE_RETRIES);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}
