//! What a node stores for one DHT: offers, checked before they are taken, and who provides which content.
//!
//! Bounded in every direction. When there is no room, the record goes that is farthest from this node's own place in the DHT:
//! lookups ask the nodes that are closest to a key.
//!
//! What it is not: the disk. Changes are collected for [`Table::take_changes`], and [`super::record_store`] writes them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, hash_map},
    time::Instant,
};

use keyferry_net::time::UnixTime;
use keyferry_proto::offer::{RecordError, RecordKey, SealedOffer, supersedes};
use libp2p::{
    PeerId,
    kad::{
        self, KBucketDistance, KBucketKey, ProviderRecord, Record,
        store::{Error as StoreError, RecordStore, Result as StoreResult},
    },
};

use super::counters::WhichCounter;
use crate::base::clock;

/// Contents that a node may announce.
pub const MAX_PROVIDED: usize = 4096;
/// Offers that a node stores for one DHT; each has [`keyferry_proto::offer::SEALED_LEN`] bytes.
pub(super) const MAX_RECORDS: usize = 4096;
/// Contents for which a node stores providers, for one DHT.
pub(super) const MAX_PROVIDER_KEYS: usize = 4096;
/// Providers that a node stores for one content.
pub(super) const MAX_PROVIDERS_PER_KEY: usize = 20;
/// Addresses that a node stores for one provider.
pub(super) const MAX_PROVIDER_ADDRS: usize = 8;

/// Why a record from a peer was not stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RecordRefusal {
    /// It is not a sound record of its key.
    Unsound(RecordError),
    /// The key does not have 32 bytes.
    NotAKey,
    /// A record with the same or a greater sequence number is there.
    NotNewer,
    /// There is no room for a record that is this far away.
    Full,
}

/// The offers and providers that a node stores for one DHT.
pub(super) struct Table {
    own: KBucketKey<PeerId>,
    offers: HashMap<kad::RecordKey, Stored>,
    by_distance: BTreeSet<(KBucketDistance, [u8; 32])>,
    providers: HashMap<kad::RecordKey, Vec<ProviderRecord>>,
    provided: HashMap<kad::RecordKey, ProviderRecord>,
    changes: BTreeMap<[u8; 32], Option<Vec<u8>>>,
}

/// An offer with what is needed to make room for others. Who put it is not kept, even where the record named a publisher.
pub(super) struct Stored {
    offer: SealedOffer,
    expires: Instant,
    distance: KBucketDistance,
    /// Whether this node published it itself.
    is_own: bool,
}

impl Stored {
    fn record(&self, key: &kad::RecordKey) -> Record {
        Record { key: key.clone(), value: self.offer.as_bytes().to_vec(), publisher: None, expires: Some(self.expires) }
    }
}

impl RecordRefusal {
    /// The counter of such refusals.
    pub(super) fn counter(&self) -> WhichCounter {
        match self {
            RecordRefusal::Unsound(RecordError::Version { .. }) => |counters| &counters.record_refused_version,
            RecordRefusal::Unsound(RecordError::Length { .. }) => |counters| &counters.record_refused_length,
            RecordRefusal::Unsound(RecordError::WrongKey { .. }) => |counters| &counters.record_refused_wrong_key,
            RecordRefusal::Unsound(RecordError::BadSignature) => |counters| &counters.record_refused_bad_signature,
            RecordRefusal::Unsound(RecordError::Expired { .. }) => |counters| &counters.record_refused_expired,
            RecordRefusal::Unsound(RecordError::FromTheFuture { .. } | RecordError::WrongDay { .. }) => {
                |counters| &counters.record_refused_wrong_time
            }
            RecordRefusal::NotAKey => |counters| &counters.record_refused_malformed,
            RecordRefusal::NotNewer => |counters| &counters.record_refused_not_newer,
            RecordRefusal::Full => |counters| &counters.record_refused_full,
        }
    }
}

impl Table {
    pub(super) fn new(own: PeerId) -> Self {
        Self {
            own: KBucketKey::from(own),
            offers: HashMap::new(),
            by_distance: BTreeSet::new(),
            providers: HashMap::new(),
            provided: HashMap::new(),
            changes: BTreeMap::new(),
        }
    }

