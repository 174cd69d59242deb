//! The records of others on disk, so that a restart does not lose them.
//!
//! ```text
//! key    scope u8 (0 LAN, 1 WAN) | record key 32
//! value  until when it is kept u64 | the record
//! ```
//! It is a copy, written a moment after the memory changes. Reading drops what is unsound.
//!
//! What it is not: needed. Without it, or with a damaged one, records come back as they are published again.

use std::time::{Duration, Instant};

use keyferry_proto::offer::RecordKey;
use libp2p::kad::{Record, store::RecordStore as _};
use sled::{Batch, Tree};
use tokio::task::JoinHandle;

use super::{
    behaviour::Behaviour,
    records::{KEPT_FOR, StoredRecord, kad_key_of},
    scope::AddressScope,
};
use crate::base::clock;

/// How long after a change records are written, so that many are written together.
const WRITE_PAUSE: Duration = Duration::from_millis(500);

/// The records on disk, and the write that is due or under way.
pub(super) struct RecordStore {
    tree: Option<Tree>,
    due: Option<Instant>,
    writing: Option<JoinHandle<()>>,
}

impl RecordStore {
    pub(super) fn new(tree: Option<Tree>) -> Self {
        Self { tree, due: None, writing: None }
    }

    /// Reads all records into the memory, and returns how many were sound.
    pub(super) fn load(&self, behaviour: &mut Behaviour) -> usize {
        let Some(tree) = &self.tree else { return 0 };
        let mut loaded = 0;
        for entry in tree.iter() {
            let Ok((key, value)) = entry else { break };
            let sound = split_key(&key).is_some_and(|(scope, record_key)| {
                let Some(StoredRecord { until, record }) = StoredRecord::decode(&value) else { return false };
                let left = until.since(clock::now());
                let mut record = Record::new(kad_key_of(&record_key), record.to_vec());
                record.expires = Some(Instant::now() + left.min(KEPT_FOR));
                !left.is_zero() && behaviour.kad(scope).store_mut().put(record).is_ok()
            });
            if sound {
                loaded += 1;
            } else {
                let _ = tree.remove(&key);
            }
        }
        AddressScope::ALL.into_iter().for_each(|scope| drop(behaviour.kad(scope).store_mut().take_changes()));
        loaded
    }

    /// Looks whether records have changed since they were last written. Returns whether a write is due that was not before.
    pub(super) fn look(&mut self, behaviour: &mut Behaviour, now: Instant) -> bool {
        let has_changes = |scope| behaviour.kad(scope).store_mut().has_changes();
        if self.due.is_some() || !AddressScope::ALL.into_iter().any(has_changes) {
            return false;
        }
        self.due = Some(now + WRITE_PAUSE);
        true
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// Begins to write what has changed, if that is due and the last write is done.
    pub(super) fn tick(&mut self, behaviour: &mut Behaviour, now: Instant) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        if self.writing.as_ref().is_some_and(|task| !task.is_finished()) {
            self.due = Some(now + WRITE_PAUSE);
            return;
        }
        self.due = None;
        let batch = take_batch(behaviour);
        self.writing = self.tree.clone().map(|tree| tokio::task::spawn_blocking(move || apply(&tree, batch)));
    }

    /// Writes what is left and waits until it is on disk.
    pub(super) async fn close(&mut self, behaviour: &mut Behaviour) {
        if let Some(task) = self.writing.take() {
            let _ = task.await;
        }
        let batch = take_batch(behaviour);
        if let Some(tree) = self.tree.take() {
            let written = tokio::task::spawn_blocking(move || {
                apply(&tree, batch);
                tree.flush().map(drop).unwrap_or_else(|error| tracing::debug!(%error, "records not flushed"));
            });
            let _ = written.await;
        }
    }
}

fn take_batch(behaviour: &mut Behaviour) -> Batch {
    let mut batch = Batch::default();
    for scope in AddressScope::ALL {
        for (key, value) in behaviour.kad(scope).store_mut().take_changes() {
            let key = [&[tag(scope)], &key[..]].concat();
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
    }
    batch
}

fn apply(tree: &Tree, batch: Batch) {
    if let Err(error) = tree.apply_batch(batch) {
        tracing::debug!(%error, "records not written");
    }
}

fn tag(scope: AddressScope) -> u8 {
    match scope {
        AddressScope::Lan => 0,
        AddressScope::Wan => 1,
    }
}

fn split_key(key: &[u8]) -> Option<(AddressScope, RecordKey)> {
    let (tagged, rest) = key.split_first()?;
    let scope = AddressScope::ALL.into_iter().find(|scope| tag(*scope) == *tagged)?;
    Some((scope, RecordKey::from_bytes(rest.try_into().ok()?)))
}
