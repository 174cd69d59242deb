//! A libp2p behaviour that sees, tells and dials addresses of one scope only, and no circuits.
//!
//! The two DHTs share connections, but the wide-area one must not spread addresses of a house, and a peer far away must
//! not make this node dial addresses inside its network. Circuits are for calls alone: no behaviour in here works on one,
//! or even knows that it stands, so that no request goes to a peer that is connected by a circuit only.
//!
//! What it is not: a filter for requests. Whoever is connected may ask both DHTs.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
        behaviour::{
            ConnectionClosed, ConnectionEstablished, ExpiredListenAddr, ExternalAddrConfirmed, ExternalAddrExpired,
            NewListenAddr,
        },
        dummy,
    },
};

use super::{
    circuit::is_circuit,
    scope::{AddressScope, MAX_PEER_ADDRS, socket_addr_of},
};
use crate::base::rate_limit::{Bucket, Rate};

/// New addresses of this node that peers may propose. What liars make AutoNAT keep in a day is less than a MiB.
const PROPOSAL_RATE: Rate = Rate { burst: 64, interval: Duration::from_secs(30) };
/// How many of the last proposed addresses to remember: honest peers all propose the same few, again and again.
const MAX_RECENT: usize = 16;

/// The behaviour `B`, confined to the addresses of a scope.
pub(super) struct ScopeFilter<B> {
    pub(super) inner: B,
    /// None for both scopes.
    scope: Option<AddressScope>,
    /// How many of a peer's connections are circuits.
    circuits: HashMap<PeerId, usize>,
    proposals: Proposals,
    /// Whether the node counts as reached wherever it listens.
    is_where_it_listens: bool,
}

/// The addresses of this node that peers propose to test. A peer can propose any address as often as it likes, and AutoNAT's
/// client keeps each new one for ever.
#[derive(Debug, Default)]
struct Proposals {
    recent: VecDeque<Multiaddr>,
    new: Bucket,
}

impl Proposals {
    /// Whether an address may be proposed: one that has been lately, or a new one unless there were too many.
    fn admit(&mut self, addr: &Multiaddr, now: Instant) -> bool {
        if self.recent.contains(addr) {
            return true;
        }
        if !self.new.take(PROPOSAL_RATE, now) {
            return false;
        }
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(addr.clone());
        true
    }
}

impl<B: NetworkBehaviour> ScopeFilter<B> {
    pub(super) fn new(scope: AddressScope, inner: B) -> Self {
        Self { scope: Some(scope), ..Self::direct(inner) }
    }

    /// A behaviour that is confined to addresses of either scope.
    pub(super) fn direct(inner: B) -> Self {
        Self {
            inner,
            scope: None,
            circuits: HashMap::new(),
            proposals: Proposals::default(),
            is_where_it_listens: false,
        }
    }

    /// Has the inner behaviour tell others each address where the node listens, with no test of it from outside.
    pub(super) fn where_it_listens(self, is_told: bool) -> Self {
        Self { is_where_it_listens: is_told, ..self }
    }

    /// The addresses at which the inner behaviour would dial a peer.
    pub(super) fn addrs_of(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        let nobody = ConnectionId::new_unchecked(usize::MAX);
        self.handle_pending_outbound_connection(nobody, Some(peer), &[], Endpoint::Dialer).unwrap_or_default()
    }

    fn concerns(&mut self, event: &FromSwarm<'_>) -> bool {
        let addr = match event {
            FromSwarm::NewListenAddr(event) => event.addr,
            FromSwarm::ExpiredListenAddr(event) => event.addr,
            FromSwarm::NewExternalAddrCandidate(event) => {
                return self.has(event.addr) && self.proposals.admit(event.addr, Instant::now());
            }
            FromSwarm::ExternalAddrConfirmed(event) => event.addr,
            FromSwarm::ExternalAddrExpired(event) => event.addr,
            FromSwarm::NewExternalAddrOfPeer(event) => event.addr,
            _ => return true,
        };
        self.has(addr)
    }

    fn has(&self, addr: &Multiaddr) -> bool {
        AddressScope::of(addr).is_some_and(|scope| self.scope.is_none_or(|own| own == scope))
    }

    fn circuits_of(&self, peer: &PeerId) -> usize {
        self.circuits.get(peer).copied().unwrap_or(0)
    }

    fn on_circuit_closed(&mut self, peer: PeerId) {
        if let Some(circuits) = self.circuits.get_mut(&peer) {
            *circuits -= 1;
            if *circuits == 0 {
                self.circuits.remove(&peer);
            }
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for ScopeFilter<B> {
    type ConnectionHandler = Either<B::ConnectionHandler, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if is_circuit(local) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_inbound_connection(id, peer, local, remote).map(Either::Left)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addrs: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let mut found = self.inner.handle_pending_outbound_connection(id, peer, addrs, role)?;
        found.retain(|addr| self.has(addr));
        // Whoever answers for another peer can name any number of addresses.
        let mut seen = HashSet::new();
        found.retain(|addr| seen.insert(socket_addr_of(addr)));
        found.truncate(MAX_PEER_ADDRS);
        Ok(found)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if is_circuit(addr) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_outbound_connection(id, peer, addr, role, port_use).map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(made) if made.endpoint.is_relayed() => {
                *self.circuits.entry(made.peer_id).or_default() += 1;
            }
            FromSwarm::ConnectionClosed(closed) if closed.endpoint.is_relayed() => {
                self.on_circuit_closed(closed.peer_id);
            }
            FromSwarm::ConnectionEstablished(made) => {
                let other_established = made.other_established.saturating_sub(self.circuits_of(&made.peer_id));
                let made = ConnectionEstablished { other_established, ..made };
                self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(made));
            }
            FromSwarm::ConnectionClosed(closed) => {
                let left = closed.remaining_established.saturating_sub(self.circuits_of(&closed.peer_id));
                let closed = ConnectionClosed { remaining_established: left, ..closed };
                self.inner.on_swarm_event(FromSwarm::ConnectionClosed(closed));
            }
            event if self.concerns(&event) => {
                self.inner.on_swarm_event(event);
                match event {
                    FromSwarm::NewListenAddr(NewListenAddr { addr, .. }) if self.is_where_it_listens => {
                        self.inner.on_swarm_event(FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed { addr }));
                    }
                    FromSwarm::ExpiredListenAddr(ExpiredListenAddr { addr, .. }) if self.is_where_it_listens => {
                        self.inner.on_swarm_event(FromSwarm::ExternalAddrExpired(ExternalAddrExpired { addr }));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, id, event),
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx).map(|action| action.map_in(Either::Left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn a_liar_has_few_new_addresses_put_to_the_test_and_honest_peers_one_as_often_as_they_like() {
        let (mut proposals, now) = (Proposals::default(), Instant::now());
        assert!((0..1000).all(|_| proposals.admit(&addr(9), now)));
        let admitted = (1000..2000).filter(|port| proposals.admit(&addr(*port), now)).count();
        assert_eq!(admitted, PROPOSAL_RATE.burst as usize - 1);
        assert!(proposals.recent.len() <= MAX_RECENT);
        let later = now + PROPOSAL_RATE.interval;
        assert_eq!((2000..3000).filter(|port| proposals.admit(&addr(*port), later)).count(), 1);
    }
}
