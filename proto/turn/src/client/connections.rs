//! Connections to peers and of peers: Connects, and the data connections to the server that carry them (RFC 6062 §4.3-§4.5).
//!
//! What it is not: what they carry, or the requests.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use super::{ConnectId, ConnectRefusal, DataId, DataOrigin};

/// Connects that the server has not answered, and data connections that are not bound.
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
    origin: DataOrigin,
    deadline: Instant,
    /// Whether ConnectionBind has been sent.
    is_asked: bool,
}

impl Connections {
    /// Notes a Connect that is about to be sent, unless this many are under way.
    pub(super) fn ask(&mut self, peer: SocketAddr, limit: usize) -> Result<ConnectId, ConnectRefusal> {
        let unbound = self.unbound.values().filter(|unbound| unbound.connect().is_some());
        if self.asked.len() + unbound.count() >= limit {
            return Err(ConnectRefusal::TooMany { limit });
        }
        self.last_connect += 1;
        let connect = ConnectId(self.last_connect);
        self.asked.insert(connect, peer);
        Ok(connect)
    }

    /// Takes the peer of a Connect that has been answered, has failed, or is not wanted any more.
    pub(super) fn answer(&mut self, connect: ConnectId) -> Option<SocketAddr> {
        self.asked.remove(&connect)
    }

    /// Notes a data connection that is about to be opened.
    pub(super) fn open(&mut self, connection: u32, origin: DataOrigin, deadline: Instant) -> DataId {
        self.last_data += 1;
        let data = DataId(self.last_data);
        self.unbound.insert(data, Unbound { connection, origin, deadline, is_asked: false });
        data
    }

    /// The CONNECTION-ID to bind a data connection to, the first time that this is asked.
    pub(super) fn bind(&mut self, data: DataId) -> Option<u32> {
        let unbound = self.unbound.get_mut(&data)?;
        let was_asked = std::mem::replace(&mut unbound.is_asked, true);
        (!was_asked).then_some(unbound.connection)
    }

    /// Takes a data connection that is bound, has ended, or is of no use.
    pub(super) fn close(&mut self, data: DataId) -> Option<DataOrigin> {
        self.unbound.remove(&data).map(|unbound| unbound.origin)
    }

    /// Takes all of them, and forgets the Connects.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = DataId> + use<> {
        self.asked.clear();
        std::mem::take(&mut self.unbound).into_keys()
    }

    /// The data connection that is opened or bound for a Connect.
    pub(super) fn unbound_of(&self, connect: ConnectId) -> Option<DataId> {
        self.unbound.iter().find(|(_, unbound)| unbound.connect() == Some(connect)).map(|(data, _)| *data)
    }

    pub(super) fn is_unbound(&self, data: DataId) -> bool {
        self.unbound.contains_key(&data)
    }

    /// Whether a data connection is opened or bound under this CONNECTION-ID.
    pub(super) fn has(&self, connection: u32) -> bool {
        self.unbound.values().any(|unbound| unbound.connection == connection)
    }

    /// Connections of peers that are under way.
    pub(super) fn attempts(&self) -> usize {
        self.unbound.values().filter(|unbound| unbound.connect().is_none()).count()
    }

    /// A data connection that has not been bound in time.
    pub(super) fn late(&self, now: Instant) -> Option<DataId> {
        self.unbound.iter().find(|(_, unbound)| unbound.deadline <= now).map(|(data, _)| *data)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.unbound.values().map(|unbound| unbound.deadline).min()
    }
}

impl Unbound {
    fn connect(&self) -> Option<ConnectId> {
        match self.origin {
            DataOrigin::Connect { connect, .. } => Some(connect),
            DataOrigin::Attempt { .. } => None,
        }
    }
}
