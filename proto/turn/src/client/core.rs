//! The client of one allocation: what its caller calls, and what its parts do about it together.
//!
//! What it is not: any of those parts. Requests and their answers meet in `transactions`, the allocation's life is in `allocation`,
//! peers are in `permissions` and `connections`.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    AddressFamily, Allocated, ClientCounters, ClientOutput, Config, ConnectId, ConnectRefusal, DataId, DataOrigin,
    Ending, PermitRefusal, RequestError,
    allocation::{AllocationNeed, AllocationPhase},
    connections::Connections,
    permissions::Permissions,
    requests::OutgoingRequest,
    responses::{self, Response, ServerMessage},
    transactions::{Purpose, ServerConnection, TransactionResult, Transactions},
};
use crate::long_term::UserCredentials;

/// What an allocation is made with.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The user, if the server asks for one.
    pub credentials: Option<UserCredentials>,
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
    config: Config,
    family: AddressFamily,
    phase: AllocationPhase,
    pub(super) transactions: Transactions,
    permissions: Permissions,
    connections: Connections,
    outputs: VecDeque<ClientOutput>,
    counters: ClientCounters,
}

/// What a driver calls.
impl Client {
    /// Asks for an allocation on a control connection that has just been opened.
    pub fn new(options: ClientOptions, now: Instant) -> Self {
        let ClientOptions { credentials, family, seed, config } = options;
        let mut client = Self {
            family,
            phase: AllocationPhase::Allocating,
            transactions: Transactions::new(credentials, seed, config.max_stale_nonces),
            permissions: Permissions::new(config.max_permissions),
            connections: Connections::default(),
            outputs: VecDeque::new(),
            counters: ClientCounters::default(),
            config,
        };
        let request = OutgoingRequest::Allocate { family, lifetime: client.config.lifetime };
        client.request(now, Purpose::Allocate, request);
        client
    }

    /// Takes a whole message from the control connection.
    pub fn received(&mut self, now: Instant, message: &[u8]) {
        if self.has_ended() {
            return;
        }
        match responses::read(message) {
            Ok(ServerMessage::Response(response)) => self.respond(now, ServerConnection::Control, &response),
            Ok(ServerMessage::Attempt { connection, peer }) => self.attempted(now, connection, peer),
            Ok(ServerMessage::Other) => self.counters.ignored += 1,
            Err(responses::Garbage) => self.end(Ending::Garbage),
        }
    }

    /// Tells that the control connection has ended.
    pub fn control_closed(&mut self) {
        self.end(Ending::Closed);
    }

    /// Tells that something came over the control connection that is no STUN message.
    pub fn control_garbled(&mut self) {
        self.end(Ending::Garbage);
    }

    /// Asks the server to let in connections of a peer, whatever their port, from now to the end of the allocation. Asking again
    /// changes nothing, unless the server has refused before.
    pub fn permit(&mut self, now: Instant, peer: IpAddr) -> Result<(), PermitRefusal> {
        match self.phase {
            AllocationPhase::Releasing | AllocationPhase::Ended => return Err(PermitRefusal::Ended),
            _ if AddressFamily::of(peer) != self.family => return Err(PermitRefusal::Family),
            AllocationPhase::Allocating | AllocationPhase::Standing(_) => self.permissions.want(peer)?,
        }
        if self.phase.stands() {
            self.ask_for_permissions(now);
        }
        Ok(())
    }

    /// Asks the server to connect to a peer.
    pub fn connect(&mut self, now: Instant, peer: SocketAddr) -> Result<ConnectId, ConnectRefusal> {
        if !self.phase.stands() {
            return Err(ConnectRefusal::NotAllocated);
        }
        if AddressFamily::of(peer.ip()) != self.family {
            return Err(ConnectRefusal::Family);
        }
        let connect = self.connections.ask(peer, self.config.max_connects)?;
        self.request(now, Purpose::Connect(connect), OutgoingRequest::Connect { peer });
        Ok(connect)
    }

    /// Tells that nobody waits for a connection any more. What the server has connected, it closes by itself (RFC 6062 §5.3).
    pub fn abandon(&mut self, connect: ConnectId) {
        if self.connections.answer(connect).is_some() {
            self.transactions.forget(Purpose::Connect(connect));
        }
        if let Some(data) = self.connections.unbound_of(connect) {
            self.take_unbound(data);
            self.outputs.push_back(ClientOutput::CloseData { data });
        }
    }

