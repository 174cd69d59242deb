//! Relays, reservations and calls over circuits, between nodes that nobody can connect to: their addresses are public, and a
//! packet filter drops every SYN to them.

use keyferry_ice::{Description, Mapping, OpenTurn, Role, Signal};
use keyferry_proto::signalling::{CallRefusal, Streams};
use libp2p::multiaddr::Protocol;

use super::{namespace::in_namespace_of, *};
use crate::{
    base::data_dir::{Admission, AdmissionPolicy, ContactsFile},
    connect::signalling::{Call, CallError, IncomingCalls, call, listen},
};

/// Hosts 1 to 5 can be reached, 12 and 13 cannot.
const SET_UP: &str = "ip link set lo up && ip link add v0 type veth peer name v1 && \
    for host in 1 2 3 4 5 12 13; do ip addr add 203.0.113.$host/24 dev v0 || exit 1; done && \
    ip link set v1 up && ip link set v0 up && nft add table inet f && \
    nft 'add chain inet f input { type filter hook input priority 0; }' && \
    nft 'add rule inet f input ip daddr { 203.0.113.12, 203.0.113.13 } tcp flags & (syn | ack) == syn drop' && \
    exec \"$0\" \"$@\"";

fn in_namespace(name: &str) -> bool {
    in_namespace_of(SET_UP, &["nft"], &format!("circuits::{name}"))
}

fn at(host: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, host], 0))
}

async fn relay(host: u8, bootstrap: &[&Node]) -> Node {
    start_on(at(host), RendezvousConfig { public: true, ..quiet_config(bootstrap) }).await
}

fn description(ufrag: &str) -> Description {
    Description {
        ufrag: ufrag.to_owned(),
        password: "p".repeat(22),
        candidates: vec![Candidate::host_passive("198.51.100.1:7".parse().unwrap(), 0)],
        complete: true,
        mapping: Mapping::EndpointIndependent,
        opening: true,
    }
}

fn signal(round: u8) -> Signal {
    let addr = "198.51.100.1:7".parse().unwrap();
    Signal::Opened(OpenTurn { round, sender: addr, receiver: addr, ttl: 2 })
}

fn take_calls(node: &Node, seed: u8, policy: AdmissionPolicy) -> IncomingCalls {
    let contacts = ContactsFile::of(std::path::Path::new("/nonexistent"));
    listen(&node.rendezvous, secret(seed), Admission::new(policy, contacts))
}

fn told(name: &str) -> Streams {
    Streams::Direct(description(name))
}

async fn say(call: &Call, signal: Signal) {
    call.direct.as_ref().expect("the direct stream").outgoing.send(signal).await.expect("the call goes on");
}

/// The peer's next signal of the direct stream.
async fn heard(call: &mut Call) -> Option<Signal> {
    soon(call.direct.as_mut().expect("the direct stream").incoming.recv()).await
}

async fn circuits_of(node: &Node, count: usize) -> Vec<Multiaddr> {
    node.until(|status| status.circuits.len() == count).await.circuits
}

