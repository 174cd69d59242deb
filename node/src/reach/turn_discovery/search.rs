//! One search in the DHT: for the relays of contacts, and for those that relay for everyone.
//!
//! What it is not: a judgement of what it finds.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::BoxStream, stream::SelectAll};
use keyferry_net::time::UnixTime;
use keyferry_proto::{
    identity::NodeKey,
    offer::{RecordKey, relay_record_key, relay_record_key_of, resolve_days},
};
use rand::seq::SliceRandom;

use super::pool::ProspectiveRelay;
use crate::{base::data_dir::ContactsFile, reach::rendezvous::Rendezvous};

/// How many contacts' relays to look up in one search; chance decides whose.
const MAX_CONTACTS: usize = 16;
/// How long relays for everyone wait for relays of contacts.
const HEAD_START: Duration = Duration::from_millis(300);
/// How long a search goes on.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(15);

/// A search that is under way. Dropping it ends it.
pub(super) struct RelayLookup {
    lookups: SelectAll<BoxStream<'static, ProspectiveRelay>>,
    /// When strangers may be asked.
    head_start_ends: Instant,
    ends: Instant,
}

impl RelayLookup {
    /// Begins a search; for the relays of these contacts, and for those that relay for everyone.
    pub(super) fn begin(rendezvous: &Rendezvous, contacts: &[NodeKey], clock: UnixTime, now: Instant) -> Self {
        let mut lookups = SelectAll::new();
        for node in contacts {
            for day in resolve_days(clock) {
                lookups.push(lookup(rendezvous, relay_record_key_of(node, day), Some(*node)));
            }
        }
        lookups.push(lookup(rendezvous, relay_record_key(), None));
        let head_start = if contacts.is_empty() { Duration::ZERO } else { HEAD_START };
        Self { lookups, head_start_ends: now + head_start, ends: now + SEARCH_TIMEOUT }
    }

    /// The next candidate; `None` when there are no more.
    pub(super) async fn next(&mut self) -> Option<ProspectiveRelay> {
        self.lookups.next().await
    }

    pub(super) fn may_ask_strangers(&self, now: Instant) -> bool {
        self.head_start_ends <= now
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.ends <= now
    }

    pub(super) fn next_due(&self, now: Instant) -> Instant {
        if self.head_start_ends > now { self.head_start_ends } else { self.ends }
    }
}

/// Some of the contacts.
pub(super) async fn some_contacts(file: ContactsFile) -> Vec<NodeKey> {
    let read = tokio::task::spawn_blocking(move || file.read());
    let contacts = match read.await {
        Ok(Ok(contacts)) => contacts,
        Ok(Err(error)) => {
            tracing::warn!(%error, "relays of contacts are not looked for: the contacts cannot be read");
            return Vec::new();
        }
        Err(_) => return Vec::new(),
    };
    let mut nodes: Vec<_> = contacts.iter().map(|contact| contact.node).collect();
    nodes.shuffle(&mut rand::rng());
    nodes.truncate(MAX_CONTACTS);
    nodes
}

fn lookup(rendezvous: &Rendezvous, key: RecordKey, whose: Option<NodeKey>) -> BoxStream<'static, ProspectiveRelay> {
    let mut providers = rendezvous.providers(key);
    let found = futures::stream::poll_fn(move |cx| providers.poll_recv(cx));
    found.map(move |provider| ProspectiveRelay { provider, whose }).boxed()
}
