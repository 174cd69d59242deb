//! Keeps a fetch in sessions with those who have what it wants, and moves it to better ones: a relay serves until there is a
//! direct path.
//!
//! What it is not: making one session ([`Finder::connect`]), or deciding who is asked for what.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    future::pending,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, FusedFuture},
    stream::FuturesUnordered,
};
use keyferry_proto::{dialling::Sought, hash::ContentHash, identity::NodeKey, offer::content_record_key};
use libp2p::Multiaddr;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    super::{
        sessions::PathRank,
        trace::{PathNews, PathSink, Trace},
    },
    FindError, Finder, resolve_hints,
    search::{MissedTry, SearchBoard, SearchPauses, SearchTries, SoughtProviders},
};
use crate::net::{
    path::{
        AddressPolicy, Admitted, PathReport,
        info::{PathEnd, PathInfo},
    },
    session::{PeerName, Session, SessionEnd},
};

/// Pause before a node is connected to again that has ended its session soon; doubled up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A session that has stood for so long shows that the next one is worth trying at once.
const STOOD_FOR: Duration = Duration::from_secs(2);
/// How often providers of content are looked up while a fetch has some.
const LOOK_FOR_PROVIDERS_EVERY: Duration = Duration::from_secs(15);
/// Sessions to providers that one fetch keeps.
const MAX_PROVIDERS: usize = 8;
/// Providers that are known and wait to be tried; a lookup tells no more than that at once.
const MAX_UNTRIED: usize = 64;
/// How long a provider that was of no use is left alone.
const SET_ASIDE_FOR: Duration = Duration::from_secs(5 * 60);
/// Those that are left alone; of more, the one that was first is forgotten.
const MAX_SET_ASIDE: usize = 256;

impl Finder {
    /// Brings sessions with providers to `found`, now and until it is closed: the node that is named, and whoever else the DHT knows.
    /// `paths` hears of the path of each session before it is brought, and again when more is known of it. `board` hears how the search
    /// stands while nobody is there.
    pub(crate) async fn find_providers(
        self,
        sought: SoughtProviders,
        found: mpsc::Sender<Session>,
        paths: PathSink,
        board: SearchBoard,
    ) {
        let SoughtProviders { root, node, hints, first, untried } = sought;
        let found = FoundSessions { sessions: found, paths, untried };
        let connected = ConnectedProviders::default();
        let by_key = async {
            if let Some(node) = node {
                self.keep_connected(node, &hints, first, &connected, &found, &board).await;
            }
        };
        let hinted = if node.is_none() { &hints[..] } else { &[] };
        // With a node to be reached, the tries to reach it are what is told.
        let content_board = node.is_none().then_some(&board);
        let by_content = self.look_for_providers(root, hinted, &connected, &found, content_board);
        tokio::select! {
            () = async { tokio::join!(by_key, by_content); } => {}
            () = found.sessions.closed() => {}
        }
    }

