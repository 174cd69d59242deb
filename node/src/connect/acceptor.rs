//! What becomes of a session once it stands: its streams are served until it ends.
//!
//! What it is not: how it came to stand, or what an answer is (`crate::content::transfer::serve`).

use std::{pin::pin, sync::Arc, time::Duration};

use keyferry_proto::message::Goodbye;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    protocols::Protocols,
    sessions::{ListedSession, Sessions},
};
use crate::{
    content::transfer::serve::ContentServer,
    net::{
        path::{AddressPolicy, Path, PathReport},
        port::{Accepted, Port},
        session::{InboundStreams, Session, SessionTls},
    },
};

/// Sessions that peers may have with this node at once.
const MAX_ACCEPTED_SESSIONS: usize = 256;

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
    /// Places of the sessions that peers have made.
    places: Arc<Semaphore>,
}

impl SessionHost {
    pub(crate) fn new(server: ContentServer, tasks: TaskTracker, cancel: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(MAX_ACCEPTED_SESSIONS));
        Self { server, sessions: Sessions::default(), protocols: Protocols::default(), tasks, cancel, places }
    }

    /// Serves a session that this node has made, for as long as somebody uses it.
    pub(crate) fn keep(&self, session: Session, inbound: InboundStreams) {
        let listed = self.sessions.enter(&session);
        let host = self.clone();
        self.tasks.spawn(async move { host.serve_until_closed(session, inbound, listed).await });
    }

    /// Serves a session that the peer has made, until the peer ends it.
    pub(crate) fn keep_for_peer(&self, session: Session, inbound: InboundStreams) {
        match self.place() {
            Some(place) => self.keep_with(place, session, inbound),
            None => session.close_with(Goodbye::Busy),
        }
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if place.is_none() {
            tracing::debug!("too many sessions; one more is turned away");
        }
        place
    }

    fn keep_with(&self, place: OwnedSemaphorePermit, session: Session, inbound: InboundStreams) {
        let listed = self.sessions.enter(&session);
        let host = self.clone();
        self.tasks.spawn(async move {
            // This handle keeps the session up: the peer is the one who uses it.
            let kept = session.clone();
            host.serve_until_closed(session, inbound, listed).await;
            kept.close();
            drop(place);
        });
    }

    async fn serve_until_closed(&self, session: Session, mut inbound: InboundStreams, _listed: ListedSession) {
        let mut closed = pin!(session.closed());
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
                self.tasks.spawn(async move {
                    let served = ended.run_until_cancelled(server.serve(stream)).await;
                    if let (Some(Some((protocol, stream))), Some(session)) = (served, used) {
                        protocols.hand_over(&protocol, stream, session, places).await;
                    }
                });
            }
            // The session may still be up for what this side asks.
            std::future::pending().await
        };
        tokio::select! {
            _ = &mut closed => return,
            () = serve => {}
            () = self.cancel.cancelled() => {}
        }
        // In order, so that neither the peer nor the NATs in between take the connection for one that still stands.
        if let Some(session) = weak.upgrade() {
            session.close_with(Goodbye::Stopping);
        }
        let _ = timeout(CLOSE_PATIENCE, closed).await;
    }

    /// Takes in the sessions that peers make, until the node stops.
    pub(crate) async fn accept(self, mut accepted: mpsc::Receiver<Accepted>, port: Arc<Port>, tls: Arc<SessionTls>) {
        while let Some(Some(Accepted { stream, remote, .. })) = self.cancel.run_until_cancelled(accepted.recv()).await {
            let Some(place) = self.place() else { continue };
            let (port, tls, host) = (Arc::clone(&port), Arc::clone(&tls), self.clone());
            self.tasks.spawn(async move {
                let Ok(policy) = AddressPolicy::for_listeners(port.local_addrs()) else { return };
                let path = Path { stream: stream.into(), report: PathReport::accepted(remote, &policy) };
                match host.cancel.run_until_cancelled(Session::accept(path, &tls)).await {
                    Some(Ok((session, inbound))) => host.keep_with(place, session, inbound),
                    Some(Err(error)) => tracing::debug!(%error, "a peer's session was not made"),
                    None => {}
                }
            });
        }
    }
}
