//! What this node announces in the DHTs: its offers, the contents that it holds, and that it is a relay.
//!
//! It announces everything as soon as there are peers, and again every [`REPUBLISH_INTERVAL`], a bounded number at a time.
//! Each offer keeps a time of its own, and one that is not of today is in no hurry: whoever saw two offers put at one moment
//! would know that they are of one node.
//!
//! Whoever took an offer gets it again without being looked for, as long as no peer has come or failed that could change who is closest.
//!
//! What it is not: the choice of what to announce.

mod takers;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use keyferry_net::time::UnixTime;
use keyferry_proto::offer::{MAX_LIFETIME, RecordKey, SealedOffer, supersedes};
use libp2p::{
    PeerId,
    kad::{GetClosestPeersError, GetClosestPeersOk, GetClosestPeersResult, PutRecordError, PutRecordResult},
    kad::{QueryId, Quorum, Record},
};
use tokio::sync::oneshot;

use self::takers::Takers;
use super::{
    behaviour::{Behaviour, copies},
    records::{MAX_PROVIDED, kad_key_of},
    scope::AddressScope,
};
use crate::base::clock::{self, ClockSkew, possible_times};

/// How often the node announces again what it has published and provides.
const REPUBLISH_INTERVAL: Duration = Duration::from_secs(20 * 60);
/// Offers that a node may keep published: one or two a day for each node key.
const MAX_PUBLISHED: usize = 64;
/// Announcements that may be under way at a time.
const MAX_RUNNING: usize = 16;
/// How long to wait after a first peer appears, so that it can introduce us to others before we announce.
const SETTLE: Duration = Duration::from_millis(100);
/// How long to wait after a failed announcement before the next try.
const RETRY: Duration = Duration::from_secs(30);
/// The longest that an offer of another day waits before it goes to peers that have come; that of today goes at once.
const MAX_UNHURRIED: Duration = Duration::from_secs(5 * 60);

/// Why an offer or a provider record was not published. The fault is the caller's.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The offer has expired since it was made.
    #[error("the offer expired at {expires:?}; it is {now:?} now")]
    Expired {
        /// When its record expired.
        expires: UnixTime,
        /// The time at which it was looked at.
        now: UnixTime,
    },
    /// A record with a greater sequence number is published under the same key.
    #[error("a record with sequence {published} is published already, this one has {got}")]
    Older {
        /// The sequence number of the published record.
        published: u64,
        /// The sequence number of the refused one.
        got: u64,
    },
    /// Too much is published already.
    #[error("{limit} records are published already, which is the limit")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The rendezvous has ended.
    #[error("the rendezvous has ended")]
    Ended,
}

/// Who took a record. The node publishes it again every [`REPUBLISH_INTERVAL`], and as soon as a peer appears where there was
/// none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishReport {
    /// Peers of the local DHT that took it.
    pub lan: usize,
    /// Peers of the wide-area DHT that took it.
    pub wan: usize,
}

/// Something to announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Announcement {
    Offer(RecordKey),
    Content(RecordKey),
    /// That this node is a relay; in the wide-area DHT alone.
    Relay(RecordKey),
}

struct Published {
    offer: SealedOffer,
    report: PublishReport,
    /// Scopes that have not answered, and who waits for all of them.
    outstanding: usize,
    reply: Option<PublishReply>,
}

/// A query that is under way for an announcement.
#[derive(Debug, Clone, Copy)]
enum RunningQuery {
    /// Looks for the peers that are to take the offer with this sequence number.
    Finding(RecordKey, u64),
    /// Puts that offer to so many peers that were just found.
    Putting(RecordKey, u64, usize),
    /// Puts that offer to so many peers that took an earlier one.
    PuttingAgain(RecordKey, u64, usize),
    Providing(Announcement),
}

type PublishReply = oneshot::Sender<Result<PublishReport, PublishError>>;

