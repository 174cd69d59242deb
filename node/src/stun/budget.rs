//! How many answers one host, and all hosts together, get in a given time: token buckets.
//!
//! Hosts share a fixed number of buckets by a hash that nobody can foretell, so that memory is bounded whatever comes; a
//! host that asks too much takes its few bucket-mates down with it.
//!
//! What it is not: a limit on connections; see [`super::front`].

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use keyferry_net::ip::host_of;
use tokio::time::Instant;

/// Buckets for all hosts.
const BUCKETS: usize = 4096;
/// Answers that one host may have at once.
const HOST_BURST: u32 = 64;
/// How often one host may have one more: eight in a second.
const HOST_PAUSE: Duration = Duration::from_millis(125);
/// Answers that all hosts may have at once.
const ALL_BURST: u32 = 2048;
/// How often all hosts together may have one more: two thousand in a second.
const ALL_PAUSE: Duration = Duration::from_micros(500);

/// The answers that may still be given.
#[derive(Debug)]
pub(super) struct Budget {
    hasher: RandomState,
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    hosts: Vec<Bucket>,
    all: Bucket,
}

/// A token bucket, as the moment at which it is full again.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at: Instant,
}

impl Budget {
    pub(super) fn new() -> Self {
        let bucket = Bucket { full_at: Instant::now() };
        Self { hasher: RandomState::new(), buckets: Mutex::new(Buckets { hosts: vec![bucket; BUCKETS], all: bucket }) }
    }

    /// Takes one answer for `host`; false if it has had enough, or all have.
    pub(super) fn take(&self, host: IpAddr) -> bool {
        let now = Instant::now();
        let index = self.hasher.hash_one(host_of(host)) % BUCKETS as u64;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Buckets { hosts, all } = &mut *buckets;
        // A host that is over its own limit must not use up that of all.
        match hosts.get_mut(index as usize) {
            Some(own) => own.take(now, HOST_PAUSE, HOST_BURST) && all.take(now, ALL_PAUSE, ALL_BURST),
            None => false,
        }
    }
}

impl Bucket {
    fn take(&mut self, now: Instant, pause: Duration, burst: u32) -> bool {
        let full_at = self.full_at.max(now) + pause;
        let enough = full_at <= now + pause * burst;
        if enough {
            self.full_at = full_at;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_gets_its_burst_and_then_its_rate() {
        let budget = Budget::new();
        let host = "192.0.2.1".parse().unwrap();
        assert_eq!((0..1000).filter(|_| budget.take(host)).count(), HOST_BURST as usize);
        tokio::time::advance(HOST_PAUSE * 3).await;
        assert_eq!((0..1000).filter(|_| budget.take(host)).count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_host_does_not_starve_others_and_many_cannot_have_more_than_all() {
        let budget = Budget::new();
        let greedy = "192.0.2.1".parse().unwrap();
        let given_to_greedy = (0..100_000).filter(|_| budget.take(greedy)).count();
        let others = (0..100_000u32).map(|i| IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + i)));
        let given = others.filter(|host| budget.take(*host)).count();
        assert_eq!(given_to_greedy, HOST_BURST as usize);
        assert_eq!(given, (ALL_BURST - HOST_BURST) as usize);
    }
}
