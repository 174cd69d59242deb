//! Lookups that are under way: for the offer under a key, or for the providers of a content.
//!
//! A lookup asks both DHTs, hands out what it finds at once, and ends with its queries. While there is nobody to ask it
//! waits for a first peer; when nothing is found it asks again after a pause, since the peer may have just started.
//!
//! What it is not: the queries themselves; Kademlia runs those.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use keyferry_net::time::UnixTime;
use keyferry_proto::offer::{RecordKey, SealedOffer, supersedes};
use libp2p::{
    PeerId,
    kad::{QueryId, store::RecordStore},
};
use tokio::sync::mpsc;

use super::{
    behaviour::Behaviour,
    providers::MAX_PROVIDER_ADDRS,
    records::{RecordRefusal, kad_key_of},
    scope::{AddressScope, socket_addr_of},
};

/// How long a lookup waits for a first peer, such as the answer of a bootstrap node.
const FIRST_PEER_WAIT: Duration = Duration::from_secs(10);
/// How long a lookup that finds nothing goes on: the peer may have started a moment ago.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(12);
/// Lookups that may run at a time; the result of one more is empty.
const MAX_LOOKUPS: usize = 256;
/// How long a lookup that has found nothing rests before it asks again; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(3);
/// Providers of one content that a lookup names.
const MAX_PROVIDERS: usize = 64;

/// Somebody who says that they hold a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The provider's rendezvous peer.
    pub peer: PeerId,
    /// The addresses of the provider's port, which takes sessions too; never empty.
    pub addrs: Vec<SocketAddr>,
    /// Whether a connection with that peer stands, with no relay between.
    pub is_connected: bool,
}

/// What a lookup is for, and who wants it.
pub(super) enum LookupKind {
    Offer { best: Option<SealedOffer>, results: mpsc::Sender<SealedOffer> },
    Providers { seen: HashMap<PeerId, Vec<SocketAddr>>, results: mpsc::Sender<Provider> },
}

struct Lookup {
    key: RecordKey,
    wanted: LookupKind,
    /// The scopes that were asked in this round.
    asked: Vec<AddressScope>,
    queries: Vec<(AddressScope, QueryId)>,
    started: Instant,
    pause: Duration,
    /// When the next round begins; none while one is under way or nobody is there to ask.
    retry_at: Option<Instant>,
}

/// All lookups that are under way.
#[derive(Default)]
pub(super) struct Lookups {
    next: u64,
    lookups: HashMap<u64, Lookup>,
    queries: HashMap<(AddressScope, QueryId), u64>,
}

impl Lookup {
    fn found_something(&self) -> bool {
        match &self.wanted {
            LookupKind::Offer { best, .. } => best.is_some(),
            LookupKind::Providers { seen, .. } => !seen.is_empty(),
        }
    }

    fn is_abandoned(&self) -> bool {
        match &self.wanted {
            LookupKind::Offer { results, .. } => results.is_closed(),
            LookupKind::Providers { results, .. } => results.is_closed(),
        }
    }

    fn offer_found(&mut self, offer: SealedOffer) {
        if let LookupKind::Offer { best, results } = &mut self.wanted
            && best.as_ref().is_none_or(|best| supersedes(&offer, best))
        {
            // A full queue means that nobody reads it.
            let _ = results.try_send(offer.clone());
            *best = Some(offer);
        }
    }

    fn provider_found(&mut self, behaviour: &mut Behaviour, scope: AddressScope, peer: PeerId) {
        let LookupKind::Providers { seen, results } = &mut self.wanted else { return };
        if seen.len() >= MAX_PROVIDERS && !seen.contains_key(&peer) {
            return;
        }
        // Each who answers knows those addresses at which it has seen the provider itself.
        let told = seen.get(&peer).map_or(&[][..], Vec::as_slice);
        let key = kad_key_of(&self.key);
        let stored = behaviour.kad(scope).store_mut().providers(&key);
        let stored = stored.into_iter().filter(|record| record.provider == peer).flat_map(|record| record.addresses);
        let known = behaviour.filtered_kad(scope).addrs_of(peer);
        let mut addrs = Vec::new();
        for addr in stored.chain(known).filter_map(|addr| socket_addr_of(&addr)) {
            if AddressScope::of_ip(addr.ip()) == Some(scope) && !addrs.contains(&addr) && !told.contains(&addr) {
                addrs.push(addr);
            }
        }
        addrs.truncate(MAX_PROVIDER_ADDRS.saturating_sub(told.len()));
        if !addrs.is_empty() {
            seen.entry(peer).or_default().extend(&addrs);
            let is_connected = behaviour.turn.inner.is_connected(&peer);
            let _ = results.try_send(Provider { peer, addrs, is_connected });
        }
    }
}

impl Lookups {
    /// Begins a lookup; false if there are too many.
    pub(super) fn start(&mut self, behaviour: &mut Behaviour, key: RecordKey, wanted: LookupKind) -> bool {
        if self.lookups.len() >= MAX_LOOKUPS {
            return false;
        }
        let number = self.next;
        self.next += 1;
        let mut lookup = Lookup {
            key,
            wanted,
            asked: Vec::new(),
            queries: Vec::new(),
            started: Instant::now(),
            pause: FIRST_PAUSE,
            retry_at: None,
        };
        for scope in AddressScope::ALL {
            if let Some(offer) = behaviour.kad(scope).store_mut().offer(&key) {
                lookup.offer_found(offer);
            }
        }
        self.lookups.insert(number, lookup);
        AddressScope::ALL.into_iter().for_each(|scope| self.ask(behaviour, number, scope));
        true
    }

