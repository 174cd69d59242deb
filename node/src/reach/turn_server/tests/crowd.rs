//! Many connections at once.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::bench::{Bench, config, exchange, in_time, relayed};
use crate::reach::turn_server::{Rates, RelayConfig};

/// How many connections there are at once.
const CROWD: usize = 200;
/// What each of them gets while the others get what they can.
const ENOUGH: u64 = 64 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_connections_at_once_all_arrive_and_none_is_starved() {
    let bench = Bench::new(config()).await;
    let mut allocations = Vec::new();
    for _ in 0..8 {
        allocations.push(bench.allocation(false).await);
    }
    let idle = memory();
    let mut pairs = Vec::new();
    for number in 0..CROWD {
        pairs.push(relayed(&allocations[number % 8]).await);
    }
    assert_eq!(bench.count(|counters| counters.connections), CROWD as u64);
    let standing = memory();
    // One after the other they still carry what they should.
    for (client, peer) in &mut pairs {
        exchange(client, peer, 2000).await;
    }
    // And then all together as much as they can, until each has got something, and none ends before.
    let waiting_for = Arc::new(Semaphore::new(0));
    let all_have_some = CancellationToken::new();
    let runs: Vec<_> = pairs
        .into_iter()
        .map(|(mut client, mut peer)| {
            let (waiting_for, end) = (Arc::clone(&waiting_for), all_have_some.clone());
            tokio::spawn(async move {
                let bytes = vec![7; 16 * 1024];
                let sending = tokio::spawn(async move { while client.write_all(&bytes).await.is_ok() {} });
                let mut buffer = vec![0; 16 * 1024];
                let mut read = 0_u64;
                while let Some(got) = end.run_until_cancelled(peer.read(&mut buffer)).await {
                    let got = got.expect("it goes on") as u64;
                    assert!(got > 0, "ended early");
                    if read < ENOUGH && read + got >= ENOUGH {
                        waiting_for.add_permits(1);
                    }
                    read += got;
                }
                sending.abort();
                read
            })
        })
        .collect();
    let each = waiting_for.acquire_many(CROWD as u32);
    drop(in_time(each).await.expect("the semaphore stays open"));
    all_have_some.cancel();
    let moved: Vec<u64> = join_all(runs).await.into_iter().map(Result::unwrap).collect();
    let (least, most, sum) = (moved.iter().min().unwrap(), moved.iter().max().unwrap(), moved.iter().sum::<u64>());
    println!(
        "{CROWD} connections: {} MiB in all, each {}..{} KiB; memory of this process (both ends of each among it): {} KiB a connection",
        sum >> 20,
        least >> 10,
        most >> 10,
        (standing.saturating_sub(idle)) / CROWD as u64,
    );
    // How evenly, `keyferry-sim relay` measures.
    assert!(*least >= ENOUGH, "{least} and {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_many_connections_has_no_more_than_whoever_has_one() {
    let rates = Rates { all: Some(8_000_000), ..Rates::default() };
    let bench = Bench::new(RelayConfig { rates, ..config() }).await;
    let ada = bench.allocation(false).await;
    let bob = bench.allocation_of(false, "bob", "builder").await;
    let end = Instant::now() + Duration::from_secs(3);
    let mut runs = Vec::new();
    for number in 0..11 {
        let (mut client, mut peer) = relayed(if number == 0 { &ada } else { &bob }).await;
        runs.push(tokio::spawn(async move {
            tokio::spawn(async move { while peer.write_all(&[7; 16 * 1024]).await.is_ok() {} });
            let (mut buffer, mut read) = (vec![0; 16 * 1024], 0_u64);
            while let Ok(Ok(got @ 1..)) = tokio::time::timeout_at(end, client.read(&mut buffer)).await {
                read += got as u64;
            }
            read
        }));
    }
    let moved: Vec<u64> = join_all(runs).await.into_iter().map(Result::unwrap).collect();
    let (adas, bobs) = (moved[0], moved[1..].iter().sum::<u64>());
    println!("one connection of one: {} KiB; ten of another: {} KiB", adas >> 10, bobs >> 10);
    assert!(adas * 2 >= bobs, "{moved:?}");
}

/// Memory of this process alone, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}
