//! From which addresses others see this node's connections come: what tells the mapping of a NAT without asking a
//! STUN server.
//!
//! Only a connection that has left from the node's port says anything about it, and whether one did is known where it
//! is dialled (`transport`): the port may be taken by an earlier connection to the same peer.
//!
//! What it is not: true. Anyone can say anything; [`crate::reach::gather`] compares several.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time::timeout,
};

/// How many observers to remember, each with its last word. More are of no use.
const MAX_OBSERVERS: usize = 16;
/// Dialled connections whose local address is remembered until their peer has identified itself.
const MAX_DEPARTURES: usize = 256;

/// What one peer says about a connection that it has seen come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Observation {
    /// The peer that was connected to.
    pub observer: SocketAddr,
    /// From which address of this machine the connection left; its port is the node's own.
    pub local: SocketAddr,
    /// From which address it arrived.
    pub observed: SocketAddr,
}

/// The observations of now, one for each observing host.
#[derive(Debug, Default)]
pub(super) struct Observations(Vec<Observation>);

impl Observations {
    /// Notes what a peer says; the newest word of a host replaces its earlier one. Returns whether something changed.
    pub(super) fn insert(&mut self, observation: Observation) -> bool {
        if self.0.contains(&observation) {
            return false;
        }
        let host = (observation.observer.ip(), observation.local.ip());
        self.0.retain(|other| (other.observer.ip(), other.local.ip()) != host);
        if self.0.len() >= MAX_OBSERVERS {
            self.0.remove(0);
        }
        self.0.push(observation);
        true
    }

    /// Forgets what was said of an address that this machine has no longer.
    pub(super) fn forget(&mut self, local: IpAddr) {
        self.0.retain(|observation| observation.local.ip() != local);
    }

    pub(super) fn to_vec(&self) -> Vec<Observation> {
        self.0.clone()
    }
}

/// How long a connection waits for its turn. One to an address that is silent must not hold up another for longer.
const TURN_PATIENCE: Duration = Duration::from_secs(1);

/// From which local addresses dialled connections left whose peers are not known yet: one for each remote address.
#[derive(Debug, Clone, Default)]
pub(super) struct Departures(Arc<Mutex<PendingDepartures>>);

#[derive(Debug, Default)]
struct PendingDepartures {
    by_remote: HashMap<SocketAddr, Weak<NotedDeparture>>,
    turns: HashMap<SocketAddr, Weak<Turn>>,
}

/// From where a connection has left. The connection keeps it, so that it goes with it.
#[derive(Debug)]
pub(super) struct NotedDeparture {
    local: SocketAddr,
    turn: Mutex<Option<DepartureTurn>>,
}

/// Whose turn it is to connect to an address.
#[derive(Debug, Default)]
struct Turn {
    lock: Arc<AsyncMutex<()>>,
    /// Somebody would not wait for it.
    is_overtaken: AtomicBool,
}

/// The turn to connect to an address, until it is dropped.
#[derive(Debug)]
pub(super) struct DepartureTurn {
    turn: Arc<Turn>,
    _lock: OwnedMutexGuard<()>,
}