    /// Starts the lookups that have waited for a first peer in this scope.
    pub(super) fn on_peer(&mut self, behaviour: &mut Behaviour, scope: AddressScope) {
        let waiting: Vec<_> = self
            .lookups
            .iter()
            .filter(|(_, lookup)| lookup.retry_at.is_none() && !lookup.asked.contains(&scope))
            .map(|(number, _)| *number)
            .collect();
        waiting.into_iter().for_each(|number| self.ask(behaviour, number, scope));
    }

    /// Asks anew what is being asked: queries wait for answers on connections that are dead, as long as others lead to the same
    /// peers.
    pub(super) fn ask_anew(&mut self, behaviour: &mut Behaviour) {
        for (scope, query) in std::mem::take(&mut self.queries).into_keys() {
            if let Some(mut query) = behaviour.kad(scope).query_mut(&query) {
                query.finish();
            }
        }
        let mut asked = Vec::new();
        for (number, lookup) in &mut self.lookups {
            lookup.queries.clear();
            if lookup.retry_at.is_none() {
                asked.extend(std::mem::take(&mut lookup.asked).into_iter().map(|scope| (*number, scope)));
            }
        }
        asked.into_iter().for_each(|(number, scope)| self.ask(behaviour, number, scope));
    }

    /// Takes a record that a query found, if it is a sound one.
    pub(super) fn on_record(
        &mut self,
        query: (AddressScope, QueryId),
        value: &[u8],
        now: UnixTime,
    ) -> Result<(), RecordRefusal> {
        let Some(lookup) = self.queries.get(&query).and_then(|number| self.lookups.get_mut(number)) else {
            return Ok(());
        };
        let offer = SealedOffer::parse(value, &lookup.key, now).map_err(RecordRefusal::Unsound)?;
        lookup.offer_found(offer);
        Ok(())
    }

    /// Takes the providers that a query found.
    pub(super) fn on_providers(
        &mut self,
        behaviour: &mut Behaviour,
        query: (AddressScope, QueryId),
        own: PeerId,
        peers: impl IntoIterator<Item = PeerId>,
    ) {
        if let Some(lookup) = self.queries.get(&query).and_then(|number| self.lookups.get_mut(number)) {
            for peer in peers.into_iter().filter(|peer| *peer != own) {
                lookup.provider_found(behaviour, query.0, peer);
            }
        }
    }

    /// Notes that a query has ended; its lookup ends with the last one, or pauses.
    pub(super) fn on_query_ended(&mut self, behaviour: &mut Behaviour, query: (AddressScope, QueryId)) {
        let Some(number) = self.queries.remove(&query) else { return };
        let Some(lookup) = self.lookups.get_mut(&number) else { return };
        lookup.queries.retain(|other| *other != query);
        if !lookup.queries.is_empty() {
            return;
        }
        let now = Instant::now();
        if lookup.found_something() || lookup.is_abandoned() || now + lookup.pause > lookup.started + LOOKUP_TIMEOUT {
            self.end(behaviour, number);
        } else {
            lookup.retry_at = Some(now + lookup.pause);
            lookup.pause = (lookup.pause * 2).min(MAX_PAUSE);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.lookups.values().filter_map(Lookup::due).min()
    }

    /// Begins the rounds that are due, and ends the lookups that found nobody to ask or that nobody waits for.
    pub(super) fn tick(&mut self, behaviour: &mut Behaviour, now: Instant) {
        let due: Vec<_> = self
            .lookups
            .iter()
            .filter(|(_, lookup)| lookup.is_abandoned() || lookup.due().is_some_and(|due| due <= now))
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            let Some(lookup) = self.lookups.get_mut(&number) else { continue };
            if lookup.is_abandoned() || lookup.retry_at.is_none() {
                self.end(behaviour, number);
                continue;
            }
            lookup.retry_at = None;
            lookup.asked.clear();
            AddressScope::ALL.into_iter().for_each(|scope| self.ask(behaviour, number, scope));
        }
    }

    fn ask(&mut self, behaviour: &mut Behaviour, number: u64, scope: AddressScope) {
        let Some(lookup) = self.lookups.get_mut(&number) else { return };
        if behaviour.peers(scope) == 0 {
            return;
        }
        let key = kad_key_of(&lookup.key);
        let query = match lookup.wanted {
            LookupKind::Offer { .. } => behaviour.kad(scope).get_record(key),
            LookupKind::Providers { .. } => behaviour.kad(scope).get_providers(key),
        };
        lookup.asked.push(scope);
        lookup.queries.push((scope, query));
        self.queries.insert((scope, query), number);
    }

    fn end(&mut self, behaviour: &mut Behaviour, number: u64) {
        let Some(lookup) = self.lookups.remove(&number) else { return };
        for (scope, query) in lookup.queries {
            self.queries.remove(&(scope, query));
            if let Some(mut query) = behaviour.kad(scope).query_mut(&query) {
                query.finish();
            }
        }
    }
}

impl Lookup {
    fn due(&self) -> Option<Instant> {
        match self.queries.is_empty() {
            true => Some(self.retry_at.unwrap_or(self.started + FIRST_PEER_WAIT)),
            false => None,
        }
    }
}
