//! A relay at 203.0.113.9, its clients, and what they say to each other.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use stun_types::{
    attribute::{
        AttributeStaticType, AttributeWrite, ErrorCode, Nonce, PasswordAlgorithm, PasswordAlgorithmValue,
        PasswordAlgorithms, Realm, Username,
    },
    message::{
        IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageIntegrityCredentials, MessageWrite,
        MessageWriteExt, MessageWriteVec, Method,
    },
    prelude::AttributeFromRaw,
};
use turn_types::{
    attribute::{ConnectionId, Lifetime, RequestedTransport, XorPeerAddress},
    message::{ALLOCATE, CONNECT, CONNECTION_BIND, CREATE_PERMISSION, REFRESH},
};

use keyferry_net::time::UnixTime;

use crate::{
    peer_policy::PeerPolicy,
    rest_credentials::Secret,
    server::{
        AllocationId, Arrival, ClientId, Config, ConnectFailed, Holder, PeerId, Server, ServerOutput, UserIdentity,
        Users,
    },
};

pub(super) const RELAY_IP: &str = "203.0.113.9";
pub(super) const CLIENT_IP: &str = "198.51.100.7";
pub(super) const PEER: &str = "192.0.2.5:4600";
pub(super) const PORT: u16 = 41414;
/// The wall clock at the start.
pub(super) const EPOCH: UnixTime = UnixTime(1_800_000_000);

/// A relay and its clock.
pub(super) struct Relay {
    pub(super) server: Server,
    start: Instant,
    pub(super) now: Instant,
    pub(super) outputs: VecDeque<ServerOutput>,
    next_port: u16,
}

/// Somebody with credentials.
#[derive(Clone)]
pub(super) struct User {
    pub(super) username: String,
    pub(super) password: String,
    pub(super) algorithm: PasswordAlgorithmValue,
    pub(super) nonce: Option<String>,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) bytes: Vec<u8>,
}

pub(super) fn secret() -> Secret {
    Secret::new(b"the secret of the relay")
}

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl User {
    pub(super) fn named(username: &str, password: &str) -> Self {
        let (username, password) = (username.to_owned(), password.to_owned());
        Self { username, password, algorithm: PasswordAlgorithmValue::SHA256, nonce: None }
    }

    pub(super) fn ada() -> Self {
        Self::named("ada", "lovelace")
    }

    pub(super) fn bob() -> Self {
        Self::named("bob", "builder")
    }

    /// One to whom credentials were issued, for an hour.
    pub(super) fn issued(identity: &str) -> Self {
        let issued = secret().issue(identity, EPOCH.plus(Duration::from_secs(3600))).unwrap();
        Self::named(issued.username(), issued.password())
    }

    /// Who its quotas are counted for, at the usual host.
    pub(super) fn holder(&self) -> Holder {
        Holder { identity: UserIdentity::User(self.username.clone()), host: CLIENT_IP.parse().unwrap() }
    }

    pub(super) fn with_md5(self) -> Self {
        Self { algorithm: PasswordAlgorithmValue::MD5, ..self }
    }

    pub(super) fn credentials(&self) -> MessageIntegrityCredentials {
        LongTermKeyCredentials::new(self.username.clone(), self.password.clone(), "keyferry".to_owned()).into()
    }

    /// A request with everything that authenticates it.
    pub(super) fn request(&self, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        self.sign(request(method, attributes), true)
    }

    pub(super) fn sign(&self, mut message: MessageWriteVec, with_algorithms: bool) -> Vec<u8> {
        message.add_attribute(&Username::new(&self.username).unwrap()).unwrap();
        message.add_attribute(&Realm::new("keyferry").unwrap()).unwrap();
        message.add_attribute(&Nonce::new(self.nonce.as_deref().unwrap_or("none")).unwrap()).unwrap();
        if with_algorithms {
            let offered = [PasswordAlgorithmValue::SHA256, PasswordAlgorithmValue::MD5];
            message.add_attribute(&PasswordAlgorithms::new(&offered)).unwrap();
            message.add_attribute(&PasswordAlgorithm::new(self.algorithm)).unwrap();
        }
        message.add_message_integrity(&self.credentials(), self.algorithm.as_integrity()).unwrap();
        message.finish()
    }
}

pub(super) fn request(method: Method, attributes: &[&dyn AttributeWrite]) -> MessageWriteVec {
    let mut message = Message::builder_request(method, MessageWriteVec::new());
    for attribute in attributes {
        message.add_attribute(*attribute).unwrap();
    }
    message
}

pub(super) fn tcp() -> RequestedTransport {
    RequestedTransport::new(RequestedTransport::TCP)
}

impl Relay {
    pub(super) fn new() -> Self {
        Self::with(Config::default(), PeerPolicy::default())
    }

