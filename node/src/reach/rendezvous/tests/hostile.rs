//! Peers that do not play by the rules: a Kademlia that stores and sends whatever it is given.

use futures::StreamExt;
use libp2p::{
    StreamProtocol, Swarm, Transport,
    core::upgrade::Version,
    identify,
    identity::Keypair,
    kad::{self, Quorum, Record, store::MemoryStore, store::RecordStore},
    noise,
    swarm::{self, NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
    yamux,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::base::traffic::Traffic;
use crate::reach::rendezvous::{
    behaviour::{PROTOCOL_FAMILY, PROTOCOL_VERSION},
    handshake::Handshakes,
    observed::Departures,
    records::kad_key_of,
    scope::LAN_PROTOCOL,
    transport::PortTransport,
};

#[derive(NetworkBehaviour)]
pub(super) struct Rules {
    pub(super) identify: identify::Behaviour,
    pub(super) kad: kad::Behaviour<MemoryStore>,
}

/// A peer without any checks. It is driven by [`Hostile::run_until`].
pub(super) struct Hostile {
    pub(super) swarm: Swarm<Rules>,
    pub(super) victim: PeerId,
    pub(super) addr: SocketAddr,
}

impl Hostile {
    /// Connects to a node and waits until each knows that the other speaks the protocol.
    pub(super) async fn beside(victim: &Node) -> Hostile {
        Self::speaking(PROTOCOL_VERSION, LAN_PROTOCOL, victim).await
    }

    async fn speaking(version: &str, protocol: StreamProtocol, victim: &Node) -> Hostile {
        Self::on("127.0.0.1", version, protocol, victim).await
    }

    /// The same from an address of its own, in the DHT of a scope.
    pub(super) async fn at(host: &str, scope: AddressScope, victim: &Node) -> Hostile {
        Self::on(host, PROTOCOL_VERSION, behaviour::protocol(scope), victim).await
    }

    async fn on(host: &str, version: &str, protocol: StreamProtocol, victim: &Node) -> Hostile {
        let (port, incoming) = Port::bind(&[SocketAddr::new(host.parse().unwrap(), 0)]).await.unwrap();
        let addr = port.local_addrs()[0];
        let keys = Keypair::generate_ed25519();
        let own = keys.public().to_peer_id();
        let transport = PortTransport::new(
            Arc::new(port),
            incoming.libp2p,
            Handshakes::new(Traffic::default()),
            Departures::default(),
        )
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&keys).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
        let mut kad = kad::Behaviour::with_config(own, MemoryStore::new(own), kad::Config::new(protocol));
        kad.set_mode(Some(kad::Mode::Server));
        let identify = identify::Behaviour::new(identify::Config::new(version.to_owned(), keys.public()));
        let mut swarm = Swarm::new(transport, Rules { identify, kad }, own, swarm::Config::with_tokio_executor());
        swarm.listen_on(multiaddr_of(addr)).unwrap();
        let victim_peer = victim.rendezvous.status().borrow().peer;
        swarm.behaviour_mut().kad.add_address(&victim_peer, multiaddr_of(victim.addr));
        swarm.dial(DialOpts::peer_id(victim_peer).addresses(vec![multiaddr_of(victim.addr)]).build()).unwrap();
        let mut hostile = Hostile { swarm, victim: victim_peer, addr };
        hostile
            .run_until(|event| {
                matches!(event, SwarmEvent::Behaviour(RulesEvent::Identify(identify::Event::Sent { .. })))
            })
            .await;
        hostile
    }

    pub(super) async fn run_until(&mut self, reached: impl Fn(&SwarmEvent<RulesEvent>) -> bool) {
        soon(async { while !reached(&self.swarm.select_next_some().await) {} }).await;
    }

    /// Sends a record to the victim, as any node of the DHT may.
    pub(super) async fn put(&mut self, key: RecordKey, value: Vec<u8>) {
        let record = Record::new(kad_key_of(&key), value);
        let victim = [self.victim];
        let sent = self.swarm.behaviour_mut().kad.put_record_to(record, victim.into_iter(), Quorum::One);
        self.run_until(|event| {
            matches!(event, SwarmEvent::Behaviour(RulesEvent::Kad(kad::Event::OutboundQueryProgressed { id, .. })) if *id == sent)
        })
        .await;
    }

    /// Goes on answering others.
    pub(super) fn in_the_background(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                self.swarm.select_next_some().await;
            }
        })
    }
}

