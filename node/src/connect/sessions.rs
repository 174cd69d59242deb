//! The sessions that stand, with whom and by which path: to use one again, to show them, and to end those whose path is
//! known to be dead. Of several with one node, a direct one is better than a relayed one, and then the newest.
//!
//! What it is not: what keeps them up. An entry goes when its session ends, whoever holds it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use keyferry_proto::identity::NodeKey;
use tokio::{sync::watch, time::timeout};

use crate::net::{
    path::{PathKind, PathReport, info::PathInfo},
    session::{PeerName, Session, WeakSession},
};

/// How long a session that is to be used again may take to show that it is alive.
const ALIVE_PATIENCE: Duration = Duration::from_secs(1);

/// All sessions that stand. Clones are handles to the same list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions(Arc<watch::Sender<StandingSessions>>);

#[derive(Debug, Default)]
struct StandingSessions {
    last: u64,
    entries: BTreeMap<u64, SessionEntry>,
}

/// How good the path of a session is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PathRank {
    /// Somebody stands in between.
    Relayed,
    /// Nobody does.
    Direct,
}

impl PathRank {
    /// The rank of a session's path.
    pub(crate) fn of(session: &Session) -> Self {
        Self::of_kind(session.path().kind)
    }

    fn of_kind(kind: PathKind) -> Self {
        if kind.is_relayed() { Self::Relayed } else { Self::Direct }
    }
}

#[derive(Debug)]
struct SessionEntry {
    peer: PeerName,
    path: watch::Receiver<PathReport>,
    local: Option<IpAddr>,
    session: WeakSession,
}

/// The place of a session in the list, until it is dropped.
#[derive(Debug)]
pub(crate) struct ListedSession {
    sessions: Sessions,
    number: u64,
}

impl Sessions {
    /// Lists a session for as long as the result is kept.
    pub(crate) fn enter(&self, session: &Session) -> ListedSession {
        let entry = SessionEntry {
            peer: session.peer_name(),
            path: session.watch_path(),
            local: session.local_addr().map(|addr| addr.ip().to_canonical()),
            session: session.downgrade(),
        };
        let mut number = 0;
        self.0.send_modify(|standing| {
            standing.last += 1;
            number = standing.last;
            standing.entries.insert(number, entry);
        });
        ListedSession { sessions: self.clone(), number }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.borrow().entries.len() as u64
    }

    /// How each of them came about.
    pub(crate) fn paths(&self) -> Vec<PathInfo> {
        self.0.borrow().entries.values().map(|entry| PathInfo::new(entry.peer.node(), &entry.path.borrow())).collect()
    }

    /// The same, for tests.
    #[cfg(test)]
    pub(crate) fn kinds(&self) -> Vec<PathKind> {
        self.0.borrow().entries.values().map(SessionEntry::kind).collect()
    }

    /// A session with a node that answers, the best first. Those that do not answer are ended.
    pub(crate) async fn alive(&self, node: &NodeKey) -> Option<Session> {
        while let Some(session) = self.best(node) {
            match timeout(ALIVE_PATIENCE, session.ping()).await {
                Ok(Ok(_)) => return Some(session),
                Ok(Err(_)) => {}
                Err(_) => session.break_off("it does not answer"),
            }
            // Its entry goes a moment after it has ended.
            session.closed().await;
            self.forget(&session);
        }
        None
    }

    /// Waits for a session with a node that was not there before the call.
    pub(crate) fn arrival(&self, node: NodeKey) -> impl Future<Output = Session> + use<> {
        self.arrival_of(node, PathRank::Relayed)
    }

    /// Waits for a session with a node that was not there before the call, and whose path is at least as good as this.
    pub(crate) fn arrival_of(&self, node: NodeKey, rank: PathRank) -> impl Future<Output = Session> + use<> {
        let before = self.0.borrow().last;
        self.wait_for(node, move |number, entry| number > before && entry.rank() >= rank)
    }

    /// Waits for a session with a node that is direct; one that stands already will do.
    pub(crate) fn direct(&self, node: NodeKey) -> impl Future<Output = Session> + use<> {
        self.wait_for(node, |_, entry| entry.rank() == PathRank::Direct)
    }

    fn wait_for<F>(&self, node: NodeKey, which: F) -> impl Future<Output = Session> + use<F>
    where
        F: Fn(u64, &SessionEntry) -> bool,
    {
        let mut changes = self.0.subscribe();
        let sessions = self.clone();
        async move {
            let find = |standing: &StandingSessions| standing.best(&node, &which);
            loop {
                // The sender is in `sessions`, so waiting does not fail.
                if changes.wait_for(|standing| find(standing).is_some()).await.is_err() {
                    std::future::pending::<()>().await;
                }
                let found = find(&sessions.0.borrow());
                if let Some(session) = found {
                    return session;
                }
            }
        }
    }

    /// Ends the sessions that leave from addresses which this machine no longer has.
    pub(crate) fn break_off_from(&self, removed: &[IpAddr]) {
        let gone = |entry: &SessionEntry| entry.local.is_some_and(|local| removed.contains(&local));
        self.break_off(gone, "this machine no longer has the address that it left from");
    }

    /// Ends the sessions with a node on direct paths that ICE found: a new negotiation needs the same addresses, and the node
    /// would not want one if they worked. Relayed ones are in nobody's way, and may be what the node uses meanwhile.
    pub(crate) fn break_off_punched(&self, node: &NodeKey) {
        let punched =
            |entry: &SessionEntry| entry.peer == PeerName::Node(*node) && matches!(entry.kind(), PathKind::Punched(_));
        self.break_off(punched, "the node makes a new path");
    }

    fn break_off(&self, which: impl Fn(&SessionEntry) -> bool, why: &'static str) {
        let of_these = |standing: &StandingSessions| -> Vec<Session> {
            standing.entries.values().filter(|entry| which(entry)).filter_map(|entry| entry.session.upgrade()).collect()
        };
        // After the borrow, as the end of a session changes the list.
        let dead = of_these(&self.0.borrow());
        for session in dead {
            tracing::info!(why, "ending a session");
            session.break_off(why);
        }
    }

    /// The best session with a node.
    pub(crate) fn best(&self, node: &NodeKey) -> Option<Session> {
        self.0.borrow().best(node, |_, _| true)
    }

    fn forget(&self, session: &Session) {
        self.0.send_modify(|standing| standing.entries.retain(|_, entry| !entry.session.is(session)));
    }
}

impl StandingSessions {
    /// The best session with a node, of those that fulfil a condition and are not doubted.
    fn best(&self, node: &NodeKey, which: impl Fn(u64, &SessionEntry) -> bool) -> Option<Session> {
        let wanted =
            |(number, entry): &(&u64, &SessionEntry)| entry.peer == PeerName::Node(*node) && which(**number, entry);
        let alive = |(number, entry): (&u64, &SessionEntry)| {
            let session = entry.session.upgrade()?;
            if session.end().is_some() || session.is_doubted() {
                return None;
            }
            Some((entry.rank(), *number, session))
        };
        let found =
            self.entries.iter().filter(wanted).filter_map(alive).max_by_key(|(rank, number, _)| (*rank, *number));
        found.map(|(.., session)| session)
    }
}

impl SessionEntry {
    fn kind(&self) -> PathKind {
        self.path.borrow().kind
    }

    fn rank(&self) -> PathRank {
        PathRank::of_kind(self.kind())
    }
}

impl Drop for ListedSession {
    fn drop(&mut self) {
        self.sessions.0.send_modify(|standing| {
            standing.entries.remove(&self.number);
        });
    }
}