    async fn keep_connected(
        &self,
        node: NodeKey,
        hints: &[Multiaddr],
        mut next: Option<Session>,
        connected: &ConnectedProviders,
        found: &FoundSessions,
        board: &SearchBoard,
    ) {
        let mut pause = RETRY_PAUSE;
        loop {
            let session = match next.take().filter(|session| session.end().is_none()) {
                Some(session) => session,
                None => self.reach(node, hints, &Trace::Silent, board, &mut SearchTries::default()).await,
            };
            if connected.enter(&session) {
                let since = Instant::now();
                let Some(end) = self.use_best(node, hints, session, connected, found).await else { return };
                if let Some(remote) = connected.leave(&node.into(), &end) {
                    found.tell_end(node.into(), remote, &end).await;
                }
                if is_given_back(&end) {
                    tokio::time::sleep(SET_ASIDE_FOR).await;
                    continue;
                }
                // A node that takes connections and ends them at once is tried less and less often.
                if since.elapsed() > STOOD_FOR {
                    pause = RETRY_PAUSE;
                    continue;
                }
            } else {
                // Its provider record was quicker.
                drop(session);
                connected.left(&node).await;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// Lets the fetch use a session with a node, and then each better one, until the last one ends, and says how. None if nobody
    /// fetches any more.
    async fn use_best(
        &self,
        node: NodeKey,
        hints: &[Multiaddr],
        session: Session,
        connected: &ConnectedProviders,
        found: &FoundSessions,
    ) -> Option<SessionEnd> {
        let mut present = session;
        loop {
            let (mut closed, mut path) = (pin!(present.closed()), present.watch_path());
            let mut doubt = present.watch_doubt();
            let may_improve = PathRank::of(&present) == PathRank::Relayed && self.relay_mode.allows_direct();
            let look_for_direct = || may_improve.then(|| self.go_direct(node, hints).boxed());
            let mut direct = look_for_direct();
            let mut anew: Option<BoxFuture<'_, Result<Session, FindError>>> = None;
            let mut ended = None;
            // This keeps no handle of it: the fetch decides when its use ends.
            if !found.send(present, &mut path).await {
                return None;
            }
            present = loop {
                tokio::select! {
                    end = &mut closed, if ended.is_none() => match anew {
                        Some(_) => ended = Some(end),
                        None => return Some(end),
                    },
                    // It may be dead: a new one is made at once, beside it. What looks for a direct path ends then: it may be in the
                    // middle of a call, and there is one call to a node at a time.
                    Ok(()) = doubt.changed(), if ended.is_none() => {
                        let is_doubted = *doubt.borrow_and_update();
                        direct = if is_doubted { None } else { look_for_direct() };
                        anew = is_doubted.then(|| self.connect(node, hints, &Trace::Silent).boxed());
                    }
                    made = attempted(&mut anew) => match made {
                        Ok(session) => break session,
                        Err(_) if ended.is_some() => return ended,
                        Err(error) => {
                            tracing::debug!(%error, "the node is not reached anew yet");
                            anew = Some(self.connect_later(node, hints).boxed());
                        }
                    },
                    better = attempted(&mut direct) => break better,
                    Ok(()) = path.changed() => found.tell_path(node.into(), &mut path).await,
                }
            };
            connected.moved(&present);
        }
    }

    async fn connect_later(&self, node: NodeKey, hints: &[Multiaddr]) -> Result<Session, FindError> {
        tokio::time::sleep(RETRY_PAUSE).await;
        self.connect(node, hints, &Trace::Silent).await
    }

    async fn look_for_providers(
        &self,
        root: ContentHash,
        hints: &[Multiaddr],
        connected: &ConnectedProviders,
        found: &FoundSessions,
        board: Option<&SearchBoard>,
    ) {
        let mut pauses = None;
        let mut untried = VecDeque::new();
        // They end with this search.
        let mut leaving = JoinSet::new();
        loop {
            let mut providers = self.rendezvous.providers(content_record_key(&root));
            let hinted =
                resolve_hints(hints, self.relay_mode).await.into_iter().map(|hint| UntriedProvider::Hinted([hint]));
            untried.extend(hinted.filter(|hinted| !connected.knows_any(hinted.addrs())));
            let mut attempts = FuturesUnordered::new();
            let (mut open, mut changes) = (true, connected.0.subscribe());
            let again = pin!(tokio::time::sleep(LOOK_FOR_PROVIDERS_EVERY));
            let mut again = again.fuse();
            // Whoever is known is tried before anybody is looked for once more, unless all places are taken for long.
            while open || !attempts.is_empty() || !(untried.is_empty() || again.is_terminated()) {
                changes.mark_unchanged();
                while connected.count() + attempts.len() < MAX_PROVIDERS
                    && let Some(next) = untried.pop_front()
                {
                    let Ok(policy) = AddressPolicy::for_listeners(self.port.local_addrs()) else { continue };
                    if !connected.knows_any(next.addrs()) {
                        attempts.push(self.attempt(next.admitted(&policy), policy, Sought::Content(root), not_told));
                    }
                }
                found.untried.send_replace(untried.len() + attempts.len());
                tokio::select! {
                    provider = providers.recv(), if open && untried.len() < MAX_UNTRIED => match provider {
                        Some(provider) if connected.knows_any(&provider.addrs) => {}
                        Some(provider) => untried.push_back(UntriedProvider::Told(provider.addrs)),
                        None => open = false,
                    },
                    Some(ended) = attempts.next(), if !attempts.is_empty() => match ended {
                        Ok(session) if connected.enter(&session) => {
                            let (closed, peer) = (session.closed(), session.peer_name());
                            let mut path = session.watch_path();
                            board.inspect(|board| board.found());
                            if !found.send(session, &mut path).await {
                                return;
                            }
                            while leaving.try_join_next().is_some() {}
                            let (connected, found) = (connected.clone(), found.clone());
                            leaving.spawn(async move {
                                let end = closed.await;
                                if let Some(remote) = connected.leave(&peer, &end) {
                                    found.tell_end(peer, remote, &end).await;
                                }
                            });
                        }
                        Ok(_) => {}
                        Err(error) => tracing::debug!(%error, "a provider was not reached"),
                    },
                    _ = changes.changed(), if !untried.is_empty() => {}
                    () = &mut again, if !open => {}
                }
            }
            found.untried.send_replace(untried.len());
            if connected.count() > 0 {
                pauses = None;
                if !again.is_terminated() {
                    tokio::select! {
                        () = &mut again => {}
                        () = connected.all_left() => {}
                    }
                }
                continue;
            }
            let now = Instant::now();
            let pause = pauses.get_or_insert_with(|| SearchPauses::new(now)).next(now);
            board.inspect(|board| board.missed(MissedTry::of_providers(now + pause)));
            tokio::time::sleep(pause).await;
        }
    }
}

/// A provider that is known and was not tried yet.
enum UntriedProvider {
    Told(Vec<SocketAddr>),
    Hinted([SocketAddr; 1]),
}

impl UntriedProvider {
    fn addrs(&self) -> &[SocketAddr] {
        match self {
            Self::Told(addrs) => addrs,
            Self::Hinted(addr) => addr,
        }
    }

    /// Where it may be dialled.
    fn admitted(&self, policy: &AddressPolicy) -> Admitted {
        match self {
            Self::Told(addrs) => policy.admit(addrs, &[]),
            Self::Hinted(addr) => policy.admit(&[], addr),
        }
    }
}

/// Where the sessions go, and who is told of their paths.
#[derive(Clone)]
struct FoundSessions {
    sessions: mpsc::Sender<Session>,
    paths: PathSink,
    /// How many are known and were not tried yet.
    untried: watch::Sender<usize>,
}

impl FoundSessions {
    /// Tells of the path of a session, then hands it over. False if nobody takes it any more.
    async fn send(&self, session: Session, path: &mut watch::Receiver<PathReport>) -> bool {
        self.tell_path(session.peer_name(), path).await;
        self.sessions.send(session).await.is_ok()
    }

    async fn tell_path(&self, peer: PeerName, path: &mut watch::Receiver<PathReport>) {
        let path = PathInfo::new(peer.node(), &path.borrow_and_update());
        (self.paths)(PathNews::Stands(path)).await;
    }

    async fn tell_end(&self, peer: PeerName, remote: SocketAddr, end: &SessionEnd) {
        let end = PathEnd { node: peer.node().map(|node| node.to_string()), remote, why: end.to_string() };
        (self.paths)(PathNews::Ended(end)).await;
    }
}

/// The providers that a fetch has a session with, where they are, and those that it has given back.
#[derive(Debug, Clone, Default)]
struct ConnectedProviders(Arc<watch::Sender<ProviderSessions>>);

#[derive(Debug, Default)]
struct ProviderSessions {
    there: HashMap<PeerName, SocketAddr>,
    set_aside: VecDeque<(SocketAddr, Instant)>,
}

/// Whether the fetch has let a session go: its provider is of no use.
fn is_given_back(end: &SessionEnd) -> bool {
    matches!(end, SessionEnd::ClosedHere)
}

impl ConnectedProviders {
    /// False if the node is there already.
    fn enter(&self, session: &Session) -> bool {
        let (peer, remote) = (session.peer_name(), session.path().remote);
        self.0.send_if_modified(|sessions| match sessions.there.entry(peer) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(remote);
                true
            }
        })
    }

    /// Notes that the session with a node has ended, and gives where that was. Who was of no use is left alone for a while.
    fn leave(&self, peer: &PeerName, end: &SessionEnd) -> Option<SocketAddr> {
        let mut left = None;
        self.0.send_modify(|sessions| {
            left = sessions.there.remove(peer);
            if let Some(remote) = left
                && is_given_back(end)
            {
                sessions.set_aside.truncate(MAX_SET_ASIDE - 1);
                sessions.set_aside.push_front((remote, Instant::now()));
            }
        });
        left
    }

    /// Notes that a node is connected from elsewhere now.
    fn moved(&self, session: &Session) {
        self.0.send_modify(|sessions| {
            sessions.there.insert(session.peer_name(), session.path().remote);
        });
    }

    /// Waits until nobody is there.
    async fn all_left(&self) {
        let _ = self.0.subscribe().wait_for(|sessions| sessions.there.is_empty()).await;
    }

    /// Waits until the node is not there.
    async fn left(&self, node: &NodeKey) {
        // An error means that nobody can be there any more.
        let _ = self.0.subscribe().wait_for(|sessions| !sessions.there.contains_key(&PeerName::Node(*node))).await;
    }

    /// Whether a provider at one of these addresses is there, or is left alone.
    fn knows_any(&self, addrs: &[SocketAddr]) -> bool {
        let sessions = self.0.borrow();
        let left_alone = sessions.set_aside.iter().filter(|(_, since)| since.elapsed() < SET_ASIDE_FOR);
        let mut known = sessions.there.values().chain(left_alone.map(|(addr, _)| addr));
        known.any(|remote| addrs.contains(remote))
    }

    fn count(&self) -> usize {
        self.0.borrow().there.len()
    }
}

/// Waits for what is being attempted; for ever if nothing is.
async fn attempted<T>(attempt: &mut Option<BoxFuture<'_, T>>) -> T {
    match attempt {
        Some(running) => running.await,
        None => pending().await,
    }
}

/// Nobody follows the steps towards a provider.
fn not_told(_: &Session) {}