pub(super) fn counter(status: &RendezvousStatus, name: &str) -> u64 {
    status.counters.get(name).copied().unwrap_or(0)
}

#[tokio::test]
async fn forged_oversized_misplaced_older_and_replayed_records_are_refused_and_counted() {
    let victim = start(quiet_config(&[])).await;
    let mut hostile = Hostile::beside(&victim).await;
    let key = key_of(&secret(1));
    let newest = sealed(&secret(1), 5);
    let mut forged = sealed(&secret(1), 9).as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    hostile.put(key, newest.as_bytes().to_vec()).await;
    hostile.put(key, newest.as_bytes().to_vec()).await;
    hostile.put(key, sealed(&secret(1), 4).as_bytes().to_vec()).await;
    hostile.put(key, forged).await;
    hostile.put(key, vec![2; 6000]).await;
    hostile.put(key, vec![7; 100]).await;
    hostile.put(key, sealed(&secret(2), 9).as_bytes().to_vec()).await;
    let status = victim.until(|status| counter(status, "record_refused_wrong_key") == 1).await;
    for name in ["not_newer", "bad_signature", "length", "version"] {
        assert_eq!(counter(&status, &format!("record_refused_{name}")), 1, "{name}");
    }
    assert_eq!(status.records, 1);
    drop(hostile);
    assert_eq!(victim.resolve(key).await.unwrap(), newest);
}

#[tokio::test]
async fn a_forged_record_that_a_peer_answers_with_is_not_handed_out() {
    let victim = start(quiet_config(&[])).await;
    let mut hostile = Hostile::beside(&victim).await;
    let key = key_of(&secret(1));
    let mut forged = sealed(&secret(1), 9).as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    hostile.swarm.behaviour_mut().kad.store_mut().put(Record::new(kad_key_of(&key), forged)).unwrap();
    let task = hostile.in_the_background();
    victim.until(|status| status.lan_peers == 1).await;
    let mut results = victim.rendezvous.resolve(key);
    victim.until(|status| counter(status, "record_refused_bad_signature") >= 1).await;
    assert!(results.try_recv().is_err());
    task.abort();
}

#[tokio::test]
async fn addresses_that_a_provider_cannot_have_are_dropped() {
    let victim = start(quiet_config(&[])).await;
    let mut hostile = Hostile::beside(&victim).await;
    let key = content_record_key(&ContentHash::of(b"content"));
    let lies = ["/ip4/169.254.169.254/tcp/80", "/ip4/203.0.113.5/tcp/80", "/ip4/224.0.0.1/tcp/80"];
    for lie in lies {
        hostile.swarm.add_external_address(lie.parse().unwrap());
    }
    hostile.swarm.behaviour_mut().kad.start_providing(kad_key_of(&key)).unwrap();
    let addr = hostile.addr;
    let task = hostile.in_the_background();
    let provider = soon(async {
        loop {
            if let Some(provider) = victim.rendezvous.providers(key).recv().await {
                return provider;
            }
        }
    })
    .await;
    assert_eq!(provider.addrs, [addr]);
    task.abort();
}

