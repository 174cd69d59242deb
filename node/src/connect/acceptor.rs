//! What becomes of a session once it stands: its streams are served until it ends.
//!
//! What it is not: how it came to stand, or what an answer is (`crate::content::transfer::serve`).

use std::{future::pending, pin::pin, sync::Arc, time::Duration};

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
    base::places::{Place, PlaceClaim, PlaceLimits, PlaceUser, Places},
    content::transfer::serve::ContentServer,
    net::{
        path::{AddressPolicy, Path, PathReport},
        port::{Accepted, Port},
        session::{InboundStreams, Session, SessionTls, WeakSession},
    },
};

/// Sessions that peers may have with this node at once.
const SESSION_PLACES: PlaceLimits =
    PlaceLimits { in_all: 256, for_contacts: 32, per_host: 256, per_key: 8, grace: Duration::from_secs(2) };

/// A session that a peer has made ends when it has asked for nothing for so long.
const IDLE_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Sessions that are told at once that this node is busy; others end without a word.
const MAX_TURNED_AWAY: usize = 64;

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
    turned_away: Arc<Semaphore>,
}

impl SessionHost {
    pub(crate) fn new(server: ContentServer, tasks: TaskTracker, cancel: CancellationToken) -> Self {
        Self {
            server,
            sessions: Sessions::default(),
            protocols: Protocols::default(),
            tasks,
            cancel,
            places: Places::new(SESSION_PLACES),
            turned_away: Arc::new(Semaphore::new(MAX_TURNED_AWAY)),
        }
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
            why = has_to_go(&weak, &mut place) => why,
        };
        // In order, so that neither the peer nor the NATs in between take the connection for one that still stands.
        if let Some(session) = weak.upgrade() {
            session.close_with(why);
        }
        let _ = timeout(CLOSE_PATIENCE, closed).await;
    }

    /// Takes in the sessions that peers make, until the node stops.
    pub(crate) async fn accept(self, mut accepted: mpsc::Receiver<Accepted>, port: Arc<Port>, tls: Arc<SessionTls>) {
        while let Some(Some(Accepted { stream, remote, .. })) = self.cancel.run_until_cancelled(accepted.recv()).await {
            let (port, tls, host) = (Arc::clone(&port), Arc::clone(&tls), self.clone());
            self.tasks.spawn(async move {
                let Ok(policy) = AddressPolicy::for_listeners(port.local_addrs()) else { return };
                let path = Path { stream: stream.into(), report: PathReport::accepted(remote, &policy) };
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
async fn has_to_go(session: &WeakSession, place: &mut Option<Place<NodeKey>>) -> Goodbye {
    let Some(place) = place else { return pending().await };
    let user = place.user();
    let idle = async {
        user.idle_for(IDLE_LIMIT).await;
        // This side may be the one that asks.
        while session.upgrade().is_some_and(|session| session.is_asking()) {
            sleep(IDLE_LIMIT).await;
            user.idle_for(IDLE_LIMIT).await;
        }
    };
    tokio::select! {
        _ = &mut place.pushed_out => Goodbye::Busy,
        () = idle => Goodbye::Idle,
    }
}
