//! What peers write into the tables of the DHTs: how much of it is taken, and the check of offers. That is work, so a task of its
//! own does it, and the swarm goes on.
//!
//! What it is not: the tables, or which of what is in them gives way.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use keyferry_proto::offer::{RecordKey, SealedOffer};
use libp2p::PeerId;
use tokio::sync::mpsc;

use super::{records::RecordRefusal, scope::AddressScope, shares::RecordSource};
use crate::base::{
    clock,
    rate_limit::{Buckets, HostLimiter, Rate},
};

/// Offers that wait for their check. One takes a fifth of a millisecond.
const MAX_UNCHECKED: usize = 256;

/// Offers that a peer, a host and all together may put: who stores some for others passes many on at once.
const PUTS: WriteRates = WriteRates {
    peer: Rate { burst: 512, interval: Duration::from_millis(100) },
    host: Rate { burst: 1024, interval: Duration::from_millis(50) },
    all: Rate { burst: 4096, interval: Duration::from_millis(5) },
};
/// Contents that they may announce: a seeder of 10,000 does so every 20 minutes, in a small DHT to every node.
const PROVISIONS: WriteRates = WriteRates {
    peer: Rate { burst: 16_384, interval: Duration::from_millis(50) },
    host: Rate { burst: 32_768, interval: Duration::from_millis(25) },
    all: Rate { burst: 65_536, interval: Duration::from_millis(2) },
};

#[derive(Debug, Clone, Copy)]
struct WriteRates {
    peer: Rate,
    host: Rate,
    all: Rate,
}

/// What was written lately, and the offers that are being checked.
pub(super) struct Writes {
    puts: WriteLimiter,
    provisions: WriteLimiter,
    unchecked: mpsc::Sender<UncheckedOffer>,
    checked: mpsc::Receiver<CheckedOffer>,
}

/// An offer that a peer has put.
pub(super) struct UncheckedOffer {
    pub(super) scope: AddressScope,
    pub(super) key: RecordKey,
    pub(super) value: Vec<u8>,
    pub(super) source: RecordSource,
    /// How long whoever puts it says to keep it.
    pub(super) until: Option<Instant>,
}

/// An offer that a peer has put, if it is sound.
pub(super) struct CheckedOffer {
    pub(super) scope: AddressScope,
    pub(super) source: RecordSource,
    pub(super) until: Option<Instant>,
    pub(super) offer: Result<SealedOffer, RecordRefusal>,
}

/// Limits what each peer and each host may write, and what all may together.
struct WriteLimiter {
    peer: Rate,
    peers: Buckets,
    hosts: HostLimiter,
}

impl WriteLimiter {
    fn new(rates: WriteRates) -> Self {
        Self { peer: rates.peer, peers: Buckets::new(), hosts: HostLimiter::new(rates.host, rates.all) }
    }

    fn take(&mut self, peer: &PeerId, host: IpAddr, now: Instant) -> bool {
        self.peers.take(peer, self.peer, now) && self.hosts.take(host, now)
    }
}

impl Writes {
    /// Begins the task that checks; it ends with this.
    pub(super) fn new() -> Self {
        let (unchecked, puts) = mpsc::channel(MAX_UNCHECKED);
        let (done, checked) = mpsc::channel(MAX_UNCHECKED);
        tokio::spawn(check(puts, done));
        Self { puts: WriteLimiter::new(PUTS), provisions: WriteLimiter::new(PROVISIONS), unchecked, checked }
    }

    /// Whether a peer may put an offer now.
    pub(super) fn may_put(&mut self, peer: &PeerId, host: IpAddr, now: Instant) -> bool {
        self.puts.take(peer, host, now)
    }

    /// Whether a peer may announce a content now.
    pub(super) fn may_provide(&mut self, peer: &PeerId, host: IpAddr, now: Instant) -> bool {
        self.provisions.take(peer, host, now)
    }

    /// Has an offer checked; false if too many wait for that.
    pub(super) fn check(&self, offer: UncheckedOffer) -> bool {
        self.unchecked.try_send(offer).is_ok()
    }

    /// The next offer that has been checked.
    pub(super) async fn checked(&mut self) -> Option<CheckedOffer> {
        self.checked.recv().await
    }
}

async fn check(mut puts: mpsc::Receiver<UncheckedOffer>, done: mpsc::Sender<CheckedOffer>) {
    while let Some(UncheckedOffer { scope, key, value, source, until }) = puts.recv().await {
        let offer = SealedOffer::parse(&value, &key, clock::now()).map_err(RecordRefusal::Unsound);
        if done.send(CheckedOffer { scope, source, until, offer }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_peer_nor_a_host_of_many_peers_may_write_without_end_and_others_still_may() {
        let (mut limiter, now) = (WriteLimiter::new(PUTS), Instant::now());
        let (stranger, friend) = ("203.0.113.1".parse().unwrap(), "198.51.100.1".parse().unwrap());
        let one = PeerId::random();
        assert_eq!((0..100_000).filter(|_| limiter.take(&one, stranger, now)).count(), 512);
        let rest = (0..100_000).filter(|_| limiter.take(&PeerId::random(), stranger, now)).count();
        assert_eq!(rest, 1024 - 512);
        assert!(limiter.take(&PeerId::random(), friend, now));
    }

    #[test]
    fn ten_thousand_contents_are_announced_at_once() {
        let (mut limiter, now) = (WriteLimiter::new(PROVISIONS), Instant::now());
        let seeder = PeerId::random();
        for round in 0..3 {
            let now = now + Duration::from_secs(20 * 60) * round;
            assert!((0..10_000).all(|_| limiter.take(&seeder, "192.0.2.1".parse().unwrap(), now)));
        }
    }
}