impl Departures {
    /// Waits for the turn to connect to an address, which lasts until the peer there is known. Only one connection can leave from the
    /// node's port, and if two came about at one moment, nobody could tell which of them that is. None where that takes too long.
    pub(super) async fn turn(&self, remote: SocketAddr) -> Option<DepartureTurn> {
        let turn = {
            let mut pending = self.lock();
            pending.turns.retain(|_, turn| turn.strong_count() > 0);
            match pending.turns.get(&remote).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::default();
                    pending.turns.insert(remote, Arc::downgrade(&turn));
                    turn
                }
            }
        };
        match timeout(TURN_PATIENCE, turn.lock.clone().lock_owned()).await {
            Ok(lock) => Some(DepartureTurn { turn, _lock: lock }),
            Err(_) => {
                turn.is_overtaken.store(true, Ordering::Relaxed);
                None
            }
        }
    }

    /// Notes that a connection to `remote` has left from `local`, if it had its turn.
    pub(super) fn note(
        &self,
        remote: SocketAddr,
        local: SocketAddr,
        turn: Option<DepartureTurn>,
    ) -> Option<Arc<NotedDeparture>> {
        let departure = Arc::new(NotedDeparture { local, turn: Mutex::new(Some(turn?)) });
        let departures = &mut self.lock().by_remote;
        if departures.len() >= MAX_DEPARTURES {
            departures.retain(|_, departure| departure.strong_count() > 0);
        }
        if departures.len() < MAX_DEPARTURES {
            departures.insert(remote, Arc::downgrade(&departure));
        }
        Some(departure)
    }

    /// From where the connection to `remote` left whose peer has become known, which ends its turn. Where another one went without a
    /// turn, the port is 0, since it may be that of the other.
    pub(super) fn take(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let departure = self.lock().by_remote.remove(&remote)?.upgrade()?;
        let turn = departure.turn.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let is_certain = !turn.turn.is_overtaken.load(Ordering::Relaxed);
        Some(if is_certain { departure.local } else { SocketAddr::new(departure.local.ip(), 0) })
    }

    fn lock(&self) -> MutexGuard<'_, PendingDepartures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn observation(host: u8, port: u16) -> Observation {
        Observation {
            observer: SocketAddr::from(([203, 0, 113, host], 1)),
            local: SocketAddr::from(([10, 0, 0, 1], 2)),
            observed: SocketAddr::from(([198, 51, 100, 1], port)),
        }
    }

    #[test]
    fn a_host_has_one_word_and_its_newest_counts() {
        let mut observations = Observations::default();
        assert!(observations.insert(observation(1, 7)));
        assert!(!observations.insert(observation(1, 7)));
        assert!(observations.insert(observation(1, 8)));
        assert_eq!(observations.to_vec(), [observation(1, 8)]);
    }

    #[test]
    fn observers_are_capped_and_forgotten_with_the_address() {
        let mut observations = Observations::default();
        (0..100).for_each(|host| assert!(observations.insert(observation(host, 7))));
        assert_eq!(observations.to_vec().len(), MAX_OBSERVERS);
        observations.forget([10, 0, 0, 1].into());
        assert!(observations.to_vec().is_empty());
    }

    const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 2);

    fn remote(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 1], port))
    }

    #[tokio::test]
    async fn departures_do_not_grow_without_bound() {
        let (departures, mut kept) = (Departures::default(), Vec::new());
        for port in 0..10 * MAX_DEPARTURES as u16 {
            let turn = departures.turn(remote(port)).await;
            kept.push(departures.note(remote(port), LOCAL, turn));
        }
        assert_eq!(departures.lock().by_remote.len(), MAX_DEPARTURES);
        kept.clear();
        let turn = departures.turn(remote(1)).await;
        let _kept = departures.note(remote(1), LOCAL, turn);
        assert_eq!(departures.lock().by_remote.len(), 1, "those of connections that are gone give way");
        assert_eq!(departures.take(remote(1)), Some(LOCAL));
    }

    #[tokio::test(start_paused = true)]
    async fn two_connections_to_one_address_are_made_one_after_the_other() {
        let departures = Departures::default();
        let first = departures.turn(remote(1)).await;
        let kept = departures.note(remote(1), LOCAL, first);
        let mut second = std::pin::pin!(departures.turn(remote(1)));
        assert!(futures::poll!(second.as_mut()).is_pending());
        assert!(departures.turn(remote(2)).await.is_some());
        assert_eq!(departures.take(remote(1)), Some(LOCAL));
        assert!(second.await.is_some(), "its peer is known: the next may go, although it still stands");
        drop(kept);
        drop(departures.turn(remote(2)).await);
        assert!(departures.lock().turns.len() <= 1, "turns that nobody has are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_at_once_nobody_says_from_which_port_they_left() {
        let departures = Departures::default();
        let first = departures.turn(remote(1)).await;
        assert!(departures.turn(remote(1)).await.is_none(), "it does not wait for ever");
        let _kept = departures.note(remote(1), LOCAL, first);
        assert!(departures.note(remote(1), SocketAddr::from(([10, 0, 0, 1], 9)), None).is_none());
        assert_eq!(departures.take(remote(1)), Some(SocketAddr::from(([10, 0, 0, 1], 0))));
        assert_eq!(departures.take(remote(1)), None);
    }

    #[tokio::test]
    async fn a_connection_that_comes_to_nothing_takes_its_departure_along() {
        let departures = Departures::default();
        let turn = departures.turn(remote(1)).await;
        drop(departures.note(remote(1), LOCAL, turn));
        assert_eq!(departures.take(remote(1)), None);
        assert!(departures.turn(remote(1)).await.is_some());
    }
}
