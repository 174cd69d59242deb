//! The TURN server: whatever its clients and peers do, in whatever order, nothing panics, and it stays within its limits.
//!
//! Requests are signed as by somebody who has credentials, also where the fuzzer has changed them: a server that checks signatures first
//! would show a fuzzer nothing else.

#![no_main]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use keyferry_net::time::UnixTime;
use keyferry_turn::{
    long_term::{AlgorithmList, Authorization, Challenge, UserCredentials},
    peer_policy::PeerPolicy,
    server::{
        AllocationId, Arrival, ClientId, Config, ConnectFailed, Holder, PeerId, Quota, RelayLimits, Server,
        ServerOutput, UserIdentity, Users,
    },
};
use libfuzzer_sys::fuzz_target;
use stun_types::{
    attribute::{AttributeType, RawAttribute},
    message::{Message, MessageClass, MessageType, MessageWrite, MessageWriteExt, MessageWriteVec, Method},
};

/// One thing that happens: which, to whom, a number, and bytes.
type Step = (u8, u8, u16, Vec<u8>);

struct World {
    server: Server,
    start: Instant,
    now: Instant,
    authorization: Option<Authorization>,
    clients: Vec<ClientId>,
    allocations: Vec<AllocationId>,
    peers: Vec<PeerId>,
    connections: VecDeque<[u8; 4]>,
    ports: u16,
}

/// MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256, FINGERPRINT.
const AT_THE_END: [u16; 3] = [0x0008, 0x001c, 0x8028];

const FEW: Quota = Quota { allocations: 4, connections: 6, bytes: Some(10_000) };

fuzz_target!(|steps: Vec<Step>| {
    let limits =
        RelayLimits { identity: FEW, host: FEW, all: FEW, half_open: 8, remembered: 8, ..RelayLimits::default() };
    let users = Users { named: [("ada".to_owned(), "lovelace".to_owned())].into(), secret: None };
    let start = Instant::now();
    let server = Server::new(Config { limits, ..Config::default() }, users, PeerPolicy::default(), [7; 32], start);
    let mut world = World {
        server,
        start,
        now: start,
        authorization: None,
        clients: Vec::new(),
        allocations: Vec::new(),
        peers: Vec::new(),
        connections: VecDeque::new(),
        ports: 50_000,
    };
    for step in steps.into_iter().take(256) {
        world.take(step);
        world.look();
    }
    for client in world.clients.clone() {
        world.server.closed(world.now, client);
    }
    world.look();
    let counters = world.server.counters();
    assert_eq!((counters.allocations, counters.connections), (0, 0));
});

impl World {
    fn take(&mut self, (kind, whom, number, bytes): Step) {
        fn pick<T: Copy>(all: &[T], at: u8) -> Option<T> {
            all.get(usize::from(at) % all.len().max(1)).copied()
        }
        let (client, peer) = (pick(&self.clients, whom), pick(&self.peers, whom));
        match (kind % 10, client, peer) {
            (0, ..) => {
                let remote = SocketAddr::from(([198, 51, 100, whom % 4], 40_000));
                let arrival = Arrival { remote, local: SocketAddr::from(([203, 0, 113, 9], 443)) };
                self.clients.push(self.server.connected(self.now, arrival));
            }
            (1, Some(client), _) => self.server.closed(self.now, client),
            (2, Some(client), _) => self.message(client, &bytes),
            (3 | 4, Some(client), _) => {
                let message = self.signed(number % 16, &bytes);
                self.message(client, &message);
            }
            (5, Some(client), _) => {
                // ConnectionBind, with an id that the server has told.
                let told = self.connections.get(usize::from(number) % self.connections.len().max(1));
                let attribute = [&[0x00, 0x2a, 4], &told.copied().unwrap_or_default()[..]].concat();
                let message = self.signed(0x0b, &attribute);
                self.message(client, &message);
            }
            (6, ..) => {
                if let Some(allocation) = pick(&self.allocations, whom) {
                    let remote = SocketAddr::from(([192, 0, 2, whom % 4], number));
                    self.peers.extend(self.server.peer_accepted(self.now, allocation, remote));
                }
            }
            (7, _, Some(peer)) => {
                let result = if number % 2 == 0 { Ok(()) } else { Err(ConnectFailed) };
                self.server.peer_connected(self.now, peer, result);
            }
            (8, Some(client), _) => {
                let holder = Holder {
                    identity: UserIdentity::User("ada".to_owned()),
                    host: SocketAddr::from(([198, 51, 100, whom % 4], 0)).ip(),
                };
                self.server.relayed(self.now, client, &holder, number.into());
            }
            (9, ..) => {
                self.now += Duration::from_secs(number.into());
                self.server.handle_timeout(self.now);
            }
            _ => {}
        }
    }

    fn message(&mut self, client: ClientId, message: &[u8]) {
        let unix = UnixTime(1_800_000_000).plus(self.now - self.start);
        self.server.message(self.now, unix, client, message);
    }

    /// A request of this method, with attributes each of which is written as type, length and value.
    fn signed(&self, method: u16, mut attributes: &[u8]) -> Vec<u8> {
        let kind = MessageType::from_class_method(MessageClass::Request, Method::new(method));
        let mut message = Message::builder(kind, 7.into(), MessageWriteVec::new());
        while let [high, low, len, rest @ ..] = attributes
            && message.len() < 512
        {
            let (value, others) = rest.split_at(usize::from(*len).min(rest.len()));
            let kind = u16::from_be_bytes([*high, *low]);
            // The library panics where what proves a message is written as any other attribute.
            if !AT_THE_END.contains(&kind) {
                message.add_attribute(&RawAttribute::new(AttributeType::new(kind), value)).expect("it fits");
            }
            attributes = others;
        }
        match &self.authorization {
            Some(authorization) => authorization.sign(message),
            None => message.finish(),
        }
    }

    /// Does what the server wants done, and looks that it is within its limits.
    fn look(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                ServerOutput::Listen { allocation, .. } => {
                    self.ports = self.ports.wrapping_add(1);
                    self.allocations.push(allocation);
                    let relayed = SocketAddr::from(([203, 0, 113, 9], self.ports));
                    self.server.listening(self.now, allocation, Ok(relayed));
                }
                ServerOutput::StopListening { allocation } => self.allocations.retain(|known| *known != allocation),
                ServerOutput::Connect { peer, .. } => self.peers.push(peer),
                ServerOutput::ClosePeer { peer } => self.peers.retain(|known| *known != peer),
                ServerOutput::Close { client } => self.clients.retain(|known| *known != client),
                ServerOutput::Join { .. } => {}
                ServerOutput::Send { message, .. } => self.read(&message),
            }
        }
        let counters = self.server.counters();
        assert!(counters.allocations <= 4 && counters.connections <= 6);
    }

    fn read(&mut self, message: &[u8]) {
        assert!(message.len() < 1024);
        let message = Message::from_bytes(message).expect("what the server sends is a message");
        if let Some(id) = message.raw_attribute(AttributeType::new(0x2a)) {
            self.connections.push_front(<[u8; 4]>::try_from(&id.value[..]).expect("four bytes"));
            self.connections.truncate(16);
        }
        if let Ok(challenge) = Challenge::read(&message) {
            assert_eq!(challenge.algorithms.as_ref().map(AlgorithmList::value).map(<[u8]>::len), Some(8));
            let credentials = UserCredentials::new("ada", "lovelace").expect("short ones");
            self.authorization = Authorization::new(credentials, challenge).ok();
        }
    }
}