#[tokio::test]
async fn who_is_told_of_a_content_is_told_where_its_provider_is() {
    let node = start(quiet_config(&[])).await;
    let key = content_record_key(&ContentHash::of(b"content"));
    node.rendezvous.provide(key).await.unwrap();
    let mut hostile = Hostile::beside(&node).await;
    let told = soon(async {
        loop {
            hostile.swarm.select_next_some().await;
            if let Some(told) = hostile.swarm.behaviour_mut().kad.store_mut().providers(&kad_key_of(&key)).pop() {
                return told;
            }
        }
    });
    let addrs: Vec<_> = told.await.addresses.iter().filter_map(socket_addr_of).collect();
    assert_eq!(addrs, [node.addr]);
}

#[tokio::test]
async fn a_record_is_put_without_its_publisher() {
    let node = start(quiet_config(&[])).await;
    let mut hostile = Hostile::beside(&node).await;
    node.until(|status| status.lan_peers == 1).await;
    let publishing = tokio::spawn({
        let rendezvous = node.rendezvous.clone();
        async move { rendezvous.publish(sealed(&secret(1), 1)).await }
    });
    let key = kad_key_of(&key_of(&secret(1)));
    let stored = soon(async {
        loop {
            hostile.swarm.select_next_some().await;
            if let Some(record) = hostile.swarm.behaviour_mut().kad.store_mut().get(&key) {
                return record.into_owned();
            }
        }
    })
    .await;
    assert_eq!(stored.publisher, None);
    assert_eq!(stored.value.len(), keyferry_proto::offer::SEALED_LEN);
    let task = hostile.in_the_background();
    assert_eq!(soon(publishing).await.unwrap().unwrap(), PublishReport { lan: 1, wan: 0 });
    task.abort();
}

#[tokio::test]
async fn a_peer_of_another_version_is_sent_away_and_named() {
    assert_eq!(PROTOCOL_VERSION, format!("{PROTOCOL_FAMILY}{VERSION}"));
    let victim = start(quiet_config(&[])).await;
    let task = Hostile::speaking("/keyferry/1", LAN_PROTOCOL, &victim).await.in_the_background();
    let status = victim.until(|status| counter(status, "peer_of_another_version") == 1 && status.connected == 0).await;
    assert_eq!(status.other_versions, [1].into());
    assert_eq!(status.lan_peers, 0);
    task.abort();
}

#[tokio::test]
async fn a_peer_of_another_network_is_sent_away() {
    let victim = start(quiet_config(&[])).await;
    let stranger = Hostile::speaking("/ipfs/0.1.0", StreamProtocol::new("/ipfs/kad/1.0.0"), &victim).await;
    let task = stranger.in_the_background();
    let status = victim.until(|status| counter(status, "peer_of_another_network") == 1 && status.connected == 0).await;
    assert_eq!(status.lan_peers, 0);
    task.abort();
}

#[tokio::test]
async fn silent_garbling_and_half_open_connections_do_not_keep_a_real_peer_out() {
    let victim = start(quiet_config(&[])).await;
    let mut strangers = Vec::new();
    for number in 0..500 {
        let mut stream = tokio::net::TcpStream::connect(victim.addr).await.unwrap();
        match number % 5 {
            0 => stream.write_all(b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20garbage").await.unwrap(),
            1 => stream.write_all(b"\x13/multistream/1.0.0\n").await.unwrap(),
            2 => stream.write_all(b"\x16\x03\x01\x02\x00").await.unwrap(),
            3 => stream.write_all(b"SSH-2.0-scanner\r\n").await.unwrap(),
            _ => {}
        }
        strangers.push(stream);
    }
    let friend = start(quiet_config(&[&victim])).await;
    let joined = friend.until(|status| status.lan_peers == 1);
    tokio::time::timeout(Duration::from_secs(5), joined).await.expect("sooner than the strangers time out");
    // Those that began to speak libp2p and stopped are dropped in bounded time too.
    let mut stuck = strangers.swap_remove(496);
    let ended = soon(async { while stuck.read(&mut [0; 64]).await.is_ok_and(|got| got > 0) {} });
    ended.await;
}