    pub(super) fn with(config: Config, policy: PeerPolicy) -> Self {
        let named = [("ada", "lovelace"), ("bob", "builder")].map(|(name, word)| (name.to_owned(), word.to_owned()));
        let users = Users { named: named.into(), secret: Some(secret()) };
        let own_ips = vec![RELAY_IP.parse().unwrap(), "2001:db8:9::9".parse().unwrap()];
        let policy = PeerPolicy { own_ips, own_ports: vec![PORT], ..policy };
        let start = Instant::now();
        let server = Server::new(config, users, policy, [7; 32], start);
        Self { server, start, now: start, outputs: VecDeque::new(), next_port: 50_000 }
    }

    /// Lets time pass, with every timer at its moment.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.server.poll_timeout().filter(|due| *due <= end) {
            assert!(due >= self.now, "a timer in the past");
            self.now = due;
            self.server.handle_timeout(due);
            self.drain();
            assert!(self.server.poll_timeout().is_none_or(|next| next > due), "a timer that does not move on");
        }
        self.now = end;
    }

    pub(super) fn unix(&self) -> UnixTime {
        EPOCH.plus(self.now - self.start)
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            self.outputs.push_back(output);
        }
    }

    pub(super) fn client(&mut self) -> ClientId {
        self.client_from(&format!("{CLIENT_IP}:40000"))
    }

    pub(super) fn client_from(&mut self, remote: &str) -> ClientId {
        let arrival = Arrival { remote: addr(remote), local: SocketAddr::new(RELAY_IP.parse().unwrap(), PORT) };
        let client = self.server.connected(self.now, arrival);
        self.drain();
        client
    }

    pub(super) fn send(&mut self, client: ClientId, message: &[u8]) {
        let unix = self.unix();
        self.server.message(self.now, unix, client, message);
        self.drain();
        self.listen();
    }

    /// Sends a message and takes the answer.
    pub(super) fn ask(&mut self, client: ClientId, message: &[u8]) -> Answered {
        self.send(client, message);
        self.answer(client).expect("an answer")
    }

    /// The next answer to this client.
    pub(super) fn answer(&mut self, client: ClientId) -> Option<Answered> {
        self.sent(client, false)
    }

    /// The next indication to this client.
    pub(super) fn indication(&mut self, client: ClientId) -> Option<Answered> {
        self.sent(client, true)
    }

    fn sent(&mut self, client: ClientId, indication: bool) -> Option<Answered> {
        let is_it = |output: &ServerOutput| match output {
            ServerOutput::Send { client: to, message } => *to == client && (message[0] & 1 == 0) == indication,
            _ => false,
        };
        let at = self.outputs.iter().position(is_it)?;
        match self.outputs.remove(at) {
            Some(ServerOutput::Send { message, .. }) => Some(Answered { bytes: message }),
            _ => None,
        }
    }

    /// Gives every allocation that wants one a port.
    fn listen(&mut self) {
        while let Some(at) = self.outputs.iter().position(|output| matches!(output, ServerOutput::Listen { .. })) {
            let Some(ServerOutput::Listen { allocation, family, .. }) = self.outputs.remove(at) else { return };
            let ip = match family {
                crate::AddressFamily::V4 => RELAY_IP,
                crate::AddressFamily::V6 => "2001:db8:9::9",
            };
            let relayed = SocketAddr::new(ip.parse().unwrap(), self.next_port);
            self.next_port += 1;
            self.server.listening(self.now, allocation, Ok(relayed));
            self.drain();
        }
    }

    /// Asks for a nonce.
    pub(super) fn greet(&mut self, client: ClientId, user: &mut User) {
        let answer = self.ask(client, &request(ALLOCATE, &[&tcp()]).finish());
        user.nonce = Some(answer.nonce());
    }

    /// A client with an allocation.
    pub(super) fn allocated(&mut self, user: &mut User) -> ClientId {
        let client = self.client();
        self.allocate_on(client, user);
        client
    }

    pub(super) fn allocate_on(&mut self, client: ClientId, user: &mut User) -> SocketAddr {
        self.greet(client, user);
        let answer = self.ask(client, &user.request(ALLOCATE, &[&tcp()]));
        assert_eq!(answer.code(), 0, "{answer:?}");
        answer.relayed()
    }

    pub(super) fn permit(&mut self, client: ClientId, user: &User, peers: &[&str]) -> Answered {
        let mut message = Message::builder_request(CREATE_PERMISSION, MessageWriteVec::new());
        let id = transaction(&message);
        for peer in peers {
            message.add_attribute(&XorPeerAddress::new(addr(peer), id)).unwrap();
        }
        self.ask(client, &user.sign(message, true))
    }

    pub(super) fn connect_request(user: &User, peer: &str) -> Vec<u8> {
        let mut message = Message::builder_request(CONNECT, MessageWriteVec::new());
        let id = transaction(&message);
        message.add_attribute(&XorPeerAddress::new(addr(peer), id)).unwrap();
        user.sign(message, true)
    }

    /// Asks for a connection. Returns the attempt, if the server makes one, or else the answer.
    pub(super) fn begin_connect(&mut self, client: ClientId, user: &User, peer: &str) -> Result<PeerId, Answered> {
        self.send(client, &Self::connect_request(user, peer));
        let found = self.outputs.iter().position(|output| matches!(output, ServerOutput::Connect { .. }));
        match found.and_then(|at| self.outputs.remove(at)) {
            Some(ServerOutput::Connect { peer, .. }) => Ok(peer),
            _ => Err(self.answer(client).expect("an answer")),
        }
    }

    /// The CONNECTION-ID of a new connection.
    pub(super) fn connect(&mut self, client: ClientId, user: &User, peer: &str) -> (PeerId, u32) {
        let peer = self.begin_connect(client, user, peer).expect("a connect");
        let answer = self.peer_connected(client, peer, Ok(()));
        (peer, answer.connection())
    }

    pub(super) fn peer_connected(
        &mut self,
        client: ClientId,
        peer: PeerId,
        result: Result<(), ConnectFailed>,
    ) -> Answered {
        self.server.peer_connected(self.now, peer, result);
        self.drain();
        self.answer(client).expect("an answer")
    }

    /// A peer connects to the relayed address.
    pub(super) fn peer(&mut self, allocation: AllocationId, remote: &str) -> Option<PeerId> {
        let peer = self.server.peer_accepted(self.now, allocation, addr(remote));
        self.drain();
        peer
    }

    pub(super) fn bind_on(&mut self, client: ClientId, user: &User, connection: u32) -> Answered {
        self.ask(client, &user.request(CONNECTION_BIND, &[&ConnectionId::new(connection)]))
    }

    pub(super) fn bind(&mut self, user: &User, connection: u32) -> (ClientId, Answered) {
        let client = self.client();
        let answer = self.bind_on(client, user, connection);
        (client, answer)
    }

    /// A joined connection.
    pub(super) fn joined(&mut self, control: ClientId, user: &User, peer: &str) -> ClientId {
        let (peer, connection) = self.connect(control, user, peer);
        let (client, answer) = self.bind(user, connection);
        assert_eq!(answer.code(), 0);
        let joined = self.outputs.pop_back();
        assert_eq!(joined, Some(ServerOutput::Join { client, peer, holder: user.holder(), checks_first: false }));
        client
    }

    pub(super) fn refresh(&mut self, client: ClientId, user: &User, seconds: u32) -> Answered {
        self.ask(client, &user.request(REFRESH, &[&Lifetime::new(seconds)]))
    }

    pub(super) fn allocation_of(&self, client: ClientId) -> AllocationId {
        *self.server.allocations.iter().find(|(_, known)| known.client == client).expect("an allocation").0
    }

    /// Whether this was closed.
    pub(super) fn closed(&self, client: ClientId) -> bool {
        self.outputs.contains(&ServerOutput::Close { client })
    }

    /// Everything that the server holds is accounted for.
    pub(super) fn assert_empty(&self) {
        let server = &self.server;
        assert_eq!(server.allocations.counts(), (0, 0), "{:?}", server.allocations);
        assert_eq!(server.peers.counts(), (0, 0), "{:?}", server.peers);
        assert_eq!(server.usage.in_use(), (0, 0));
        assert_eq!(server.clients.half_open_count(), server.clients.len());
    }
}

