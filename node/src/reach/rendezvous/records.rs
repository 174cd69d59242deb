//! What a node stores for one DHT: offers, checked before they are taken, and who provides which content.
//!
//! Bounded in every direction. When there is no room, the offer goes that is farthest from this node's own place in the DHT, since
//! lookups ask the nodes that are closest to a key; but first those of whoever has left most here ([`super::shares`]).
//!
//! What it is not: the disk. Changes are collected for [`Table::take_changes`], and [`super::record_store`] writes them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, hash_map},
    time::{Duration, Instant},
};

use keyferry_net::time::UnixTime;
use keyferry_proto::offer::{RecordError, RecordKey, SealedOffer, USUAL_LIFETIME, supersedes};
use libp2p::{
    PeerId,
    kad::{
        self, KBucketDistance, KBucketKey, ProviderRecord, Record,
        store::{Error as StoreError, RecordStore, Result as StoreResult},
    },
};

use super::{
    counters::WhichCounter,
    providers::ProviderLists,
    shares::{RecordSource, TableShares},
};
use crate::base::{
    clock,
    rate_limit::{Bucket, Rate},
};

/// Contents that a node may announce.
pub const MAX_PROVIDED: usize = 16_384;
/// Offers of others that a node stores for one DHT; each has [`keyferry_proto::offer::SEALED_LEN`] bytes.
pub(super) const MAX_RECORDS: usize = 4096;
/// How long an offer of somebody else is kept from when it came, if whoever passes it on does not say less. What it says itself does
/// not count: it is by the clock of its owner, who puts another one within 20 minutes.
pub(super) const KEPT_FOR: Duration = USUAL_LIFETIME;
/// How often an offer may be replaced by a newer one, each of which is written to disk. A node makes a new one when its addresses
/// change.
const REPLACEMENT_RATE: Rate = Rate { burst: 16, interval: Duration::from_secs(15) };

/// Why a record from a peer was not stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RecordRefusal {
    /// It is not a sound record of its key.
    Unsound(RecordError),
    /// The key does not have 32 bytes.
    NotAKey,
    /// A record with the same or a greater sequence number is there.
    NotNewer,
    /// The one that is there was replaced too often of late.
    TooOften,
    /// There is no room for a record that is this far away.
    Full,
}

/// The offers and providers that a node stores for one DHT.
pub(super) struct Table {
    own: KBucketKey<PeerId>,
    offers: HashMap<kad::RecordKey, Stored>,
    /// Of the offers of others.
    shares: TableShares<[u8; 32]>,
    providers: ProviderLists,
    provided: HashMap<kad::RecordKey, ProviderRecord>,
    changes: BTreeMap<[u8; 32], Option<Vec<u8>>>,
}

/// An offer with what is needed to make room for others. Who put it is not kept, even where the record named a publisher.
pub(super) struct Stored {
    offer: SealedOffer,
    expires: Instant,
    distance: KBucketDistance,
    origin: Origin,
    replaced: Bucket,
}

/// An offer of somebody else as it is on disk: until when it is kept, u64 LE, and the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredRecord<'a> {
    /// By the clock of this machine.
    pub(super) until: UnixTime,
    pub(super) record: &'a [u8],
}

impl<'a> StoredRecord<'a> {
    fn encode(self) -> Vec<u8> {
        [&self.until.0.to_le_bytes(), self.record].concat()
    }

    /// Reads what [`Table::take_changes`] has given.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (until, record) = bytes.split_first_chunk()?;
        Some(Self { until: UnixTime(u64::from_le_bytes(*until)), record })
    }
}

/// Where a stored offer is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// This node published it itself.
    Own,
    /// Somebody else did, or passes it on.
    Other(RecordSource),
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
            RecordRefusal::TooOften => |counters| &counters.record_refused_too_often,
            RecordRefusal::Full => |counters| &counters.record_refused_full,
        }
    }
}

impl Table {
    pub(super) fn new(own: PeerId) -> Self {
        Self {
            own: KBucketKey::from(own),
            offers: HashMap::new(),
            shares: TableShares::default(),
            providers: ProviderLists::new(own),
            provided: HashMap::new(),
            changes: BTreeMap::new(),
        }
    }

    /// Whether these very bytes are stored under a key. Whoever puts them again has a share in them.
    pub(super) fn confirm(&mut self, key: &kad::RecordKey, value: &[u8], source: RecordSource) -> bool {
        let is_there = self.offers.get(key).is_some_and(|stored| stored.offer.as_bytes() == value);
        if is_there {
            self.attribute(key, source);
        }
        is_there
    }

