//! Joined connections, one at a time.

use keyferry_proto::{identity::NodeSecret, relaying::RelayRefusal};
use keyferry_turn::server::Quota;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::bench::{self, Bench, accepted, between, check_first, config, exchange, in_time, listener, relayed};
use crate::{
    base::{
        clock,
        data_dir::{AdmissionPolicy, ContactsFile},
    },
    net::stun::StunClient,
    reach::{
        turn_client::{AddressFamily, Allocation},
        turn_server::RelayConfig,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_connects_to_a_peer_plain_and_by_tls() {
    for secure in [false, true] {
        let bench = Bench::new(config()).await;
        let allocation = bench.allocation(secure).await;
        let (mut client, mut peer) = relayed(&allocation).await;
        assert_eq!(peer.peer_addr().unwrap(), allocation.relayed(), "it comes from the relayed address");
        exchange(&mut client, &mut peer, 300_000).await;
        let copies = secure || cfg!(not(target_os = "linux"));
        let traffic = &bench.relay.traffic;
        let (by, by_the_other) = match copies {
            true => (&traffic.copied_bytes, &traffic.spliced_bytes),
            false => (&traffic.spliced_bytes, &traffic.copied_bytes),
        };
        bench.until(|_| by.get(), |bytes| bytes == 600_000).await;
        assert_eq!(by_the_other.get(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_connects_to_a_client_if_it_has_permission() {
    for secure in [false, true] {
        let bench = Bench::new(config()).await;
        let mut allocation = bench.allocation(secure).await;
        let mut refused = TcpStream::connect(allocation.relayed()).await.unwrap();
        assert_eq!(in_time(refused.read(&mut [0])).await.unwrap_or(0), 0);
        bench.until(|counters| counters.unpermitted, |count| count == 1).await;
        let (mut client, mut peer) = accepted(&mut allocation).await;
        exchange(&mut client, &mut peer, 100_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_sends_before_its_connection_is_bound_is_kept() {
    for secure in [false, true] {
        let bench = Bench::new(config()).await;
        let mut allocation = bench.allocation(secure).await;
        // So that the permission stands.
        accepted(&mut allocation).await;
        for _ in 0..10 {
            let mut peer = TcpStream::connect(allocation.relayed()).await.unwrap();
            peer.write_all(b"at once").await.unwrap();
            let (mut client, _) = in_time(allocation.accept()).await.unwrap();
            let mut got = [0; 7];
            in_time(client.read_exact(&mut got)).await.unwrap();
            assert_eq!(&got, b"at once");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_one_way_is_passed_on_and_the_other_goes_on() {
    let bench = Bench::new(config()).await;
    let allocation = bench.allocation(false).await;
    let (mut client, mut peer) = relayed(&allocation).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    in_time(peer.read_to_end(&mut question)).await.unwrap();
    assert_eq!(question, b"question");
    peer.write_all(b"answer").await.unwrap();
    drop(peer);
    let mut answer = Vec::new();
    in_time(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"answer");
    bench.until(|counters| counters.connections, |count| count == 0).await;
    assert_eq!(bench.count(|counters| counters.bytes), 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_relayed_between_two_clients_of_one_relay() {
    // Nothing is allowed here but what the relay itself gives out.
    let bench = Bench::new(RelayConfig { allow_peers: Vec::new(), ..config() }).await;
    let ada = bench.allocation(false).await;
    let mut bob = bench.allocation_of(true, "bob", "builder").await;
    let (mut adas, mut bobs, _) = between(&ada, &mut bob).await;
    adas.write_all(b"hello").await.unwrap();
    let mut hello = [0; 5];
    in_time(bobs.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_allocation_end_its_connections_and_its_port() {
    let bench = Bench::new(config()).await;
    let allocation = bench.allocation(false).await;
    let relayed_addr = allocation.relayed();
    let (mut client, mut peer) = relayed(&allocation).await;
    exchange(&mut client, &mut peer, 10).await;
    drop(allocation);
    assert_eq!(in_time(peer.read(&mut [0])).await.unwrap_or(0), 0);
    assert_eq!(in_time(client.read(&mut [0])).await.unwrap_or(0), 0);
    bench.until(|counters| counters.allocations, |count| count == 0).await;
    in_time(async {
        while TcpStream::connect(relayed_addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_reached_is_not_and_is_counted() {
    let bench = Bench::new(RelayConfig { allow_peers: Vec::new(), ..config() }).await;
    let allocation = bench.allocation(false).await;
    let (_listener, addr) = listener().await;
    for peer in [addr, bench.addr, "169.254.169.254:80".parse().unwrap(), "10.0.0.1:4600".parse().unwrap()] {
        assert!(in_time(allocation.connector().connect(peer)).await.is_err(), "{peer}");
    }
    let counters = bench.relay.counters();
    let by_address = [
        counters.peer_relay,
        counters.peer_loopback,
        counters.peer_link_local,
        counters.peer_not_public,
        counters.peer_port,
    ];
    assert_eq!(by_address.iter().sum::<u64>(), 4, "{counters:?}");
    let bench = Bench::new(config()).await;
    let allocation = bench.allocation(false).await;
    assert!(in_time(allocation.connector().connect(bench.addr)).await.is_err(), "the relay's own port, always");
    assert_eq!(bench.count(|counters| counters.peer_relay), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_a_quota_end_a_connection() {
    let mut config = config();
    config.limits.identity = Quota { bytes: Some(1_000_000), ..config.limits.identity };
    let bench = Bench::new(config).await;
    let allocation = bench.allocation(false).await;
    let (client, mut peer) = relayed(&allocation).await;
    let (mut reads, mut writes) = tokio::io::split(client);
    let sending = tokio::spawn(async move { while writes.write_all(&[7; 65536]).await.is_ok() {} });
    let mut read = 0;
    let mut buffer = vec![0; 65536];
    while let Ok(got @ 1..) = in_time(peer.read(&mut buffer)).await {
        read += got;
    }
    assert_eq!(in_time(reads.read(&mut buffer)).await.unwrap_or(0), 0);
    sending.abort();
    assert!((1_000_000..8_000_000).contains(&read), "{read}");
    assert_eq!(bench.count(|counters| counters.quota_bytes), 1);
    let (_listener, addr) = listener().await;
    assert!(allocation.connector().connect(addr).await.is_err(), "and nothing new begins");
}

#[tokio::test(flavor = "multi_thread")]
async fn issued_credentials_are_good_for_those_whom_the_policy_allows() {
    let ada = NodeSecret::from_bytes(&[1; 32]).public();
    let host = "203.0.113.7".parse().unwrap();
    let now = clock::now();
    let bench = Bench::new(RelayConfig { policy: AdmissionPolicy::Contacts, ..config() }).await;
    assert_eq!(bench.relay.credentials_for(Some(ada), host, now).await, Err(RelayRefusal::Policy));
    ContactsFile::of(bench.home.path()).add(ada, Some("Ada")).unwrap();
    let issued = bench.relay.credentials_for(Some(ada), host, now).await.unwrap();
    assert!(!issued.username.contains(&ada.to_string()), "usernames cross the network in the clear");
    assert_eq!(bench.relay.credentials_for(Some(ada), host, now).await.unwrap().username, issued.username);
    assert_eq!(
        bench.relay.credentials_for(None, host, now).await,
        Err(RelayRefusal::Policy),
        "it has to say who it is"
    );
    let allocation = bench.allocation_of(false, &issued.username, &issued.password).await;
    let (mut client, mut peer) = relayed(&allocation).await;
    check_first(&mut client, &mut peer).await;
    exchange(&mut client, &mut peer, 1000).await;
    let wrong = bench.server(false, &issued.username, "made up");
    assert!(in_time(Allocation::make(&wrong, AddressFamily::V4)).await.is_err());
    assert_eq!(bench.count(|counters| counters.forged), 1);
    let nobody = Bench::new(RelayConfig { policy: AdmissionPolicy::Nobody, ..config() }).await;
    assert_eq!(nobody.relay.credentials_for(Some(ada), host, now).await, Err(RelayRefusal::Policy));
}

#[tokio::test(flavor = "multi_thread")]
async fn stun_and_turn_share_the_port_and_the_connection() {
    let bench = Bench::new(config()).await;
    let mut stream = TcpStream::connect(bench.addr).await.unwrap();
    let local = stream.local_addr().unwrap();
    let source = keyferry_ice::Source::AnyPort("127.0.0.1".parse().unwrap());
    let client = StunClient::connect(source, bench.addr).await.unwrap();
    assert_eq!(client.mapped(), client.local());
    // Binding, then Allocate without credentials, then Binding, cut into pieces.
    use stun_types::message::{BINDING, Message, MessageWrite, MessageWriteVec, Method};
    let binding = Message::builder_request(BINDING, MessageWriteVec::new()).finish();
    let allocate = Message::builder_request(Method::new(3), MessageWriteVec::new()).finish();
    for (message, is_binding) in [(&binding, true), (&allocate, false), (&binding, true)] {
        for piece in message.chunks(7) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let answer = bench::message(&mut stream).await;
        let answer = Message::from_bytes(&answer).unwrap();
        if is_binding {
            let mapped = answer.attribute::<stun_types::attribute::XorMappedAddress>().unwrap();
            assert_eq!(mapped.addr(answer.transaction_id()), local);
        } else {
            assert_eq!(answer.attribute::<stun_types::attribute::ErrorCode>().unwrap().code(), 401);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stops_leaves_nothing_open() {
    let bench = Bench::new(config()).await;
    let allocation = bench.allocation(false).await;
    let (_client, mut peer) = relayed(&allocation).await;
    in_time(bench.relay.shutdown()).await;
    assert_eq!(in_time(peer.read(&mut [0])).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(allocation.relayed()).await.is_err());
}
