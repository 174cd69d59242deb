//! What this node announces in the DHTs: its offers, the contents that it holds, and that it is a relay.
//!
//! Everything is announced where there are peers, as soon as there are any, and again every
//! [`super::REPUBLISH_INTERVAL`], a bounded number at a time.
//!
//! What it is not: a choice of what to announce; the engine makes that.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use keyferry_net::time::UnixTime;
use keyferry_proto::offer::{RecordKey, SealedOffer};
use libp2p::kad::{PutRecordError, PutRecordResult, QueryId, Quorum, Record};
use tokio::sync::oneshot;

use super::{
    MAX_PROVIDED, MAX_PUBLISHED, PublishError, PublishReport, REPUBLISH_INTERVAL,
    behaviour::{Behaviour, copies},
    records::kad_key_of,
    scope::Scope,
};
use crate::base::clock;

/// Announcements that may be under way at a time.
const MAX_RUNNING: usize = 16;
/// How long after a first peer the announcements begin, so that it has introduced us to others.
const SETTLE: Duration = Duration::from_millis(100);
/// How long after a failure an announcement is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// One thing to announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Item {
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
    reply: Option<Reply>,
}

type Reply = oneshot::Sender<Result<PublishReport, PublishError>>;

/// All that this node announces.
pub(super) struct Announcer {
    offers: HashMap<RecordKey, Published>,
    contents: HashSet<RecordKey>,
    relays: HashSet<RecordKey>,
    waiting: VecDeque<(Item, Scope)>,
    /// The items of `waiting`.
    queued: HashSet<(Item, Scope)>,
    /// For an offer, with its sequence number.
    running: HashMap<(Scope, QueryId), (Item, u64)>,
    /// What at least one peer has taken.
    taken: HashSet<(Item, Scope)>,
    /// When what nobody has taken is announced, by scope.
    settle_at: HashMap<Scope, Instant>,
    republish_at: Instant,
}