/// All that this node announces.
pub(super) struct RecordAnnouncer {
    offers: HashMap<RecordKey, Published>,
    contents: HashSet<RecordKey>,
    relays: HashSet<RecordKey>,
    waiting: VecDeque<(Announcement, AddressScope)>,
    /// What `waiting` has, to find it fast.
    queued: HashSet<(Announcement, AddressScope)>,
    running: HashMap<(AddressScope, QueryId), RunningQuery>,
    /// What at least one peer of a scope has taken.
    taken: HashSet<(Announcement, AddressScope)>,
    takers: Takers,
    /// When to announce what nobody in a scope has taken.
    settle_at: HashMap<AddressScope, Instant>,
    /// When to put each offer again.
    offers_due: HashMap<(RecordKey, AddressScope), Instant>,
    republish_at: Instant,
    skew: Option<ClockSkew>,
}

impl RecordAnnouncer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            offers: HashMap::new(),
            contents: HashSet::new(),
            relays: HashSet::new(),
            waiting: VecDeque::new(),
            queued: HashSet::new(),
            running: HashMap::new(),
            taken: HashSet::new(),
            takers: Takers::default(),
            settle_at: HashMap::new(),
            offers_due: HashMap::new(),
            republish_at: now + REPUBLISH_INTERVAL,
            skew: None,
        }
    }

    /// Notes how far this machine's clock is from those of others: by theirs, another day may be today.
    pub(super) fn set_skew(&mut self, skew: Option<ClockSkew>) {
        self.skew = skew;
    }

    /// Publishes an offer; `reply` learns who took it.
    pub(super) fn publish(&mut self, behaviour: &mut Behaviour, offer: SealedOffer, reply: PublishReply) {
        let key = offer.key();
        if let Err(error) = self.check(&key, &offer, clock::now()) {
            let _ = reply.send(Err(error));
            return;
        }
        if let Some(earlier) = self.offers.remove(&key) {
            earlier.answer();
        }
        let scopes = AddressScope::ALL.into_iter().filter(|scope| behaviour.peers(*scope) > 0).collect::<Vec<_>>();
        for scope in AddressScope::ALL {
            if let Err(refusal) = behaviour.kad(scope).store_mut().keep_own(offer.clone(), clock::now()) {
                tracing::debug!(?refusal, "an own offer is not kept");
            }
            self.taken.remove(&(Announcement::Offer(key), scope));
            self.offers_due.insert((key, scope), Instant::now() + own_interval());
        }
        let published =
            Published { offer, report: PublishReport::default(), outstanding: scopes.len(), reply: Some(reply) };
        self.offers.insert(key, published);
        if scopes.is_empty() {
            self.offers.get_mut(&key).into_iter().for_each(Published::answer_now);
        }
        scopes.into_iter().for_each(|scope| self.start(behaviour, Announcement::Offer(key), scope));
    }

    /// Announces a content.
    pub(super) fn provide(&mut self, behaviour: &mut Behaviour, key: RecordKey) -> Result<(), PublishError> {
        if self.contents.len() >= MAX_PROVIDED && !self.contents.contains(&key) {
            return Err(PublishError::TooMany { limit: MAX_PROVIDED });
        }
        self.contents.insert(key);
        AddressScope::ALL.into_iter().for_each(|scope| self.enqueue(Announcement::Content(key), scope));
        self.pump(behaviour);
        Ok(())
    }

    /// Stops announcing a content.
    pub(super) fn stop_providing(&mut self, behaviour: &mut Behaviour, key: &RecordKey) {
        self.contents.remove(key);
        for scope in AddressScope::ALL {
            behaviour.kad(scope).stop_providing(&kad_key_of(key));
            self.taken.remove(&(Announcement::Content(*key), scope));
        }
    }

    /// Announces under these keys, and under no others, that this node is a relay.
    pub(super) fn set_relays(&mut self, behaviour: &mut Behaviour, keys: Vec<RecordKey>) {
        let keys: HashSet<_> = keys.into_iter().collect();
        if keys == self.relays {
            return;
        }
        for gone in self.relays.difference(&keys) {
            behaviour.kad(AddressScope::Wan).stop_providing(&kad_key_of(gone));
            self.taken.remove(&(Announcement::Relay(*gone), AddressScope::Wan));
        }
        let added: Vec<_> = keys.difference(&self.relays).copied().collect();
        self.relays = keys;
        added.into_iter().for_each(|key| self.enqueue(Announcement::Relay(key), AddressScope::Wan));
        self.pump(behaviour);
    }

    /// Notes that a scope has a new peer to announce to.
    pub(super) fn on_peer(&mut self, scope: AddressScope) {
        self.takers.forget_all_of(scope);
        self.settle_at.entry(scope).or_insert_with(|| Instant::now() + SETTLE);
    }

    /// Notes that others can reach this node at a further address of a scope. Whoever was told of contents or the relay before was not told
    /// of that address, and keeps nothing that has none.
    pub(super) fn on_new_address(&mut self, scope: AddressScope) {
        self.taken.retain(|(item, of)| *of != scope || matches!(item, Announcement::Offer(_)));
        // What is under way may tell the earlier addresses: it does not count when it ends.
        self.running.retain(|(of, _), query| *of != scope || !matches!(query, RunningQuery::Providing(_)));
        self.settle_at.entry(scope).or_insert_with(|| Instant::now() + SETTLE);
    }

    /// Notes that all peers are gone: whoever comes next may not know what those knew.
    pub(super) fn on_all_lost(&mut self) {
        self.taken.clear();
        AddressScope::ALL.into_iter().for_each(|scope| self.takers.forget_all_of(scope));
    }

    /// Puts an offer to the peers that a query has found for it. libp2p can find and put in one step, but it would name this node
    /// as the record's publisher.
    pub(super) fn on_closest(
        &mut self,
        behaviour: &mut Behaviour,
        query: (AddressScope, QueryId),
        result: GetClosestPeersResult,
    ) {
        let Some(RunningQuery::Finding(key, sequence)) = self.running.get(&query).copied() else { return };
        let (Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. })) = result;
        let peers: Vec<PeerId> = peers.into_iter().map(|peer| peer.peer_id).collect();
        match self.offers.get(&key).filter(|own| own.offer.sequence() == sequence && !peers.is_empty()) {
            Some(published) => {
                self.running.remove(&query);
                self.takers.found(key, query.0, &peers, Instant::now());
                let put = put(behaviour, query.0, &published.offer, &peers);
                self.running.insert(put, RunningQuery::Putting(key, sequence, peers.len()));
            }
            None => self.ended(behaviour, query, 0),
        }
    }

    /// Takes the outcome of putting an offer.
    pub(super) fn on_put(
        &mut self,
        behaviour: &mut Behaviour,
        query: (AddressScope, QueryId),
        result: &PutRecordResult,
    ) {
        let (key, asked, is_again) = match self.running.get(&query) {
            Some(RunningQuery::Putting(key, _, asked)) => (*key, *asked, false),
            Some(RunningQuery::PuttingAgain(key, _, asked)) => (*key, *asked, true),
            _ => return,
        };
        let takers = match result {
            Ok(_) => asked,
            Err(PutRecordError::QuorumFailed { success, .. } | PutRecordError::Timeout { success, .. }) => {
                success.len()
            }
        };
        if takers < asked {
            self.takers.forget(key, query.0);
        }
        if takers < asked && is_again {
            // Others are closest by now.
            self.running.remove(&query);
            self.start(behaviour, Announcement::Offer(key), query.0);
        } else {
            self.ended(behaviour, query, takers);
        }
    }

    /// Takes the outcome of announcing a content.
    pub(super) fn on_provided(&mut self, behaviour: &mut Behaviour, query: (AddressScope, QueryId), succeeded: bool) {
        self.ended(behaviour, query, usize::from(succeeded));
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next_due(&self) -> Instant {
        let due = self.settle_at.values().chain(self.offers_due.values()).copied();
        due.min().map_or(self.republish_at, |due| due.min(self.republish_at))
    }

    /// Announces what is due.
    pub(super) fn tick(&mut self, behaviour: &mut Behaviour, now: Instant) {
        for scope in AddressScope::ALL {
            if self.settle_at.get(&scope).is_some_and(|due| *due <= now) {
                self.settle_at.remove(&scope);
                self.hurry_offers(scope, now);
                self.enqueue_all(|announcer, item| !announcer.taken.contains(&(item, scope)), scope);
            }
        }
        self.enqueue_due_offers(now);
        if self.republish_at <= now {
            self.republish_at = now + REPUBLISH_INTERVAL;
            AddressScope::ALL.into_iter().for_each(|scope| self.enqueue_all(|_, _| true, scope));
        }
        self.pump(behaviour);
    }

    /// Makes offers due that nobody in a scope has taken: today's at once, others within [`MAX_UNHURRIED`].
    fn hurry_offers(&mut self, scope: AddressScope, now: Instant) {
        let todays: Vec<_> = possible_times(clock::now(), self.skew).into_iter().map(UnixTime::day).collect();
        for (key, published) in &self.offers {
            if self.taken.contains(&(Announcement::Offer(*key), scope)) {
                continue;
            }
            let due = match todays.contains(&published.offer.day()) {
                true => now,
                false => now + MAX_UNHURRIED.mul_f64(rand::random()),
            };
            self.offers_due.entry((*key, scope)).and_modify(|at| *at = (*at).min(due)).or_insert(due);
        }
    }

    fn enqueue_due_offers(&mut self, now: Instant) {
        let due: Vec<_> = self.offers_due.iter().filter(|(_, at)| **at <= now).map(|(offer, _)| *offer).collect();
        if due.is_empty() {
            return;
        }
        let clock = clock::now();
        // What was made before the clock was set back would seem good for long.
        let latest = clock.plus(MAX_LIFETIME);
        self.offers.retain(|_, published| (clock..=latest).contains(&published.offer.expires()));
        self.offers_due.retain(|(key, _), _| self.offers.contains_key(key));
        self.takers.keep(|key| self.offers.contains_key(key));
        for (key, scope) in due {
            if let Some(at) = self.offers_due.get_mut(&(key, scope)) {
                *at = now + own_interval();
                self.enqueue(Announcement::Offer(key), scope);
            }
        }
    }

    /// Checks what can have changed since the offer was made: the time, and what is published. Any offer in hand is sound.
    fn check(&self, key: &RecordKey, offer: &SealedOffer, now: UnixTime) -> Result<(), PublishError> {
        if offer.expires() <= now {
            return Err(PublishError::Expired { expires: offer.expires(), now });
        }
        match self.offers.get(key) {
            Some(published) if supersedes(&published.offer, offer) => {
                Err(PublishError::Older { published: published.offer.sequence(), got: offer.sequence() })
            }
            None if self.offers.len() >= MAX_PUBLISHED => Err(PublishError::TooMany { limit: MAX_PUBLISHED }),
            _ => Ok(()),
        }
    }

    fn enqueue(&mut self, item: Announcement, scope: AddressScope) {
        if self.queued.insert((item, scope)) {
            match item {
                // There are few offers, and people wait for them.
                Announcement::Offer(_) | Announcement::Relay(_) => self.waiting.push_front((item, scope)),
                Announcement::Content(_) => self.waiting.push_back((item, scope)),
            }
        }
    }

    /// Enqueues contents and relays; offers have times of their own.
    fn enqueue_all(&mut self, which: impl Fn(&Self, Announcement) -> bool, scope: AddressScope) {
        let relays = self.relays.iter().filter(|_| scope == AddressScope::Wan).map(|key| Announcement::Relay(*key));
        let items: Vec<_> = relays.chain(self.contents.iter().map(|key| Announcement::Content(*key))).collect();
        for item in items {
            if which(self, item) {
                self.enqueue(item, scope);
            }
        }
    }

    /// Begins as many announcements as may run at a time.
    fn pump(&mut self, behaviour: &mut Behaviour) {
        while self.running.len() < MAX_RUNNING {
            let Some((item, scope)) = self.waiting.pop_front() else { return };
            self.queued.remove(&(item, scope));
            self.start(behaviour, item, scope);
        }
    }

    fn start(&mut self, behaviour: &mut Behaviour, item: Announcement, scope: AddressScope) {
        let has_peers = behaviour.peers(scope) > 0;
        match item {
            Announcement::Offer(key) => {
                let Some(published) = self.offers.get_mut(&key) else { return };
                let newest = behaviour.kad(scope).store_mut().offer(&key);
                if newest.is_some_and(|newest| supersedes(&newest, &published.offer)) {
                    // Somebody with the same node key has published that elsewhere.
                    published.scope_answered(scope, 0);
                    return;
                }
                let sequence = published.offer.sequence();
                if let Some(peers) = self.takers.of(key, scope, Instant::now()) {
                    let put = put(behaviour, scope, &published.offer, &peers);
                    self.running.insert(put, RunningQuery::PuttingAgain(key, sequence, peers.len()));
                    return;
                }
                let target = key.as_bytes().to_vec();
                let query = behaviour.kad(scope).get_n_closest_peers(target, copies(scope));
                self.running.insert((scope, query), RunningQuery::Finding(key, sequence));
            }
            Announcement::Content(key) | Announcement::Relay(key) if self.provides(item) => {
                // Even without peers, so that those who come later can ask us.
                match behaviour.kad(scope).start_providing(kad_key_of(&key)) {
                    Ok(query) if has_peers => drop(self.running.insert((scope, query), RunningQuery::Providing(item))),
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "not announced"),
                }
            }
            Announcement::Content(_) | Announcement::Relay(_) => {}
        }
    }

    /// Whether that is still to be announced.
    fn provides(&self, item: Announcement) -> bool {
        match item {
            Announcement::Offer(_) => false,
            Announcement::Content(key) => self.contents.contains(&key),
            Announcement::Relay(key) => self.relays.contains(&key),
        }
    }

    fn ended(&mut self, behaviour: &mut Behaviour, query: (AddressScope, QueryId), takers: usize) {
        let Some(running) = self.running.remove(&query) else { return };
        let scope = query.0;
        let (item, is_current) = match running {
            RunningQuery::Finding(key, sequence)
            | RunningQuery::Putting(key, sequence, _)
            | RunningQuery::PuttingAgain(key, sequence, _) => {
                let is_current = self.offers.get(&key).is_some_and(|own| own.offer.sequence() == sequence);
                (Announcement::Offer(key), is_current)
            }
            RunningQuery::Providing(item) => (item, self.provides(item)),
        };
        if is_current {
            if takers > 0 {
                self.taken.insert((item, scope));
            } else {
                self.settle_at.entry(scope).or_insert_with(|| Instant::now() + RETRY);
            }
            if let Announcement::Offer(key) = item
                && let Some(published) = self.offers.get_mut(&key)
            {
                published.scope_answered(scope, takers);
            }
        }
        self.pump(behaviour);
    }
}

