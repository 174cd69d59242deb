//! Who provides which content, as far as a node of a DHT stores that for others.
//!
//! Nobody owns it: in a full list the network gives way that has most providers there, in a full table the one that has most
//! records ([`super::shares`]). Among networks that have as many in a list, it is a matter of luck, which nobody can try out: neither
//! who came first nor who came last.
//!
//! What it is not: what this node provides itself.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::Instant,
};

use libp2p::{
    PeerId,
    kad::{self, KBucketKey, ProviderRecord},
};

use super::{
    scope::socket_addr_of,
    shares::{RecordSource, TableShares},
};

/// Provider records that a node stores, for one DHT: a twentieth of a hundred nodes' share of an honest seeder with 10,000
/// contents is 2,000 of them.
pub(super) const MAX_PROVIDER_RECORDS: usize = 16_384;
/// Providers that a node stores for one content.
pub(super) const MAX_PROVIDERS_PER_KEY: usize = 20;
/// Addresses that a node stores for one provider.
pub(super) const MAX_PROVIDER_ADDRS: usize = 8;

/// The lists.
pub(super) struct ProviderLists {
    own: KBucketKey<PeerId>,
    lists: HashMap<kad::RecordKey, Vec<StoredProvider>>,
    shares: TableShares<(Vec<u8>, PeerId)>,
    luck: RandomState,
}

struct StoredProvider {
    record: ProviderRecord,
    source: RecordSource,
    since: Instant,
}

impl ProviderLists {
    pub(super) fn new(own: PeerId) -> Self {
        Self {
            own: KBucketKey::from(own),
            lists: HashMap::new(),
            shares: TableShares::default(),
            luck: RandomState::new(),
        }
    }

    /// Takes a record whose addresses are those of its provider; false if others have a better right to the place.
    pub(super) fn add(&mut self, mut record: ProviderRecord, now: Instant) -> bool {
        record.addresses.truncate(MAX_PROVIDER_ADDRS);
        let source = record
            .addresses
            .first()
            .and_then(socket_addr_of)
            .map_or(RecordSource::Unknown, |at| RecordSource::of(at.ip()));
        let since = self.since(&record).unwrap_or(now);
        self.remove(&record.key, &record.provider);
        let stored = StoredProvider { record, source, since };
        if !self.make_room_in_list(&stored, now) || !self.make_room(&stored) {
            return false;
        }
        let distance = self.own.distance(&KBucketKey::new(stored.record.key.clone()));
        self.shares.insert(source, distance, (stored.record.key.to_vec(), stored.record.provider));
        self.lists.entry(stored.record.key.clone()).or_default().push(stored);
        true
    }

    /// The providers of a content.
    pub(super) fn of(&self, key: &kad::RecordKey) -> impl Iterator<Item = &ProviderRecord> {
        self.lists.get(key).into_iter().flatten().map(|stored| &stored.record)
    }

    pub(super) fn remove(&mut self, key: &kad::RecordKey, provider: &PeerId) {
        let Some(list) = self.lists.get_mut(key) else { return };
        let Some(at) = list.iter().position(|stored| stored.record.provider == *provider) else { return };
        let gone = list.remove(at);
        if list.is_empty() {
            self.lists.remove(key);
        }
        let distance = self.own.distance(&KBucketKey::new(key.clone()));
        self.shares.remove(gone.source, distance, &(key.to_vec(), *provider));
    }

    /// Forgets what has expired.
    pub(super) fn sweep(&mut self, now: Instant) {
        let stored = self.lists.values().flatten().filter(|stored| stored.record.is_expired(now));
        let expired: Vec<_> = stored.map(|stored| (stored.record.key.clone(), stored.record.provider)).collect();
        expired.iter().for_each(|(key, provider)| self.remove(key, provider));
    }

    fn since(&self, record: &ProviderRecord) -> Option<Instant> {
        let list = self.lists.get(&record.key)?;
        list.iter().find(|stored| stored.record.provider == record.provider).map(|stored| stored.since)
    }

    fn make_room_in_list(&mut self, new: &StoredProvider, now: Instant) -> bool {
        let Some(list) = self.lists.get(&new.record.key) else { return true };
        if list.len() < MAX_PROVIDERS_PER_KEY {
            return true;
        }
        let mut counts: HashMap<RecordSource, usize> = HashMap::from([(new.source, 1)]);
        list.iter().for_each(|stored| *counts.entry(stored.source).or_default() += 1);
        let right = |stored: &StoredProvider| {
            let luck = self.luck.hash_one((&stored.record.key, stored.source));
            (
                !stored.record.is_expired(now),
                std::cmp::Reverse(counts[&stored.source]),
                luck,
                std::cmp::Reverse(stored.since),
            )
        };
        let Some(least) = list.iter().min_by_key(|stored| right(stored)) else { return true };
        if right(new) <= right(least) {
            return false;
        }
        let least = least.record.provider;
        self.remove(&new.record.key, &least);
        true
    }

