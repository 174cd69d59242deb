//! From which addresses others see this node's connections come: what tells the mapping of a NAT without asking a
//! STUN server.
//!
//! Only a connection that has left from the node's port says anything about it, and whether one did is known where it
//! is dialled (`transport`): the port may be taken by an earlier connection to the same peer.
//!
//! What it is not: true. Anyone can say anything; [`crate::reach::gather`] compares several.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

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

/// Connections to one address whose local addresses are remembered.
const MAX_AT_ONCE: usize = 4;

/// From which local addresses dialled connections left whose peers are not known yet, the earliest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Departures(Arc<Mutex<PendingDepartures>>);

#[derive(Debug, Default)]
struct PendingDepartures {
    by_remote: HashMap<SocketAddr, VecDeque<SocketAddr>>,
    /// Whose turn it is to connect to an address.
    turns: HashMap<SocketAddr, Weak<AsyncMutex<()>>>,
}

/// The turn to connect to an address, until it is dropped.
pub(super) type DepartureTurn = OwnedMutexGuard<()>;

impl Departures {
    /// Waits for the turn to connect to an address. Only one connection can leave from the node's port, and if two came about at
    /// one moment, nobody could tell which of them that is.
    pub(super) async fn turn(&self, remote: SocketAddr) -> DepartureTurn {
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
        turn.lock_owned().await
    }

    fn lock(&self) -> MutexGuard<'_, PendingDepartures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a connection to `remote` has left from `local`.
    pub(super) fn note(&self, remote: SocketAddr, local: SocketAddr) {
        let mut pending = self.lock();
        let departures = &mut pending.by_remote;
        if departures.len() >= MAX_DEPARTURES && !departures.contains_key(&remote) {
            departures.clear();
        }
        let of_remote = departures.entry(remote).or_default();
        if of_remote.len() < MAX_AT_ONCE {
            of_remote.push_back(local);
        }
    }

    /// Notes that a connection to `remote` came to nothing. Which one is not known, so all are forgotten.
    pub(super) fn forget(&self, remote: SocketAddr) {
        self.lock().by_remote.remove(&remote);
    }

    /// From where a connection to `remote` left whose peer has become known: of several at once, the one that left first is there first.
    pub(super) fn take(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let mut pending = self.lock();
        let departures = &mut pending.by_remote;
        let of_remote = departures.get_mut(&remote)?;
        let local = of_remote.pop_front();
        if of_remote.is_empty() {
            departures.remove(&remote);
        }
        local
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn departures_do_not_grow_without_bound() {
        let departures = Departures::default();
        let local = SocketAddr::from(([10, 0, 0, 1], 2));
        (0..10_000).for_each(|port| departures.note(SocketAddr::from(([203, 0, 113, 1], port)), local));
        assert!(departures.lock().by_remote.len() <= MAX_DEPARTURES);
        assert_eq!(departures.take(SocketAddr::from(([203, 0, 113, 1], 9999))), Some(local));
    }

    #[tokio::test]
    async fn two_connections_to_one_address_are_made_one_after_the_other() {
        let (departures, remote) = (Departures::default(), SocketAddr::from(([203, 0, 113, 1], 1)));
        let first = departures.turn(remote).await;
        let mut second = std::pin::pin!(departures.turn(remote));
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop(departures.turn(SocketAddr::from(([203, 0, 113, 2], 1))).await);
        drop(first);
        drop(second.await);
        drop(departures.turn(SocketAddr::from(([203, 0, 113, 2], 1))).await);
        assert!(departures.lock().turns.len() <= 1, "turns that nobody has are forgotten");
    }

    #[test]
    fn of_two_connections_to_one_address_each_has_its_own_departure() {
        let (departures, remote) = (Departures::default(), SocketAddr::from(([203, 0, 113, 1], 1)));
        let locals = [1, 2, 3].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        locals.iter().for_each(|local| departures.note(remote, *local));
        assert_eq!([(); 2].map(|()| departures.take(remote)), [Some(locals[0]), Some(locals[1])]);
        departures.forget(remote);
        assert_eq!(departures.take(remote), None);
    }
}
