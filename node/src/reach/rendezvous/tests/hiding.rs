//! A node that hides where it is, beside a contact that can open its offer and runs a peer of its own in the same DHT.

use std::{collections::BTreeSet, process::Command as Process, sync::Mutex};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use keyferry_ice::{Description, Mapping};
use keyferry_proto::signalling::Streams;
use libp2p::{multiaddr::Protocol, swarm::SwarmEvent};

use super::{hostile::Hostile, namespace::in_namespace_of, *};
use crate::{
    base::data_dir::{Admission, AdmissionPolicy, ContactsFile},
    connect::signalling::{call, listen},
    net::path::PathStream,
};

/// Hosts 1 to 5; 12 is that of the relay by which host 13 connects to circuit relays. It is noted where the last one connects to.
const SET_UP: &str = "ip link set lo up && ip link add v0 type veth peer name v1 && \
    for host in 1 2 3 12 13; do ip addr add 203.0.113.$host/24 dev v0 || exit 1; done && \
    ip link set v1 up && ip link set v0 up && nft add table inet f && \
    nft 'add set inet f dialled { type ipv4_addr; flags dynamic; size 1024; }' && \
    nft 'add chain inet f output { type filter hook output priority 0; }' && \
    nft 'add rule inet f output ip saddr 203.0.113.13 tcp flags & (syn | ack) == syn add @dialled { ip daddr }' && exec \"$0\" \"$@\"";

fn in_namespace(name: &str) -> bool {
    in_namespace_of(SET_UP, &["nft"], &format!("hiding::{name}"))
}

fn at(host: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, host], 0))
}

/// The hosts to which the hidden machine has connected.
fn dialled() -> BTreeSet<u8> {
    let listed = Process::new("nft").args(["list", "set", "inet", "f", "dialled"]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let hosts = text.split("203.0.113.").skip(1);
    hosts.map(|host| host.split(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse().unwrap()).collect()
}

/// Connects from another host, as a TURN relay does.
#[derive(Debug)]
struct FromElsewhere;

impl CircuitDialler for FromElsewhere {
    fn connect(&self, relay: SocketAddr) -> BoxFuture<'static, std::io::Result<PathStream>> {
        async move {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(at(12))?;
            Ok(PathStream::from(socket.connect(relay).await?))
        }
        .boxed()
    }
}

async fn hidden_beside(bootstrap: &[&Node], besides: SocketAddr) -> Node {
    let circuits = HiddenCircuits { secret: Zeroizing::new(rand::random()), dialler: Arc::new(FromElsewhere) };
    let mut config = RendezvousConfig { hidden: Some(circuits), ..quiet_config(bootstrap) };
    config.bootstrap.push(multiaddr_of(besides));
    let (port, incoming) = Port::bind_shut(&[at(13)]).await.unwrap();
    let addr = port.local_addrs()[0];
    let (rendezvous, task) = Rendezvous::spawn(config, Arc::new(port), incoming.libp2p).unwrap();
    Node { rendezvous, addr, task, _sessions: incoming.sessions }
}

/// Who has been seen at which host.
type Seen = Arc<Mutex<BTreeSet<(PeerId, std::net::IpAddr)>>>;

/// Goes on answering, and notes whom it is connected with.
fn watching(mut contact: Hostile) -> Seen {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            if let SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } = contact.swarm.select_next_some().await
            {
                let remote = socket_addr_of(endpoint.get_remote_address()).expect("an address");
                noted.lock().unwrap().insert((peer_id, remote.ip()));
            }
        }
    });
    seen
}

fn peer_in(circuit: &Multiaddr) -> PeerId {
    match circuit.iter().last() {
        Some(Protocol::P2p(peer)) => peer,
        other => panic!("{other:?}"),
    }
}

fn streams() -> Streams {
    Streams::Direct(Description {
        ufrag: "name".to_owned(),
        password: "p".repeat(22),
        candidates: Vec::new(),
        complete: true,
        mapping: Mapping::Unknown,
        opening: false,
    })
}

