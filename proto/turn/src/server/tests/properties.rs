//! Whatever comes, in whatever order: nothing panics, nothing grows without bound, and nothing is left over.

use std::time::Duration;

use proptest::prelude::*;
use stun_types::message::{BINDING, MessageWrite, Method};
use turn_types::{
    attribute::{ConnectionId, Lifetime},
    message::{ALLOCATE, CONNECT, CONNECTION_BIND, CREATE_PERMISSION, REFRESH},
};

use super::relay::{Relay, User, request, tcp};
use crate::server::{ClientId, Config, ConnectFailed, PeerId, Quota, RelayLimits, ServerOutput};

/// One step of somebody, anywhere.
#[derive(Debug, Clone)]
enum Step {
    Connect { host: u8 },
    Close { client: usize },
    Ask { client: usize, bob: bool, method: u8, number: u32, peer: u8 },
    Garbage { client: usize, bytes: Vec<u8> },
    PeerConnects { peer: u8 },
    ConnectEnds { peer: usize, well: bool },
    Relayed { client: usize, bytes: u32 },
    Pass { seconds: u16 },
}

fn step() -> impl Strategy<Value = Step> {
    let any_client = 0usize..8;
    prop_oneof![
        3 => (0u8..4).prop_map(|host| Step::Connect { host }),
        1 => any_client.clone().prop_map(|client| Step::Close { client }),
        8 => (any_client.clone(), any::<bool>(), 0u8..7, prop_oneof![Just(0), any::<u32>()], 0u8..4)
            .prop_map(|(client, bob, method, number, peer)| Step::Ask { client, bob, method, number, peer }),
        1 => (any_client.clone(), prop::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(client, bytes)| Step::Garbage { client, bytes }),
        2 => (0u8..4).prop_map(|peer| Step::PeerConnects { peer }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(peer, well)| Step::ConnectEnds { peer, well }),
        1 => (any_client, 0u32..2000).prop_map(|(client, bytes)| Step::Relayed { client, bytes }),
        1 => (0u16..700).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

struct Run {
    relay: Relay,
    users: [User; 2],
    clients: Vec<ClientId>,
    connects: Vec<PeerId>,
    connections: Vec<u32>,
}

impl Run {
    fn take(&mut self, step: Step) {
        let relay = &mut self.relay;
        let nth = |clients: &[ClientId], at: usize| clients.get(at % clients.len().max(1)).copied();
        match step {
            Step::Connect { host } => self.clients.push(relay.client_from(&format!("198.51.100.{}:1", host + 1))),
            Step::Close { client } => {
                if let Some(client) = nth(&self.clients, client) {
                    relay.server.closed(relay.now, client);
                }
            }
            Step::Ask { client, bob, method, number, peer } => {
                let Some(client) = nth(&self.clients, client) else { return };
                let user = &self.users[usize::from(bob)];
                let peer = format!("192.0.2.{}:4600", peer + 1);
                let bytes = match method {
                    0 => user.request(ALLOCATE, &[&tcp()]),
                    1 => user.request(REFRESH, &[&Lifetime::new(number)]),
                    2 => Relay::connect_request(user, &peer),
                    3 => {
                        let known = self.connections.get(number as usize % self.connections.len().max(1));
                        user.request(CONNECTION_BIND, &[&ConnectionId::new(known.copied().unwrap_or(number))])
                    }
                    4 => request(BINDING, &[]).finish(),
                    5 => request([CREATE_PERMISSION, CONNECT, Method::new(0x0ff)][number as usize % 3], &[]).finish(),
                    _ => {
                        let _ =
                            relay.server.clients.get(client).is_some().then(|| relay.permit(client, user, &[&peer]));
                        return;
                    }
                };
                relay.send(client, &bytes);
                // A nonce is for one host: whoever comes from another gets a new one.
                while let Some(answer) = relay.answer(client) {
                    if answer.code_if_any() == Some(438) {
                        self.users[usize::from(bob)].nonce = Some(answer.nonce());
                    }
                    self.connections.extend(answer.connection_if_any());
                }
                while let Some(attempt) = relay.indication(client) {
                    self.connections.push(attempt.connection());
                }
            }
            Step::Garbage { client, bytes } => {
                if let Some(client) = nth(&self.clients, client) {
                    relay.send(client, &bytes);
                }
            }
            Step::PeerConnects { peer } => {
                let Some(allocation) = relay.server.allocations.iter().next().map(|(allocation, _)| *allocation) else {
                    return;
                };
                relay.peer(allocation, &format!("192.0.2.{}:9", peer + 1));
            }
            Step::ConnectEnds { peer, well } => {
                let Some(peer) = self.connects.get(peer % self.connects.len().max(1)) else { return };
                relay.server.peer_connected(relay.now, *peer, if well { Ok(()) } else { Err(ConnectFailed) });
            }
            Step::Relayed { client, bytes } => {
                if let Some(client) = nth(&self.clients, client) {
                    relay.server.relayed(relay.now, client, &self.users[0].holder(), bytes.into());
                }
            }
            Step::Pass { seconds } => relay.pass(Duration::from_secs(seconds.into())),
        }
    }

    fn look(&mut self) {
        self.relay.drain();
        for output in std::mem::take(&mut self.relay.outputs) {
            match output {
                ServerOutput::Connect { peer, .. } => self.connects.push(peer),
                ServerOutput::Close { client } => self.clients.retain(|known| *known != client),
                _ => {}
            }
        }
        let server = &self.relay.server;
        let (allocations, connections) = server.usage.in_use();
        let (known, relayed) = server.allocations.counts();
        let (peers, waiting) = server.peers.counts();
        assert_eq!((allocations, connections), (known, peers));
        assert!(allocations <= 3 && connections <= 4);
        assert!(waiting <= peers && relayed <= known);
        assert!(server.clients.half_open_count() <= 6);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_run_stays_within_its_limits_and_ends_empty(steps in prop::collection::vec(step(), 0..120)) {
        let few = Quota { allocations: 3, connections: 4, bytes: Some(5000) };
        let limits = RelayLimits { identity: few.clone(), host: few.clone(), all: few, half_open: 6, ..RelayLimits::default() };
        let mut relay = Relay::with(Config { limits, ..Config::default() }, Default::default());
        let mut users = [User::ada(), User::bob()];
        let first = relay.client();
        for user in &mut users {
            relay.greet(first, user);
        }
        let mut run = Run { relay, users, clients: vec![first], connects: Vec::new(), connections: Vec::new() };
        for step in steps {
            run.take(step);
            run.look();
        }
        for client in run.clients.clone() {
            run.relay.server.closed(run.relay.now, client);
        }
        run.look();
        run.relay.pass(Duration::from_secs(10_000));
        run.look();
        run.relay.assert_empty();
        prop_assert!(run.relay.server.clients.len() == 0);
    }

    #[test]
    fn no_bytes_make_it_fail(bytes in prop::collection::vec(any::<u8>(), 0..300), method in 0u8..16) {
        let mut relay = Relay::new();
        let client = relay.client();
        relay.send(client, &bytes);
        let mut framed = bytes;
        framed.truncate(framed.len() / 4 * 4);
        if framed.len() >= 20 {
            let len = u16::try_from(framed.len() - 20).unwrap().to_be_bytes();
            framed[..8].copy_from_slice(&[0, method, len[0], len[1], 0x21, 0x12, 0xa4, 0x42]);
        }
        let client = relay.client();
        relay.send(client, &framed);
        prop_assert!(relay.server.clients.len() <= 2);
    }
}