    /// Takes an offer that somebody else puts or passes on, if it is newer than what is there, and keeps it `until` then at most. The same
    /// one again changes nothing, so that nobody keeps an offer here by putting it again.
    pub(super) fn accept(
        &mut self,
        offer: SealedOffer,
        source: RecordSource,
        until: Option<Instant>,
    ) -> Result<(), RecordRefusal> {
        let latest = Instant::now() + KEPT_FOR;
        self.insert(offer, until.map_or(latest, |until| until.min(latest)), Origin::Other(source))
    }

    /// Takes an offer that this node publishes itself, unless there is a newer one: somebody with the same node key has published
    /// that elsewhere, and it stays.
    pub(super) fn keep_own(&mut self, offer: SealedOffer, now: UnixTime) -> Result<(), RecordRefusal> {
        let expires = Instant::now() + offer.expires().since(now);
        self.insert(offer, expires, Origin::Own)
    }

    fn insert(&mut self, offer: SealedOffer, expires: Instant, origin: Origin) -> Result<(), RecordRefusal> {
        let key = offer.key();
        let kad_key = kad_key_of(&key);
        let moment = Instant::now();
        let mut replaced = Bucket::default();
        match (self.offers.get(&kad_key), origin) {
            (Some(stored), Origin::Other(source)) if stored.offer == offer => {
                self.attribute(&kad_key, source);
                return Ok(());
            }
            (Some(stored), _) if stored.offer == offer => return Ok(()),
            (Some(stored), _) if !supersedes(&offer, &stored.offer) => return Err(RecordRefusal::NotNewer),
            (Some(stored), _) => {
                replaced = stored.replaced;
                if origin != Origin::Own && !replaced.take(REPLACEMENT_RATE, moment) {
                    return Err(RecordRefusal::TooOften);
                }
            }
            (None, _) => {}
        }
        let distance = self.own.distance(&KBucketKey::new(kad_key.clone()));
        if let (Origin::Other(source), false) = (origin, self.offers.contains_key(&kad_key)) {
            self.make_room(source, distance)?;
        }
        let is_own = origin == Origin::Own;
        let on_disk = || {
            StoredRecord { until: clock::now().plus(expires.duration_since(moment)), record: offer.as_bytes() }.encode()
        };
        self.changes.insert(*key.as_bytes(), (!is_own).then(on_disk));
        let before = self.offers.insert(kad_key, Stored { offer, expires, distance, origin, replaced });
        if let Some(Origin::Other(source)) = before.map(|before| before.origin) {
            self.shares.remove(source, distance, key.as_bytes());
        }
        if let Origin::Other(source) = origin {
            self.shares.insert(source, distance, *key.as_bytes());
        }
        Ok(())
    }

    /// Counts an offer for whoever puts it again, if they have left less here than who is counted for it: nobody takes the place of
    /// an offer by putting it first.
    fn attribute(&mut self, key: &kad::RecordKey, source: RecordSource) {
        let (Some(stored), Some(bytes)) = (self.offers.get_mut(key), record_key_of(key)) else { return };
        let Origin::Other(before) = stored.origin else { return };
        if self.shares.count(source) + 1 < self.shares.count(before) {
            stored.origin = Origin::Other(source);
            self.shares.remove(before, stored.distance, bytes.as_bytes());
            self.shares.insert(source, stored.distance, *bytes.as_bytes());
        }
    }

    /// The offer under a key, if there is one that is still good.
    pub(super) fn offer(&self, key: &RecordKey) -> Option<SealedOffer> {
        let stored = self.offers.get(&kad_key_of(key))?;
        (stored.expires > Instant::now()).then(|| stored.offer.clone())
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
        self.providers.sweep(now);
    }

    /// What has changed since the last call: what is to be on disk under a key ([`StoredRecord`]), or none where the record is gone.
    pub(super) fn take_changes(&mut self) -> BTreeMap<[u8; 32], Option<Vec<u8>>> {
        std::mem::take(&mut self.changes)
    }