impl Answered {
    pub(super) fn message(&self) -> Message<'_> {
        Message::from_bytes(&self.bytes).unwrap()
    }

    /// The error code, 0 for success.
    pub(super) fn code(&self) -> u16 {
        match self.message().class() {
            MessageClass::Success => 0,
            _ => self.get::<ErrorCode>().code(),
        }
    }

    pub(super) fn get<A: for<'a> AttributeFromRaw<'a> + AttributeStaticType>(&self) -> A {
        self.message().attribute::<A>().unwrap()
    }

    /// The error code, of an error.
    pub(super) fn code_if_any(&self) -> Option<u16> {
        self.message().attribute::<ErrorCode>().ok().map(|error| error.code())
    }

    pub(super) fn connection_if_any(&self) -> Option<u32> {
        self.message().attribute::<ConnectionId>().ok().map(|connection| connection.id())
    }

    pub(super) fn nonce(&self) -> String {
        self.get::<Nonce>().nonce().to_owned()
    }

    pub(super) fn relayed(&self) -> SocketAddr {
        self.get::<turn_types::attribute::XorRelayedAddress>().addr(self.message().transaction_id())
    }

    pub(super) fn connection(&self) -> u32 {
        self.get::<ConnectionId>().id()
    }

    pub(super) fn lifetime(&self) -> u32 {
        self.get::<Lifetime>().seconds()
    }

    /// The integrity of an answer that this user can believe.
    pub(super) fn integrity(&self, user: &User) -> Option<IntegrityAlgorithm> {
        self.message().validate_integrity(&user.credentials()).ok()
    }
}

fn transaction(message: &MessageWriteVec) -> stun_types::message::TransactionId {
    Message::from_bytes(message).unwrap().transaction_id()
}
