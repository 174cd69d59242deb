//! What becomes of a session once it stands: its streams are served until it ends.
//!
//! What it is not: how it came to stand, or what an answer is (`crate::content::transfer::serve`).

use std::{
    future::pending,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use keyferry_proto::{dialling::Sought, identity::NodeKey, message::Goodbye};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    protocols::Protocols,
    sessions::{ListedSession, Sessions},
};
use crate::{
    base::{
        data_dir::ContactDays,
        places::{Place, PlaceClaim, PlaceLimits, PlaceUser, Places},
    },
    content::transfer::serve::ContentServer,
    net::{
        path::{AddressPolicy, Path, PathReport},
        port::{Accepted, Port},
        session::{InboundStreams, Session, SessionTls, WeakSession},
    },
};

/// How many sessions peers may have with this node at once, and how long one stands of which its peer makes no use.
#[derive(Debug, Clone, Copy)]
struct PeerSessionLimits {
    places: PlaceLimits,
    /// A session ends when its peer has asked for nothing for so long.
    idle: Duration,
}

const PEER_SESSIONS: PeerSessionLimits = PeerSessionLimits {
    places: PlaceLimits { in_all: 256, for_contacts: 32, per_host: 256, per_key: 8, grace: Duration::from_secs(2) },
    idle: Duration::from_secs(5 * 60),
};

/// Sessions that are told at once that this node is busy; others end without a word.
const MAX_TURNED_AWAY: usize = 64;

/// How long what was read of the machine's interfaces counts for those who come in: reading them costs more than turning a stranger away.
const INTERFACES_COUNT_FOR: Duration = Duration::from_secs(1);

/// How long a session may take to close when the node stops.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Serves sessions. Clones serve for the same node.
#[derive(Clone)]
pub(crate) struct SessionHost {
    pub(crate) server: ContentServer,
    pub(crate) sessions: Sessions,
    pub(crate) protocols: Protocols,
    pub(crate) tasks: TaskTracker,
    pub(crate) cancel: CancellationToken,
    /// Those of the sessions that peers have made.
    places: Places<NodeKey>,
    idle_limit: Duration,
    turned_away: Arc<Semaphore>,
    contact_days: Option<ContactDays>,
}

impl SessionHost {
    pub(crate) fn new(server: ContentServer, tasks: TaskTracker, cancel: CancellationToken) -> Self {
        Self::within(PEER_SESSIONS, server, tasks, cancel)
    }

    fn within(limits: PeerSessionLimits, server: ContentServer, tasks: TaskTracker, cancel: CancellationToken) -> Self {
        Self {
            server,
            sessions: Sessions::default(),
            protocols: Protocols::default(),
            tasks,
            cancel,
            places: Places::new(limits.places),
            idle_limit: limits.idle,
            turned_away: Arc::new(Semaphore::new(MAX_TURNED_AWAY)),
            contact_days: None,
        }
    }

    /// Serves, and remembers the days that the clocks of contacts show.
    pub(crate) fn remembering(self, days: ContactDays) -> Self {
        Self { contact_days: Some(days), ..self }
    }

    /// Serves a session that this node has made, for as long as somebody uses it.
    pub(crate) fn keep(&self, session: Session, inbound: InboundStreams) {
        let listed = self.sessions.enter(&session);
        let host = self.clone();
        self.tasks.spawn(async move { host.serve_until_closed((session, inbound), listed, None).await });
    }

    /// Serves a session that the peer has made, until one of both ends it.
    pub(crate) fn keep_for_peer(&self, session: Session, inbound: InboundStreams) {
        let host = self.clone();
        self.tasks.spawn(async move { host.serve_peer(session, inbound).await });
    }

    async fn serve_peer(&self, session: Session, inbound: InboundStreams) {
        let Ok(place) = self.places.enter(self.claim(&session).await) else {
            return self.turn_away(&session).await;
        };
        let listed = self.sessions.enter(&session);
        // This handle keeps the session up: the peer is the one who uses it.
        let kept = session.clone();
        self.serve_until_closed((session, inbound), listed, Some(place)).await;
        kept.close();
    }

