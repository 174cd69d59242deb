//! The task that keeps a few relays at hand.
//!
//! What it is not: the choice among candidates ([`Pool`]).

use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use keyferry_proto::identity::NodeSecret;
use libp2p::PeerId;
use tokio::{
    sync::{mpsc, watch},
    time::sleep_until,
};

use super::{
    addresses,
    pool::{FoundRelay, Pool, ProspectiveRelay, RelayFailure},
    search::{RelayLookup, some_contacts},
};
use crate::{
    base::{clock, data_dir::ContactsFile},
    net::path::AddressPolicy,
    reach::rendezvous::{AskAs, AskRelayError, Granted, Rendezvous, RendezvousStatus},
};

/// How long after it has met others a node may take to turn out reachable; then it counts as one that may need relays.
const REACHABLE_PATIENCE: Duration = Duration::from_secs(5);
/// The least time between the beginnings of two searches.
const MIN_SEARCH_PAUSE: Duration = Duration::from_secs(5);
/// How long to wait after a search that did not find enough; doubles each time.
const SEARCH_PAUSE: Duration = Duration::from_secs(30);
const MAX_SEARCH_PAUSE: Duration = Duration::from_secs(15 * 60);
/// The longest sleep.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// How relays are found.
#[derive(Debug, Clone)]
pub struct FindingConfig {
    /// The key of this node, with which it introduces itself to relays of contacts.
    pub secret: NodeSecret,
    /// Whose relays to ask first.
    pub contacts: ContactsFile,
    /// Whether contacts may learn where this node is. Otherwise it asks only relays for everyone, and does not say who it is.
    pub introduces_itself: bool,
}

/// What a handle tells the task.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wish {
    Wanted,
    Lost(PeerId),
}

/// What a relay answered.
struct AskedRelay {
    candidate: ProspectiveRelay,
    result: Result<Granted, AskRelayError>,
}

/// The task's state.
pub(super) struct FindingTask {
    config: FindingConfig,
    rendezvous: Rendezvous,
    status: watch::Receiver<RendezvousStatus>,
    wishes: mpsc::Receiver<Wish>,
    found: watch::Sender<Vec<FoundRelay>>,
    pool: Pool,
    asking: FuturesUnordered<BoxFuture<'static, AskedRelay>>,
    search: Option<RelayLookup>,
    /// Whether the task looks for relays at all.
    is_active: bool,
    /// When the node met others first.
    met_at: Option<Instant>,
    search_began: Option<Instant>,
    search_due: Instant,
    search_pause: Duration,
}

impl FindingTask {
    pub(super) fn new(
        config: FindingConfig,
        rendezvous: Rendezvous,
        wishes: mpsc::Receiver<Wish>,
        found: watch::Sender<Vec<FoundRelay>>,
    ) -> Self {
        let status = rendezvous.status();
        Self {
            config,
            rendezvous,
            status,
            wishes,
            found,
            pool: Pool::default(),
            asking: FuturesUnordered::new(),
            search: None,
            is_active: false,
            met_at: None,
            search_began: None,
            search_due: Instant::now(),
            search_pause: SEARCH_PAUSE,
        }
    }

