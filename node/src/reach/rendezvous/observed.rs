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
    sync::{Arc, Mutex, PoisonError},
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

/// From which local address each dialled connection left.
#[derive(Debug, Clone, Default)]
pub(super) struct Departures(Arc<Mutex<HashMap<SocketAddr, SocketAddr>>>);

impl Departures {
    /// Notes that a connection to `remote` has left from `local`.
    pub(super) fn note(&self, remote: SocketAddr, local: SocketAddr) {
        let mut departures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if departures.len() >= MAX_DEPARTURES && !departures.contains_key(&remote) {
            departures.clear();
        }
        departures.insert(remote, local);
    }

    /// Notes that the newest connection with `remote` is one that it made itself.
    pub(super) fn forget(&self, remote: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&remote);
    }

    /// From where the newest connection to `remote` left.
    pub(super) fn local_of(&self, remote: SocketAddr) -> Option<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&remote).copied()
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
        assert!(departures.0.lock().unwrap().len() <= MAX_DEPARTURES);
        assert_eq!(departures.local_of(SocketAddr::from(([203, 0, 113, 1], 9999))), Some(local));
    }
}
