//! A relay on loopback for tests: it does what TURN would (RFC 6062), without its messages.

use std::{
    collections::BTreeSet,
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_turn::client::{Allocated, RequestError};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use super::{
    AddressFamily, Allocation, PeerConnectError, RelayAllocator, Relays, RelaysError, TurnServer,
    driver::{PeerConnect, Started, WantedPeers},
};
use crate::net::path::PathStream;

/// A relay that has IPv4 addresses of loopback. Clones are the same relay.
#[derive(Debug, Clone, Default)]
pub(crate) struct TestRelay {
    given: Arc<Mutex<Vec<GivenAllocation>>>,
}

/// An allocation that was given.
#[derive(Debug)]
struct GivenAllocation {
    relayed: SocketAddr,
    /// As long as somebody holds the other kind, the allocation stands.
    connects: mpsc::WeakSender<PeerConnect>,
}

impl TestRelay {
    /// Allocations that have not been given back.
    pub(crate) fn standing(&self) -> usize {
        self.given.lock().unwrap().iter().filter(|given| given.connects.strong_count() > 0).count()
    }

    /// All addresses that were given out.
    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        self.given.lock().unwrap().iter().map(|given| given.relayed).collect()
    }

    async fn make(&self) -> Allocation {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relayed = listener.local_addr().unwrap();
        let (connects, connects_in) = mpsc::channel(4);
        let (accepted_out, accepted) = mpsc::channel(4);
        let (ended_out, ended) = watch::channel(None);
        let wanted = Arc::new(WantedPeers::default());
        self.given.lock().unwrap().push(GivenAllocation { relayed, connects: connects.downgrade() });
        let serving = serve(listener, connects_in, Arc::clone(&wanted), accepted_out);
        tokio::spawn(async move {
            serving.await;
            drop(ended_out);
        });
        let lifetime = Duration::from_secs(600);
        let allocated = Allocated { relayed, mapped: "127.0.0.1:5".parse().unwrap(), lifetime };
        let server = TurnServer::new("127.0.0.1", relayed.port(), false);
        Allocation::of(Started { allocated, connects, accepted, ended }, server, wanted)
    }
}

impl RelayAllocator for TestRelay {
    fn is_empty(&self) -> bool {
        false
    }

    fn allocate(&self, family: AddressFamily) -> BoxFuture<'static, Result<Allocation, RelaysError>> {
        let relay = self.clone();
        async move {
            match family {
                AddressFamily::V4 => Ok(relay.make().await),
                AddressFamily::V6 => Err(RelaysError::None),
            }
        }
        .boxed()
    }
}

/// A relay that never answers. Whoever waits for it holds a clone of what is in it.
struct SilentRelay(Arc<()>);

impl RelayAllocator for SilentRelay {
    fn is_empty(&self) -> bool {
        false
    }

    fn allocate(&self, _: AddressFamily) -> BoxFuture<'static, Result<Allocation, RelaysError>> {
        let waiting = Arc::clone(&self.0);
        async move {
            let _waiting = waiting;
            pending().await
        }
        .boxed()
    }
}

/// A relay, and the same for negotiations.
pub(crate) fn test_relay() -> (TestRelay, Arc<dyn RelayAllocator>) {
    let relay = TestRelay::default();
    (relay.clone(), Arc::new(relay))
}

/// A relay that never answers, and how many wait for it.
pub(crate) fn silent_relay() -> (impl Fn() -> usize, Arc<dyn RelayAllocator>) {
    let waiting = Arc::new(());
    let relay = Arc::new(SilentRelay(Arc::clone(&waiting)));
    (move || Arc::strong_count(&waiting) - 2, relay)
}

/// No relay at all.
pub(crate) fn no_relays() -> Arc<dyn RelayAllocator> {
    Arc::new(Relays::default())
}

/// Serves one allocation until it is given back.
async fn serve(
    listener: TcpListener,
    mut connects: mpsc::Receiver<PeerConnect>,
    wanted: Arc<WantedPeers>,
    accepted: mpsc::Sender<(PathStream, SocketAddr)>,
) {
    let mut permitted = BTreeSet::new();
    loop {
        tokio::select! {
            connect = connects.recv() => {
                let Some(PeerConnect { peer, reply }) = connect else { return };
                tokio::spawn(async move {
                    let _ = reply.send(match TcpStream::connect(peer).await {
                        Ok(beyond) => Ok(relay(beyond).await),
                        Err(_) => Err(PeerConnectError::Failed(RequestError::PeerUnreachable)),
                    });
                });
            }
            Ok((stream, remote)) = listener.accept() => {
                permitted.extend(wanted.take());
                // Whoever is not permitted is closed at once (RFC 6062 §5.3).
                if permitted.contains(&remote.ip()) {
                    let _ = accepted.send((relay(stream).await, remote)).await;
                }
            }
        }
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