    /// Takes a record if it is sound and newer than what is there. The same record again changes nothing.
    pub(super) fn accept(&mut self, record: &Record, now: UnixTime) -> Result<(), RecordRefusal> {
        let key = record_key_of(&record.key).ok_or(RecordRefusal::NotAKey)?;
        let offer = SealedOffer::parse(&record.value, &key, now).map_err(RecordRefusal::Unsound)?;
        self.insert(offer, now, false)
    }

    /// Takes an offer that this node publishes itself, unless there is a newer one: somebody with the same node key has published
    /// that elsewhere, and it stays.
    pub(super) fn keep_own(&mut self, offer: SealedOffer, now: UnixTime) -> Result<(), RecordRefusal> {
        self.insert(offer, now, true)
    }

    fn insert(&mut self, offer: SealedOffer, now: UnixTime, is_own: bool) -> Result<(), RecordRefusal> {
        let key = offer.key();
        let kad_key = kad_key_of(&key);
        match self.offers.get(&kad_key) {
            Some(stored) if stored.offer == offer => return Ok(()),
            Some(stored) if !supersedes(&offer, &stored.offer) => return Err(RecordRefusal::NotNewer),
            _ => {}
        }
        let distance = self.own.distance(&KBucketKey::new(kad_key.clone()));
        if !self.offers.contains_key(&kad_key) {
            self.make_room(distance)?;
        }
        let expires = Instant::now() + offer.expires().since(now);
        self.by_distance.insert((distance, *key.as_bytes()));
        self.changes.insert(*key.as_bytes(), (!is_own).then(|| offer.as_bytes().to_vec()));
        self.offers.insert(kad_key, Stored { offer, expires, distance, is_own });
        Ok(())
    }

    /// The offer under a key, if there is one that is still good.
    pub(super) fn offer(&self, key: &RecordKey, now: UnixTime) -> Option<SealedOffer> {
        let stored = self.offers.get(&kad_key_of(key))?;
        (stored.offer.expires() > now).then(|| stored.offer.clone())
    }

    /// How many offers are stored.
    pub(super) fn len(&self) -> usize {
        self.offers.len()
    }

    /// Forgets what has expired.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        let expired: Vec<_> =
            self.offers.iter().filter(|(_, stored)| stored.expires <= now).map(|(key, _)| key.clone()).collect();
        expired.iter().for_each(|key| self.remove(key));
        self.providers.retain(|_, list| {
            list.retain(|record| !record.is_expired(now));
            !list.is_empty()
        });
    }

    /// What has changed since the last call: the new bytes under a key, or none where the record is gone.
    pub(super) fn take_changes(&mut self) -> BTreeMap<[u8; 32], Option<Vec<u8>>> {
        std::mem::take(&mut self.changes)
    }

    /// Whether [`Self::take_changes`] has something to give.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    fn make_room(&mut self, distance: KBucketDistance) -> Result<(), RecordRefusal> {
        if self.offers.len() < MAX_RECORDS {
            return Ok(());
        }
        match self.by_distance.last() {
            Some((farthest, key)) if *farthest > distance => {
                let key = kad::RecordKey::new(key);
                self.remove(&key);
                Ok(())
            }
            _ => Err(RecordRefusal::Full),
        }
    }
}

impl RecordStore for Table {
    type RecordsIter<'a> = std::iter::FilterMap<
        hash_map::Iter<'a, kad::RecordKey, Stored>,
        fn((&'a kad::RecordKey, &'a Stored)) -> Option<Cow<'a, Record>>,
    >;
    type ProvidedIter<'a> = std::iter::Map<
        hash_map::Values<'a, kad::RecordKey, ProviderRecord>,
        fn(&'a ProviderRecord) -> Cow<'a, ProviderRecord>,
    >;

    fn get(&self, key: &kad::RecordKey) -> Option<Cow<'_, Record>> {
        self.offers.get(key).map(|stored| Cow::Owned(stored.record(key)))
    }

    fn put(&mut self, record: Record) -> StoreResult<()> {
        self.accept(&record, clock::now()).map_err(|_| StoreError::MaxRecords)
    }

    fn remove(&mut self, key: &kad::RecordKey) {
        if let (Some(stored), Some(bytes)) = (self.offers.remove(key), record_key_of(key)) {
            self.by_distance.remove(&(stored.distance, *bytes.as_bytes()));
            self.changes.insert(*bytes.as_bytes(), None);
        }
    }

