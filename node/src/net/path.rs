//! Paths: how a connected byte stream to a peer comes about. A path is dialled, accepted, found by ICE (`crate::connect::ice`), or
//! relayed by a TURN server (`crate::reach::turn_client`); all end in the same [`Path`].
//!
//! What it is not: proof of who is at the other end; that is the session's business.

mod host;
pub mod info;
mod policy;
pub(crate) mod race;
mod relayed;
mod stream;

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use keyferry_ice::Strategy;
use tokio::{net::TcpStream, time::Instant};

pub use self::{
    host::{MAX_HOST_CANDIDATES, host_candidates},
    policy::{AddressPolicy, AddressRefusal, AddressSource, Admitted, MAX_DIALLED, PathScope},
    relayed::{RelayMode, RelayReason, RelayWay},
    stream::PathStream,
};
use crate::net::port::Port;

/// How long one TCP connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connected byte stream to a peer, and how it came about.
#[derive(Debug)]
pub struct Path {
    /// The stream, with nothing read from it yet.
    pub stream: PathStream,
    /// How it came about.
    pub report: PathReport,
}

/// How a path came about; its text form is what people read, such as `direct (LAN, 3 ms)` or
/// `direct (opening SYN, TTL 2, 34 ms)` or `relayed by 203.0.113.1 (both NATs map by destination)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathReport {
    /// The peer's address.
    pub remote: SocketAddr,
    /// By which means.
    pub kind: PathKind,
    /// Whether the peer is on this machine, on this network, or beyond.
    pub scope: PathScope,
    /// From the first attempt until the path stood; zero for an accepted one.
    pub took: Duration,
}

/// By which means a path came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// This node connected to an address of the peer.
    Dialled,
    /// The peer connected to an address of this node.
    Accepted,
    /// ICE checks found it, by this strategy.
    Punched(Strategy),
    /// A TURN server is in between.
    Relayed {
        /// Its address.
        by: IpAddr,
        /// Which side's server it is, and who connected.
        how: RelayWay,
        /// Why the path is not a direct one, as far as is known.
        why: Option<RelayReason>,
    },
}

impl PathKind {
    /// Whether a relay is in between.
    pub fn is_relayed(&self) -> bool {
        matches!(self, Self::Relayed { .. })
    }

    /// Whether all is known of it that will be: it is direct, or it is known why it is not.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Relayed { why: None, .. })
    }
}

impl fmt::Display for PathReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.scope) {
            (PathKind::Dialled, scope) => write!(f, "direct ({scope}, {})", in_words(self.took)),
            (PathKind::Accepted, scope) => write!(f, "direct ({scope}, accepted)"),
            (PathKind::Punched(strategy), PathScope::Internet) => {
                write!(f, "direct ({strategy}, {})", in_words(self.took))
            }
            (PathKind::Punched(strategy), scope) => {
                write!(f, "direct ({scope}, {strategy}, {})", in_words(self.took))
            }
            (PathKind::Relayed { by, why: Some(why), .. }, _) => write!(f, "relayed by {by} ({why})"),
            (PathKind::Relayed { by, .. }, _) => write!(f, "relayed by {by} ({})", in_words(self.took)),
        }
    }
}

fn in_words(took: Duration) -> String {
    match took.as_millis() {
        0 => "under 1 ms".to_owned(),
        millis @ 1..10_000 => format!("{millis} ms"),
        _ => format!("{} s", took.as_secs()),
    }
}

/// Whatever opens connections: the node's port, a plain socket, or a relay that connects on this node's behalf.
pub trait Connect: Send + Sync {
    /// Connects to an address in a scope, and tells by which means. The caller sets the deadline.
    fn connect(
        &self,
        remote: SocketAddr,
        scope: PathScope,
    ) -> impl Future<Output = io::Result<(PathStream, PathKind)>> + Send;
}

/// Opens connections from a port that the system chooses.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyPort;

impl Connect for AnyPort {
    async fn connect(&self, remote: SocketAddr, _scope: PathScope) -> io::Result<(PathStream, PathKind)> {
        let stream = TcpStream::connect(remote).await?;
        stream.set_nodelay(true)?;
        Ok((stream.into(), PathKind::Dialled))
    }
}