impl Announcer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            offers: HashMap::new(),
            contents: HashSet::new(),
            relays: HashSet::new(),
            waiting: VecDeque::new(),
            queued: HashSet::new(),
            running: HashMap::new(),
            taken: HashSet::new(),
            settle_at: HashMap::new(),
            republish_at: now + REPUBLISH_INTERVAL,
        }
    }

    /// Publishes an offer; `reply` learns who took it.
    pub(super) fn publish(&mut self, behaviour: &mut Behaviour, key: RecordKey, offer: SealedOffer, reply: Reply) {
        let offer = match self.check(&key, offer, clock::now()) {
            Ok(offer) => offer,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        if let Some(earlier) = self.offers.remove(&key) {
            earlier.answer();
        }
        let scopes = Scope::ALL.into_iter().filter(|scope| behaviour.peers(*scope) > 0).collect::<Vec<_>>();
        for scope in Scope::ALL {
            // What is newer than our own in our own store was published by this same node key elsewhere, and stays.
            let _ = behaviour.kad(scope).store_mut().accept(record(&key, &offer), clock::now());
            self.taken.remove(&(Item::Offer(key), scope));
        }
        let published =
            Published { offer, report: PublishReport::default(), outstanding: scopes.len(), reply: Some(reply) };
        self.offers.insert(key, published);
        if scopes.is_empty() {
            self.offers.get_mut(&key).into_iter().for_each(Published::answer_now);
        }
        scopes.into_iter().for_each(|scope| self.start(behaviour, Item::Offer(key), scope));
    }

    /// Announces a content.
    pub(super) fn provide(&mut self, behaviour: &mut Behaviour, key: RecordKey) -> Result<(), PublishError> {
        if self.contents.len() >= MAX_PROVIDED && !self.contents.contains(&key) {
            return Err(PublishError::TooMany { limit: MAX_PROVIDED });
        }
        self.contents.insert(key);
        Scope::ALL.into_iter().for_each(|scope| self.enqueue(Item::Content(key), scope));
        self.pump(behaviour);
        Ok(())
    }

    /// Announces a content no longer.
    pub(super) fn stop_providing(&mut self, behaviour: &mut Behaviour, key: &RecordKey) {
        self.contents.remove(key);
        for scope in Scope::ALL {
            behaviour.kad(scope).stop_providing(&kad_key_of(key));
            self.taken.remove(&(Item::Content(*key), scope));
        }
    }

    /// Announces under these keys that this node is a relay, and no longer under others.
    pub(super) fn set_relays(&mut self, behaviour: &mut Behaviour, keys: Vec<RecordKey>) {
        let keys: HashSet<_> = keys.into_iter().collect();
        if keys == self.relays {
            return;
        }
        for gone in self.relays.difference(&keys) {
            behaviour.kad(Scope::Wan).stop_providing(&kad_key_of(gone));
            self.taken.remove(&(Item::Relay(*gone), Scope::Wan));
        }
        let added: Vec<_> = keys.difference(&self.relays).copied().collect();
        self.relays = keys;
        added.into_iter().for_each(|key| self.enqueue(Item::Relay(key), Scope::Wan));
        self.pump(behaviour);
    }

    /// Notes that a scope has a peer to announce to.
    pub(super) fn on_peer(&mut self, scope: Scope) {
        self.settle_at.entry(scope).or_insert_with(|| Instant::now() + SETTLE);
    }

    /// Notes that all peers are gone: whoever comes next may not know what those knew.
    pub(super) fn on_all_lost(&mut self) {
        self.taken.clear();
    }

    /// Takes the outcome of publishing an offer.
    pub(super) fn on_put(&mut self, behaviour: &mut Behaviour, query: (Scope, QueryId), result: &PutRecordResult) {
        let takers = match result {
            Ok(_) => copies(query.0).get(),
            Err(PutRecordError::QuorumFailed { success, .. } | PutRecordError::Timeout { success, .. }) => {
                success.len()
            }
        };
        self.ended(behaviour, query, takers);
    }

    /// Takes the outcome of announcing a content.
    pub(super) fn on_provided(&mut self, behaviour: &mut Behaviour, query: (Scope, QueryId), succeeded: bool) {
        self.ended(behaviour, query, usize::from(succeeded));
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next_due(&self) -> Instant {
        self.settle_at.values().copied().chain([self.republish_at]).min().unwrap_or(self.republish_at)
    }

    /// Announces what is due.
    pub(super) fn tick(&mut self, behaviour: &mut Behaviour, now: Instant) {
        for scope in Scope::ALL {
            if self.settle_at.get(&scope).is_some_and(|due| *due <= now) {
                self.settle_at.remove(&scope);
                self.enqueue_all(|announcer, item| !announcer.taken.contains(&(item, scope)), scope);
            }
        }
        if self.republish_at <= now {
            self.republish_at = now + REPUBLISH_INTERVAL;
            let clock = clock::now();
            self.offers.retain(|_, published| published.offer.expires() > clock);
            Scope::ALL.into_iter().for_each(|scope| self.enqueue_all(|_, _| true, scope));
        }
        self.pump(behaviour);
    }

    fn check(&self, key: &RecordKey, offer: SealedOffer, now: UnixTime) -> Result<SealedOffer, PublishError> {
        let offer = SealedOffer::parse(offer.as_bytes(), key, now)?;
        match self.offers.get(key) {
            Some(published) if published.offer.sequence() > offer.sequence() => {
                Err(PublishError::Older { published: published.offer.sequence(), got: offer.sequence() })
            }
            None if self.offers.len() >= MAX_PUBLISHED => Err(PublishError::TooMany { limit: MAX_PUBLISHED }),
            _ => Ok(offer),
        }
    }

    fn enqueue(&mut self, item: Item, scope: Scope) {
        if self.queued.insert((item, scope)) {
            match item {
                // There are few offers, and people wait for them.
                Item::Offer(_) | Item::Relay(_) => self.waiting.push_front((item, scope)),
                Item::Content(_) => self.waiting.push_back((item, scope)),
            }
        }
    }

    fn enqueue_all(&mut self, which: impl Fn(&Self, Item) -> bool, scope: Scope) {
        let items = self.offers.keys().map(|key| Item::Offer(*key));
        let relays = self.relays.iter().filter(|_| scope == Scope::Wan).map(|key| Item::Relay(*key));
        let items: Vec<_> = items.chain(relays).chain(self.contents.iter().map(|key| Item::Content(*key))).collect();
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

    fn start(&mut self, behaviour: &mut Behaviour, item: Item, scope: Scope) {
        let has_peers = behaviour.peers(scope) > 0;
        match item {
            Item::Offer(key) => {
                let Some(published) = self.offers.get_mut(&key) else { return };
                let put = behaviour.kad(scope).put_record(record(&key, &published.offer), Quorum::All);
                match put {
                    Ok(query) => drop(self.running.insert((scope, query), (item, published.offer.sequence()))),
                    // Our own store has a newer one, which somebody with the same node key published.
                    Err(_) => published.scope_answered(scope, 0),
                }
            }
            Item::Content(key) | Item::Relay(key) if self.provides(item) => {
                // Without peers this still lets those who come later ask us.
                match behaviour.kad(scope).start_providing(kad_key_of(&key)) {
                    Ok(query) if has_peers => drop(self.running.insert((scope, query), (item, 0))),
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "not announced"),
                }
            }
            Item::Content(_) | Item::Relay(_) => {}
        }
    }

    /// Whether that is still to be announced.
    fn provides(&self, item: Item) -> bool {
        match item {
            Item::Offer(_) => false,
            Item::Content(key) => self.contents.contains(&key),
            Item::Relay(key) => self.relays.contains(&key),
        }
    }

    fn ended(&mut self, behaviour: &mut Behaviour, query: (Scope, QueryId), takers: usize) {
        let Some((item, sequence)) = self.running.remove(&query) else { return };
        let scope = query.0;
        let is_current = match item {
            Item::Offer(key) => self.offers.get(&key).is_some_and(|own| own.offer.sequence() == sequence),
            Item::Content(_) | Item::Relay(_) => self.provides(item),
        };
        if is_current {
            if takers > 0 {
                self.taken.insert((item, scope));
            } else {
                self.settle_at.entry(scope).or_insert_with(|| Instant::now() + RETRY);
            }
            if let Item::Offer(key) = item
                && let Some(published) = self.offers.get_mut(&key)
            {
                published.scope_answered(scope, takers);
            }
        }
        self.pump(behaviour);
    }
}

impl Published {
    fn scope_answered(&mut self, scope: Scope, takers: usize) {
        match scope {
            Scope::Lan => self.report.lan = takers,
            Scope::Wan => self.report.wan = takers,
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

fn record(key: &RecordKey, offer: &SealedOffer) -> Record {
    let mut record = Record::new(kad_key_of(key), offer.as_bytes().to_vec());
    record.expires = Some(Instant::now() + offer.expires().since(clock::now()));
    record
}