    /// As whom a peer takes what there is not enough of for all.
    async fn claim(&self, session: &Session) -> PlaceClaim<NodeKey> {
        let peer = session.peer();
        let is_contact = match session.sought() {
            Sought::Node(_) => self.server.is_contact(peer).await,
            Sought::Content(_) => false,
        };
        if let (true, Some(days), Some(shift)) = (is_contact, &self.contact_days, session.day_shift()) {
            days.proved(peer, shift).await;
        }
        PlaceClaim::of_key(session.path().remote.ip(), peer, is_contact)
    }

    async fn turn_away(&self, session: &Session) {
        tracing::debug!("too many sessions; one more is turned away");
        match self.turned_away.try_acquire() {
            Ok(_turn) => {
                session.close_with(Goodbye::Busy);
                let _ = timeout(CLOSE_PATIENCE, session.closed()).await;
            }
            Err(_) => session.break_off("too many sessions"),
        }
    }

    async fn serve_until_closed(
        &self,
        (session, mut inbound): (Session, InboundStreams),
        _listed: ListedSession,
        mut place: Option<Place<NodeKey>>,
    ) {
        let mut closed = pin!(session.closed());
        let user = place.as_ref().map(Place::user);
        // Only the closing is awaited here: a handle kept by this task would keep an unused session up.
        let (weak, server) = (session.downgrade(), self.server.for_session(&session));
        drop(session);
        // Its answers end with the session, even those that wait for their turn.
        let ended = self.cancel.child_token();
        let _end_answers = ended.clone().drop_guard();
        let places = Protocols::places();
        let serve = async {
            while let Some(stream) = inbound.next().await {
                let (server, ended) = (server.clone(), ended.clone());
                let (protocols, places) = (self.protocols.clone(), Arc::clone(&places));
                // While the peer is being answered, the session is in use.
                let used = weak.upgrade();
                let in_use = user.as_ref().map(PlaceUser::begin_use);
                self.tasks.spawn(async move {
                    let served = ended.run_until_cancelled(server.serve(stream)).await;
                    if let (Some(Some((protocol, stream))), Some(session)) = (served, used) {
                        protocols.hand_over(&protocol, stream, session, (places, in_use)).await;
                    }
                });
            }
            // The session may still be up for what this side asks.
            std::future::pending().await
        };
        let why = tokio::select! {
            _ = &mut closed => return,
            () = serve => Goodbye::Stopping,
            () = self.cancel.cancelled() => Goodbye::Stopping,
            why = has_to_go(&weak, &mut place, self.idle_limit) => why,
        };
        // In order, so that neither the peer nor the NATs in between take the connection for one that still stands.
        if let Some(session) = weak.upgrade() {
            session.close_with(why);
        }
        let _ = timeout(CLOSE_PATIENCE, closed).await;
    }

    /// Takes in the sessions that peers make, until the node stops.
    pub(crate) async fn accept(self, mut accepted: mpsc::Receiver<Accepted>, port: Arc<Port>, tls: Arc<SessionTls>) {
        let mut known: Option<(Instant, AddressPolicy)> = None;
        while let Some(Some(Accepted { stream, remote, .. })) = self.cancel.run_until_cancelled(accepted.recv()).await {
            if known.as_ref().is_none_or(|(read, _)| read.elapsed() >= INTERFACES_COUNT_FOR) {
                known = AddressPolicy::for_listeners(port.local_addrs()).ok().map(|policy| (Instant::now(), policy));
            }
            let Some((_, policy)) = &known else { continue };
            let path = Path { stream: stream.into(), report: PathReport::accepted(remote, policy) };
            let (tls, host) = (Arc::clone(&tls), self.clone());
            self.tasks.spawn(async move {
                match host.cancel.run_until_cancelled(Session::accept(path, &tls)).await {
                    Some(Ok((session, inbound))) => host.serve_peer(session, inbound).await,
                    Some(Err(error)) => tracing::debug!(%error, "a peer's session was not made"),
                    None => {}
                }
            });
        }
    }
}

