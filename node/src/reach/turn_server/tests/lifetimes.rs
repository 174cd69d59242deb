//! In the course of time: nonces that run out, allocations that have to be refreshed, the end of the relay.

use std::time::Duration;

use keyferry_turn::{client::Ending, server::Config};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    bench::{Bench, LISTEN, accepted, config, exchange, in_time, relayed},
    raw::RawClient,
};

/// The client refreshes after three quarters of a lifetime, so that there is time to be slow.
const LIFETIME: Duration = Duration::from_secs(6);
/// Bytes that have come each way when a transfer is in the middle.
const BEGUN: usize = 100_000;

#[tokio::test(flavor = "multi_thread")]
async fn stale_nonces_and_short_lifetimes_are_survived() {
    let timers = Config {
        nonce_lifetime: Duration::from_secs(2),
        default_lifetime: LIFETIME,
        max_lifetime: LIFETIME,
        ..Config::default()
    };
    let bench = Bench::with(config(), timers, &LISTEN).await;
    let mut allocation = bench.allocation(false).await;
    let started = Instant::now();
    let (mut held, mut held_peer) = relayed(&allocation).await;
    while started.elapsed() < 2 * LIFETIME || bench.count(|counters| counters.stale_nonce) < 3 {
        sleep(Duration::from_secs(1)).await;
        // There can be one connection to an address of a peer (446).
        let (mut client, mut peer) = relayed(&allocation).await;
        exchange(&mut client, &mut peer, 1000).await;
    }
    let (mut client, mut peer) = accepted(&mut allocation).await;
    exchange(&mut client, &mut peer, 1000).await;
    exchange(&mut held, &mut held_peer, 1000).await;
    assert_eq!((bench.count(|counters| counters.allocated), bench.count(|counters| counters.allocations)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allocation_that_is_not_refreshed_ends() {
    let lifetime = Duration::from_secs(1);
    let timers = Config { default_lifetime: lifetime, max_lifetime: lifetime, ..Config::default() };
    let bench = Bench::with(config(), timers, &LISTEN).await;
    let mut client = RawClient::connect(&bench).await;

    let allocation = client.allocate(turn_types::AddressFamily::IPV4).await;

    assert_eq!(allocation.lifetime, 1);
    bench.until(|counters| counters.allocations, |count| count == 0).await;
    in_time(async {
        while TcpStream::connect(allocation.relayed).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let peer = "127.0.0.1:4600".parse().unwrap();
    assert_eq!(client.connect_to(peer).await, 437, "and its client has none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stops_or_dies_in_mid_transfer_is_noticed_at_once_by_both_ends() {
    for (secure, dies) in [(false, false), (false, true), (true, false), (true, true)] {
        // One of its own, with which all that the relay has is gone at once, as with a process that is killed.
        let machine = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let bench = machine.spawn(Bench::new(config())).await.unwrap();
        let mut allocation = bench.allocation(secure).await;
        let (client, peer) = relayed(&allocation).await;
        let (clients, peers) = (transfer(client), transfer(peer));
        in_time(clients.begun).await.unwrap();
        in_time(peers.begun).await.unwrap();

        end(&bench, machine, dies).await;

        for task in clients.tasks.into_iter().chain(peers.tasks) {
            in_time(task).await.unwrap();
        }
        assert!(in_time(allocation.accept()).await.is_none());
        assert_eq!(in_time(allocation.lease().ended()).await, Ending::Closed);
        assert!(in_time(allocation.connector().connect("127.0.0.1:4600".parse().unwrap())).await.is_err());
    }
}

async fn end(bench: &Bench, machine: Runtime, dies: bool) {
    if !dies {
        in_time(bench.relay.shutdown()).await;
    }
    machine.shutdown_background();
}

/// One end of a transfer in both directions, which goes on until the connection ends.
struct Transfer {
    /// Told when much has come.
    begun: oneshot::Receiver<()>,
    tasks: [JoinHandle<()>; 2],
}

fn transfer(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Transfer {
    let (mut reads, mut writes) = split(stream);
    let (begun_out, begun) = oneshot::channel();
    let writing = tokio::spawn(async move { while writes.write_all(&[7; 4096]).await.is_ok() {} });
    let reading = tokio::spawn(async move {
        reads.read_exact(&mut vec![0; BEGUN]).await.unwrap();
        begun_out.send(()).unwrap();
        while reads.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
    });
    Transfer { begun, tasks: [writing, reading] }
}
