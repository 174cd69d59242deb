//! Connections of applications.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::connect::protocols::{Connection, MAX_CONNECTIONS_OF_SESSION};

async fn connect(from: &Peer, to: &Peer, protocol: &str) -> Result<Connection, Error> {
    let address = NodeAddress { node: to.node.key(), hints: to.addrs() };
    from.node.connect(address, &protocol.parse().unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_says_what_it_likes_and_knows_the_other() {
    let (one, other) = (Peer::start(Vec::new()).await, Peer::start(Vec::new()).await);
    let mut listener = other.node.listen(&"chat/1".parse().unwrap()).unwrap();

    let mut here = connect(&one, &other, "chat/1").await.unwrap();
    let mut there = listener.accept().await.unwrap();
    here.write_all(b"hello").await.unwrap();
    here.shutdown().await.unwrap();
    let mut heard = String::new();
    there.read_to_string(&mut heard).await.unwrap();

    assert_eq!((here.peer(), there.peer(), &*heard), (other.node.key(), one.node.key(), "hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_has_one_listener_and_those_who_ask_for_another_are_told() {
    let (one, other) = (Peer::start(Vec::new()).await, Peer::start(Vec::new()).await);
    let protocol = "chat/1".parse().unwrap();
    let listener = other.node.listen(&protocol).unwrap();

    assert!(matches!(other.node.listen(&protocol), Err(Error::ProtocolTaken { .. })));
    let refused = connect(&one, &other, "chat/2").await.unwrap_err();
    assert!(matches!(refused, Error::ProtocolRefused { why: Refusal::NotFound, .. }), "{refused:?}");
    drop(listener);
    let gone = connect(&one, &other, "chat/1").await.unwrap_err();
    assert!(matches!(gone, Error::ProtocolRefused { why: Refusal::NotFound, .. }), "{gone:?}");
    assert!(other.node.listen(&protocol).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_no_more_connections_than_its_session_has_places() {
    let (one, other) = (Peer::start(Vec::new()).await, Peer::start(Vec::new()).await);
    let mut listener = other.node.listen(&"chat/1".parse().unwrap()).unwrap();
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS_OF_SESSION {
        open.push((connect(&one, &other, "chat/1").await.unwrap(), listener.accept().await.unwrap()));
    }

    let refused = connect(&one, &other, "chat/1").await.unwrap_err();
    assert!(matches!(refused, Error::ProtocolRefused { why: Refusal::Busy, .. }), "{refused:?}");
    open.pop();
    assert!(connect(&one, &other, "chat/1").await.is_ok(), "a place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_ends_the_listening() {
    let peer = Peer::start(Vec::new()).await;
    let mut listener = peer.node.listen(&"chat/1".parse().unwrap()).unwrap();
    peer.node.shutdown().await;
    assert!(listener.accept().await.is_none());
}
