//! How this node connects to the addresses of peers, as far as its relay mode lets it.
//!
//! What it is not: which addresses those are (`crate::connect::connector`), or the relays themselves.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_ice::frame;
use stun_types::{
    message::{BINDING, Message, MessageWriteVec},
    prelude::*,
};
use tokio::{io::AsyncWriteExt, sync::Mutex, time::sleep};

use crate::{
    net::{
        path::{Connect, PathKind, PathScope, PathStream, RelayReason, RelayWay},
        port::Port,
        stun::read,
    },
    reach::{
        rendezvous::CircuitDialler,
        turn_client::{AddressFamily, Connector, Lease, RelayAllocator},
    },
};

/// Connects to peers for a whole node. Clones do the same.
#[derive(Clone)]
pub(crate) enum Dialler {
    /// From this machine.
    Direct(Arc<Port>),
    /// From relays only: the peer is not shown this machine's address.
    ByRelay(Arc<RelayDialler>),
}

impl Connect for Dialler {
    async fn connect(&self, remote: SocketAddr, scope: PathScope) -> io::Result<(PathStream, PathKind)> {
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

/// Connects from the relays that this node may use. As long as one connection of an allocation lasts, others may join it.
pub(crate) struct RelayDialler {
    relays: Arc<dyn RelayAllocator>,
    v4: Mutex<Option<SharedAllocation>>,
    v6: Mutex<Option<SharedAllocation>>,
}

/// An allocation that the connections through it keep.
struct SharedAllocation {
    connector: Connector,
    relay: IpAddr,
    lease: Weak<Lease>,
}

impl RelayDialler {
    pub(crate) fn new(relays: Arc<dyn RelayAllocator>) -> Self {
        Self { relays, v4: Mutex::default(), v6: Mutex::default() }
    }

    /// An allocation with addresses of this family, and what keeps it.
    async fn allocation(&self, family: AddressFamily) -> io::Result<(Connector, IpAddr, Arc<Lease>)> {
        let mut shared = match family {
            AddressFamily::V4 => self.v4.lock().await,
            AddressFamily::V6 => self.v6.lock().await,
        };
        if let Some(SharedAllocation { connector, relay, lease }) = &*shared
            && let Some(lease) = lease.upgrade()
            && Lease::clone(&lease).ended().now_or_never().is_none()
        {
            return Ok((connector.clone(), *relay, lease));
        }
        let allocation = self.relays.allocate(family).await.map_err(io::Error::other)?;
        let (connector, relay) = (allocation.connector(), allocation.relayed().ip());
        let lease = Arc::new(allocation.lease());
        *shared = Some(SharedAllocation { connector: connector.clone(), relay, lease: Arc::downgrade(&lease) });
        Ok((connector, relay, lease))
    }

    /// Connects to an address of a peer (RFC 6062 §4.3); gives the relay's address too. The caller sets the deadline.
    async fn connect(&self, remote: SocketAddr) -> io::Result<(PathStream, IpAddr)> {
        let (connector, relay, lease) = self.allocation(AddressFamily::of(remote.ip())).await?;
        Ok((through(&connector, lease, remote).await?, relay))
    }
}

/// Connects to an address of a peer through an allocation, which the connection keeps.
async fn through(connector: &Connector, lease: Arc<Lease>, remote: SocketAddr) -> io::Result<PathStream> {
    let mut stream = connector.relay_to(remote).await.map_err(io::Error::other)?;
    begin_with_check(&mut stream).await?;
    Ok(stream.holding(lease))
}

/// How long to wait before relays are asked again for an allocation: a node that has just started may know none yet.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Connects to circuit relays for a node that hides where it is: from a TURN relay that it uses. To one that is on the very host of that
/// relay it connects itself, since relays do not connect to their own hosts, and this one knows where the node is.
pub(crate) struct ByTurnRelay {
    relays: Arc<RelayDialler>,
    port: Arc<Port>,
}

impl ByTurnRelay {
    pub(crate) fn new(relays: Arc<RelayDialler>, port: Arc<Port>) -> Self {
        Self { relays, port }
    }
}

impl CircuitDialler for ByTurnRelay {
    fn connect(&self, circuit_relay: SocketAddr) -> BoxFuture<'static, io::Result<PathStream>> {
        let (relays, port) = (Arc::clone(&self.relays), Arc::clone(&self.port));
        async move {
            loop {
                match relays.allocation(AddressFamily::of(circuit_relay.ip())).await {
                    Ok((_, relay, lease)) if relay == circuit_relay.ip().to_canonical() => {
                        let stream = port.connect_from_any_port(circuit_relay).await?;
                        return Ok(PathStream::from(stream).holding(lease));
                    }
                    Ok((connector, _, lease)) => return through(&connector, lease, circuit_relay).await,
                    Err(error) => tracing::debug!(%error, "no relay yet by which to reach a circuit relay"),
                }
                sleep(ASK_AGAIN_AFTER).await;
            }
        }
        .boxed()
    }
}

impl fmt::Debug for ByTurnRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByTurnRelay").finish_non_exhaustive()
    }
}