impl Connect for Port {
    async fn connect(&self, remote: SocketAddr, _scope: PathScope) -> io::Result<(PathStream, PathKind)> {
        // Connections from the node's own port to a peer are the ICE agent's: of two with the same addresses one fails.
        self.connect_from_any_port(remote).await.map(|stream| (stream.into(), PathKind::Dialled))
    }
}

impl<C: Connect> Connect for Arc<C> {
    fn connect(
        &self,
        remote: SocketAddr,
        scope: PathScope,
    ) -> impl Future<Output = io::Result<(PathStream, PathKind)>> + Send {
        C::connect(self, remote, scope)
    }
}

/// Connects to one address, within [`CONNECT_TIMEOUT`]; the path counts its time from `started`.
pub(crate) async fn dial<C: Connect>(
    connector: &C,
    remote: SocketAddr,
    policy: &AddressPolicy,
    started: Instant,
) -> io::Result<Path> {
    let scope = policy.scope(remote);
    match tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(remote, scope)).await {
        Ok(connected) => {
            let (stream, kind) = connected?;
            Ok(Path { stream, report: PathReport { remote, kind, scope, took: started.elapsed() } })
        }
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

impl Path {
    /// Makes the connection end by FIN, even if the node is killed. A path that ICE found can be made again only between the same
    /// addresses: connection tracking takes a new SYN there at once after a FIN, and after a RST it lets the peer's in only 10 s
    /// later. TIME_WAIT does no harm: Linux lets a bound socket connect over it where timestamps are used.
    pub(crate) fn end_in_order(&self) {
        if let Err(error) = socket2::SockRef::from(self.stream.tcp()).set_linger(None) {
            tracing::debug!(%error, "a path will end by RST");
        }
    }
}

impl PathReport {
    /// Describes a path that this node dialled.
    pub fn dialled(remote: SocketAddr, policy: &AddressPolicy, took: Duration) -> Self {
        Self { remote, kind: PathKind::Dialled, scope: policy.scope(remote), took }
    }

    /// Describes a path that the peer dialled.
    pub fn accepted(remote: SocketAddr, policy: &AddressPolicy) -> Self {
        Self { remote, kind: PathKind::Accepted, scope: policy.scope(remote), took: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use keyferry_ice::FailureReason;

    use super::*;

    #[test]
    fn a_path_is_described_in_words() {
        let remote = "192.0.2.7:4".parse().expect("an address");
        let report =
            |kind, scope, millis| PathReport { remote, kind, scope, took: Duration::from_millis(millis) }.to_string();
        assert_eq!(report(PathKind::Dialled, PathScope::Lan, 3), "direct (LAN, 3 ms)");
        assert_eq!(report(PathKind::Dialled, PathScope::ThisMachine, 0), "direct (this machine, under 1 ms)");
        assert_eq!(report(PathKind::Dialled, PathScope::Internet, 12_345), "direct (internet, 12 s)");
        assert_eq!(report(PathKind::Accepted, PathScope::Internet, 0), "direct (internet, accepted)");
        let opened = PathKind::Punched(Strategy::OpenedByPeer { ttl: 2 });
        assert_eq!(report(opened, PathScope::Internet, 34), "direct (opening SYN, TTL 2, 34 ms)");
        let crossing = PathKind::Punched(Strategy::Crossing);
        assert_eq!(report(crossing, PathScope::Lan, 3), "direct (LAN, crossing SYNs, 3 ms)");
        let relayed =
            |why| PathKind::Relayed { by: "203.0.113.1".parse().expect("an address"), how: RelayWay::Accepted, why };
        assert_eq!(report(relayed(None), PathScope::Internet, 34), "relayed by 203.0.113.1 (34 ms)");
        let why = RelayReason::NoDirectPath(FailureReason::BothMapByDestination);
        let words = "relayed by 203.0.113.1 (both NATs map by destination)";
        assert_eq!(report(relayed(Some(why)), PathScope::Internet, 34), words);
    }
}
