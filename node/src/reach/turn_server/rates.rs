//! How fast the relay moves bytes: token buckets for each identity, each host and all together, and whose turn it is.
//!
//! Each connection asks for a bounded number of bytes at a time. Those of one identity wait in one line; the first of each such line stands
//! in the line of its host, and the first of each of those in the line of all. So a host has one turn in each round, however many
//! identities it makes up, and an identity one in each of its host's, however many connections it has.
//!
//! What it is not: the number of bytes somebody may have in all; see [`keyferry_turn::server::Quota`].

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use keyferry_turn::server::{Holder, UserIdentity};
use tokio::time::{Instant, sleep_until};

use super::Rates;
use crate::base::rate_limit::Bucket;

/// How much may go at once after a pause, as time at the full rate.
const BURST: Duration = Duration::from_millis(250);

/// The rates of a relay, and whoever takes part in them now.
#[derive(Debug)]
pub(super) struct Shares {
    rates: Rates,
    all: Arc<FairShare>,
    hosts: FairShares<IpAddr>,
    identities: FairShares<(IpAddr, UserIdentity)>,
}

/// The part of one identity at one host. Its connections share one.
#[derive(Debug, Clone)]
pub(super) struct HolderShare {
    lines: [Arc<FairShare>; 3],
}

/// The lines of those who have connections now, of which there are as many as quotas allow.
#[derive(Debug)]
struct FairShares<K> {
    rate: Option<u64>,
    lines: Mutex<HashMap<K, Weak<FairShare>>>,
}

/// A line at a token bucket: whoever holds the lock is first. The locks of tokio are given in the order in which they are asked
/// for.
#[derive(Debug)]
struct FairShare {
    rate: Option<u64>,
    bucket: tokio::sync::Mutex<Bucket>,
}

impl Shares {
    pub(super) fn new(rates: Rates) -> Self {
        let all = Arc::new(FairShare::new(rates.all));
        Self { rates, all, hosts: FairShares::new(rates.host), identities: FairShares::new(rates.identity) }
    }

    /// The share of somebody; `None` if nothing is limited.
    pub(super) fn of(&self, holder: &Holder) -> Option<HolderShare> {
        if self.rates == Rates::default() {
            return None;
        }
        let identity = self.identities.of((holder.host, holder.identity.clone()));
        Some(HolderShare { lines: [identity, self.hosts.of(holder.host), Arc::clone(&self.all)] })
    }
}

impl HolderShare {
    /// Waits until these bytes may go. It keeps its place in one line while it waits in the next.
    pub(super) async fn take(&self, bytes: u64) {
        let mut places = Vec::with_capacity(self.lines.len());
        for line in &self.lines {
            let mut bucket = line.bucket.lock().await;
            line.pay(&mut bucket, bytes).await;
            places.push(bucket);
        }
    }
}

impl<K: Eq + Hash> FairShares<K> {
    fn new(rate: Option<u64>) -> Self {
        Self { rate, lines: Mutex::default() }
    }

    fn of(&self, key: K) -> Arc<FairShare> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, line| line.strong_count() > 0);
        if let Some(known) = lines.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let new = Arc::new(FairShare::new(self.rate));
        lines.insert(key, Arc::downgrade(&new));
        new
    }
}

impl FairShare {
    /// Makes a line at an empty bucket, so that nobody gets a burst by coming back again and again.
    fn new(rate: Option<u64>) -> Self {
        let bucket = Bucket::empty(BURST, Instant::now().into_std());
        Self { rate, bucket: tokio::sync::Mutex::new(bucket) }
    }

    async fn pay(&self, bucket: &mut Bucket, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let now = Instant::now();
        let pause = bucket.charge(cost, BURST, now.into_std());
        if !pause.is_zero() {
            sleep_until(now + pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: u64 = 1000;

    /// `ada` is at a host of her own, `ada@2` at another.
    fn holder(name: &str) -> Holder {
        let (identity, host) = name.split_once('@').unwrap_or((name, "1"));
        Holder { identity: UserIdentity::Issued(identity.to_owned()), host: format!("192.0.2.{host}").parse().unwrap() }
    }

    /// Runs connections of these identities for some seconds, and returns the bytes of each.
    async fn run(rates: Rates, connections: &[&str], seconds: u64) -> Vec<u64> {
        let shares = Arc::new(Shares::new(rates));
        let mut tasks = Vec::new();
        for name in connections {
            let share = shares.of(&holder(name)).unwrap();
            tasks.push(tokio::spawn(async move {
                let end = Instant::now() + Duration::from_secs(seconds);
                let mut bytes = 0;
                while Instant::now() < end {
                    share.take(SLICE).await;
                    bytes += SLICE;
                }
                bytes
            }));
        }
        let mut sums = Vec::new();
        for task in tasks {
            sums.push(task.await.unwrap());
        }
        sums
    }

    #[tokio::test(start_paused = true)]
    async fn an_identity_has_its_rate_however_many_connections_it_has() {
        let rates = Rates { identity: Some(100_000), ..Rates::default() };
        let sums = run(rates, &["ada", "ada", "ada", "bob"], 10).await;
        let ada: u64 = sums[..3].iter().sum();
        assert!((1_000_000..1_050_000).contains(&ada), "{sums:?}");
        assert!((1_000_000..1_050_000).contains(&sums[3]), "{sums:?}");
        assert!(sums[..3].iter().all(|sum| (320_000..350_000).contains(sum)), "in fair parts: {sums:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_have_is_shared_by_identities_and_not_by_connections() {
        let rates = Rates { all: Some(100_000), ..Rates::default() };
        let mut connections = vec!["ada"];
        connections.extend(std::iter::repeat_n("greedy", 50));
        let sums = run(rates, &connections, 10).await;
        let greedy: u64 = sums[1..].iter().sum();
        assert!((480_000..560_000).contains(&sums[0]), "ada has half: {sums:?}");
        assert!((480_000..560_000).contains(&greedy), "{greedy}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_with_many_identities_has_no_more_than_a_host_with_one() {
        let rates = Rates { all: Some(100_000), ..Rates::default() };
        let made_up: Vec<String> = (0..50).map(|number| format!("sybil{number}@2")).collect();
        let mut connections = vec!["ada"];
        connections.extend(made_up.iter().map(String::as_str));
        let sums = run(rates, &connections, 10).await;
        assert!((480_000..560_000).contains(&sums[0]), "ada has half: {sums:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_worth_a_burst_and_no_more() {
        let shares = Shares::new(Rates { identity: Some(1000), ..Rates::default() });
        let share = shares.of(&holder("ada")).unwrap();
        tokio::time::advance(Duration::from_secs(3600)).await;
        let start = Instant::now();
        share.take(250).await;
        assert_eq!(Instant::now(), start);
        share.take(1000).await;
        assert_eq!(Instant::now() - start, Duration::from_secs(1));
    }

    #[tokio::test]
    async fn nothing_is_waited_for_where_nothing_is_limited_and_those_who_left_are_forgotten() {
        assert!(Shares::new(Rates::default()).of(&holder("ada")).is_none());
        let shares = Shares::new(Rates { identity: Some(1), ..Rates::default() });
        for i in 0..100 {
            drop(shares.of(&holder(&i.to_string())));
        }
        assert_eq!(shares.identities.lines.lock().unwrap().len(), 1);
    }
}
