//! Token buckets: how often something may happen, at once and in the long run.
//!
//! A bucket is kept as the moment at which it is full again. The caller says what time it is, and brings the rate along.
//!
//! What it is not: fair queueing, which says whose turn it is when everybody waits.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    time::{Duration, Instant},
};

use keyferry_net::ip::host_of;

/// The number of buckets that all keys share.
const BUCKETS: usize = 4096;

/// How many tokens a full bucket holds, and how long it takes until there is one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) interval: Duration,
}

/// A token bucket. It starts full.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    /// `None` while it has never been touched.
    full_at: Option<Instant>,
}

/// The buckets of strangers, who may bring any number of keys.
///
/// Keys share a fixed number of buckets by a hash that nobody can predict, so memory stays bounded whatever comes. A key that asks
/// too much also hurts the few that share its bucket.
#[derive(Debug)]
pub(crate) struct Buckets {
    hasher: RandomState,
    buckets: Box<[Bucket]>,
}

/// Limits what each host may do, and what all hosts may do together.
#[derive(Debug)]
pub(crate) struct HostLimiter {
    each: Rate,
    all: Rate,
    hosts: Buckets,
    sum: Bucket,
}

impl Bucket {
    /// Takes one token; false if there is none.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let full_at = self.refilled(now) + rate.interval;
        let is_enough = full_at <= now + rate.interval * rate.burst;
        if is_enough {
            self.full_at = Some(full_at);
        }
        is_enough
    }

    fn refilled(&self, now: Instant) -> Instant {
        self.full_at.map_or(now, |at| at.max(now))
    }
}

/// Buckets on credit, by which relayed bytes are paid for.
#[cfg(any(feature = "turn-server", test))]
impl Bucket {
    /// Makes a bucket that has to fill first; `burst` is how long that takes.
    pub(crate) fn empty(burst: Duration, now: Instant) -> Self {
        Self { full_at: Some(now + burst) }
    }

    /// Takes what needs the time `cost` to flow back, on credit if need be, and returns how long to wait until that is paid.
    /// `burst` is how long an empty bucket takes to fill.
    pub(crate) fn charge(&mut self, cost: Duration, burst: Duration, now: Instant) -> Duration {
        let full_at = self.refilled(now) + cost;
        self.full_at = Some(full_at);
        full_at.saturating_duration_since(now + burst)
    }
}

impl Buckets {
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), buckets: vec![Bucket::default(); BUCKETS].into() }
    }

    /// Takes one token from the bucket of a key; false if there is none.
    pub(crate) fn take(&mut self, key: impl Hash, rate: Rate, now: Instant) -> bool {
        let index = self.hasher.hash_one(key) % BUCKETS as u64;
        self.buckets[index as usize].take(rate, now)
    }
}

impl HostLimiter {
    pub(crate) fn new(each: Rate, all: Rate) -> Self {
        Self { each, all, hosts: Buckets::new(), sum: Bucket::default() }
    }

    /// Takes one token for the host of an address; false if the host has had enough, or all have.
    pub(crate) fn take(&mut self, host: IpAddr, now: Instant) -> bool {
        // A host that is over its own limit must not use up that of all.
        self.hosts.take(host_of(host), self.each, now) && self.sum.take(self.all, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Rate = Rate { burst: 64, interval: Duration::from_millis(125) };
    const ALL: Rate = Rate { burst: 2048, interval: Duration::from_micros(500) };

    fn host(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        assert_eq!((0..1000).filter(|_| bucket.take(EACH, now)).count(), 64);
        assert!(!bucket.take(EACH, now + EACH.interval / 2));
        let later = now + EACH.interval * 3;
        assert_eq!((0..1000).filter(|_| bucket.take(EACH, later)).count(), 3);
        let much_later = now + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| bucket.take(EACH, much_later)).count(), 64, "no more than it holds");
    }

    #[test]
    fn what_was_refused_costs_nothing() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        assert_eq!((0..100_000).filter(|_| bucket.take(EACH, now)).count(), 64);
        assert!(bucket.take(EACH, now + EACH.interval));
    }

    #[test]
    fn credit_is_waited_for_and_a_pause_is_worth_a_burst() {
        let (burst, now) = (Duration::from_millis(250), Instant::now());
        let second = Duration::from_secs(1);
        let mut bucket = Bucket::empty(burst, now);
        assert_eq!(bucket.charge(second, burst, now), second, "it starts empty");
        let paused = now + Duration::from_secs(3600);
        assert_eq!(bucket.charge(burst, burst, paused), Duration::ZERO);
        assert_eq!(bucket.charge(second, burst, paused), second);
        assert_eq!(bucket.charge(second, burst, paused), 2 * second, "debts add up");
        assert_eq!(Bucket::default().charge(burst, burst, now), Duration::ZERO, "another starts full");
    }

    #[test]
    fn one_host_does_not_starve_others_and_many_cannot_have_more_than_all() {
        let (mut limiter, now) = (HostLimiter::new(EACH, ALL), Instant::now());
        assert_eq!((0..100_000).filter(|_| limiter.take(host(0), now)).count(), 64);
        assert_eq!((1..100_000).filter(|number| limiter.take(host(*number), now)).count(), 2048 - 64);
    }

    #[test]
    fn addresses_of_one_host_share_its_bucket() {
        let (mut limiter, now) = (HostLimiter::new(EACH, ALL), Instant::now());
        let in_one_64 = (0..1000_u128).map(|low| IpAddr::from((0x2001_0db8_u128 << 96 | low).to_be_bytes()));
        assert_eq!(in_one_64.filter(|ip| limiter.take(*ip, now)).count(), 64);
    }

    #[test]
    fn any_number_of_keys_takes_the_same_memory() {
        let (mut buckets, now) = (Buckets::new(), Instant::now());
        let once = Rate { burst: 1, interval: Duration::from_secs(1) };
        let given = (0..100_000).filter(|key| buckets.take(key, once, now)).count();
        assert!((BUCKETS * 9 / 10..=BUCKETS).contains(&given), "{given}");
        assert_eq!(buckets.buckets.len(), BUCKETS);
    }
}
