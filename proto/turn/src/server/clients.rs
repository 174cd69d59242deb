//! Connections from clients: what each of them is, and which of those that have shown no purpose yet give way.
//!
//! What it is not: what hangs on them; see [`super::state`].

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{AllocationId, Arrival, ClientId, Config, PeerId, half_open::HalfOpen};

/// All connections from clients.
#[derive(Debug)]
pub(super) struct Clients {
    conns: BTreeMap<ClientId, ClientConn>,
    half_open: HalfOpen,
    half_open_timeout: Duration,
}

/// A connection from a client.
#[derive(Debug)]
pub(super) struct ClientConn {
    pub(super) arrival: Arrival,
    pub(super) stage: ClientStage,
    /// How often in a row the server told it to authenticate.
    challenged: u8,
}

/// What a client's connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientStage {
    /// Neither of the others; not for longer than this.
    HalfOpen { until: Instant },
    /// The control connection of an allocation, which may still be in the making.
    Control(AllocationId),
    /// Joined with a peer.
    Data(PeerId),
}

impl Clients {
    pub(super) fn new(config: &Config) -> Self {
        let half_open = HalfOpen::new(config.limits.half_open_per_host, config.limits.half_open);
        Self { conns: BTreeMap::new(), half_open, half_open_timeout: config.half_open_timeout }
    }

    pub(super) fn get(&self, client: ClientId) -> Option<&ClientConn> {
        self.conns.get(&client)
    }

    pub(super) fn stage(&self, client: ClientId) -> Option<ClientStage> {
        self.get(client).map(|known| known.stage)
    }

    /// The client's address as its NAT shows it.
    pub(super) fn mapped(&self, client: ClientId) -> Option<SocketAddr> {
        self.get(client).map(|known| known.arrival.remote)
    }

    pub(super) fn is_half_open(&self, client: ClientId) -> bool {
        matches!(self.stage(client), Some(ClientStage::HalfOpen { .. }))
    }

    pub(super) fn is_joined(&self, client: ClientId) -> bool {
        matches!(self.stage(client), Some(ClientStage::Data(_)))
    }

    /// Which connection to close before one from this address enters as half-open.
    pub(super) fn make_room(&self, remote: SocketAddr) -> Option<ClientId> {
        self.half_open.make_room(remote.ip())
    }

    /// Takes in a new connection, which is half-open until the returned time.
    pub(super) fn insert(&mut self, now: Instant, client: ClientId, arrival: Arrival) -> Instant {
        let until = now + self.half_open_timeout;
        self.conns.insert(client, ClientConn { arrival, stage: ClientStage::HalfOpen { until }, challenged: 0 });
        self.half_open.enter(arrival.remote.ip(), client);
        until
    }

    /// Makes the control connection of an allocation half-open again, until the returned time.
    pub(super) fn reopen(&mut self, now: Instant, client: ClientId) -> Option<Instant> {
        let until = now + self.half_open_timeout;
        let known = self.conns.get_mut(&client)?;
        known.stage = ClientStage::HalfOpen { until };
        self.half_open.enter(known.arrival.remote.ip(), client);
        Some(until)
    }

    /// Gives a half-open connection its purpose.
    pub(super) fn settle(&mut self, client: ClientId, stage: ClientStage) {
        let Some(known) = self.conns.get_mut(&client) else { return };
        known.stage = stage;
        self.half_open.leave(known.arrival.remote.ip(), client);
    }

    pub(super) fn remove(&mut self, client: ClientId) -> Option<ClientConn> {
        let known = self.conns.remove(&client)?;
        self.half_open.leave(known.arrival.remote.ip(), client);
        Some(known)
    }

    /// Counts that the server told it to authenticate; how often in a row that is now.
    pub(super) fn challenge(&mut self, client: ClientId) -> u8 {
        let Some(known) = self.conns.get_mut(&client) else { return 0 };
        known.challenged = known.challenged.saturating_add(1);
        known.challenged
    }

    /// Begins that count anew: the client has authenticated.
    pub(super) fn prove(&mut self, client: ClientId) {
        if let Some(known) = self.conns.get_mut(&client) {
            known.challenged = 0;
        }
    }

    /// Those that have been half-open for too long.
    pub(super) fn expired(&self, now: Instant) -> Vec<ClientId> {
        self.half_open_until().filter(|(_, until)| *until <= now).map(|(client, _)| client).collect()
    }

    /// When the first of them expires.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.half_open_until().map(|(_, until)| until).min()
    }

    fn half_open_until(&self) -> impl Iterator<Item = (ClientId, Instant)> {
        self.conns.iter().filter_map(|(client, known)| match known.stage {
            ClientStage::HalfOpen { until } => Some((*client, until)),
            ClientStage::Control(_) | ClientStage::Data(_) => None,
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.conns.len()
    }

    #[cfg(test)]
    pub(super) fn half_open_count(&self) -> usize {
        self.half_open.count()
    }
}
