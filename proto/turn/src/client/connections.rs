//! Connections to peers and of peers: wishes, and the data connections to the server that carry them (RFC 6062 §4.3-§4.5).
//!
//! What it is not: what they carry.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use super::{
    Client, ClientOutput, ConnectId, ConnectRefusal, DataId, Origin, RequestError, allocation::Phase,
    requests::OutgoingRequest, transactions::Purpose,
};

/// Wishes of which the server has not answered, and data connections that are not bound.
#[derive(Debug, Default)]
pub(super) struct Connections {
    asked: BTreeMap<ConnectId, SocketAddr>,
    unbound: BTreeMap<DataId, Unbound>,
    last_connect: u64,
    last_data: u64,
}

/// A data connection that is being opened or bound.
#[derive(Debug, Clone, Copy)]
struct Unbound {
    /// CONNECTION-ID.
    connection: u32,
    origin: Origin,
    deadline: Instant,
    /// Whether ConnectionBind has been sent.
    is_asked: bool,
}

impl Unbound {
    fn connect(&self) -> Option<ConnectId> {
        match self.origin {
            Origin::Connect { connect, .. } => Some(connect),
            Origin::Attempt { .. } => None,
        }
    }
}

impl Connections {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.unbound.values().map(|unbound| unbound.deadline).min()
    }

    /// Wishes that are under way.
    fn connects(&self) -> usize {
        self.asked.len() + self.unbound.values().filter(|unbound| unbound.connect().is_some()).count()
    }

    /// Connections of peers that are under way.
    fn attempts(&self) -> usize {
        self.unbound.values().filter(|unbound| unbound.connect().is_none()).count()
    }
}

impl Client {
    pub(super) fn add_connect(&mut self, now: Instant, peer: SocketAddr) -> Result<ConnectId, ConnectRefusal> {
        let limit = self.config.max_connects;
        if self.connections.connects() >= limit {
            return Err(ConnectRefusal::TooMany { limit });
        }
        self.connections.last_connect += 1;
        let connect = ConnectId(self.connections.last_connect);
        self.connections.asked.insert(connect, peer);
        self.request(now, Purpose::Connect(connect), OutgoingRequest::Connect { peer });
        Ok(connect)
    }

    /// The answer to Connect: the server is connected to the peer.
    pub(super) fn granted(&mut self, now: Instant, connect: ConnectId, connection: u32) {
        if let Some(peer) = self.connections.asked.remove(&connect) {
            self.open_data(now, connection, Origin::Connect { connect, peer });
        }
    }

    pub(super) fn connect_failed(&mut self, connect: ConnectId, error: RequestError) {
        if self.connections.asked.remove(&connect).is_some() {
            self.outputs.push_back(ClientOutput::ConnectFailed { connect, error });
        }
    }

    /// Nobody waits any more. What the server has connected, it closes by itself (RFC 6062 §5.3).
    pub(super) fn abandon_connect(&mut self, connect: ConnectId) {
        if self.connections.asked.remove(&connect).is_some() {
            self.transactions.forget(Purpose::Connect(connect));
        }
        let data = self.connections.unbound.iter().find(|(_, unbound)| unbound.connect() == Some(connect));
        if let Some(data) = data.map(|(data, _)| *data) {
            self.forget_data(data);
            self.outputs.push_back(ClientOutput::CloseData { data });
        }
    }

    /// The indication that a peer has connected.
    pub(super) fn attempted(&mut self, now: Instant, connection: u32, peer: SocketAddr) {
        let is_known = self.connections.unbound.values().any(|unbound| unbound.connection == connection);
        if !matches!(self.phase, Phase::Standing(_)) || is_known {
            self.counters.ignored += 1;
        } else if !self.permissions.lets_in(peer.ip()) {
            self.counters.attempts_without_permission += 1;
        } else if self.connections.attempts() >= self.config.max_unbound {
            self.counters.attempts_over_limit += 1;
        } else {
            self.counters.attempts += 1;
            self.open_data(now, connection, Origin::Attempt { peer });
        }
    }

    fn open_data(&mut self, now: Instant, connection: u32, origin: Origin) {
        self.connections.last_data += 1;
        let data = DataId(self.connections.last_data);
        let deadline = now + self.config.bind_timeout;
        self.connections.unbound.insert(data, Unbound { connection, origin, deadline, is_asked: false });
        self.outputs.push_back(ClientOutput::OpenData { data });
    }

    /// The data connection stands.
    pub(super) fn bind(&mut self, now: Instant, data: DataId) {
        let Some(unbound) = self.connections.unbound.get_mut(&data) else { return };
        if !std::mem::replace(&mut unbound.is_asked, true) {
            let connection = unbound.connection;
            self.request(now, Purpose::Bind(data), OutgoingRequest::ConnectionBind { connection });
        }
    }

    /// The answer to ConnectionBind.
    pub(super) fn bound(&mut self, data: DataId) {
        if let Some(unbound) = self.forget_data(data) {
            self.counters.bound += 1;
            self.outputs.push_back(ClientOutput::Bound { data, origin: unbound.origin });
        }
    }

    /// The data connection has ended by itself.
    pub(super) fn lose_data(&mut self, data: DataId, error: RequestError) {
        if let Some(Origin::Connect { connect, .. }) = self.forget_data(data).map(|unbound| unbound.origin) {
            self.outputs.push_back(ClientOutput::ConnectFailed { connect, error });
        }
    }

    /// The data connection is of no use.
    pub(super) fn give_up_data(&mut self, data: DataId, error: RequestError) {
        if self.connections.unbound.contains_key(&data) {
            self.outputs.push_back(ClientOutput::CloseData { data });
            self.lose_data(data, error);
        }
    }

    /// Gives up the data connections of which the time is up.
    pub(super) fn expire_data(&mut self, now: Instant) {
        let late = self.connections.unbound.iter().filter(|(_, unbound)| unbound.deadline <= now);
        let late: Vec<DataId> = late.map(|(data, _)| *data).collect();
        for data in late {
            self.give_up_data(data, RequestError::Silent);
        }
    }

    /// Drops all wishes and unbound data connections: the allocation ends.
    pub(super) fn drop_connections(&mut self) {
        self.connections.asked.clear();
        for data in std::mem::take(&mut self.connections.unbound).into_keys() {
            self.outputs.push_back(ClientOutput::CloseData { data });
        }
    }

    fn forget_data(&mut self, data: DataId) -> Option<Unbound> {
        let unbound = self.connections.unbound.remove(&data)?;
        self.transactions.forget(Purpose::Bind(data));
        Some(unbound)
    }
}