impl Published {
    fn scope_answered(&mut self, scope: AddressScope, takers: usize) {
        match scope {
            AddressScope::Lan => self.report.lan = takers,
            AddressScope::Wan => self.report.wan = takers,
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.outstanding == 0 {
            self.answer_now();
        }
    }

    fn answer_now(&mut self) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Ok(self.report));
        }
    }

    fn answer(mut self) {
        self.answer_now();
    }
}

/// How long after putting an offer to put it again, if the node has not replaced it by then.
fn own_interval() -> Duration {
    REPUBLISH_INTERVAL.mul_f64(1.0 + rand::random::<f64>() / 4.0)
}

/// Begins to put an offer to these peers.
fn put(
    behaviour: &mut Behaviour,
    scope: AddressScope,
    offer: &SealedOffer,
    peers: &[PeerId],
) -> (AddressScope, QueryId) {
    let query = behaviour.kad(scope).put_record_to(record(offer), peers.iter().copied(), Quorum::All);
    (scope, query)
}

fn record(offer: &SealedOffer) -> Record {
    let mut record = Record::new(kad_key_of(&offer.key()), offer.as_bytes().to_vec());
    record.expires = Some(Instant::now() + offer.expires().since(clock::now()));
    record
}

#[cfg(test)]
mod tests {
    use keyferry_net::time::UtcDay;
    use keyferry_proto::{
        hash::ContentHash,
        identity::NodeSecret,
        offer::{Offer, SignedOffer, content_record_key, seal},
    };

