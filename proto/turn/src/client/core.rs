//! The client of one allocation: what its caller calls, and in which order the parts act.
//!
//! What it is not: any of those parts. Requests and their answers meet in `transactions`, the allocation's life is in `allocation`,
//! peers are in `permissions` and `connections`.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{
    AddressFamily, ClientCounters, ClientOutput, Config, ConnectId, ConnectRefusal, DataId, Ending, PermitRefusal,
    RequestError,
    allocation::Phase,
    answers::{self, Incoming},
    connections::Connections,
    permissions::Permissions,
    transactions::{Authority, Channel, Transactions},
};
use crate::{long_term::Credentials, transaction_ids::TransactionIds};

/// What an allocation is made with.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The user, if the server asks for one.
    pub credentials: Option<Credentials>,
    /// The family of the relayed address.
    pub family: AddressFamily,
    /// Must be random: transaction ids come from it.
    pub seed: [u8; 32],
    /// Timers and limits.
    pub config: Config,
}

/// The state machine of one allocation over one control connection. After every call, drain [`Client::poll_output`].
#[derive(Debug)]
pub struct Client {
    pub(super) config: Config,
    pub(super) family: AddressFamily,
    pub(super) phase: Phase,
    pub(super) authority: Authority,
    pub(super) transactions: Transactions,
    pub(super) permissions: Permissions,
    pub(super) connections: Connections,
    pub(super) ids: TransactionIds,
    pub(super) outputs: VecDeque<ClientOutput>,
    pub(super) counters: ClientCounters,
}

impl Client {
    /// Asks for an allocation on a control connection that has just been opened.
    pub fn new(options: ClientOptions, now: Instant) -> Self {
        let mut client = Self {
            family: options.family,
            phase: Phase::Allocating,
            authority: options.credentials.map_or(Authority::Nobody, Authority::Unchallenged),
            transactions: Transactions::default(),
            permissions: Permissions::default(),
            connections: Connections::default(),
            ids: TransactionIds::new(options.seed),
            outputs: VecDeque::new(),
            counters: ClientCounters::default(),
            config: options.config,
        };
        client.allocate(now);
        client
    }

    /// Takes a whole message from the control connection.
    pub fn received(&mut self, now: Instant, message: &[u8]) {
        if self.has_ended() {
            return;
        }
        match answers::read(message) {
            Ok(Incoming::Answer(answer)) => self.answered(now, Channel::Control, &answer),
            Ok(Incoming::Attempt { connection, peer }) => self.attempted(now, connection, peer),
            Ok(Incoming::Other) => self.counters.ignored += 1,
            Err(answers::Garbage) => self.end(Ending::Garbage),
        }
    }

    /// Tells that the control connection has ended.
    pub fn control_closed(&mut self) {
        self.end(Ending::Closed);
    }

    /// Tells that the control connection brings what is no STUN message.
    pub fn control_garbled(&mut self) {
        self.end(Ending::Garbage);
    }

    /// Asks the server to let in connections of a peer, whatever their port, from now to the end of the allocation. Asking again
    /// changes nothing, unless the server has refused before.
    pub fn permit(&mut self, now: Instant, peer: IpAddr) -> Result<(), PermitRefusal> {
        match self.phase {
            Phase::Releasing | Phase::Ended => Err(PermitRefusal::Ended),
            _ if AddressFamily::of(peer) != self.family => Err(PermitRefusal::Family),
            _ => self.add_permission(now, peer),
        }
    }

    /// Asks the server to connect to a peer.
    pub fn connect(&mut self, now: Instant, peer: SocketAddr) -> Result<ConnectId, ConnectRefusal> {
        match self.phase {
            Phase::Standing(_) if AddressFamily::of(peer.ip()) != self.family => Err(ConnectRefusal::Family),
            Phase::Standing(_) => self.add_connect(now, peer),
            Phase::Allocating | Phase::Releasing | Phase::Ended => Err(ConnectRefusal::NotAllocated),
        }
    }

    /// Tells that nobody waits for a connection any more.
    pub fn abandon(&mut self, connect: ConnectId) {
        self.abandon_connect(connect);
    }

    /// Tells that a data connection stands.
    pub fn data_connected(&mut self, now: Instant, data: DataId) {
        self.bind(now, data);
    }

    /// Takes a whole message from a data connection.
    pub fn data_received(&mut self, now: Instant, data: DataId, message: &[u8]) {
        match answers::read(message) {
            Ok(Incoming::Answer(answer)) => self.answered(now, Channel::Data(data), &answer),
            _ => {
                self.counters.ignored += 1;
                self.give_up_data(data, RequestError::Malformed("it is no answer"));
            }
        }
    }

    /// Tells that a data connection could not be opened, or has ended before it was bound.
    pub fn data_closed(&mut self, data: DataId) {
        self.lose_data(data, RequestError::DataConnection);
    }

    /// Gives the allocation back (RFC 8656 §8.1: Refresh with lifetime 0).
    pub fn release(&mut self, now: Instant) {
        self.give_back(now);
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` after the end.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.has_ended() {
            return None;
        }
        let phase = self.phase.next_timeout();
        let (transactions, permissions) = (self.transactions.next_timeout(), self.permissions.next_timeout());
        [phase, transactions, permissions, self.connections.next_timeout()].into_iter().flatten().min()
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire_requests(now);
        self.expire_data(now);
        self.advance_phase(now);
        self.refresh_permissions(now);
    }

    /// What is to be done next; `None` until the next call.
    pub fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }

    /// What has been counted so far.
    pub fn counters(&self) -> ClientCounters {
        self.counters
    }

    /// Whether there is no allocation any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }
}