fn everyone() -> Admission {
    Admission::new(AdmissionPolicy::Everyone, ContactsFile::of(std::path::Path::new("/nonexistent")))
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_can_open_the_offer_sees_its_peer_nowhere_in_the_dht_nor_at_the_address() {
    if !in_namespace("whoever_can_open_the_offer_sees_its_peer_nowhere_in_the_dht_nor_at_the_address") {
        return;
    }
    let relay = start_on(at(1), RendezvousConfig { public: true, ..quiet_config(&[]) }).await;
    let contact = Hostile::at("203.0.113.3", AddressScope::Wan, &relay).await;
    let contact_addr = contact.addr;
    let seen = watching(contact);
    let hidden = hidden_beside(&[&relay], contact_addr).await;
    let status = hidden.until(|status| !status.circuits.is_empty() && status.wan_peers == 2).await;
    let named: BTreeSet<PeerId> = status.circuits.iter().map(peer_in).collect();

    // It publishes and looks up, as any node does, and all of the DHT sees that.
    hidden.publish(&secret(2), 1).await;
    assert!(hidden.resolve(key_of(&secret(2))).await.is_some());
    hidden.until(|status| status.connected == 2).await;

    assert!(named.len() == 1 && !named.contains(&status.peer), "{named:?}");
    let seen_at_home: BTreeSet<PeerId> =
        seen.lock().unwrap().iter().filter(|(_, host)| *host == at(13).ip()).map(|(peer, _)| *peer).collect();
    assert_eq!(seen_at_home, BTreeSet::from([status.peer]));
    let stranger = tokio::net::TcpStream::connect(hidden.addr).await;
    assert_eq!(stranger.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_node_is_called_and_calls_and_connects_to_no_relay_that_only_a_peer_names() {
    if !in_namespace("a_hidden_node_is_called_and_calls_and_connects_to_no_relay_that_only_a_peer_names") {
        return;
    }
    let relay = start_on(at(1), RendezvousConfig { public: true, ..quiet_config(&[]) }).await;
    // A relay that the hidden node would never hear of: it is in another DHT.
    let of_peer = start_on(at(2), RendezvousConfig { public: true, ..quiet_config(&[]) }).await;
    let peer = start_on(at(3), quiet_config(&[&of_peer])).await;
    let hidden = hidden_beside(&[&relay], relay.addr).await;
    let circuits = hidden.until(|status| status.circuits.len() == 1).await.circuits;
    let circuits_of_peer = peer.until(|status| status.circuits.len() == 1).await.circuits;
    let (own, theirs) = (secret(1), secret(2));

    let mut incoming = listen(&hidden.rendezvous, own.clone(), everyone());
    let answering = async { incoming.next().await.expect("a call").answer(streams()).await };
    let calling = call(&peer.rendezvous, &circuits[0], own.public(), &theirs, streams());
    let (called, answered) = soon(async { tokio::join!(calling, answering) }).await;
    assert!(called.is_ok() && answered.is_ok(), "{called:?}, {answered:?}");

    let mut incoming = listen(&peer.rendezvous, theirs.clone(), everyone());
    let answering = async { incoming.next().await.expect("a call").answer(streams()).await };
    let calling = call(&hidden.rendezvous, &circuits_of_peer[0], theirs.public(), &own, streams());
    let (called, answered) = soon(async { tokio::join!(calling, answering) }).await;
    assert!(called.is_ok() && answered.is_ok(), "{called:?}, {answered:?}");

    assert_eq!(dialled(), BTreeSet::from([1]), "from its own address it speaks with the DHT alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_node_whose_circuit_relay_dies_is_called_through_another() {
    if !in_namespace("a_hidden_node_whose_circuit_relay_dies_is_called_through_another") {
        return;
    }
    let first = start_on(at(1), RendezvousConfig { public: true, ..quiet_config(&[]) }).await;
    let second = start_on(at(2), RendezvousConfig { public: true, ..quiet_config(&[&first]) }).await;
    let hidden = hidden_beside(&[&first], second.addr).await;
    hidden.until(|status| status.circuits.len() == 2).await;

    soon(first.rendezvous.shutdown()).await;
    drop(first);

    let left = hidden.until(|status| status.circuits.len() == 1).await.circuits;
    assert!(left[0].to_string().starts_with("/ip4/203.0.113.2/"), "{left:?}");
    // Doubt ends nothing that answers.
    hidden.rendezvous.doubt();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(hidden.rendezvous.status().borrow().circuits, left);
}