    /// Tells that a data connection stands.
    pub fn data_connected(&mut self, now: Instant, data: DataId) {
        if let Some(connection) = self.connections.bind(data) {
            self.request(now, Purpose::Bind(data), OutgoingRequest::ConnectionBind { connection });
        }
    }

    /// Takes a whole message from a data connection.
    pub fn data_received(&mut self, now: Instant, data: DataId, message: &[u8]) {
        match responses::read(message) {
            Ok(ServerMessage::Response(response)) => self.respond(now, ServerConnection::Data(data), &response),
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
        match self.phase {
            AllocationPhase::Allocating => self.end(Ending::Released),
            AllocationPhase::Standing(_) => {
                self.drop_all();
                self.phase = AllocationPhase::Releasing;
                self.request(now, Purpose::Release, OutgoingRequest::Refresh { lifetime: Duration::ZERO });
            }
            AllocationPhase::Releasing | AllocationPhase::Ended => {}
        }
    }

    /// When to call [`Self::handle_timeout`]; `None` after the end.
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
        // One failure may end all others.
        while let Some(purpose) = self.transactions.late(now) {
            self.counters.timeouts += 1;
            self.failed(now, purpose, RequestError::Silent);
        }
        while let Some(data) = self.connections.late(now) {
            self.give_up_data(data, RequestError::Silent);
        }
        match self.phase.advance(now) {
            AllocationNeed::Nothing => {}
            AllocationNeed::Refresh => {
                let request = OutgoingRequest::Refresh { lifetime: self.config.lifetime };
                self.request(now, Purpose::Refresh, request);
            }
            AllocationNeed::End => self.end(Ending::Expired),
        }
        for peer in self.permissions.renew(now) {
            self.create_permission(now, peer);
        }
    }

    /// What to do next; `None` until the next call.
    pub fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }

    /// What has been counted so far.
    pub fn counters(&self) -> ClientCounters {
        self.counters
    }

    /// Whether there is no allocation any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, AllocationPhase::Ended)
    }
}

/// Requests, and what the server makes of them.
impl Client {
    fn request(&mut self, now: Instant, purpose: Purpose, request: OutgoingRequest) {
        let patience = match purpose {
            Purpose::Connect(_) => self.config.connect_timeout,
            Purpose::Release => self.config.release_timeout,
            _ => self.config.request_timeout,
        };
        let output = self.transactions.request(now, purpose, request, patience);
        self.counters.requests += 1;
        self.outputs.push_back(output);
    }

    fn ask_for_permissions(&mut self, now: Instant) {
        for peer in self.permissions.ask() {
            self.create_permission(now, peer);
        }
    }

    /// One request for each peer: a server refuses all peers of a request together (RFC 8656 §10.2).
    fn create_permission(&mut self, now: Instant, peer: IpAddr) {
        self.request(now, Purpose::Permission(peer), OutgoingRequest::CreatePermission { peer });
    }

    fn respond(&mut self, now: Instant, connection: ServerConnection, response: &Response<'_>) {
        match self.transactions.respond(connection, response) {
            TransactionResult::Unasked => self.counters.ignored += 1,
            TransactionResult::Repeated { output, is_stale } => {
                self.counters.stale_nonces += u64::from(is_stale);
                self.counters.requests += 1;
                self.outputs.push_back(output);
            }
            TransactionResult::Succeeded(purpose) => self.succeeded(now, purpose, response),
            TransactionResult::Failed(purpose, error) => {
                self.counters.unproven += u64::from(error == RequestError::Unproven);
                self.failed(now, purpose, error);
            }
        }
    }

    fn succeeded(&mut self, now: Instant, purpose: Purpose, response: &Response<'_>) {
        let taken = match purpose {
            Purpose::Allocate => response.allocated().and_then(|allocated| self.allocated(now, allocated)),
            Purpose::Refresh => response.lifetime().map(|lifetime| self.refreshed(now, lifetime)),
            Purpose::Release => return self.end(Ending::Released),
            Purpose::Permission(peer) => return self.permitted(now, peer),
            Purpose::Connect(connect) => response.connection().map(|connection| self.granted(now, connect, connection)),
            Purpose::Bind(data) => return self.bound(data),
        };
        if let Err(error) = taken {
            self.failed(now, purpose, error);
        }
    }