    use super::*;

    #[test]
    fn at_a_new_address_contents_are_announced_again_and_offers_are_not() {
        let mut announcer = RecordAnnouncer::new(Instant::now());
        let key = content_record_key(&ContentHash::EMPTY);
        let (content, offer) = (Announcement::Content(key), Announcement::Offer(key));
        announcer.taken.extend(AddressScope::ALL.into_iter().flat_map(|scope| [(content, scope), (offer, scope)]));

        announcer.on_new_address(AddressScope::Wan);

        let left = [(offer, AddressScope::Wan), (content, AddressScope::Lan), (offer, AddressScope::Lan)];
        assert_eq!(announcer.taken, left.into());
        assert!(announcer.next_due() <= Instant::now() + SETTLE);
    }

    #[test]
    fn where_peers_come_the_offer_of_today_goes_out_at_once_and_that_of_another_day_later() {
        let (now, clock) = (Instant::now(), clock::now());
        let mut announcer = RecordAnnouncer::new(now);
        let secret = NodeSecret::from_bytes(&[1; 32]);
        let days = [clock.day(), UtcDay(clock.day().0 + 1)];
        let keys = days.map(|day| {
            let expires = clock.plus(Duration::from_secs(3600));
            let offer = Offer { candidates: Vec::new(), signalling: Vec::new(), sequence: 1, expires };
            let offer = seal(&SignedOffer::sign(offer, &secret).unwrap(), &secret, day, rand::random()).unwrap();
            let key = offer.key();
            let report = PublishReport::default();
            announcer.offers.insert(key, Published { offer, report, outstanding: 0, reply: None });
            key
        });

        announcer.hurry_offers(AddressScope::Lan, now);
        let due = keys.map(|key| announcer.offers_due[&(key, AddressScope::Lan)]);
        assert_eq!(due[0], now);
        assert!(due[1] > now && due[1] <= now + MAX_UNHURRIED);

        announcer.enqueue_due_offers(now);
        assert_eq!(announcer.waiting, [(Announcement::Offer(keys[0]), AddressScope::Lan)]);
        assert!(announcer.offers_due[&(keys[0], AddressScope::Lan)] >= now + REPUBLISH_INTERVAL);
        announcer.taken.insert((Announcement::Offer(keys[1]), AddressScope::Wan));
        announcer.hurry_offers(AddressScope::Wan, now);
        assert!(!announcer.offers_due.contains_key(&(keys[1], AddressScope::Wan)));

        // By the clocks of others, it is that day already.
        announcer.set_skew(Some(ClockSkew { ahead_secs: -86_400, hosts: 2 }));
        let later = now + Duration::from_secs(1);
        announcer.offers_due.clear();
        announcer.hurry_offers(AddressScope::Lan, later);
        assert_eq!(keys.map(|key| announcer.offers_due[&(key, AddressScope::Lan)]), [later; 2]);
    }
}
