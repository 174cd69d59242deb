//! Allocations: whose they are, their relayed addresses, and which peers may connect.
//!
//! What it is not: connections with those peers ([`super::peers`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{AddressFamily, AllocationId, ClientId, PeerId, answer::Ticket, quota::Holder};

/// All allocations.
#[derive(Debug, Default)]
pub(super) struct Allocations {
    known: BTreeMap<AllocationId, ServerAllocation>,
    /// The relayed addresses of those that stand: the only addresses of this machine that are peers.
    relayed: BTreeMap<SocketAddr, AllocationId>,
}

/// An allocation.
#[derive(Debug)]
pub(super) struct ServerAllocation {
    pub(super) client: ClientId,
    pub(super) holder: Holder,
    pub(super) family: AddressFamily,
    pub(super) state: AllocationState,
    /// The peers that may connect, each until its time.
    permissions: BTreeMap<IpAddr, Instant>,
    peers: BTreeSet<PeerId>,
}

/// How far an allocation is.
#[derive(Debug)]
pub(super) enum AllocationState {
    /// The driver looks for a port; then the client gets its answer.
    Opening { ticket: Ticket, lifetime: Duration },
    /// It stands.
    Standing { relayed: SocketAddr, expires: Instant },
}

/// An allocation has as many permissions as one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooManyPermissions;

impl Allocations {
    pub(super) fn insert(&mut self, allocation: AllocationId, new: ServerAllocation) {
        self.known.insert(allocation, new);
    }

    pub(super) fn get(&self, allocation: AllocationId) -> Option<&ServerAllocation> {
        self.known.get(&allocation)
    }

    pub(super) fn holder(&self, allocation: AllocationId) -> Option<&Holder> {
        self.get(allocation).map(|known| &known.holder)
    }

    pub(super) fn client(&self, allocation: AllocationId) -> Option<ClientId> {
        self.get(allocation).map(|known| known.client)
    }

    /// The allocation that has this relayed address.
    pub(super) fn at(&self, relayed: SocketAddr) -> Option<AllocationId> {
        self.relayed.get(&relayed).copied()
    }

    /// Whether an address is one that this relay gives to its clients: those of one relay may reach each other.
    pub(super) fn is_relayed_host(&self, ip: IpAddr) -> bool {
        let (from, to) = (SocketAddr::new(ip, 0), SocketAddr::new(ip, u16::MAX));
        self.relayed.range(from..=to).next().is_some()
    }

    /// Gives an allocation its relayed address.
    pub(super) fn establish(&mut self, allocation: AllocationId, relayed: SocketAddr, expires: Instant) {
        if let Some(known) = self.known.get_mut(&allocation) {
            known.state = AllocationState::Standing { relayed, expires };
            self.relayed.insert(relayed, allocation);
        }
    }

    /// Lets one that stands expire at another time.
    pub(super) fn extend(&mut self, allocation: AllocationId, until: Instant) {
        if let Some(AllocationState::Standing { expires, .. }) =
            self.known.get_mut(&allocation).map(|known| &mut known.state)
        {
            *expires = until;
        }
    }

    /// Lets peers connect until then, all of them or none.
    pub(super) fn permit(
        &mut self,
        now: Instant,
        allocation: AllocationId,
        peers: BTreeSet<IpAddr>,
        until: Instant,
        most: usize,
    ) -> Result<(), TooManyPermissions> {
        let Some(known) = self.known.get_mut(&allocation) else { return Ok(()) };
        known.permissions.retain(|_, until| now < *until);
        let new = peers.iter().filter(|ip| !known.permissions.contains_key(ip)).count();
        if known.permissions.len() + new > most {
            return Err(TooManyPermissions);
        }
        known.permissions.extend(peers.into_iter().map(|ip| (ip, until)));
        Ok(())
    }

    pub(super) fn add_peer(&mut self, allocation: AllocationId, peer: PeerId) {
        if let Some(known) = self.known.get_mut(&allocation) {
            known.peers.insert(peer);
        }
    }

    pub(super) fn remove_peer(&mut self, allocation: AllocationId, peer: PeerId) {
        if let Some(known) = self.known.get_mut(&allocation) {
            known.peers.remove(&peer);
        }
    }

    /// The peers of an allocation, in the order of their ids.
    pub(super) fn peers(&self, allocation: AllocationId) -> impl Iterator<Item = PeerId> {
        self.get(allocation).into_iter().flat_map(|known| known.peers.iter().copied())
    }

    pub(super) fn remove(&mut self, allocation: AllocationId) -> Option<ServerAllocation> {
        let known = self.known.remove(&allocation)?;
        if let AllocationState::Standing { relayed, .. } = known.state {
            self.relayed.remove(&relayed);
        }
        Some(known)
    }

    /// Those whose lifetime is over, with their clients.
    pub(super) fn expired(&self, now: Instant) -> Vec<(AllocationId, ClientId)> {
        let over = self.known.iter().filter(|(_, known)| known.expires().is_some_and(|expires| expires <= now));
        over.map(|(allocation, known)| (*allocation, known.client)).collect()
    }

    /// When the first of them expires.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.known.values().filter_map(ServerAllocation::expires).min()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&AllocationId, &ServerAllocation)> {
        self.known.iter()
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.known.len(), self.relayed.len())
    }
}

impl ServerAllocation {
    pub(super) fn new(client: ClientId, holder: Holder, family: AddressFamily, state: AllocationState) -> Self {
        Self { client, holder, family, state, permissions: BTreeMap::new(), peers: BTreeSet::new() }
    }

    pub(super) fn has_permission(&self, now: Instant, ip: IpAddr) -> bool {
        self.permissions.get(&ip.to_canonical()).is_some_and(|until| now < *until)
    }

    fn expires(&self) -> Option<Instant> {
        match self.state {
            AllocationState::Standing { expires, .. } => Some(expires),
            AllocationState::Opening { .. } => None,
        }
    }
}