/// Waits until a session has to end for the sake of others: another one gets its place, or its peer asks for nothing.
async fn has_to_go(session: &WeakSession, place: &mut Option<Place<NodeKey>>, idle_limit: Duration) -> Goodbye {
    let Some(place) = place else { return pending().await };
    let user = place.user();
    let idle = async {
        user.idle_for(idle_limit).await;
        // This side may be the one that asks.
        while session.upgrade().is_some_and(|session| session.is_asking()) {
            sleep(idle_limit).await;
            user.idle_for(idle_limit).await;
        }
    };
    tokio::select! {
        _ = &mut place.pushed_out => Goodbye::Busy,
        () = idle => Goodbye::Idle,
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, path::Path as FilePath};

    use keyferry_proto::identity::NodeSecret;
    use tempfile::TempDir;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{
        base::data_dir::{ContactsFile, KnownContacts},
        content::store::Store,
        net::session::SessionEnd,
    };

    /// A node that takes sessions in at a port of 127.0.0.1.
    struct Served {
        host: SessionHost,
        secret: NodeSecret,
        tls: Arc<SessionTls>,
        listener: TcpListener,
        _home: TempDir,
    }

    impl Served {
        async fn within(limits: PeerSessionLimits) -> Self {
            let (home, secret) = (TempDir::new().unwrap(), NodeSecret::from_bytes(&[1; 32]));
            let (store, _) = Store::open(home.path()).unwrap();
            let contacts = KnownContacts::of(ContactsFile::of(FilePath::new("nobody is a contact")));
            let server = ContentServer::new(store, secret.clone(), contacts);
            let host = SessionHost::within(limits, server, TaskTracker::new(), CancellationToken::new());
            let tls = SessionTls::new(&secret).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Self { host, secret, tls, listener, _home: home }
        }

        /// A session of a stranger, as it sees it.
        async fn session_of(&self, key: u8) -> Session {
            let addr = self.listener.local_addr().unwrap();
            let tls = SessionTls::new(&NodeSecret::from_bytes(&[key; 32])).unwrap();
            let dial = async {
                let stream = TcpStream::connect(addr).await.unwrap();
                let report = PathReport::dialled(addr, &policy(addr), Duration::ZERO);
                let path = Path { stream: stream.into(), report };
                Session::dial(path, &tls, Sought::Node(self.secret.public())).await.unwrap().0
            };
            let accept = async {
                let (stream, remote) = self.listener.accept().await.unwrap();
                let path = Path { stream: stream.into(), report: PathReport::accepted(remote, &policy(addr)) };
                Session::accept(path, &self.tls).await.unwrap()
            };
            let (dialled, (accepted, inbound)) = tokio::join!(dial, accept);
            self.host.keep_for_peer(accepted, inbound);
            dialled
        }

        /// The first session, once it has its place.
        async fn first_session(&self) -> Session {
            let session = self.session_of(2).await;
            while self.host.sessions.count() == 0 {
                sleep(Duration::from_millis(1)).await;
            }
            session
        }
    }

    fn policy(addr: SocketAddr) -> AddressPolicy {
        AddressPolicy::for_listeners(&[addr]).unwrap()
    }

    fn one_place(grace: Duration) -> PeerSessionLimits {
        let places = PlaceLimits { in_all: 1, for_contacts: 0, per_host: 1, per_key: 1, grace };
        PeerSessionLimits { places, idle: Duration::from_secs(3600) }
    }

    async fn reason(session: &Session) -> Option<Goodbye> {
        match session.closed().await {
            SessionEnd::ClosedByPeer { reason } => reason,
            other => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn a_session_in_which_nothing_is_asked_ends_and_its_peer_hears_why() {
        let idle = Duration::from_millis(200);
        let served = Served::within(PeerSessionLimits { idle, ..PEER_SESSIONS }).await;
        let begin = tokio::time::Instant::now();

        let why = reason(&served.session_of(2).await).await;

        assert_eq!(why, Some(Goodbye::Idle));
        assert!(begin.elapsed() >= idle);
    }

    #[tokio::test]
    async fn who_finds_no_place_and_who_loses_it_hear_that_the_node_is_busy() {
        let served = Served::within(one_place(Duration::from_secs(3600))).await;
        let first = served.first_session().await;
        assert_eq!(reason(&served.session_of(3).await).await, Some(Goodbye::Busy));
        assert!(first.end().is_none());

        let served = Served::within(one_place(Duration::ZERO)).await;
        let first = served.first_session().await;
        let second = served.session_of(3).await;
        assert_eq!(reason(&first).await, Some(Goodbye::Busy));
        assert!(second.end().is_none());
    }
}