fn relay_host(circuit: &Multiaddr) -> u8 {
    match circuit.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.octets()[3],
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_through_a_relay_between_nodes_that_nobody_can_reach() {
    if !in_namespace("a_call_goes_through_a_relay_between_nodes_that_nobody_can_reach") {
        return;
    }
    let relay = relay(1, &[]).await;
    let began = Instant::now();
    let callee = start_on(at(13), quiet_config(&[&relay])).await;
    let circuits = circuits_of(&callee, 1).await;
    println!("reserved {:?} after the start", began.elapsed());
    let peer = |node: &Node| node.rendezvous.status().borrow().peer;
    let expected = format!("{}/p2p/{}/p2p-circuit/p2p/{}", multiaddr_of(relay.addr), peer(&relay), peer(&callee));
    assert_eq!(circuits[0].to_string(), expected);

    let mut incoming = take_calls(&callee, 2, AdmissionPolicy::Everyone);
    // The caller has no connection to the relay.
    let caller = start_on(at(12), quiet_config(&[])).await;
    let began = Instant::now();
    let answering = tokio::spawn(async move {
        let ringing = incoming.next().await.expect("a call");
        assert_eq!((ringing.caller(), ringing.remote()), (secret(1).public(), &told("caller")));
        let call = ringing.answer(told("callee")).await.expect("an answer");
        (call, incoming)
    });
    let key = secret(2).public();
    let mut call_out = call(&caller.rendezvous, &circuits[0], key, &secret(1), told("caller")).await.unwrap();
    println!("answered {:?} after the dial, round trip {:?}", began.elapsed(), call_out.round_trip());
    let (mut call_in, incoming) = soon(answering).await.unwrap();
    assert_eq!((call_out.role, call_in.role), (Role::Controlling, Role::Controlled));
    assert_eq!((call_out.peer, call_in.peer), (key, secret(1).public()));
    assert_eq!(call_out.direct.as_ref().unwrap().remote, description("callee"));
    assert_eq!(call_out.via, circuits[0]);
    for round in 0..100 {
        say(&call_out, signal(round)).await;
        assert_eq!(heard(&mut call_in).await, Some(signal(round)));
        say(&call_in, signal(round)).await;
        assert_eq!(heard(&mut call_out).await, Some(signal(round)));
    }
    // What was sent last arrives although the call ends at once.
    say(&call_out, signal(200)).await;
    drop(call_out);
    assert_eq!(heard(&mut call_in).await, Some(signal(200)));
    assert_eq!(heard(&mut call_in).await, None);
    drop(call_in);

    let wrong = call(&caller.rendezvous, &circuits[0], secret(3).public(), &secret(1), told("caller")).await;
    assert!(matches!(wrong, Err(CallError::NotThisNode)), "{wrong:?}");
    callee.until(|status| status.counters.contains_key("call_for_other_node")).await;

    drop(incoming);
    let _incoming = take_calls(&callee, 2, AdmissionPolicy::Nobody);
    // The command that changes who takes calls is on its way to the callee's task.
    let refused = call(&caller.rendezvous, &circuits[0], key, &secret(1), told("caller")).await;
    assert!(matches!(refused, Err(CallError::Refused(CallRefusal::Policy))), "{refused:?}");

    // Neither circuits nor those behind them have come into the tables or the addresses of anybody.
    let status = callee.rendezvous.status().borrow().clone();
    assert_eq!((status.connected, status.external, status.lan_peers), (1, vec![], 0));
    assert!(status.listen.iter().all(|addr| addr.ip() == at(13).ip()));
    let status = caller.rendezvous.status().borrow().clone();
    assert_eq!((status.connected, status.lan_peers), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_relay_dies_another_takes_its_place() {
    if !in_namespace("when_a_relay_dies_another_takes_its_place") {
        return;
    }
    let first = relay(1, &[]).await;
    let mut relays = vec![first];
    for host in 2..=5 {
        let next = relay(host, &[&relays[0]]).await;
        relays.push(next);
    }
    let all: Vec<_> = relays.iter().collect();
    let callee = start_on(at(13), quiet_config(&all)).await;
    let before = circuits_of(&callee, 3).await;
    let hosts: std::collections::BTreeSet<_> = before.iter().map(relay_host).collect();
    assert_eq!(hosts.len(), 3, "each on another host");
    let dead = relay_host(&before[0]);
    let at = relays.iter().position(|node| node.addr.ip() == at(dead).ip()).unwrap();
    let gone = relays.swap_remove(at);
    soon(gone.rendezvous.shutdown()).await;
    drop(gone);
    let began = Instant::now();
    let after = callee.until(|status| status.circuits.len() == 3 && status.circuits != before).await.circuits;
    println!("replaced after {:?}", began.elapsed());
    assert!(after.iter().all(|circuit| relay_host(circuit) != dead));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_reachable_by_itself_is_a_relay_and_needs_none() {
    if !in_namespace("a_node_that_is_reachable_by_itself_is_a_relay_and_needs_none") {
        return;
    }
    let public = relay(1, &[]).await;
    let tested = start_on(at(2), quiet_config(&[&public])).await;
    tested.until(|status| status.public && status.circuits.is_empty()).await;
    let callee = start_on(at(13), quiet_config(&[&tested])).await;
    circuits_of(&callee, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_that_leads_nowhere_is_told_soon() {
    if !in_namespace("a_circuit_that_leads_nowhere_is_told_soon") {
        return;
    }
    let relay = relay(1, &[]).await;
    let caller = start_on(at(12), quiet_config(&[&relay])).await;
    let circuit = |at: SocketAddr, relay: PeerId| {
        let addr = multiaddr_of(at).with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
        addr.with(Protocol::P2p(PeerId::random()))
    };
    let relay_peer = relay.rendezvous.status().borrow().peer;
    let try_call = |addr: Multiaddr| {
        let rendezvous = caller.rendezvous.clone();
        async move { call(&rendezvous, &addr, secret(2).public(), &secret(1), told("caller")).await }
    };
    let gone = soon(try_call(circuit(relay.addr, relay_peer))).await;
    assert!(matches!(&gone, Err(CallError::Unreachable(why)) if why.to_string().contains("reservation")), "{gone:?}");
    let other = soon(try_call(circuit(relay.addr, PeerId::random()))).await;
    assert!(matches!(other, Err(CallError::Unreachable(_))), "{other:?}");
    let closed = soon(try_call(circuit(SocketAddr::from(([203, 0, 113, 2], 9)), PeerId::random()))).await;
    assert!(matches!(closed, Err(CallError::Unreachable(_))), "{closed:?}");
    for hostile in ["10.0.0.1:80", "127.0.0.1:80", "169.254.169.254:80", "224.0.0.1:80"] {
        let refused = soon(try_call(circuit(hostile.parse().unwrap(), relay_peer))).await;
        assert!(matches!(refused, Err(CallError::Address { .. })), "{hostile}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_that_break_libp2p_or_make_work_without_end_are_left_for_others() {
    if !in_namespace("relays_that_break_libp2p_or_make_work_without_end_are_left_for_others") {
        return;
    }
    let sound = relay(1, &[]).await;
    // Libp2p's relay client cannot set a timer to the first of these moments, and renews every two seconds by the second. It takes
    // none that is past when it reads the grant.
    let breaking = evil_relay::start(at(2), || u64::MAX).await;
    let hurried = evil_relay::start(at(3), || clock::now().0 + 2).await;
    let mut config = quiet_config(&[&sound]);
    config.bootstrap.extend([breaking, hurried].map(multiaddr_of));
    let callee = start_on(at(13), config).await;
    let status = callee.until(|status| status.counters.contains_key("relay_left") && status.circuits.len() == 1).await;
    assert_eq!(relay_host(&status.circuits[0]), 1);
    assert_eq!(status.counters["relay_left"], 1);
    let mut incoming = take_calls(&callee, 2, AdmissionPolicy::Everyone);
    let caller = start_on(at(12), quiet_config(&[])).await;
    let answering = async { incoming.next().await.expect("a call").answer(told("callee")).await };
    let (key, own) = (secret(2).public(), secret(1));
    let calling = call(&caller.rendezvous, &status.circuits[0], key, &own, told("caller"));
    let (call_out, call_in) = soon(async { tokio::join!(calling, answering) }).await;
    assert!(call_out.is_ok() && call_in.is_ok());
}
