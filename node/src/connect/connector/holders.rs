//! Keeps a fetch in sessions with those who have what it wants, and moves it to better ones: a relay serves until there is a
//! direct path.
//!
//! What it is not: making one session ([`Finder::connect`]), or deciding who is asked for what.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use keyferry_proto::{hash::ContentHash, identity::NodeKey, offer::content_record_key};
use libp2p::Multiaddr;
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use super::{
    super::{sessions::Rank, trace::Trace},
    Finder, resolve_hints,
};
use crate::net::{path::AddressPolicy, session::Session};

/// Pause before a lost or unreachable node is tried again; doubled up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often holders of content are looked up while a fetch runs.
const LOOK_FOR_HOLDERS_EVERY: Duration = Duration::from_secs(15);
/// Sessions to holders that one fetch keeps.
const MAX_HOLDERS: usize = 8;
/// Providers that are dialled at once: most of many may be gone.
const MAX_ATTEMPTS: usize = 8;

impl Finder {
    /// Brings sessions with holders of `root` to `found`, now and until it is closed: `node` (with `first`, if there is
    /// a session already), made again whenever it is lost, and whoever else the DHT knows. `hints` lead to the node, or,
    /// without one, each to a holder of its own.
    pub(crate) async fn find_holders(
        self,
        root: ContentHash,
        node: Option<NodeKey>,
        hints: Vec<Multiaddr>,
        first: Option<Session>,
        found: mpsc::Sender<Session>,
    ) {
        let connected = Connected::default();
        let by_key = async {
            if let Some(node) = node {
                self.keep_connected(node, &hints, first, &connected, &found).await;
            }
        };
        let hinted = if node.is_none() { &hints[..] } else { &[] };
        let by_content = self.look_for_holders(root, hinted, &connected, &found);
        tokio::select! {
            () = async { tokio::join!(by_key, by_content); } => {}
            () = found.closed() => {}
        }
    }

    async fn keep_connected(
        &self,
        node: NodeKey,
        hints: &[Multiaddr],
        mut next: Option<Session>,
        connected: &Connected,
        found: &mpsc::Sender<Session>,
    ) {
        let mut pause = RETRY_PAUSE;
        loop {
            let session = match next.take().filter(|session| session.end().is_none()) {
                Some(session) => Ok(session),
                None => self.connect(node, hints, &Trace::Silent).await,
            };
            match session {
                Ok(session) if connected.enter(&session) => {
                    let since = Instant::now();
                    if !self.use_best(node, hints, session, connected, found).await {
                        return;
                    }
                    connected.leave(&node);
                    // A node that takes connections and ends them at once is left in peace more and more.
                    if since.elapsed() > RETRY_PAUSE_MAX {
                        pause = RETRY_PAUSE;
                        continue;
                    }
                }
                // Its provider record was quicker.
                Ok(_) => connected.left(&node).await,
                Err(error) => tracing::debug!(%error, "the node is not reached yet"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// Has the fetch use a session with a node, and then each better one, until the last one ends. False if nobody fetches any
    /// more.
    async fn use_best(
        &self,
        node: NodeKey,
        hints: &[Multiaddr],
        session: Session,
        connected: &Connected,
        found: &mpsc::Sender<Session>,
    ) -> bool {
        let mut present = session;
        loop {
            let (closed, rank) = (present.closed(), Rank::of(&present));
            // No handle of it is kept here: the fetch ends its use.
            if found.send(present).await.is_err() {
                return false;
            }
            let may_improve = rank == Rank::Relayed && self.relay_mode.allows_direct();
            tokio::select! {
                _ = closed => return true,
                better = self.go_direct(node, hints), if may_improve => {
                    connected.moved(&better);
                    present = better;
                }
            }
        }
    }

    async fn look_for_holders(
        &self,
        root: ContentHash,
        hints: &[Multiaddr],
        connected: &Connected,
        found: &mpsc::Sender<Session>,
    ) {
        let mut tick = tokio::time::interval(LOOK_FOR_HOLDERS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let mut providers = self.rendezvous.providers(content_record_key(&root));
            let mut attempts = FuturesUnordered::new();
            for hint in resolve_hints(hints).await {
                if !connected.at_any(&[hint]) {
                    let policy = AddressPolicy::for_listeners(self.port.local_addrs());
                    attempts
                        .extend(policy.map(|policy| self.attempt(policy.admit(&[], &[hint]), policy, None, not_told)));
                }
            }
            let mut open = true;
            while open || !attempts.is_empty() {
                tokio::select! {
                    provider = providers.recv(), if open && attempts.len() < MAX_ATTEMPTS => match provider {
                        Some(provider) if connected.count() < MAX_HOLDERS && !connected.at_any(&provider.addrs) => {
                            let Ok(policy) = AddressPolicy::for_listeners(self.port.local_addrs()) else { continue };
                            attempts.push(self.attempt(policy.admit(&provider.addrs, &[]), policy, None, not_told));
                        }
                        Some(_) => {}
                        None => open = false,
                    },
                    Some(ended) = attempts.next(), if !attempts.is_empty() => match ended {
                        Ok(session) if self.may_enter(&session, connected) => {
                            let (closed, peer, connected) = (session.closed(), session.peer(), connected.clone());
                            if found.send(session).await.is_err() {
                                return;
                            }
                            tokio::spawn(async move {
                                closed.await;
                                connected.leave(&peer);
                            });
                        }
                        Ok(_) => {}
                        Err(error) => tracing::debug!(%error, "a holder was not reached"),
                    },
                }
            }
        }
    }

    fn may_enter(&self, session: &Session, connected: &Connected) -> bool {
        session.peer() != self.tls.node() && connected.count() < MAX_HOLDERS && connected.enter(session)
    }
}

/// The holders that a fetch has a session with, and where they are.
#[derive(Debug, Clone, Default)]
struct Connected(Arc<watch::Sender<HashMap<NodeKey, SocketAddr>>>);

impl Connected {
    /// False if the node is there already.
    fn enter(&self, session: &Session) -> bool {
        let (node, remote) = (session.peer(), session.path().remote);
        self.0.send_if_modified(|nodes| match nodes.entry(node) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(remote);
                true
            }
        })
    }

    fn leave(&self, node: &NodeKey) {
        self.0.send_modify(|nodes| {
            nodes.remove(node);
        });
    }

    /// Notes that a node is connected from elsewhere now.
    fn moved(&self, session: &Session) {
        self.0.send_modify(|nodes| {
            nodes.insert(session.peer(), session.path().remote);
        });
    }

    /// Waits until the node is not there.
    async fn left(&self, node: &NodeKey) {
        // An error means that nobody can be there any more.
        let _ = self.0.subscribe().wait_for(|nodes| !nodes.contains_key(node)).await;
    }

    fn at_any(&self, addrs: &[SocketAddr]) -> bool {
        self.0.borrow().values().any(|remote| addrs.contains(remote))
    }

    fn count(&self) -> usize {
        self.0.borrow().len()
    }
}

/// Nobody waits for a holder by name.
fn not_told(_: &Session) {}
