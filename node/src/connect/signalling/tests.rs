//! Calls between two nodes that are connected directly, on loopback, and callers that do not play by the rules.
//! Circuits are tested where relays are, in `rendezvous`.

use std::{path::Path, sync::Arc};

use futures::FutureExt;
use keyferry_ice::{Description, Mapping, OpenTurn, Signal, Stream};
use keyferry_proto::{
    frame::encode_frame,
    identity::NodeSecret,
    signalling::{Answered, CallId, CallRefusal, Calling, MAX_MESSAGE_LEN, Streams},
};
use libp2p::{PeerId, multiaddr::Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::*;
use crate::{
    base::{
        data_dir::{Admission, AdmissionPolicy, ContactsFile},
        places::PlaceLimits,
    },
    net::port::Port,
    reach::rendezvous::{CallOver, CallStream, Rendezvous, RendezvousConfig, RendezvousStatus, multiaddr_of},
};

struct Node {
    rendezvous: Rendezvous,
    addr: std::net::SocketAddr,
}

fn secret(seed: u8) -> NodeSecret {
    NodeSecret::from_bytes(&[seed; 32])
}

fn description() -> Description {
    Description {
        ufrag: "ufrag".to_owned(),
        password: "p".repeat(22),
        candidates: vec![],
        complete: false,
        mapping: Mapping::Unknown,
        opening: false,
    }
}

fn told() -> Streams {
    Streams::Direct(description())
}

async fn say(call: &Call, signal: Signal) -> Result<(), ()> {
    call.direct.as_ref().expect("the direct stream").outgoing.send(signal).await.map_err(|_| ())
}

/// The peer's next signal of the direct stream.
async fn heard(call: &mut Call) -> Option<Signal> {
    soon(call.direct.as_mut().expect("the direct stream").incoming.recv()).await
}

fn signal(round: u8) -> Signal {
    let addr = "198.51.100.1:7".parse().unwrap();
    Signal::Opened(OpenTurn { round, sender: addr, receiver: addr, ttl: 2 })
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

async fn start(bootstrap: &[&Node]) -> Node {
    let (port, incoming) = Port::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
    let addr = port.local_addrs()[0];
    let config = RendezvousConfig {
        bootstrap: bootstrap.iter().map(|node| multiaddr_of(node.addr)).collect(),
        mdns: false,
        local_bootstrap: false,
        memory_limit: usize::MAX,
        ..RendezvousConfig::new(Zeroizing::new(rand::random()))
    };
    let (rendezvous, _) = Rendezvous::spawn(config, Arc::new(port), incoming.libp2p).unwrap();
    Node { rendezvous, addr }
}

/// A callee, and a caller that is connected to it.
async fn two_nodes() -> (Node, Node) {
    let callee = start(&[]).await;
    let caller = start(&[&callee]).await;
    soon(caller.rendezvous.status().wait_for(|status| status.lan_peers == 1)).await.unwrap();
    (callee, caller)
}

/// An address that leads to a node if it is connected: the relay in it is nobody.
fn circuit_to(node: &Node) -> Multiaddr {
    let relay: Multiaddr = "/ip4/203.0.113.1/tcp/9".parse().unwrap();
    let peer = node.rendezvous.status().borrow().peer;
    relay.with(Protocol::P2p(PeerId::random())).with(Protocol::P2pCircuit).with(Protocol::P2p(peer))
}

fn take_calls(callee: &Node, policy: AdmissionPolicy, folder: &Path) -> IncomingCalls {
    listen(&callee.rendezvous, secret(2), Admission::new(policy, ContactsFile::of(folder)))
}

fn take_all_calls(callee: &Node) -> IncomingCalls {
    take_calls(callee, AdmissionPolicy::Everyone, Path::new("/nonexistent"))
}

async fn call_from(caller: &Node, callee: &Node, seed: u8) -> Result<Call, CallError> {
    let to = circuit_to(callee);
    soon(call(&caller.rendezvous, &to, secret(2).public(), &secret(seed), told())).await
}

/// Both ends of an answered call.
async fn answered(caller: &Node, callee: &Node, incoming: &mut IncomingCalls) -> (Call, Call) {
    let answer = async { incoming.next().await.expect("a call").answer(told()).await };
    let (call_out, call_in) = tokio::join!(call_from(caller, callee, 1), soon(answer));
    (call_out.unwrap(), call_in.unwrap())
}

/// Waits until something was counted so often, and makes sure that it was no more often.
async fn counted(node: &Node, counter: &str, times: u64) {
    let mut status = node.rendezvous.status();
    let so_often = |status: &RendezvousStatus| status.counters.get(counter).is_some_and(|count| *count >= times);
    let status = soon(status.wait_for(so_often)).await.unwrap();
    assert_eq!(status.counters[counter], times);
}

/// Waits until something was counted.
async fn counted_once_at_least(node: &Node, counter: &str) {
    let mut status = node.rendezvous.status();
    soon(status.wait_for(|status| status.counters.contains_key(counter))).await.unwrap();
}

/// A stream to the callee on which anything may be said.
async fn raw(caller: &Node, callee: &Node) -> CallStream {
    soon(caller.rendezvous.open_call(&circuit_to(callee), CallOver::Any)).await.unwrap()
}

/// Reads until the other end is closed; returns what came.
async fn rest(mut stream: CallStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = soon(stream.io.read_to_end(&mut all)).await;
    all
}

#[tokio::test]
async fn a_connected_peer_is_called_over_its_connection() {
    let (callee, caller) = two_nodes().await;
    let mut incoming = take_all_calls(&callee);
    let (call_out, mut call_in) = answered(&caller, &callee, &mut incoming).await;
    assert_eq!(call_out.via, multiaddr_of(callee.addr));
    say(&call_out, signal(1)).await.unwrap();
    assert_eq!(heard(&mut call_in).await, Some(signal(1)));
    // The acknowledgement came before, and with it the measure.
    assert_ne!(call_in.round_trip(), ASSUMED_ROUND_TRIP);
    drop(call_in);
    let mut call_out = call_out;
    assert_eq!(heard(&mut call_out).await, None);
    assert_eq!(caller.rendezvous.status().borrow().connected, 1, "the connection stays");
}

#[tokio::test]
async fn the_policy_decides_before_anything_is_revealed_and_a_change_of_the_contacts_counts_at_once() {
    let (callee, caller) = two_nodes().await;
    let folder = tempfile::tempdir().unwrap();
    let mut incoming = take_calls(&callee, AdmissionPolicy::Contacts, folder.path());
    let refused = call_from(&caller, &callee, 1).await;
    assert!(matches!(refused, Err(CallError::Refused(CallRefusal::Policy))), "{refused:?}");
    ContactsFile::of(folder.path()).add(secret(1).public(), Some("Ada")).unwrap();
    answered(&caller, &callee, &mut incoming).await;
    std::fs::write(folder.path().join("contacts"), "nonsense").unwrap();
    let refused = call_from(&caller, &callee, 1).await;
    assert!(matches!(refused, Err(CallError::Refused(CallRefusal::Policy))), "{refused:?}");
    counted(&callee, "call_refused_policy", 2).await;
}

#[tokio::test]
async fn a_call_may_be_turned_away_or_left_to_ring() {
    let (callee, caller) = two_nodes().await;
    let mut incoming = take_all_calls(&callee);
    let refuse = async { soon(incoming.next()).await.expect("a call").refuse(CallRefusal::Busy).await };
    let (refused, ()) = tokio::join!(call_from(&caller, &callee, 1), refuse);
    assert!(matches!(refused, Err(CallError::Refused(CallRefusal::Busy))), "{refused:?}");
    let hang_up = async { drop(soon(incoming.next()).await) };
    let (ended, ()) = tokio::join!(call_from(&caller, &callee, 1), hang_up);
    assert!(matches!(ended, Err(CallError::Ended | CallError::Unreachable(_) | CallError::Line(_))), "{ended:?}");
}

#[tokio::test]
async fn a_node_that_takes_no_calls_ends_them_at_once() {
    let (callee, caller) = two_nodes().await;
    let ended = call_from(&caller, &callee, 1).await;
    assert!(matches!(ended, Err(CallError::Ended | CallError::Unreachable(_) | CallError::Line(_))), "{ended:?}");
    counted(&callee, "call_not_taken", 1).await;
}

#[tokio::test]
async fn garbage_oversized_and_unfinished_messages_end_their_stream_and_nothing_else() {
    let (callee, caller) = two_nodes().await;
    let mut incoming = take_all_calls(&callee);
    let keys = [secret(1).public(), secret(2).public()].map(|key| *key.as_bytes()).concat();
    let mut garbage = Vec::new();
    encode_frame(&[&[7; 16], &keys[..], &[7; 500]].concat(), &mut garbage);
    let oversized = (MAX_MESSAGE_LEN as u32 + 1).to_le_bytes();
    for bytes in [&garbage[..], &oversized, &u32::MAX.to_le_bytes(), &[0; 4], &[9, 0, 0]] {
        let mut stream = raw(&caller, &callee).await;
        stream.io.write_all(bytes).await.unwrap();
        stream.io.shutdown().await.unwrap();
        assert!(rest(stream).await.is_empty(), "{bytes:?}");
    }
    answered(&caller, &callee, &mut incoming).await;
    counted_once_at_least(&callee, "call_bad_message").await;
}

#[tokio::test]
async fn silent_streams_are_ended_and_keep_no_call_out() {
    let (callee, caller) = two_nodes().await;
    let mut incoming = take_all_calls(&callee);
    let another = start(&[&callee]).await;
    soon(another.rendezvous.status().wait_for(|status| status.lan_peers >= 1)).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..40 {
        let mut stream = raw(&caller, &callee).await;
        // A stream comes into being with its first byte.
        let _ = stream.io.write_all(&[9]).await;
        let _ = stream.io.flush().await;
        silent.push(stream);
    }
    counted_once_at_least(&callee, "call_too_many_streams").await;
    answered(&another, &callee, &mut incoming).await;
    for stream in silent {
        assert!(rest(stream).await.is_empty());
    }
    counted_once_at_least(&callee, "call_silent").await;
}

#[tokio::test]
async fn a_signal_that_is_replayed_ends_the_call() {
    let (callee, caller) = two_nodes().await;
    let mut incoming = take_all_calls(&callee);
    let mut stream = raw(&caller, &callee).await;
    let channel = stream.outgoing_channel();
    let (calling, first) = Calling::new(&secret(1), secret(2).public(), channel, CallId([7; 16]), told()).unwrap();
    write_message(&mut stream.io, &first).await.unwrap();
    let mut call_in = soon(incoming.next()).await.unwrap().answer(told()).await.unwrap();
    let answer = messages().next(&mut stream.io).await.unwrap().unwrap();
    let Ok(Answered::Accepted(accepted)) = calling.on_answer(&answer) else { panic!("not accepted") };
    let mut conversation = accepted.1;
    write_message(&mut stream.io, &conversation.heard().unwrap()).await.unwrap();
    let message = conversation.send(Stream::Direct, signal(1)).unwrap();
    write_message(&mut stream.io, &message).await.unwrap();
    write_message(&mut stream.io, &message).await.unwrap();
    assert_eq!(heard(&mut call_in).await, Some(signal(1)));
    assert_eq!(heard(&mut call_in).await, None);
    counted(&callee, "call_bad_message", 1).await;
    assert!(rest(stream).await.is_empty());
}

#[tokio::test]
async fn a_call_that_was_recorded_cannot_be_made_by_another_peer() {
    let (callee, caller) = two_nodes().await;
    let mut incoming = take_all_calls(&callee);
    let thief = start(&[&callee]).await;
    soon(thief.rendezvous.status().wait_for(|status| status.lan_peers >= 1)).await.unwrap();
    let recorded = {
        let stream = raw(&caller, &callee).await;
        let channel = stream.outgoing_channel();
        Calling::new(&secret(1), secret(2).public(), channel, CallId([7; 16]), told()).unwrap().1
    };
    let mut stream = raw(&thief, &callee).await;
    write_message(&mut stream.io, &recorded).await.unwrap();
    assert!(rest(stream).await.is_empty());
    counted(&callee, "call_bad_message", 1).await;
    assert!(incoming.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_node_that_calls_from_many_connections_hears_that_the_callee_is_busy() {
    let (callee, caller) = two_nodes().await;
    let mut incoming = take_all_calls(&callee);
    let (mut others, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let another = start(&[&callee]).await;
        soon(another.rendezvous.status().wait_for(|status| status.lan_peers >= 1)).await.unwrap();
        for _ in 0..2 {
            calls.push(answered(&another, &callee, &mut incoming).await);
        }
        others.push(another);
    }
    let refused = call_from(&caller, &callee, 1).await;
    assert!(matches!(refused, Err(CallError::Refused(CallRefusal::Busy))), "{refused:?}");
    counted(&callee, "call_refused_busy", 1).await;
    // The places are given back when the calls have ended.
    calls.clear();
    let answering = tokio::spawn(async move {
        while let Some(ringing) = incoming.next().await {
            ringing.answer(told()).await.expect("an answer");
        }
    });
    soon(async { while call_from(&caller, &callee, 1).await.is_err() {} }).await;
    answering.abort();
}

#[tokio::test]
async fn a_call_that_has_lasted_longer_than_the_grace_gives_way_to_another() {
    let (callee, caller) = two_nodes().await;
    let another = start(&[&callee]).await;
    soon(another.rendezvous.status().wait_for(|status| status.lan_peers >= 1)).await.unwrap();
    let limits = PlaceLimits { in_all: 1, for_contacts: 0, per_host: 1, per_key: 1, grace: Duration::ZERO };
    let everyone = Admission::new(AdmissionPolicy::Everyone, ContactsFile::of(Path::new("/nonexistent")));
    let mut incoming = listen::listen_within(limits, &callee.rendezvous, secret(2), everyone);
    let (mut first, _first_in) = answered(&caller, &callee, &mut incoming).await;

    let (second, mut second_in) = answered(&another, &callee, &mut incoming).await;

    assert_eq!(heard(&mut first).await, None, "it has ended");
    counted(&callee, "call_pushed_out", 1).await;
    say(&second, signal(1)).await.unwrap();
    assert_eq!(heard(&mut second_in).await, Some(signal(1)));
}

#[tokio::test]
async fn a_connection_carries_two_calls_and_a_thousand_signals_end_theirs() {
    let (callee, caller) = two_nodes().await;
    let mut incoming = take_all_calls(&callee);
    let (first, mut first_in) = answered(&caller, &callee, &mut incoming).await;
    let (_second, _second_in) = answered(&caller, &callee, &mut incoming).await;
    let third = call_from(&caller, &callee, 1).await;
    assert!(third.is_err());
    counted(&callee, "call_too_many_streams", 1).await;
    let sending = tokio::spawn(async move {
        for round in 0..1000 {
            if say(&first, signal(round as u8)).await.is_err() {
                break;
            }
        }
    });
    let mut taken = 0;
    while heard(&mut first_in).await.is_some() {
        taken += 1;
    }
    assert_eq!(taken, keyferry_proto::signalling::MAX_SIGNALS);
    soon(sending).await.unwrap();
}
