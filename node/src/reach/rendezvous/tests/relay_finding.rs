//! Finding relays in a wide-area DHT: public addresses in a network namespace of the test's own.

use keyferry_proto::{
    offer::{relay_record_key, relay_record_key_of},
    relaying::RelayRefusal,
};

use super::{
    namespace::in_namespace_of,
    turn::{Issuer, service},
    *,
};
use crate::{
    base::data_dir::ContactsFile,
    reach::{
        rendezvous::CallOver,
        turn_discovery::{FindingConfig, FoundRelay, RelayFinding},
    },
};

/// Hosts 1 to 5, 12 and 13; nobody can connect to the last two.
const SET_UP: &str = "ip link set lo up && ip link add v0 type veth peer name v1 && \
    for host in 1 2 3 4 5 12 13; do ip addr add 203.0.113.$host/24 dev v0 || exit 1; done && \
    ip link set v1 up && ip link set v0 up && nft add table inet f && \
    nft 'add chain inet f input { type filter hook input priority 0; }' && \
    nft 'add rule inet f input ip daddr { 203.0.113.12, 203.0.113.13 } tcp flags & (syn | ack) == syn drop' && exec \"$0\" \"$@\"";
const HOUR: Duration = Duration::from_secs(3600);

fn in_namespace(name: &str) -> bool {
    in_namespace_of(SET_UP, &[], &format!("relay_finding::{name}"))
}

fn at(host: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, host], 0))
}

/// A node of the DHT that does not relay.
async fn public(host: u8, bootstrap: &[&Node]) -> Node {
    start_on(at(host), RendezvousConfig { public: true, ..quiet_config(bootstrap) }).await
}

/// A public node that relays; its node key is that of its host's number.
async fn relay(host: u8, bootstrap: &[&Node], issuer: &Arc<Issuer>, audience: AnnouncedTo) -> Node {
    let turn = Some(service(issuer, secret(host), audience));
    let config = RendezvousConfig { public: true, turn, ..quiet_config(bootstrap) };
    let node = start_on(at(host), config).await;
    node.until(|status| status.wan_peers > 0).await;
    node
}

async fn end(node: Node) {
    soon(node.rendezvous.shutdown()).await;
    soon(node.task).await.unwrap();
}

fn finding(node: &Node, contacts: &[u8], introduces_itself: bool) -> (RelayFinding, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = ContactsFile::of(folder.path());
    contacts.iter().for_each(|seed| drop(file.add(secret(*seed).public(), None).unwrap()));
    let config = FindingConfig { secret: secret(9), contacts: file, introduces_itself };
    (RelayFinding::spawn(config, node.rendezvous.clone()), folder)
}

async fn found(finding: &RelayFinding, reached: impl Fn(&[FoundRelay]) -> bool) -> Vec<FoundRelay> {
    soon(finding.found().wait_for(|found| reached(found))).await.expect("the task").clone()
}

fn hosts(found: &[FoundRelay]) -> Vec<u8> {
    let mut hosts: Vec<_> = found
        .iter()
        .map(|relay| match relay.addrs[0].ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            other => panic!("{other}"),
        })
        .collect();
    hosts.sort_unstable();
    hosts
}

