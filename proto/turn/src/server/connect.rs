//! Connections with peers (RFC 6062 §5.2 to §5.4): made for a client or by a peer, then joined with a connection of the
//! client.
//!
//! ```text
//! Connect ──▶ Connecting ──▶ Waiting ──▶ Joined
//! a peer connects ────────────▲
//! ```
//! What it is not: their bytes.

use std::{net::SocketAddr, time::Instant};

use super::{
    AllocationId, ClientId, ConnectFailed, PeerId, ServerOutput, UserIdentity,
    allocations::{AllocationState, ServerAllocation},
    answer::{Ticket, connection_attempt},
    clients::ClientStage,
    peers::PeerState,
    quota::Thing,
    request::TurnRefusal,
    state::Server,
    users::At,
};
use crate::peer_policy::PeerRefusal;

impl Server {
    pub(super) fn connect(
        &mut self,
        at: At,
        client: ClientId,
        identity: &UserIdentity,
        ticket: &Ticket,
        to: SocketAddr,
    ) -> Result<(), TurnRefusal> {
        let allocation = self.standing(client, identity)?;
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        self.check_family(allocation, to)?;
        match self.allocations.at(to) {
            Some(other) if other == allocation => return Err(TurnRefusal::Peer(PeerRefusal::Relay)),
            Some(_) => {}
            None => self.policy.check(to).map_err(TurnRefusal::Peer)?,
        }
        if self.is_connected(allocation, to) {
            return Err(TurnRefusal::ConnectedAlready);
        }
        let until = at.now + self.config.connect_timeout;
        let peer = self.new_peer(at.now, allocation).ok_or(TurnRefusal::Quota)?;
        self.peers.connect(peer, allocation, to, ticket.clone(), until);
        self.due(until);
        self.outputs.push(ServerOutput::Connect { peer, allocation, to });
        Ok(())
    }

    /// Tells what became of [`ServerOutput::Connect`].
    pub fn peer_connected(&mut self, now: Instant, peer: PeerId, result: Result<(), ConnectFailed>) {
        self.expire(now);
        let Some(known) = self.peers.get(peer) else { return };
        let PeerState::Connecting { ticket, .. } = &known.state else { return };
        let ticket = ticket.clone();
        let Some(client) = self.allocations.client(known.allocation) else { return };
        match result {
            Ok(()) => {
                let until = now + self.config.bind_timeout;
                let connection = self.peers.wait(peer, until, &mut self.random);
                self.due(until);
                self.succeed(client, ticket.connected(connection));
            }
            Err(ConnectFailed) => {
                self.forget_peer(peer);
                self.refuse(client, &ticket, &TurnRefusal::ConnectFailed);
            }
        }
    }

    /// Tells that a peer has connected to a relayed address. If it returns `None`, close the connection.
    pub fn peer_accepted(&mut self, now: Instant, allocation: AllocationId, remote: SocketAddr) -> Option<PeerId> {
        self.expire(now);
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        if !self.may_connect(now, allocation, remote) || self.is_connected(allocation, remote) {
            self.outputs.counters.unpermitted += 1;
            return None;
        }
        let ServerAllocation { client, state, .. } = self.allocations.get(allocation)?;
        let (AllocationState::Standing { .. }, client) = (state, *client) else { return None };
        let Some(peer) = self.new_peer(now, allocation) else {
            self.outputs.counters.quota += 1;
            return None;
        };
        let until = now + self.config.bind_timeout;
        let connection = self.peers.accept(peer, allocation, remote, until, &mut self.random);
        self.due(until);
        let transaction = self.random.next_u128();
        let message = connection_attempt(transaction, connection, remote);
        self.outputs.push(ServerOutput::Send { client, message });
        Some(peer)
    }

    pub(super) fn bind(
        &mut self,
        client: ClientId,
        identity: &UserIdentity,
        ticket: &Ticket,
        connection: u32,
    ) -> Result<(), TurnRefusal> {
        let is_free = self.clients.is_half_open(client);
        let peer = self.peers.waiting(connection).filter(|_| is_free).ok_or(TurnRefusal::BadBind)?;
        let known = self.peers.get(peer).ok_or(TurnRefusal::BadBind)?;
        let holder = self.allocations.holder(known.allocation).ok_or(TurnRefusal::BadBind)?.clone();
        let is_client = self.allocations.at(known.addr).is_some();
        let checks_first = matches!(holder.identity, UserIdentity::Issued(_)) && !is_client;
        if holder.identity != *identity {
            return Err(TurnRefusal::BadBind);
        }
        self.peers.join(connection, client);
        self.clients.settle(client, ClientStage::Data(peer));
        self.outputs.counters.joined += 1;
        self.succeed(client, ticket.done());
        self.outputs.push(ServerOutput::Join { client, peer, holder, checks_first });
        Ok(())
    }

    /// Tells that a connection that was to begin with checks has not, and is over.
    pub fn not_checked(&mut self, now: Instant, client: ClientId) {
        self.expire(now);
        if self.clients.is_joined(client) {
            self.outputs.counters.unchecked += 1;
            self.forget_client(client);
        }
    }

    /// The id of one more connection of an allocation; `None` when a quota is used up.
    fn new_peer(&mut self, now: Instant, allocation: AllocationId) -> Option<PeerId> {
        let peer = PeerId(self.next_id());
        let holder = self.allocations.holder(allocation)?;
        self.usage.take(now, holder, Thing::Connection).ok()?;
        self.allocations.add_peer(allocation, peer);
        Some(peer)
    }

    /// Whether there is a connection between a relayed address and a peer's (RFC 6062 §5.2: code 446).
    fn is_connected(&self, allocation: AllocationId, addr: SocketAddr) -> bool {
        let mut peers = self.allocations.peers(allocation);
        peers.any(|peer| self.peers.get(peer).is_some_and(|peer| peer.addr == addr))
    }
}
