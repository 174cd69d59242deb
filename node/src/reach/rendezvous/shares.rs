//! What gives way in a table that strangers fill when it is full: of the network that has left most there, whatever is farthest from
//! this node's own place in the DHT. So each network has a share for certain, however many keys another one makes up, and none is
//! limited while there is room.
//!
//! What it is not: the table.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use keyferry_net::ip::{Class, host_of};
use libp2p::kad::KBucketDistance;

/// What counts as one who leaves things in a table: on the internet a network (an IPv4 /24, an IPv6 /48), since addresses next to
/// each other cost little; a host in the local network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum RecordSource {
    Network(IpAddr),
    /// What was read from disk: nobody knows any more from whom it came.
    Unknown,
}

impl RecordSource {
    /// The source of what comes from an address.
    pub(super) fn of(ip: IpAddr) -> RecordSource {
        let ip = ip.to_canonical();
        RecordSource::Network(match (Class::of(ip), ip) {
            (Class::Global, IpAddr::V4(v4)) => IpAddr::V4((v4.to_bits() & (u32::MAX << 8)).into()),
            (Class::Global, IpAddr::V6(v6)) => IpAddr::V6((v6.to_bits() & (u128::MAX << 80)).into()),
            _ => host_of(ip),
        })
    }
}

/// Who has left what in a table.
#[derive(Debug)]
pub(super) struct TableShares<K> {
    sources: HashMap<RecordSource, BTreeSet<(KBucketDistance, K)>>,
    /// How much each has left, with the farthest of it.
    by_size: BTreeSet<(usize, KBucketDistance, RecordSource)>,
    len: usize,
}

impl<K> Default for TableShares<K> {
    fn default() -> Self {
        Self { sources: HashMap::new(), by_size: BTreeSet::new(), len: 0 }
    }
}

impl<K: Ord + Clone> TableShares<K> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How much a source has left.
    pub(super) fn count(&self, source: RecordSource) -> usize {
        self.sources.get(&source).map_or(0, BTreeSet::len)
    }

    pub(super) fn insert(&mut self, source: RecordSource, distance: KBucketDistance, key: K) {
        self.change(source, |own| own.insert((distance, key)));
    }

    pub(super) fn remove(&mut self, source: RecordSource, distance: KBucketDistance, key: &K) {
        self.change(source, |own| own.remove(&(distance, key.clone())));
    }

    /// What has to go for something new of this source at this distance; none if it is the new thing itself.
    pub(super) fn victim(&self, source: RecordSource, distance: KBucketDistance) -> Option<K> {
        let (most, _, busiest) = *self.by_size.last()?;
        let with_new = self.count(source) + 1;
        let loser = if with_new > most { source } else { busiest };
        let (farthest, key) = self.sources.get(&loser)?.last()?;
        (with_new < most || *farthest > distance).then(|| key.clone())
    }

    fn change(&mut self, source: RecordSource, change: impl FnOnce(&mut BTreeSet<(KBucketDistance, K)>) -> bool) {
        let own = self.sources.entry(source).or_default();
        let before = own.len();
        if let Some((farthest, _)) = own.last() {
            self.by_size.remove(&(before, *farthest, source));
        }
        change(own);
        self.len = self.len + own.len() - before;
        match own.last() {
            Some((farthest, _)) => drop(self.by_size.insert((own.len(), *farthest, source))),
            None => drop(self.sources.remove(&source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{PeerId, kad::KBucketKey};

    use super::*;

    fn source(text: &str) -> RecordSource {
        RecordSource::of(text.parse().unwrap())
    }

    #[test]
    fn neighbours_on_the_internet_are_one_source_and_in_a_house_they_are_not() {
        assert_eq!(source("203.0.113.1"), source("203.0.113.200"));
        assert_eq!(source("203.0.113.1"), source("::ffff:203.0.113.9"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:ff::9"));
        assert_ne!(source("2001:db8:1::1"), source("2001:db8:2::1"));
        assert_ne!(source("192.168.1.1"), source("192.168.1.2"));
        assert_ne!(source("127.0.0.1"), source("127.0.0.2"));
    }

    #[test]
    fn the_busiest_gives_way_with_its_farthest_and_among_equals_whatever_is_farthest() {
        let own = KBucketKey::from(PeerId::random());
        let mut distances: Vec<_> = (0..7).map(|_| own.distance(&KBucketKey::from(PeerId::random()))).collect();
        distances.sort();
        let [busy, quiet, new] = ["192.0.2.1", "198.51.100.1", "203.0.113.1"].map(source);
        let mut shares = TableShares::default();
        for number in [1, 2, 3] {
            shares.insert(busy, distances[number], number);
        }
        shares.insert(quiet, distances[6], 6);

        assert_eq!(shares.victim(new, distances[5]), Some(3), "however far the new thing is");
        assert_eq!(shares.victim(busy, distances[0]), Some(3), "its own");
        assert_eq!(shares.victim(busy, distances[5]), None);
        shares.remove(busy, distances[3], &3);
        shares.remove(busy, distances[2], &2);
        assert_eq!((shares.len(), shares.count(busy)), (2, 1));
        assert_eq!(shares.victim(new, distances[5]), Some(6));
        shares.remove(quiet, distances[6], &6);
        shares.remove(busy, distances[1], &1);
        assert_eq!((shares.len(), shares.by_size.len(), shares.sources.len()), (0, 0, 0));
    }
}