    /// Whether [`Self::take_changes`] has something to give.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    fn make_room(&mut self, source: RecordSource, distance: KBucketDistance) -> Result<(), RecordRefusal> {
        if self.shares.len() < MAX_RECORDS {
            return Ok(());
        }
        let victim = self.shares.victim(source, distance).ok_or(RecordRefusal::Full)?;
        self.remove(&kad::RecordKey::new(&victim));
        Ok(())
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
        let key = record_key_of(&record.key).ok_or(StoreError::MaxRecords)?;
        let offer = SealedOffer::parse(&record.value, &key, clock::now()).map_err(|_| StoreError::MaxRecords)?;
        self.accept(offer, RecordSource::Unknown, record.expires).map_err(|_| StoreError::MaxRecords)
    }

    fn remove(&mut self, key: &kad::RecordKey) {
        if let (Some(stored), Some(bytes)) = (self.offers.remove(key), record_key_of(key)) {
            if let Origin::Other(source) = stored.origin {
                self.shares.remove(source, stored.distance, bytes.as_bytes());
            }
            self.changes.insert(*bytes.as_bytes(), None);
        }
    }

    /// What libp2p passes on to other nodes at regular times. Not what this node publishes itself: that it puts two days' offers
    /// at one moment would show that they are of one node.
    fn records(&self) -> Self::RecordsIter<'_> {
        self.offers.iter().filter_map(|(key, stored)| match stored.origin {
            Origin::Own => None,
            Origin::Other(_) => Some(Cow::Owned(stored.record(key))),
        })
    }

    fn add_provider(&mut self, record: ProviderRecord) -> StoreResult<()> {
        if record.provider != *self.own.preimage() {
            return match self.providers.add(record, Instant::now()) {
                true => Ok(()),
                false => Err(StoreError::MaxProvidedKeys),
            };
        }
        if self.provided.len() >= MAX_PROVIDED && !self.provided.contains_key(&record.key) {
            return Err(StoreError::MaxProvidedKeys);
        }
        self.provided.insert(record.key.clone(), record);
        Ok(())
    }

    fn providers(&self, key: &kad::RecordKey) -> Vec<ProviderRecord> {
        self.provided.get(key).into_iter().chain(self.providers.of(key)).cloned().collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.provided.values().map(Cow::Borrowed)
    }

    fn remove_provider(&mut self, key: &kad::RecordKey, provider: &PeerId) {
        if provider == self.own.preimage() {
            self.provided.remove(key);
        } else {
            self.providers.remove(key, provider);
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

    const SOMEBODY: RecordSource = RecordSource::Unknown;

    fn record(seed: u8, sequence: u64) -> Record {
        let offer = sealed(&NodeSecret::from_bytes(&[seed; 32]), sequence);
        Record::new(kad_key_of(&offer.key()), offer.as_bytes().to_vec())
    }

    fn accept(table: &mut Table, record: &Record, now: UnixTime) -> Result<(), RecordRefusal> {
        accept_from(table, record, SOMEBODY, now)
    }

    fn accept_from(
        table: &mut Table,
        record: &Record,
        source: RecordSource,
        now: UnixTime,
    ) -> Result<(), RecordRefusal> {
        let key = record_key_of(&record.key).ok_or(RecordRefusal::NotAKey)?;
        let offer = SealedOffer::parse(&record.value, &key, now).map_err(RecordRefusal::Unsound)?;
        table.accept(offer, source, None)
    }

    fn source(host: u8) -> RecordSource {
        RecordSource::of([198, 51, host, 1].into())
    }

    /// Fills a table with records of a source. That of so many keys would take long to sign; the table does not look into them.
    fn fill(table: &mut Table, source: RecordSource) {
        let offer = sealed(&NodeSecret::from_bytes(&[99; 32]), 1);
        for number in 0..MAX_RECORDS {
            let bytes = *blake3::hash(&number.to_le_bytes()).as_bytes();
            let key = kad::RecordKey::new(&bytes);
            let distance = table.own.distance(&KBucketKey::new(key.clone()));
            table.shares.insert(source, distance, bytes);
            let (origin, replaced) = (Origin::Other(source), Bucket::default());
            table
                .offers
                .insert(key, Stored { offer: offer.clone(), expires: Instant::now(), distance, origin, replaced });
        }
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
        accept(&mut table, &named, clock::now()).unwrap();
        assert_eq!(table.get(&named.key).unwrap().publisher, None);
        assert_eq!(table.records().map(|record| record.publisher).collect::<Vec<_>>(), [None]);
    }

    #[test]
    fn what_this_node_publishes_itself_is_answered_with_but_not_passed_on_together() {
        let mut table = Table::new(PeerId::random());
        accept(&mut table, &record(1, 5), clock::now()).unwrap();
        let own = sealed(&NodeSecret::from_bytes(&[2; 32]), 1);
        table.keep_own(own.clone(), clock::now()).unwrap();
        assert_eq!(table.get(&kad_key_of(&own.key())).unwrap().value, own.as_bytes());
        assert_eq!(table.records().map(|record| record.key.clone()).collect::<Vec<_>>(), [record(1, 5).key]);
    }

    #[test]
    fn newer_records_replace_older_ones_and_never_the_other_way_round() {
        let mut table = Table::new(PeerId::random());
        let now = clock::now();
        accept(&mut table, &record(1, 5), now).unwrap();
        assert_eq!(accept(&mut table, &record(1, 4), now), Err(RecordRefusal::NotNewer));
        // Sealed again, the same sequence has other bytes.
        assert_eq!(accept(&mut table, &record(1, 5), now), Err(RecordRefusal::NotNewer));
        accept(&mut table, &record(1, 6), now).unwrap();
        let key = record_key_of(&record(1, 6).key).unwrap();
        assert_eq!(table.offer(&key).unwrap().open(&node(1), now).unwrap().offer().sequence, 6);
    }

    #[test]
    fn an_offer_is_kept_for_a_time_of_this_node_or_less_and_the_same_again_prolongs_nothing() {
        let (mut table, now) = (Table::new(PeerId::random()), Instant::now());
        let offer = |seed| sealed(&NodeSecret::from_bytes(&[seed; 32]), 1);
        let mut kept = |seed, until| {
            table.accept(offer(seed), SOMEBODY, until).unwrap();
            table.get(&kad_key_of(&offer(seed).key())).unwrap().expires.unwrap()
        };
        let minute = Duration::from_secs(60);
        assert_eq!(kept(1, Some(now + minute)), now + minute);
        for (seed, until) in [(2, None), (3, Some(now + KEPT_FOR * 2))] {
            assert!(kept(seed, until) <= Instant::now() + KEPT_FOR);
        }
        let passed_on = record(1, 5);
        accept(&mut table, &passed_on, clock::now()).unwrap();
        let before = table.get(&passed_on.key).unwrap().expires;
        accept(&mut table, &passed_on, clock::now()).unwrap();
        assert_eq!(table.get(&passed_on.key).unwrap().expires, before);
    }

    #[test]
    fn the_same_record_again_is_no_error() {
        let mut table = Table::new(PeerId::random());
        let same = record(1, 5);
        accept(&mut table, &same, clock::now()).unwrap();
        assert_eq!(accept(&mut table, &same, clock::now()), Ok(()));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn forged_misplaced_oversized_and_expired_records_are_refused() {
        let mut table = Table::new(PeerId::random());
        let now = clock::now();
        let mut forged = record(1, 1);
        *forged.value.last_mut().unwrap() ^= 1;
        assert_eq!(counted(accept(&mut table, &forged, now)), "record_refused_bad_signature");
        let misplaced = Record { key: record(2, 1).key, ..record(1, 1) };
        assert_eq!(counted(accept(&mut table, &misplaced, now)), "record_refused_wrong_key");
        let oversized = Record { value: [&record(1, 1).value[..], &[0]].concat(), ..record(1, 1) };
        assert_eq!(counted(accept(&mut table, &oversized, now)), "record_refused_length");
        let of_later = Record { value: vec![3; 4097], ..record(1, 1) };
        assert_eq!(counted(accept(&mut table, &of_later, now)), "record_refused_version");
        let keyless = Record { key: kad::RecordKey::new(b"short"), ..record(1, 1) };
        assert_eq!(accept(&mut table, &keyless, now), Err(RecordRefusal::NotAKey));
        let much_later = now.plus(Duration::from_secs(30 * 60 * 60));
        assert_eq!(counted(accept(&mut table, &record(1, 1), much_later)), "record_refused_expired");
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_full_table_keeps_what_is_closest() {
        let mut table = Table::new(PeerId::random());
        fill(&mut table, source(1));
        for seed in 0..20 {
            let new = record(seed, 1);
            let distance = table.own.distance(&KBucketKey::new(new.key.clone()));
            let is_closer = table.shares.victim(source(1), distance).is_some();
            assert_eq!(accept_from(&mut table, &new, source(1), clock::now()).is_ok(), is_closer);
        }
        assert_eq!((table.len(), table.shares.len()), (MAX_RECORDS, MAX_RECORDS));
    }

    #[test]
    fn a_full_table_has_room_for_whoever_has_left_less_there_than_others() {
        let mut table = Table::new(PeerId::random());
        fill(&mut table, source(1));
        for seed in 0..20 {
            accept_from(&mut table, &record(seed, 1), source(2), clock::now()).unwrap();
        }
        assert_eq!((table.len(), table.shares.count(source(2))), (MAX_RECORDS, 20));
    }

    #[test]
    fn whoever_puts_the_offer_of_somebody_else_first_takes_no_place_from_it() {
        let mut table = Table::new(PeerId::random());
        let (now, of_friend) = (clock::now(), record(50, 1));
        accept_from(&mut table, &of_friend, source(1), now).unwrap();
        for seed in 0..9 {
            accept_from(&mut table, &record(seed, 1), source(1), now).unwrap();
        }
        assert!(table.confirm(&of_friend.key, &of_friend.value, source(2)));
        assert_eq!((table.shares.count(source(1)), table.shares.count(source(2))), (9, 1));
        assert!(!table.confirm(&of_friend.key, b"other bytes", source(2)));
    }

    #[test]
    fn an_offer_is_not_replaced_without_end() {
        let (mut table, now) = (Table::new(PeerId::random()), clock::now());
        let replaced = (1..100).filter(|sequence| accept(&mut table, &record(1, *sequence), now).is_ok()).count();
        assert_eq!(replaced, 1 + REPLACEMENT_RATE.burst as usize);
        assert_eq!(counted(accept(&mut table, &record(1, 1000), now)), "record_refused_too_often");
    }
}
