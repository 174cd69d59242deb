//! Where this node can be reached, by what others have tried and seen.
//!
//! What it is not: proof. Anyone can say anything; [`NodeReachability::is_reachable`] says how far the tests of others are
//! believed, and [`crate::reach::gather`] compares what they have seen.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use libp2p::{Multiaddr, core::ConnectedPoint};

use super::{
    connections::DirectConnection,
    observed::{Departures, Observation, Observations},
    scope::{AddressScope, socket_addr_of},
    transport::listening_addrs,
};
use crate::net::port::Port;

/// Addresses of this node that are taken for reachable from outside, besides those of its own interfaces. A peer that has
/// made one up and helpers that say they have tried it can add to them, and identify tells them all in one message.
const MAX_EXTERNAL: usize = 16;
/// Addresses of this node that others tried in vain and that are remembered.
const MAX_UNREACHABLE: usize = 16;

/// What is known of this node's addresses.
pub(super) struct NodeReachability {
    /// Whether the operator says that the node is reachable. It is never tested then.
    is_public: bool,
    /// Whether the node tells nobody where it is.
    is_hidden: bool,
    /// The node's own port, from which connections leave.
    port: Arc<Port>,
    /// Addresses that were found reachable from outside, in that order.
    external: Vec<SocketAddr>,
    /// Addresses that others tried in vain.
    unreachable: BTreeSet<SocketAddr>,
    observed: Observations,
    departures: Departures,
}

impl NodeReachability {
    /// Nothing is known yet. The transport notes in `departures` from where its connections left.
    pub(super) fn new(is_public: bool, is_hidden: bool, port: Arc<Port>, departures: Departures) -> Self {
        let (external, unreachable, observed) = (Vec::new(), BTreeSet::new(), Observations::default());
        Self { is_public, is_hidden, port, external, unreachable, observed, departures }
    }

    /// Notes that an address of this node has been reached from outside, or can be no longer; `own` are those of this machine.
    /// Returns the addresses that are given up because there are too many, or nothing if the address is of no concern.
    pub(super) fn on_reached(
        &mut self,
        addr: &Multiaddr,
        is_reachable: bool,
        own: &[SocketAddr],
    ) -> Option<Vec<SocketAddr>> {
        let socket_addr = socket_addr_of(addr)?;
        if self.is_hidden || AddressScope::of(addr) != Some(AddressScope::Wan) {
            return None;
        }
        self.external.retain(|known| *known != socket_addr);
        if !is_reachable {
            return Some(Vec::new());
        }
        self.external.push(socket_addr);
        Some(beyond_limit(&mut self.external, own))
    }

    /// Notes what became of the test of an address from outside. Returns whether something changed.
    pub(super) fn on_tested(&mut self, tested: &Multiaddr, is_reachable: bool) -> bool {
        let Some(addr) = socket_addr_of(tested) else { return false };
        match is_reachable {
            true => self.unreachable.remove(&addr),
            false => self.unreachable.len() < MAX_UNREACHABLE && self.unreachable.insert(addr),
        }
    }

    /// Notes from where the peer at the other end of a connection saw it come, if it left from where connections leave now.
    /// Returns that address if it is new.
    pub(super) fn on_observed(&mut self, observed: &Multiaddr, connection: &DirectConnection) -> Option<SocketAddr> {
        let (observed, observer) = (socket_addr_of(observed)?, socket_addr_of(&connection.remote)?);
        let local = connection.local.filter(|local| local.is_ipv4() == observed.is_ipv4())?;
        let is_new =
            self.is_witnessed_by(connection) && self.observed.insert(Observation { observer, local, observed });
        is_new.then_some(observed)
    }

    /// Whether the other end of a connection sees it come from where connections leave now.
    pub(super) fn is_witnessed_by(&self, connection: &DirectConnection) -> bool {
        connection.is_dialled && connection.local.is_some_and(|local| self.port.departs_from(local))
    }

    /// The address of this machine that a new connection hangs on, if that is known.
    pub(super) fn local_end_of(&self, endpoint: &ConnectedPoint) -> Option<SocketAddr> {
        match endpoint {
            ConnectedPoint::Listener { local_addr, .. } => socket_addr_of(local_addr),
            ConnectedPoint::Dialer { address, .. } => self.departures.take(socket_addr_of(address)?),
        }
    }

    /// Notes that this machine has lost an address.
    pub(super) fn on_address_lost(&mut self, lost: IpAddr) {
        self.observed.forget(lost);
    }

    /// The addresses at which the node listens at this moment.
    pub(super) fn listening_addrs(&self) -> BTreeSet<SocketAddr> {
        listening_addrs(&self.port)
    }

    /// Whether the operator says that the node is reachable.
    pub(super) fn is_public(&self) -> bool {
        self.is_public
    }

    /// Whether this node is to serve the wide-area DHT.
    pub(super) fn serves_wan(&self) -> bool {
        self.is_public || !self.external.is_empty()
    }

    /// Whether most peers can connect to this node, which listens on `own`.
    ///
    /// A test from outside is believed here only for an address of this machine's own: a NAT that filters by address lets
    /// in whoever this node has connected to before, which is who tests it, and nobody else.
    pub(super) fn is_reachable(&self, own: &[SocketAddr]) -> bool {
        let has_ipv4 = own.iter().any(|addr| addr.is_ipv4() && !addr.ip().is_loopback());
        // Most peers have IPv4, and some have nothing else.
        let family = if has_ipv4 { SocketAddr::is_ipv4 } else { SocketAddr::is_ipv6 };
        self.is_public || self.is_proven(own, family)
    }

    /// Whether some peers can connect to this node, which listens on `own`.
    pub(super) fn is_reachable_somehow(&self, own: &[SocketAddr]) -> bool {
        self.is_public || self.is_proven(own, |_| true)
    }

    /// The addresses that were found reachable from outside.
    pub(super) fn external(&self) -> &[SocketAddr] {
        &self.external
    }

    /// The addresses that others tried in vain.
    pub(super) fn unreachable(&self) -> Vec<SocketAddr> {
        self.unreachable.iter().copied().collect()
    }

    /// What others have seen of this node's connections.
    pub(super) fn observed(&self) -> Vec<Observation> {
        let mut observed = self.observed.to_vec();
        observed.retain(|one| self.port.departs_from(one.local));
        observed
    }

    fn is_proven(&self, own: &[SocketAddr], which: impl Fn(&SocketAddr) -> bool) -> bool {
        own.iter().any(|addr| which(addr) && self.external.contains(addr))
    }
}

/// Takes out the oldest of those addresses that are too many; those of this machine's own stay.
fn beyond_limit(external: &mut Vec<SocketAddr>, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let others = external.iter().filter(|addr| !own.contains(addr));
    let too_many = others.clone().count().saturating_sub(MAX_EXTERNAL);
    let gone: Vec<SocketAddr> = others.take(too_many).copied().collect();
    external.retain(|addr| !gone.contains(addr));
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_outer_addresses_the_oldest_go_and_those_of_this_machine_stay() {
        let addr = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let mut external: Vec<_> = (0..MAX_EXTERNAL as u16 + 3).map(addr).collect();

        assert_eq!(beyond_limit(&mut external, &[addr(0)]), [addr(1), addr(2)]);
        assert_eq!(external.len(), MAX_EXTERNAL + 1);
        assert!(external.contains(&addr(0)));
        assert_eq!(beyond_limit(&mut external, &[addr(0)]), []);
    }
}
