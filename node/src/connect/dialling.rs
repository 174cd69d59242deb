//! How this node connects to the addresses of peers, as far as its relay mode lets it.
//!
//! What it is not: which addresses those are (`finder`), or the relays themselves.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::Mutex;

use crate::{
    net::{
        path::{Connect, PathKind, PathStream, RelayReason, RelayWay, Scope},
        port::Port,
    },
    reach::turn_client::{AddressFamily, Connector, Lease, Relays},
};

/// Connects to peers from relays of this node's (RFC 6062 §4.3).
pub(crate) trait ConnectByRelay: Send + Sync {
    /// Connects to an address of a peer; gives the relay's address too. The caller sets the deadline.
    fn connect(&self, remote: SocketAddr) -> BoxFuture<'_, io::Result<(PathStream, IpAddr)>>;
}

/// Connects to peers for a whole node. Clones do the same.
#[derive(Clone)]
pub(crate) enum Dialler {
    /// From this machine.
    Direct(Arc<Port>),
    /// From relays only: the peer is not shown this machine's address.
    ByRelay(Arc<dyn ConnectByRelay>),
}

impl Connect for Dialler {
    async fn connect(&self, remote: SocketAddr, scope: Scope) -> io::Result<(PathStream, PathKind)> {
        match self {
            Self::Direct(port) => port.connect(remote, scope).await,
            Self::ByRelay(relays) => {
                let (stream, by) = relays.connect(remote).await?;
                let kind = PathKind::Relayed { by, how: RelayWay::ThroughOurs, why: Some(RelayReason::RelayOnly) };
                Ok((stream, kind))
            }
        }
    }
}

/// Connects from the relays that this node may use. An allocation serves all connections that are made while one of them lasts.
pub(crate) struct RelayDialler {
    relays: Relays,
    v4: Mutex<Option<Shared>>,
    v6: Mutex<Option<Shared>>,
}

/// An allocation that the connections through it keep.
struct Shared {
    connector: Connector,
    relay: IpAddr,
    lease: Weak<Lease>,
}

impl RelayDialler {
    pub(crate) fn new(relays: Relays) -> Self {
        Self { relays, v4: Mutex::default(), v6: Mutex::default() }
    }

    /// An allocation with addresses of this family, with what keeps it.
    async fn allocation(&self, family: AddressFamily) -> io::Result<(Connector, IpAddr, Arc<Lease>)> {
        let mut shared = match family {
            AddressFamily::V4 => self.v4.lock().await,
            AddressFamily::V6 => self.v6.lock().await,
        };
        if let Some(Shared { connector, relay, lease }) = &*shared
            && let Some(lease) = lease.upgrade()
            && Lease::clone(&lease).ended().now_or_never().is_none()
        {
            return Ok((connector.clone(), *relay, lease));
        }
        let allocation = self.relays.allocate(family).await.map_err(io::Error::other)?;
        let (connector, relay) = (allocation.connector(), allocation.relayed().ip());
        let lease = Arc::new(allocation.lease());
        *shared = Some(Shared { connector: connector.clone(), relay, lease: Arc::downgrade(&lease) });
        Ok((connector, relay, lease))
    }
}

impl ConnectByRelay for RelayDialler {
    fn connect(&self, remote: SocketAddr) -> BoxFuture<'_, io::Result<(PathStream, IpAddr)>> {
        let family = if remote.is_ipv4() { AddressFamily::V4 } else { AddressFamily::V6 };
        Box::pin(async move {
            let (connector, relay, lease) = self.allocation(family).await?;
            let stream = connector.relay_to(remote).await.map_err(io::Error::other)?;
            Ok((stream.holding(lease), relay))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        net::{TcpListener, TcpStream},
        sync::mpsc,
    };

    use super::*;

    /// A relay that connects to one place, whatever it is asked for, and says for what.
    struct Elsewhere {
        place: SocketAddr,
        asked: mpsc::UnboundedSender<SocketAddr>,
    }

    impl ConnectByRelay for Elsewhere {
        fn connect(&self, remote: SocketAddr) -> BoxFuture<'_, io::Result<(PathStream, IpAddr)>> {
            let _ = self.asked.send(remote);
            Box::pin(async { Ok((TcpStream::connect(self.place).await?.into(), self.place.ip())) })
        }
    }

    #[tokio::test]
    async fn a_node_that_hides_its_address_connects_through_its_relay_only() {
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (asked, mut asks) = mpsc::unbounded_channel();
        let (place, peer_addr) = (relay.local_addr().unwrap(), peer.local_addr().unwrap());
        let dialler = Dialler::ByRelay(Arc::new(Elsewhere { place, asked }));

        let (stream, kind) = dialler.connect(peer_addr, Scope::Internet).await.unwrap();

        assert_eq!(asks.recv().await, Some(peer_addr));
        assert_eq!(stream.tcp().peer_addr().unwrap(), place);
        let why = Some(RelayReason::RelayOnly);
        assert_eq!(kind, PathKind::Relayed { by: place.ip(), how: RelayWay::ThroughOurs, why });
        let nobody_else = tokio::time::timeout(std::time::Duration::from_millis(50), peer.accept()).await;
        assert!(nobody_else.is_err());
    }

    #[tokio::test]
    async fn without_a_relay_it_connects_to_nobody() {
        let dialler = Dialler::ByRelay(Arc::new(RelayDialler::new(Relays::default())));
        let refused = dialler.connect("127.0.0.1:1".parse().unwrap(), Scope::Internet).await.unwrap_err();
        assert_eq!(refused.to_string(), "no relay is known");
    }
}