/// Waits until the DHT names so many providers.
async fn announced(node: &Node, key: RecordKey, count: usize) {
    soon(async {
        loop {
            let mut providers = node.rendezvous.providers(key);
            let mut seen = 0;
            while providers.recv().await.is_some() {
                seen += 1;
            }
            if seen >= count {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_relays_the_one_that_vanishes_is_dropped_and_the_next_that_comes_is_found() {
    if !in_namespace("of_two_relays_the_one_that_vanishes_is_dropped_and_the_next_that_comes_is_found") {
        return;
    }
    let entry = public(1, &[]).await;
    let short = Issuer::new(Duration::from_secs(6), |_| Ok(()));
    let steady = relay(2, &[&entry], &short, AnnouncedTo::Everyone).await;
    let fleeting = relay(3, &[&entry], &short, AnnouncedTo::Everyone).await;
    let seeker = start_on(at(12), quiet_config(&[&entry])).await;
    seeker.until(|status| status.wan_peers > 0).await;
    announced(&seeker, relay_record_key(), 2).await;

    let began = Instant::now();
    let (finding, _folder) = finding(&seeker, &[], true);
    finding.want();
    let both = found(&finding, |found| found.len() == 2).await;
    println!("two relays at hand after {:?}", began.elapsed());
    assert_eq!(hosts(&both), [2, 3]);
    assert!(both.iter().all(|relay| relay.whose.is_none() && relay.credentials.tls_pin == Some([7; 32])));
    let of = |node: &Node| both.iter().find(|relay| relay.addrs == [node.addr]).cloned().expect("its one port");
    let (first, _) = (of(&steady), of(&fleeting));

    // It goes without a word to whoever has leave to use it; the next time that it is asked tells.
    end(fleeting).await;
    let left = found(&finding, |found| found.len() == 1).await;
    assert_eq!(hosts(&left), [2]);
    let renewed =
        found(&finding, |found| found.len() == 1 && found[0].credentials.expires > first.credentials.expires).await;
    assert_ne!(renewed[0].credentials.username, first.credentials.username);

    // One that its user finds broken is dropped at once.
    finding.lost(renewed[0].peer);
    assert!(found(&finding, <[FoundRelay]>::is_empty).await.is_empty());
    let third = relay(4, &[&entry], &short, AnnouncedTo::Everyone).await;
    let next = found(&finding, |found| !found.is_empty()).await;
    assert_eq!(next[0].addrs, [third.addr]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contacts_relay_comes_first_and_it_alone_learns_who_asks() {
    if !in_namespace("a_contacts_relay_comes_first_and_it_alone_learns_who_asks") {
        return;
    }
    let entry = public(1, &[]).await;
    let open = Issuer::new(HOUR, |_| Ok(()));
    let private = Issuer::new(HOUR, |who| {
        let is_contact = who.node == Some(secret(9).public());
        if is_contact { Ok(()) } else { Err(RelayRefusal::Policy) }
    });
    let _for_all = relay(2, &[&entry], &open, AnnouncedTo::Everyone).await;
    let _for_contacts = relay(3, &[&entry], &private, AnnouncedTo::Contacts).await;
    let seeker = start_on(at(12), quiet_config(&[&entry])).await;
    seeker.until(|status| status.wan_peers > 0).await;
    let today = relay_record_key_of(&secret(3).public(), clock::now().day());
    announced(&seeker, relay_record_key(), 1).await;
    announced(&seeker, today, 1).await;

    let (finding_as_contact, _folder) = finding(&seeker, &[3, 4], true);
    finding_as_contact.want();
    let both = found(&finding_as_contact, |found| found.len() == 2).await;
    assert_eq!(both.iter().map(|relay| relay.whose).collect::<Vec<_>>(), [Some(secret(3).public()), None]);
    assert!(open.asked().iter().all(|(who, _)| who.node.is_none()));
    drop(finding_as_contact);

    // A node that hides where it is asks nobody who could tell.
    let before = private.asked().len();
    let (finding_hidden, _folder) = finding(&seeker, &[3, 4], false);
    finding_hidden.want();
    assert_eq!(hosts(&found(&finding_hidden, |found| !found.is_empty()).await), [2]);
    assert_eq!(private.asked().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_are_looked_for_when_they_are_wanted_or_nobody_can_connect_to_the_node() {
    if !in_namespace("relays_are_looked_for_when_they_are_wanted_or_nobody_can_connect_to_the_node") {
        return;
    }
    let entry = public(1, &[]).await;
    let issuer = Issuer::new(HOUR, |_| Ok(()));
    let _relay = relay(2, &[&entry], &issuer, AnnouncedTo::Everyone).await;
    announced(&entry, relay_record_key(), 1).await;

    let reachable = public(3, &[&entry]).await;
    reachable.until(|status| status.wan_peers > 0).await;
    let (lazy, _folder) = finding(&reachable, &[], true);
    let hidden = start_on(at(12), quiet_config(&[&entry])).await;
    let (eager, _folder) = finding(&hidden, &[], true);
    assert_eq!(hosts(&found(&eager, |found| !found.is_empty()).await), [2]);
    assert!(lazy.found().borrow().is_empty() && issuer.asked().len() == 1);

    lazy.want();
    assert_eq!(hosts(&found(&lazy, |found| !found.is_empty()).await), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_not_public_is_not_announced() {
    if !in_namespace("a_relay_that_is_not_public_is_not_announced") {
        return;
    }
    let entry = public(1, &[]).await;
    let issuer = Issuer::new(HOUR, |_| Ok(()));
    let turn = Some(service(&issuer, secret(3), AnnouncedTo::Everyone));
    let closed = start_on(at(12), RendezvousConfig { turn, ..quiet_config(&[&entry]) }).await;
    closed.until(|status| status.wan_peers > 0 && status.circuits.len() == 1).await;
    let mut providers = entry.rendezvous.providers(relay_record_key());
    assert_eq!(soon(providers.recv()).await, None);

    // By name it can be asked; its addresses are then those that the other knows.
    let peer = closed.rendezvous.status().borrow().peer;
    let granted = soon(entry.rendezvous.ask_relay(peer, &[], AskAs::Anonymous)).await.unwrap();
    assert!(!granted.is_dialled && granted.issued.addrs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_over_a_circuit() {
    if !in_namespace("nobody_asks_over_a_circuit") {
        return;
    }
    let entry = public(1, &[]).await;
    let issuer = Issuer::new(HOUR, |_| Ok(()));
    let turn = |seed| Some(service(&issuer, secret(seed), AnnouncedTo::Everyone));
    let callee = start_on(at(13), RendezvousConfig { turn: turn(3), ..quiet_config(&[&entry]) }).await;
    let circuit = callee.until(|status| status.circuits.len() == 1).await.circuits[0].clone();
    let caller = start_on(at(12), RendezvousConfig { turn: turn(2), ..quiet_config(&[]) }).await;
    let mut calls = callee.rendezvous.incoming_calls();
    let (opened, taken) = soon(async { tokio::join!(open(&caller, &circuit), calls.recv()) }).await;
    let _call = (opened, taken.expect("the other end"));

    for (node, other) in [(&caller, &callee), (&callee, &caller)] {
        let peer = other.rendezvous.status().borrow().peer;
        let refused = soon(node.rendezvous.ask_relay(peer, &[other.addr], AskAs::Anonymous)).await;
        assert!(matches!(&refused, Err(AskRelayError::Unreachable(why)) if why.contains("relay")), "{refused:?}");
    }
    assert!(issuer.asked().is_empty());
}

/// Opens a call, and says something so that libp2p agrees on its protocol.
async fn open(caller: &Node, circuit: &Multiaddr) -> CallStream {
    let mut call = caller.rendezvous.open_call(circuit, CallOver::Any).await.expect("a circuit");
    tokio::io::AsyncWriteExt::write_all(&mut call.io, &[0]).await.unwrap();
    tokio::io::AsyncWriteExt::flush(&mut call.io).await.unwrap();
    call
}