    fn failed(&mut self, now: Instant, purpose: Purpose, error: RequestError) {
        self.counters.malformed += u64::from(matches!(error, RequestError::Malformed(_)));
        match purpose {
            Purpose::Allocate => self.end(error.into()),
            Purpose::Refresh if self.phase.retry_refresh(now, error, &self.config) => {}
            Purpose::Refresh => self.end(error.into()),
            Purpose::Release => self.end(Ending::Released),
            Purpose::Permission(peer) => self.permission_failed(peer, error),
            Purpose::Connect(connect) => {
                if self.connections.answer(connect).is_some() {
                    self.outputs.push_back(ClientOutput::ConnectFailed { connect, error });
                }
            }
            Purpose::Bind(data) => self.give_up_data(data, error),
        }
    }

    fn allocated(&mut self, now: Instant, allocated: Allocated) -> Result<(), RequestError> {
        if AddressFamily::of(allocated.relayed.ip()) != self.family {
            return Err(RequestError::Malformed("its relayed address is of another family"));
        }
        self.phase = AllocationPhase::granted(now, allocated.lifetime, &self.config);
        self.outputs.push_back(ClientOutput::Allocated(allocated));
        self.ask_for_permissions(now);
        Ok(())
    }

    fn refreshed(&mut self, now: Instant, lifetime: Duration) {
        if lifetime.is_zero() {
            return self.end(Ending::Expired);
        }
        self.counters.refreshes += 1;
        self.phase = AllocationPhase::granted(now, lifetime, &self.config);
    }

    fn permitted(&mut self, now: Instant, peer: IpAddr) {
        if self.permissions.grant(peer, now + self.config.permission_refresh) {
            self.outputs.push_back(ClientOutput::Permitted { peer });
        }
    }

    /// A server that is silent on a connection that stands is gone.
    fn permission_failed(&mut self, peer: IpAddr, error: RequestError) {
        match error {
            RequestError::Silent | RequestError::AllocationMismatch => self.end(Ending::Failed(error)),
            _ => {
                self.permissions.refuse(peer);
                self.outputs.push_back(ClientOutput::PermissionRefused { peer, error });
            }
        }
    }

    /// Ends everything.
    fn end(&mut self, ending: Ending) {
        if self.has_ended() {
            return;
        }
        let ending = if matches!(self.phase, AllocationPhase::Releasing) { Ending::Released } else { ending };
        self.phase = AllocationPhase::Ended;
        self.drop_all();
        self.outputs.push_back(ClientOutput::Ended(ending));
    }

    fn drop_all(&mut self) {
        self.transactions.clear();
        self.permissions.clear();
        self.outputs.extend(self.connections.clear().map(|data| ClientOutput::CloseData { data }));
    }
}

/// Data connections.
impl Client {
    /// The server is connected to the peer.
    fn granted(&mut self, now: Instant, connect: ConnectId, connection: u32) {
        if let Some(peer) = self.connections.answer(connect) {
            self.open_data(now, connection, DataOrigin::Connect { connect, peer });
        }
    }

    /// A peer has connected, by the server's indication.
    fn attempted(&mut self, now: Instant, connection: u32, peer: SocketAddr) {
        if !self.phase.stands() || self.connections.has(connection) {
            self.counters.ignored += 1;
        } else if !self.permissions.lets_in(peer.ip()) {
            self.counters.attempts_without_permission += 1;
        } else if self.connections.attempts() >= self.config.max_unbound {
            self.counters.attempts_over_limit += 1;
        } else {
            self.counters.attempts += 1;
            self.open_data(now, connection, DataOrigin::Attempt { peer });
        }
    }

    fn open_data(&mut self, now: Instant, connection: u32, origin: DataOrigin) {
        let data = self.connections.open(connection, origin, now + self.config.bind_timeout);
        self.outputs.push_back(ClientOutput::OpenData { data });
    }

    fn bound(&mut self, data: DataId) {
        if let Some(origin) = self.take_unbound(data) {
            self.counters.bound += 1;
            self.outputs.push_back(ClientOutput::Bound { data, origin });
        }
    }

    /// Closes a data connection that is of no use.
    fn give_up_data(&mut self, data: DataId, error: RequestError) {
        if self.connections.is_unbound(data) {
            self.outputs.push_back(ClientOutput::CloseData { data });
            self.lose_data(data, error);
        }
    }

    /// Tells whoever has asked for a data connection that there is none.
    fn lose_data(&mut self, data: DataId, error: RequestError) {
        if let Some(DataOrigin::Connect { connect, .. }) = self.take_unbound(data) {
            self.outputs.push_back(ClientOutput::ConnectFailed { connect, error });
        }
    }

    fn take_unbound(&mut self, data: DataId) -> Option<DataOrigin> {
        let origin = self.connections.close(data)?;
        self.transactions.forget(Purpose::Bind(data));
        Some(origin)
    }
}