    /// What libp2p passes on to other nodes at regular times. Not what this node publishes itself: that it puts two days' offers
    /// at one moment would show that they are of one node.
    fn records(&self) -> Self::RecordsIter<'_> {
        self.offers.iter().filter_map(|(key, stored)| match stored.is_own {
            true => None,
            false => Some(Cow::Owned(stored.record(key))),
        })
    }

    fn add_provider(&mut self, mut record: ProviderRecord) -> StoreResult<()> {
        record.addresses.truncate(MAX_PROVIDER_ADDRS);
        if record.provider == *self.own.preimage() {
            if self.provided.len() >= MAX_PROVIDED && !self.provided.contains_key(&record.key) {
                return Err(StoreError::MaxProvidedKeys);
            }
            self.provided.insert(record.key.clone(), record);
            return Ok(());
        }
        if self.providers.len() >= MAX_PROVIDER_KEYS && !self.providers.contains_key(&record.key) {
            self.sweep();
            if self.providers.len() >= MAX_PROVIDER_KEYS {
                return Err(StoreError::MaxProvidedKeys);
            }
        }
        let now = Instant::now();
        let list = self.providers.entry(record.key.clone()).or_default();
        list.retain(|other| other.provider != record.provider && !other.is_expired(now));
        // The first that came stay: a flood of invented providers does not push out the real ones.
        if list.len() < MAX_PROVIDERS_PER_KEY {
            list.push(record);
        }
        Ok(())
    }

    fn providers(&self, key: &kad::RecordKey) -> Vec<ProviderRecord> {
        let own = self.provided.get(key);
        own.into_iter().chain(self.providers.get(key).into_iter().flatten()).cloned().collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.provided.values().map(Cow::Borrowed)
    }

    fn remove_provider(&mut self, key: &kad::RecordKey, provider: &PeerId) {
        if provider == self.own.preimage() {
            self.provided.remove(key);
        } else if let hash_map::Entry::Occupied(mut entry) = self.providers.entry(key.clone()) {
            entry.get_mut().retain(|record| record.provider != *provider);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}

/// The key as libp2p has it.
pub(super) fn kad_key_of(key: &RecordKey) -> kad::RecordKey {
    kad::RecordKey::new(key.as_bytes())
}

/// The key as ours; none if it does not have 32 bytes.
pub(super) fn record_key_of(key: &kad::RecordKey) -> Option<RecordKey> {
    <[u8; 32]>::try_from(key.as_ref()).ok().map(RecordKey::from_bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keyferry_proto::identity::{NodeKey, NodeSecret};

    use super::*;
    use crate::reach::rendezvous::{counters::RendezvousCounters, tests::sealed};

    fn record(seed: u8, sequence: u64) -> Record {
        let offer = sealed(&NodeSecret::from_bytes(&[seed; 32]), sequence);
        Record::new(kad_key_of(&offer.key()), offer.as_bytes().to_vec())
    }

    fn node(seed: u8) -> NodeKey {
        NodeSecret::from_bytes(&[seed; 32]).public()
    }

    fn counted(accepted: Result<(), RecordRefusal>) -> String {
        let counters = RendezvousCounters::default();
        accepted.unwrap_err().counter()(&counters).add_one();
        counters.by_name().find(|(_, count)| *count > 0).unwrap().0
    }

    #[test]
    fn a_publisher_that_a_record_names_is_forgotten() {
        let mut table = Table::new(PeerId::random());
        let named = Record { publisher: Some(PeerId::random()), ..record(1, 5) };
        table.accept(&named, clock::now()).unwrap();
        assert_eq!(table.get(&named.key).unwrap().publisher, None);
        assert_eq!(table.records().map(|record| record.publisher).collect::<Vec<_>>(), [None]);
    }

    #[test]
    fn what_this_node_publishes_itself_is_answered_with_but_not_passed_on_together() {
        let mut table = Table::new(PeerId::random());
        table.accept(&record(1, 5), clock::now()).unwrap();
        let own = sealed(&NodeSecret::from_bytes(&[2; 32]), 1);
        table.keep_own(own.clone(), clock::now()).unwrap();
        assert_eq!(table.get(&kad_key_of(&own.key())).unwrap().value, own.as_bytes());
        assert_eq!(table.records().map(|record| record.key.clone()).collect::<Vec<_>>(), [record(1, 5).key]);
    }

    #[test]
    fn newer_records_replace_older_ones_and_never_the_other_way_round() {
        let mut table = Table::new(PeerId::random());
        let now = clock::now();
        table.accept(&record(1, 5), now).unwrap();
        assert_eq!(table.accept(&record(1, 4), now), Err(RecordRefusal::NotNewer));
        // Sealed again, the same sequence has other bytes.
        assert_eq!(table.accept(&record(1, 5), now), Err(RecordRefusal::NotNewer));
        table.accept(&record(1, 6), now).unwrap();
        let key = record_key_of(&record(1, 6).key).unwrap();
        assert_eq!(table.offer(&key, now).unwrap().open(&node(1), now).unwrap().offer().sequence, 6);
    }

    #[test]
    fn the_same_record_again_is_no_error() {
        let mut table = Table::new(PeerId::random());
        let same = record(1, 5);
        table.accept(&same, clock::now()).unwrap();
        assert_eq!(table.accept(&same, clock::now()), Ok(()));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn forged_misplaced_oversized_and_expired_records_are_refused() {
        let mut table = Table::new(PeerId::random());
        let now = clock::now();
        let mut forged = record(1, 1);
        *forged.value.last_mut().unwrap() ^= 1;
        assert_eq!(counted(table.accept(&forged, now)), "record_refused_bad_signature");
        let misplaced = Record { key: record(2, 1).key, ..record(1, 1) };
        assert_eq!(counted(table.accept(&misplaced, now)), "record_refused_wrong_key");
        let oversized = Record { value: [&record(1, 1).value[..], &[0]].concat(), ..record(1, 1) };
        assert_eq!(counted(table.accept(&oversized, now)), "record_refused_length");
        let of_later = Record { value: vec![3; 4097], ..record(1, 1) };
        assert_eq!(counted(table.accept(&of_later, now)), "record_refused_version");
        let keyless = Record { key: kad::RecordKey::new(b"short"), ..record(1, 1) };
        assert_eq!(table.accept(&keyless, now), Err(RecordRefusal::NotAKey));
        let much_later = now.plus(Duration::from_secs(3 * 60 * 60));
        assert_eq!(counted(table.accept(&record(1, 1), much_later)), "record_refused_expired");
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_full_table_keeps_what_is_closest() {
        let own = PeerId::random();
        let mut table = Table::new(own);
        let offer = sealed(&NodeSecret::from_bytes(&[99; 32]), 1);
        for number in 0..MAX_RECORDS {
            // Records of this many keys would take long to sign; the table's bookkeeping does not look into them.
            let bytes = *blake3::hash(&number.to_le_bytes()).as_bytes();
            let key = kad::RecordKey::new(&bytes);
            let distance = KBucketKey::from(own).distance(&KBucketKey::new(key.clone()));
            table.by_distance.insert((distance, bytes));
            let stored = Stored { offer: offer.clone(), expires: Instant::now(), distance, is_own: false };
            table.offers.insert(key, stored);
        }
        let farthest = *table.by_distance.last().unwrap();
        for seed in 0..20 {
            let new = record(seed, 1);
            let distance = KBucketKey::from(own).distance(&KBucketKey::new(new.key.clone()));
            let last = table.by_distance.last().unwrap().0;
            assert_eq!(table.accept(&new, clock::now()).is_ok(), distance < last);
        }
        assert_eq!((table.len(), table.by_distance.len()), (MAX_RECORDS, MAX_RECORDS));
        assert!(*table.by_distance.last().unwrap() < farthest);
    }

    #[test]
    fn providers_are_bounded_and_the_first_ones_stay() {
        let mut table = Table::new(PeerId::random());
        let key = kad::RecordKey::new(&[7; 32]);
        let first = PeerId::random();
        table.add_provider(ProviderRecord::new(key.clone(), first, vec![])).unwrap();
        for _ in 0..100 {
            table.add_provider(ProviderRecord::new(key.clone(), PeerId::random(), vec![])).unwrap();
        }
        let providers = table.providers(&key);
        assert_eq!(providers.len(), MAX_PROVIDERS_PER_KEY);
        assert_eq!(providers[0].provider, first);
    }
}
