//! A relay on loopback for tests: it does what TURN would (RFC 6062), without its messages.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_ice::ConnectFailure;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
};

use super::{RelayAllocation, RelayAllocator, RelayFamily};
use crate::net::path::PathStream;

/// A relay on loopback that has addresses of one family.
#[derive(Debug, Default)]
pub(crate) struct TestRelay {
    /// Allocations that have not been given back.
    pub(crate) standing: Arc<AtomicUsize>,
    /// No allocation is ever made.
    pub(crate) silent: bool,
    /// Its addresses, as they are given out.
    pub(crate) relayed: Arc<Mutex<Vec<SocketAddr>>>,
    /// Whoever was to be let in.
    pub(crate) permitted: Arc<Mutex<BTreeSet<IpAddr>>>,
}

struct TestAllocation {
    relayed: SocketAddr,
    accepted: mpsc::Receiver<(PathStream, SocketAddr)>,
    permitted: Arc<Mutex<BTreeSet<IpAddr>>>,
    _lease: TestLease,
}

/// Gives the allocation back when it is dropped.
struct TestLease {
    standing: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Drop for TestLease {
    fn drop(&mut self) {
        self.accepting.abort();
        self.standing.fetch_sub(1, Ordering::SeqCst);
    }
}

impl TestRelay {
    async fn make(&self) -> TestAllocation {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relayed = listener.local_addr().unwrap();
        let (sender, accepted) = mpsc::channel(4);
        let permitted = Arc::clone(&self.permitted);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, remote)) = listener.accept().await {
                // Whoever is not permitted is closed at once (RFC 6062 §5.3).
                if permitted.lock().unwrap().contains(&remote.ip()) {
                    let _ = sender.send((relay(stream).await, remote)).await;
                }
            }
        })
        .abort_handle();
        self.standing.fetch_add(1, Ordering::SeqCst);
        self.relayed.lock().unwrap().push(relayed);
        let lease = TestLease { standing: Arc::clone(&self.standing), accepting };
        TestAllocation { relayed, accepted, permitted: Arc::clone(&self.permitted), _lease: lease }
    }
}

impl RelayAllocator for TestRelay {
    fn allocate(&self, family: RelayFamily) -> BoxFuture<'static, Result<Box<dyn RelayAllocation>, String>> {
        if family == RelayFamily::V6 {
            return Box::pin(async { Err("no such addresses".to_owned()) });
        }
        let (standing, relayed) = (Arc::clone(&self.standing), Arc::clone(&self.relayed));
        let (permitted, silent) = (Arc::clone(&self.permitted), self.silent);
        async move {
            if silent {
                std::future::pending::<()>().await;
            }
            let relay = Self { standing, silent, relayed, permitted };
            Ok(Box::new(relay.make().await) as Box<dyn RelayAllocation>)
        }
        .boxed()
    }
}

impl RelayAllocation for TestAllocation {
    fn relayed(&self) -> SocketAddr {
        self.relayed
    }

    fn mapped(&self) -> SocketAddr {
        "127.0.0.1:5".parse().unwrap()
    }

    fn permit(&self, peer: IpAddr) {
        self.permitted.lock().unwrap().insert(peer);
    }

    fn connect(&self, peer: SocketAddr) -> BoxFuture<'static, Result<PathStream, ConnectFailure>> {
        async move { Ok(relay(TcpStream::connect(peer).await.map_err(|_| ConnectFailure::Refused)?).await) }.boxed()
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<(PathStream, SocketAddr)>> {
        self.accepted.poll_recv(cx)
    }

    fn lease(self: Box<Self>) -> Box<dyn Send + Sync> {
        Box::new(self._lease)
    }
}

/// The data connection for a connection with a peer.
async fn relay(mut beyond: TcpStream) -> PathStream {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let data = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
    let (mut near, _) = server.accept().await.unwrap();
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut beyond).await });
    data.into()
}

/// How many allocations stand, their addresses, and the relay itself.
type Shared = (Arc<AtomicUsize>, Arc<Mutex<Vec<SocketAddr>>>, Arc<dyn RelayAllocator>);

/// Shares a relay.
pub(crate) fn as_allocator(relay: TestRelay) -> Shared {
    (Arc::clone(&relay.standing), Arc::clone(&relay.relayed), Arc::new(relay))
}

/// A relay that has nothing to give.
pub(crate) struct NoRelays;

impl RelayAllocator for NoRelays {
    fn allocate(&self, _family: RelayFamily) -> BoxFuture<'static, Result<Box<dyn RelayAllocation>, String>> {
        Box::pin(async { Err("there is none".to_owned()) })
    }
}