    fn make_room(&mut self, new: &StoredProvider) -> bool {
        if self.shares.len() < MAX_PROVIDER_RECORDS {
            return true;
        }
        let distance = self.own.distance(&KBucketKey::new(new.record.key.clone()));
        let Some((key, provider)) = self.shares.victim(new.source, distance) else { return false };
        self.remove(&kad::RecordKey::new(&key), &provider);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(number: u32) -> kad::RecordKey {
        kad::RecordKey::new(blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn record(key: kad::RecordKey, provider: PeerId, host: &str, now: Instant) -> ProviderRecord {
        let addr = format!("/ip4/{host}/tcp/7").parse().unwrap();
        ProviderRecord {
            expires: Some(now + Duration::from_secs(3600)),
            ..ProviderRecord::new(key, provider, vec![addr])
        }
    }

    #[test]
    fn a_network_that_fills_a_list_gives_way_to_whoever_comes_from_another() {
        let (mut lists, now) = (ProviderLists::new(PeerId::random()), Instant::now());
        let first = PeerId::random();
        for number in 0..100 {
            let peer = if number == 0 { first } else { PeerId::random() };
            let now = now + Duration::from_secs(number);
            lists.add(record(key(1), peer, &format!("203.0.113.{number}"), now), now);
        }
        assert_eq!(lists.of(&key(1)).count(), MAX_PROVIDERS_PER_KEY);
        for number in 1..MAX_PROVIDERS_PER_KEY {
            assert!(lists.add(record(key(1), PeerId::random(), &format!("198.51.{number}.1"), now), now));
        }
        assert!(!lists.add(record(key(1), PeerId::random(), "203.0.113.7", now), now));
        let left: Vec<_> = lists.of(&key(1)).map(|record| record.provider).collect();
        assert_eq!(left.len(), MAX_PROVIDERS_PER_KEY);
        assert!(left.contains(&first), "of one network, who has been there longest stays");
    }

    #[test]
    fn among_networks_that_have_as_many_neither_the_first_nor_the_last_stay() {
        let (mut lists, now) = (ProviderLists::new(PeerId::random()), Instant::now());
        let peers: Vec<_> = (0..200).map(|_| PeerId::random()).collect();
        for (number, peer) in peers.iter().enumerate() {
            lists.add(record(key(1), *peer, &format!("198.51.{number}.1"), now), now);
        }
        let left: Vec<_> = lists.of(&key(1)).map(|record| record.provider).collect();
        assert_eq!(left.len(), MAX_PROVIDERS_PER_KEY);
        assert!(peers[..MAX_PROVIDERS_PER_KEY].iter().any(|peer| !left.contains(peer)));
        assert!(peers[200 - MAX_PROVIDERS_PER_KEY..].iter().any(|peer| !left.contains(peer)));
        // Whoever stays, stays: to announce again changes nothing.
        for peer in peers.iter().filter(|peer| left.contains(peer)) {
            let number = peers.iter().position(|other| other == peer).unwrap();
            assert!(lists.add(record(key(1), *peer, &format!("198.51.{number}.1"), now), now));
        }
    }

    #[test]
    fn a_seeder_of_ten_thousand_contents_keeps_its_records_beside_one_who_floods() {
        let (mut lists, now) = (ProviderLists::new(PeerId::random()), Instant::now());
        // Of 100 nodes, 20 store each content.
        let (seeder, own) = (PeerId::random(), 10_000 * 20 / 100);
        for number in 0..own {
            assert!(lists.add(record(key(number), seeder, "192.0.2.1", now), now));
        }
        let stranger = PeerId::random();
        for number in 1_000_000..1_000_000 + 3 * MAX_PROVIDER_RECORDS as u32 {
            lists.add(record(key(number), stranger, "203.0.113.1", now), now);
        }
        assert_eq!(lists.shares.len(), MAX_PROVIDER_RECORDS);
        let kept = (0..own).filter(|number| lists.of(&key(*number)).any(|record| record.provider == seeder)).count();
        assert_eq!(kept, own as usize);
        assert!(lists.add(record(key(u32::MAX), PeerId::random(), "198.51.100.1", now), now), "and others have room");
        assert_eq!(lists.shares.len(), MAX_PROVIDER_RECORDS);
    }

    #[test]
    fn what_expires_is_forgotten_everywhere() {
        let (mut lists, now) = (ProviderLists::new(PeerId::random()), Instant::now());
        lists.add(record(key(1), PeerId::random(), "192.0.2.1", now), now);
        lists.sweep(now + Duration::from_secs(3601));
        assert!(lists.lists.is_empty());
        assert_eq!(lists.shares.len(), 0);
    }
}
