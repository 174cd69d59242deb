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
    answer::{Ticket, connection_attempt},
    quota::Thing,
    request::TurnRefusal,
    state::{AllocationState, ClientStage, PeerConnection, PeerState, Server, ServerAllocation},
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
        match self.relayed.get(&to) {
            Some(other) if *other == allocation => return Err(TurnRefusal::Peer(PeerRefusal::Relay)),
            Some(_) => {}
            None => self.policy.check(to).map_err(TurnRefusal::Peer)?,
        }
        if self.is_connected(allocation, to) {
            return Err(TurnRefusal::ConnectedAlready);
        }
        let until = at.now + self.config.connect_timeout;
        let state = PeerState::Connecting { ticket: ticket.clone(), until };
        let peer = self.new_peer(at.now, allocation, to, state).ok_or(TurnRefusal::Quota)?;
        self.due(until);
        self.outputs.push_back(ServerOutput::Connect { peer, allocation, to });
        Ok(())
    }

    /// Tells what became of [`ServerOutput::Connect`].
    pub fn peer_connected(&mut self, now: Instant, peer: PeerId, result: Result<(), ConnectFailed>) {
        self.expire(now);
        let Some(known) = self.peers.get(&peer) else { return };
        let PeerState::Connecting { ticket, .. } = &known.state else { return };
        let ticket = ticket.clone();
        let Some(client) = self.allocations.get(&known.allocation).map(|allocation| allocation.client) else { return };
        match result {
            Ok(()) => {
                let connection = self.wait_for_client(now, peer);
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
            self.counters.unpermitted += 1;
            return None;
        }
        let ServerAllocation { client, state, .. } = self.allocations.get(&allocation)?;
        let (AllocationState::Standing { .. }, client) = (state, *client) else { return None };
        // The real state follows at once; this one has its time too.
        let placeholder = PeerState::Waiting { connection: 0, until: now };
        let Some(peer) = self.new_peer(now, allocation, remote, placeholder) else {
            self.counters.quota += 1;
            return None;
        };
        let connection = self.wait_for_client(now, peer);
        let transaction = self.random.next_u128();
        let message = connection_attempt(transaction, connection, remote);
        self.outputs.push_back(ServerOutput::Send { client, message });
        Some(peer)
    }

    pub(super) fn bind(
        &mut self,
        client: ClientId,
        identity: &UserIdentity,
        ticket: &Ticket,
        connection: u32,
    ) -> Result<(), TurnRefusal> {
        let is_free =
            self.clients.get(&client).is_some_and(|known| matches!(known.stage, ClientStage::HalfOpen { .. }));
        let peer = *self.waiting.get(&connection).filter(|_| is_free).ok_or(TurnRefusal::BadBind)?;
        let known = self.peers.get_mut(&peer).ok_or(TurnRefusal::BadBind)?;
        let allocation = self.allocations.get(&known.allocation).ok_or(TurnRefusal::BadBind)?;
        if allocation.holder.identity != *identity {
            return Err(TurnRefusal::BadBind);
        }
        let holder = allocation.holder.clone();
        self.waiting.remove(&connection);
        known.state = PeerState::Joined { client };
        self.set_stage(client, ClientStage::Data(peer));
        self.counters.joined += 1;
        self.succeed(client, ticket.done());
        self.outputs.push_back(ServerOutput::Join { client, peer, holder });
        Ok(())
    }

    /// `None` when a quota is used up.
    fn new_peer(
        &mut self,
        now: Instant,
        allocation: AllocationId,
        addr: SocketAddr,
        state: PeerState,
    ) -> Option<PeerId> {
        let peer = PeerId(self.next_id());
        let known = self.allocations.get_mut(&allocation)?;
        self.usage.take(now, &known.holder, Thing::Connection).ok()?;
        known.peers.insert(peer);
        self.peers.insert(peer, PeerConnection { allocation, addr, state });
        Some(peer)
    }

    /// Makes a connection wait for its client, under a new id that nobody can guess.
    fn wait_for_client(&mut self, now: Instant, peer: PeerId) -> u32 {
        let until = now + self.config.bind_timeout;
        let connection = loop {
            let id = (self.random.next_u64() >> 32) as u32;
            if !self.waiting.contains_key(&id) {
                break id;
            }
        };
        if let Some(known) = self.peers.get_mut(&peer) {
            known.state = PeerState::Waiting { connection, until };
            self.waiting.insert(connection, peer);
            self.due(until);
        }
        connection
    }

    /// Whether there is a connection between a relayed address and a peer's (RFC 6062 §5.2: code 446).
    fn is_connected(&self, allocation: AllocationId, addr: SocketAddr) -> bool {
        let known = self.allocations.get(&allocation);
        known.is_some_and(|known| {
            known.peers.iter().any(|peer| self.peers.get(peer).is_some_and(|peer| peer.addr == addr))
        })
    }
}