    /// Works until nobody holds a handle, or the rendezvous has ended.
    pub(super) async fn run(mut self) {
        loop {
            self.tick(Instant::now()).await;
            let wake = self.next_due(Instant::now());
            tokio::select! {
                wish = self.wishes.recv() => match wish {
                    Some(wish) => self.on_wish(wish, Instant::now()),
                    None => return,
                },
                found = next_of(&mut self.search) => match found {
                    Some(candidate) => self.on_candidate(candidate, Instant::now()),
                    None => self.end_search(Instant::now()),
                },
                Some(asked) = self.asking.next() => self.on_asked(asked, Instant::now()),
                changed = self.status.changed() => if changed.is_err() { return },
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    async fn tick(&mut self, now: Instant) {
        self.pool.expire(now);
        self.look_at_reachability(now);
        if self.search.as_ref().is_some_and(|search| search.is_over(now) || !self.pool.is_lacking()) {
            self.end_search(now);
        }
        if self.wants_search() && self.search_due <= now {
            self.begin_search().await;
        }
        let now = Instant::now();
        let may_ask_strangers = self.search.as_ref().is_none_or(|search| search.may_ask_strangers(now));
        let chance = |count| rand::random_range(0..count);
        while let Some(candidate) = self.pool.next_to_ask(now, may_ask_strangers, chance) {
            self.asking.push(ask(self.rendezvous.clone(), candidate, self.config.secret.clone()).boxed());
        }
        self.found.send_if_modified(|found| {
            let relays = self.pool.relays();
            let changed = *found != relays;
            *found = relays;
            changed
        });
    }

    fn next_due(&self, now: Instant) -> Instant {
        let search = match &self.search {
            Some(search) => Some(search.next_due(now)),
            None => self.wants_search().then_some(self.search_due),
        };
        let patience = self.met_at.filter(|_| !self.is_active).map(|met| met + REACHABLE_PATIENCE);
        let due = [search, patience.filter(|at| *at > now), self.pool.next_due()];
        due.into_iter().flatten().min().unwrap_or(now + IDLE)
    }

    fn on_wish(&mut self, wish: Wish, now: Instant) {
        match wish {
            Wish::Wanted => {
                self.is_active = true;
                if self.pool.is_empty() {
                    self.hurry(now);
                }
            }
            Wish::Lost(_) if self.is_alone() => {}
            Wish::Lost(peer) => {
                if self.pool.drop_relay(peer, RelayFailure::Useless, now) {
                    tracing::debug!(%peer, "a found relay does not work");
                    self.hurry(now);
                }
            }
        }
    }

    fn on_candidate(&mut self, mut candidate: ProspectiveRelay, now: Instant) {
        if let Some(policy) = self.policy() {
            let provider = &mut candidate.provider;
            provider.addrs = addresses::to_ask(&provider.addrs, &policy);
            if !provider.addrs.is_empty() {
                self.pool.add(candidate, now);
            }
        }
    }

    fn on_asked(&mut self, AskedRelay { candidate, result }: AskedRelay, now: Instant) {
        let peer = candidate.provider.peer;
        let (granted, policy) = match (result, self.policy()) {
            (Ok(granted), Some(policy)) => (granted, policy),
            (Ok(_), None) => return self.pool.on_failed(peer, RelayFailure::Passing, now),
            (Err(error), _) => {
                tracing::debug!(%peer, %error, "no leave to use a relay");
                let failure = if self.is_alone() { RelayFailure::Passing } else { RelayFailure::of(&error) };
                return self.pool.on_failed(peer, failure, now);
            }
        };
        let addrs = addresses::to_use(&granted, &policy);
        if addrs.is_empty() {
            return self.pool.on_failed(peer, RelayFailure::Gone, now);
        }
        let credentials = granted.issued;
        let lifetime = credentials.expires.since(clock::now());
        tracing::debug!(%peer, of_contact = candidate.whose.is_some(), ?lifetime, "leave to use a relay");
        let relay = FoundRelay { peer, whose: candidate.whose, addrs, credentials };
        self.pool.on_granted(relay, lifetime, now);
    }

    /// Whether no peer is connected: then this node's own network is down.
    fn is_alone(&self) -> bool {
        self.status.borrow().connected == 0
    }

    /// A node that others cannot reach may need relays, and should have them at hand before it does.
    fn look_at_reachability(&mut self, now: Instant) {
        let status = self.status.borrow_and_update();
        if self.is_active || status.wan_peers == 0 {
            return;
        }
        let met_at = *self.met_at.get_or_insert(now);
        let has_had_time = met_at + REACHABLE_PATIENCE <= now;
        // A node that holds circuits knows that it cannot be reached.
        self.is_active = !status.public && (has_had_time || !status.circuits.is_empty());
    }

    fn wants_search(&self) -> bool {
        self.is_active && self.search.is_none() && self.pool.is_lacking() && self.status.borrow().wan_peers > 0
    }

    async fn begin_search(&mut self) {
        let contacts = match self.config.introduces_itself {
            true => some_contacts(self.config.contacts.clone()).await,
            false => Vec::new(),
        };
        let now = Instant::now();
        tracing::debug!(contacts = contacts.len(), "looking for relays");
        self.pool.forget_candidates();
        self.search_began = Some(now);
        self.search = Some(RelayLookup::begin(&self.rendezvous, &contacts, clock::now(), now));
    }

    fn end_search(&mut self, now: Instant) {
        self.search = None;
        if self.pool.is_lacking() {
            self.search_due = now + self.search_pause;
            self.search_pause = (self.search_pause * 2).min(MAX_SEARCH_PAUSE);
        } else {
            self.search_due = now;
            self.search_pause = SEARCH_PAUSE;
        }
    }

    /// Searches again soon.
    fn hurry(&mut self, now: Instant) {
        self.search_pause = SEARCH_PAUSE;
        self.search_due = self.search_began.map_or(now, |began| now.max(began + MIN_SEARCH_PAUSE));
    }

    fn policy(&self) -> Option<AddressPolicy> {
        let listen = self.status.borrow().listen.clone();
        let policy = AddressPolicy::for_listeners(&listen);
        policy.inspect_err(|error| tracing::debug!(%error, "the interfaces cannot be read")).ok()
    }
}

async fn ask(rendezvous: Rendezvous, candidate: ProspectiveRelay, secret: NodeSecret) -> AskedRelay {
    let who = match candidate.whose {
        Some(relay) => AskAs::Node { secret: &secret, relay },
        None => AskAs::Anonymous,
    };
    let result = rendezvous.ask_relay(candidate.provider.peer, &candidate.provider.addrs, who).await;
    AskedRelay { candidate, result }
}

/// The next candidate of a search; never, if there is none.
async fn next_of(search: &mut Option<RelayLookup>) -> Option<ProspectiveRelay> {
    match search {
        Some(search) => search.next().await,
        None => std::future::pending().await,
    }
}
