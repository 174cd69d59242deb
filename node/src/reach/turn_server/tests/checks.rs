//! What the relay joins for clients whom its operator does not know: paths between agents, and nothing else.

use std::{net::SocketAddr, time::Duration};

use keyferry_ice::frame;
use keyferry_net::time::UnixTime;
use keyferry_turn::{
    binding::{BindingReply, reply},
    rest_credentials::Secret,
};
use stun_types::{
    message::{BINDING, Message, MessageWriteVec},
    prelude::*,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bench::{Bench, accepted, between, config, exchange, in_time, listener, relayed};
use crate::{
    base::clock,
    net::path::PathStream,
    reach::{turn_client::Allocation, turn_server::RelayConfig},
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";

/// An allocation of somebody who has asked for credentials, as anybody may.
async fn anonymous(bench: &Bench, secure: bool, identity: &str) -> Allocation {
    let issued = Secret::new(b"north").issue(identity, UnixTime(clock::now().0 + 3600)).unwrap();
    bench.allocation_of(secure, issued.username(), issued.password()).await
}

fn check() -> Vec<u8> {
    Message::builder_request(BINDING, MessageWriteVec::new()).finish()
}

fn answer(check: &[u8]) -> Vec<u8> {
    let remote: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let BindingReply::Answer(answer) = reply(check, remote) else { panic!("no request") };
    answer
}

/// All that comes until the connection ends.
async fn rest_of(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    // It may end by RST.
    let _ = in_time(stream.read_to_end(&mut rest)).await;
    rest
}

async fn send(stream: &mut PathStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_is_not_reached_through_a_relay_for_everybody() {
    for secure in [false, true] {
        let bench = Bench::new(config()).await;
        let allocation = anonymous(&bench, secure, "carol").await;
        let (mut client, mut web) = relayed(&allocation).await;

        send(&mut client, GET).await;

        assert_eq!((rest_of(&mut web).await, rest_of(&mut client).await), (Vec::new(), Vec::new()));
        bench.until(|counters| counters.unchecked, |count| count == 1).await;
        bench.until(|counters| counters.connections, |count| count == 0).await;
        assert_eq!(bench.relay.refused().get("unchecked"), Some(&1), "the operator is told");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_behind_a_check_waits_for_a_check_of_the_other_side() {
    for secure in [false, true] {
        let bench = Bench::new(config()).await;
        let allocation = anonymous(&bench, secure, "carol").await;
        let (mut client, mut web) = relayed(&allocation).await;
        let framed = frame(&check()).unwrap();

        send(&mut client, &[&framed, GET].concat()).await;
        let mut got = vec![0; framed.len()];
        in_time(web.read_exact(&mut got)).await.unwrap();
        web.write_all(BAD_REQUEST).await.unwrap();

        assert_eq!(got, framed);
        assert_eq!((rest_of(&mut web).await, rest_of(&mut client).await), (Vec::new(), Vec::new()));
        bench.until(|counters| counters.unchecked, |count| count == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_first_is_not_heard() {
    let bench = Bench::new(config()).await;
    let allocation = anonymous(&bench, false, "carol").await;
    let (mut client, mut server) = relayed(&allocation).await;
    server.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
    assert_eq!(rest_of(&mut client).await, b"");
    bench.until(|counters| counters.unchecked, |count| count == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_joined_after_a_check_each_way_and_then_in_the_kernel() {
    for secure in [false, true] {
        let bench = Bench::new(config()).await;
        let mut allocation = anonymous(&bench, secure, "carol").await;
        for inbound in [false, true] {
            let (mut client, mut peer) = match inbound {
                false => relayed(&allocation).await,
                true => accepted(&mut allocation).await,
            };
            let (check, before) = (check(), bench.relay.traffic.spliced_bytes.get());
            // In pieces, with the path's own bytes right behind.
            let framed = frame(&check).unwrap();
            for byte in &framed {
                send(&mut client, &[*byte]).await;
            }
            let mut got = vec![0; framed.len()];
            in_time(peer.read_exact(&mut got)).await.unwrap();
            assert_eq!(got, framed);
            let answered = frame(&answer(&check)).unwrap();
            peer.write_all(&answered).await.unwrap();
            let mut got = vec![0; answered.len()];
            in_time(client.read_exact(&mut got)).await.unwrap();
            assert_eq!(got, answered);

            exchange(&mut client, &mut peer, 300_000).await;

            if !secure && cfg!(target_os = "linux") {
                let spliced = || bench.relay.traffic.spliced_bytes.get() - before;
                in_time(async {
                    while spliced() < 600_000 {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                })
                .await;
                assert_eq!(spliced(), 600_000, "all but the checks");
            }
        }
        assert_eq!(bench.count(|counters| counters.unchecked), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_one_relay_may_say_to_each_other_what_they_like() {
    let bench = Bench::new(RelayConfig { allow_peers: Vec::new(), ..config() }).await;
    let carol = anonymous(&bench, false, "carol").await;
    let mut dave = anonymous(&bench, true, "dave").await;
    let (mut carols, mut daves, _) = between(&carol, &mut dave).await;
    exchange(&mut carols, &mut daves, 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_connected_with_the_address_at_which_others_see_the_relay() {
    let bench = Bench::new(config()).await;
    let allocation = bench.allocation(false).await;
    let outside: SocketAddr = "203.0.113.77:8080".parse().unwrap();
    bench.relay.seen_at(vec![outside.ip()]).await;

    assert!(in_time(allocation.connector().relay_to(outside)).await.is_err());

    assert_eq!(bench.count(|counters| counters.peer_relay), 1);
    let (_listener, allowed) = listener().await;
    in_time(allocation.connector().relay_to(allowed)).await.unwrap();
}