/// Begins a connection as an ICE agent would, with a Binding request behind its RFC 4571 length, and waits for the answer: relays of others
/// let nothing else through first. It names nobody and proves nothing.
async fn begin_with_check(stream: &mut PathStream) -> io::Result<()> {
    let no_check = || io::Error::new(io::ErrorKind::InvalidData, "the peer does not answer a check");
    let request = Message::builder_request(BINDING, MessageWriteVec::new()).finish();
    let framed = frame(&request).ok_or_else(no_check)?;
    stream.write_all(&framed).await?;
    stream.flush().await?;
    let answer = read::framed(stream).await.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => no_check(),
        _ => error,
    })?;
    let asked = Message::from_bytes(&request).map_err(|_| no_check())?;
    match Message::from_bytes(&answer) {
        Ok(answer) if answer.is_response() && answer.transaction_id() == asked.transaction_id() => Ok(()),
        _ => Err(no_check()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;
    use crate::reach::turn_client::test_relay::{no_relays, test_relay};

    #[tokio::test]
    async fn a_node_that_hides_its_address_connects_through_its_relay_only() {
        let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer_addr = peer.local_addr().unwrap();
        let (relay, allocator) = test_relay();
        let dialler = Dialler::ByRelay(Arc::new(RelayDialler::new(allocator)));

        let connecting = dialler.connect(peer_addr, PathScope::Internet);
        let (connected, (_from_relay, seen)) = tokio::join!(connecting, answering(&peer));
        let (stream, kind) = connected.unwrap();

        assert_ne!(stream.tcp().peer_addr().unwrap(), peer_addr, "the connection is to the relay");
        let why = Some(RelayReason::RelayOnly);
        let by = relay.relayed()[0].ip();
        assert_eq!(kind, PathKind::Relayed { by, how: RelayWay::ThroughOurs, why });
        assert_ne!(seen, stream.tcp().local_addr().unwrap());
        let nobody_else = tokio::time::timeout(std::time::Duration::from_millis(50), peer.accept()).await;
        assert!(nobody_else.is_err());
        assert_eq!(relay.standing(), 1);
        drop(stream);
        assert_eq!(relay.standing(), 0, "the allocation lasts as long as what goes through it");
    }

    /// Accepts a connection that begins with a check, and answers that.
    async fn answering(peer: &TcpListener) -> (tokio::net::TcpStream, SocketAddr) {
        let (mut stream, remote) = peer.accept().await.unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).await.unwrap();
        let mut check = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut check).await.unwrap();
        assert!(keyferry_turn::server::is_check(&check), "relays let it through");
        let keyferry_turn::binding::BindingReply::Answer(answer) = keyferry_turn::binding::reply(&check, remote) else {
            panic!("no request")
        };
        stream.write_all(&frame(&answer).unwrap()).await.unwrap();
        (stream, remote)
    }

    #[tokio::test]
    async fn a_peer_behind_the_relay_that_does_not_answer_a_check_is_none() {
        let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = web.local_addr().unwrap();
        let dialler = Dialler::ByRelay(Arc::new(RelayDialler::new(test_relay().1)));
        let serving = async {
            let (mut stream, _) = web.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            stream
        };

        let (connected, _stream) = tokio::join!(dialler.connect(addr, PathScope::Internet), serving);

        assert_eq!(connected.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn without_a_relay_it_connects_to_nobody() {
        let dialler = Dialler::ByRelay(Arc::new(RelayDialler::new(no_relays())));
        let refused = dialler.connect("127.0.0.1:1".parse().unwrap(), PathScope::Internet).await.unwrap_err();
        assert_eq!(refused.to_string(), "no relay is known");
    }
}
