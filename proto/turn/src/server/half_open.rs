//! Connections that are neither control nor data connections: how many there may be, and which one gives way.
//!
//! A flood of them from one host pushes out only its own, as long as there is room; after that, those of the host that has
//! most.
//!
//! What it is not: the timer that ends them ([`super::expiry`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::ClientId;
use keyferry_net::ip::host_of;

/// The connections, by host.
#[derive(Debug)]
pub(super) struct HalfOpen {
    max_per_host: usize,
    max: usize,
    hosts: BTreeMap<IpAddr, BTreeSet<ClientId>>,
    count: usize,
}

impl HalfOpen {
    pub(super) fn new(max_per_host: usize, max: usize) -> Self {
        Self { max_per_host, max, hosts: BTreeMap::new(), count: 0 }
    }

    /// Which connection to close before one more of this host enters.
    pub(super) fn make_room(&self, remote: IpAddr) -> Option<ClientId> {
        let own = self.hosts.get(&host_of(remote));
        let crowd = if own.is_some_and(|own| own.len() >= self.max_per_host) {
            own
        } else if self.count >= self.max {
            self.hosts.values().max_by_key(|clients| clients.len())
        } else {
            None
        };
        // Ids grow: the first is the oldest.
        crowd.and_then(|clients| clients.first()).copied()
    }

    pub(super) fn enter(&mut self, remote: IpAddr, client: ClientId) {
        if self.hosts.entry(host_of(remote)).or_default().insert(client) {
            self.count += 1;
        }
    }

    pub(super) fn leave(&mut self, remote: IpAddr, client: ClientId) {
        let host = host_of(remote);
        let Some(clients) = self.hosts.get_mut(&host) else { return };
        if clients.remove(&client) {
            self.count -= 1;
        }
        if clients.is_empty() {
            self.hosts.remove(&host);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.count
    }
}
