//! How many requests one peer, one host and all of them together may make in a given time: token buckets.
//!
//! Peers and hosts share a fixed number of buckets by a hash that nobody can foretell, so that memory is bounded whatever
//! comes; who asks too much takes its few bucket-mates down with it.
//!
//! What it is not: a quota of the relay itself.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use keyferry_net::ip::host_of;

/// Buckets for all peers, and for all hosts.
const BUCKETS: usize = 1024;
/// What one rendezvous peer may ask.
const PEER: Rate = Rate { burst: 4, pause: Duration::from_secs(30) };
/// What one host may ask; many nodes may be behind one address.
const HOST: Rate = Rate { burst: 32, pause: Duration::from_secs(5) };
/// What all may ask: every request costs two multiplications on the curve.
const ALL: Rate = Rate { burst: 256, pause: Duration::from_millis(20) };

/// The requests that may still be made.
pub(in super::super) struct Allowance {
    hasher: RandomState,
    peers: Vec<Bucket>,
    hosts: Vec<Bucket>,
    all: Bucket,
}

/// How many at once, and how long it takes until one more.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    pause: Duration,
}

/// A token bucket, as the moment at which it is full again; none while it is full.
type Bucket = Option<Instant>;

impl Allowance {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), peers: vec![None; BUCKETS], hosts: vec![None; BUCKETS], all: None }
    }

    /// Takes one request of a peer at a host; false if one of them has had enough, or all have.
    pub(super) fn take(&mut self, peer: PeerId, host: IpAddr, now: Instant) -> bool {
        let (peer, host) = (self.index(peer), self.index(host_of(host)));
        // Who is over its own limit must not use up those of others.
        PEER.take(&mut self.peers[peer], now) && HOST.take(&mut self.hosts[host], now) && ALL.take(&mut self.all, now)
    }

    fn index(&self, key: impl Hash) -> usize {
        self.hasher.hash_one(key) as usize % BUCKETS
    }
}

impl Rate {
    fn take(self, bucket: &mut Bucket, now: Instant) -> bool {
        let full_at = bucket.map_or(now, |at| at.max(now)) + self.pause;
        let is_enough = full_at <= now + self.pause * self.burst;
        if is_enough {
            *bucket = Some(full_at);
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[test]
    fn a_peer_gets_its_burst_and_then_its_rate() {
        let (mut allowance, now, peer) = (Allowance::new(), Instant::now(), PeerId::random());
        assert_eq!((0..100).filter(|_| allowance.take(peer, host(1), now)).count(), PEER.burst as usize);
        let later = now + PEER.pause * 2;
        assert_eq!((0..100).filter(|_| allowance.take(peer, host(1), later)).count(), 2);
    }

    #[test]
    fn a_host_does_not_get_more_by_new_peers_and_leaves_enough_for_others() {
        let (mut allowance, now) = (Allowance::new(), Instant::now());
        let greedy = (0..10_000).filter(|_| allowance.take(PeerId::random(), host(1), now)).count();
        assert!(greedy <= HOST.burst as usize, "{greedy}");
        let others = (2..10_000).filter(|number| allowance.take(PeerId::random(), host(*number), now)).count();
        assert!(others > 0 && greedy + others <= ALL.burst as usize, "{others}");
    }
}
