//! Who was sent how much of each root: a table that is kept over restarts, as long as the index is.
//!
//! A stranger can make up keys, so the nodes of a root that are counted one by one are limited; contacts come first. All others are
//! counted together.
//!
//! What it is not: a record that anything depends on, or of what a peer made of what it was sent.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use keyferry_net::time::UnixTime;
use keyferry_proto::{hash::ContentHash, identity::NodeKey};
use serde::{Deserialize, Serialize};

use crate::{
    base::clock,
    content::store::{Asker, Store},
};

/// Nodes of one root that are counted one by one.
pub const MAX_FETCHERS_OF_ROOT: usize = 64;
/// Where the index keeps the table.
const TREE: &str = "fetchers";

/// What was sent, and when the last of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentCount {
    /// Bytes, proofs and all.
    pub bytes: u64,
    /// When the last of them were sent.
    pub last: UnixTime,
}

/// What was sent of a root, and to whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentOfRoot {
    nodes: Vec<SentToNode>,
    others: SentCount,
}

/// What was sent to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentToNode {
    /// Its key.
    pub node: NodeKey,
    /// How much.
    pub sent: SentCount,
    is_contact: bool,
}

/// The table. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Fetchers {
    roots: Arc<Mutex<HashMap<ContentHash, SentOfRoot>>>,
    tree: Option<sled::Tree>,
}

/// What one answer sends is counted here, and is kept when the answer ends.
pub(super) struct Sending<'a> {
    fetchers: &'a Fetchers,
    root: ContentHash,
    asker: Asker,
}

impl Default for SentCount {
    fn default() -> Self {
        Self { bytes: 0, last: UnixTime(0) }
    }
}

impl SentCount {
    fn add(&mut self, bytes: u64, now: UnixTime) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.last = self.last.max(now);
    }
}

impl SentOfRoot {
    /// The nodes that are counted one by one; who was sent most comes first.
    pub fn nodes(&self) -> Vec<&SentToNode> {
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        nodes.sort_by_key(|to| std::cmp::Reverse(to.sent.bytes));
        nodes
    }

    /// All others together: who showed no key of their own, and who came when the table was full.
    pub fn others(&self) -> SentCount {
        self.others
    }

    fn note(&mut self, asker: &Asker, bytes: u64, now: UnixTime) {
        let Asker::Node { key, is_contact } = *asker else { return self.others.add(bytes, now) };
        if let Some(known) = self.nodes.iter_mut().find(|known| known.node == key) {
            known.is_contact = is_contact;
            return known.sent.add(bytes, now);
        }
        if self.nodes.len() >= MAX_FETCHERS_OF_ROOT && !(is_contact && self.make_room()) {
            return self.others.add(bytes, now);
        }
        self.nodes.push(SentToNode { node: key, sent: SentCount { bytes, last: now }, is_contact });
    }

    /// Counts the stranger who was sent least among the others.
    fn make_room(&mut self) -> bool {
        let strangers = self.nodes.iter().enumerate().filter(|(_, to)| !to.is_contact);
        let Some((least, _)) = strangers.min_by_key(|(_, to)| to.sent.bytes) else { return false };
        let SentCount { bytes, last } = self.nodes.swap_remove(least).sent;
        self.others.add(bytes, last);
        true
    }
}

impl Fetchers {
    /// The table that the index of this store has; what is in it of roots that are gone is dropped.
    pub(super) fn of(store: &Store) -> Self {
        let tree = store.expendable_tree(TREE);
        let here: HashSet<ContentHash> = store.roots().iter().map(|root| root.hash).collect();
        let mut roots = HashMap::new();
        for (key, value) in tree.iter().flat_map(|tree| tree.iter().flatten()) {
            let root =
                <[u8; 32]>::try_from(&key[..]).ok().map(ContentHash::from_bytes).filter(|root| here.contains(root));
            match (root, serde_json::from_slice(&value)) {
                (Some(root), Ok(sent)) => drop(roots.insert(root, sent)),
                _ => drop(tree.as_ref().map(|tree| tree.remove(&key))),
            }
        }
        Self { roots: Arc::new(Mutex::new(roots)), tree }
    }

    /// What was sent of a root.
    pub(super) fn sent_of(&self, root: &ContentHash) -> SentOfRoot {
        self.lock().get(root).cloned().unwrap_or_default()
    }

    pub(super) fn sending(&self, root: ContentHash, asker: Asker) -> Sending<'_> {
        Sending { fetchers: self, root, asker }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ContentHash, SentOfRoot>> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sending<'_> {
    pub(super) fn note(&self, bytes: u64) {
        self.fetchers.lock().entry(self.root).or_default().note(&self.asker, bytes, clock::now());
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let Some(tree) = &self.fetchers.tree else { return };
        let sent = self.fetchers.sent_of(&self.root);
        let kept = serde_json::to_vec(&sent).map(|bytes| tree.insert(self.root.as_bytes(), bytes));
        if !matches!(kept, Ok(Ok(_))) {
            tracing::debug!("who fetched how much is not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use keyferry_proto::identity::NodeSecret;

    use super::*;

    fn asker(number: u8, is_contact: bool) -> Asker {
        Asker::Node { key: NodeSecret::from_bytes(&[number; 32]).public(), is_contact }
    }

    #[test]
    fn strangers_fill_the_table_and_push_nobody_out_and_contacts_take_their_places() {
        let mut sent = SentOfRoot::default();
        for number in 0..=MAX_FETCHERS_OF_ROOT as u8 {
            sent.note(&asker(number, false), 100 + u64::from(number), UnixTime(7));
        }
        assert_eq!((sent.nodes.len(), sent.others().bytes), (MAX_FETCHERS_OF_ROOT, 164));
        sent.note(&asker(200, true), 1, UnixTime(8));
        sent.note(&Asker::ByHash, 10, UnixTime(9));
        assert_eq!(sent.nodes.len(), MAX_FETCHERS_OF_ROOT);
        assert_eq!(sent.others(), SentCount { bytes: 164 + 100 + 10, last: UnixTime(9) });
        assert_eq!(sent.nodes()[0].sent.bytes, 163);
        assert_eq!(sent.nodes().last().unwrap().sent, SentCount { bytes: 1, last: UnixTime(8) });

        let mut contacts = SentOfRoot::default();
        for number in 0..=MAX_FETCHERS_OF_ROOT as u8 {
            contacts.note(&asker(number, true), 1, UnixTime(1));
        }
        assert_eq!((contacts.nodes.len(), contacts.others().bytes), (MAX_FETCHERS_OF_ROOT, 1));
    }

    #[test]
    fn the_table_is_there_after_a_restart_but_for_roots_that_are_gone() {
        let (home, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = files.path().join("f");
        std::fs::write(&path, b"f").unwrap();
        let open = || Store::open(home.path()).unwrap().0;
        let store = open();
        let (mode, never) = (crate::content::store::ImportMode::InPlace, std::sync::atomic::AtomicBool::new(false));
        let root = store.import(&path, &"f".parse().unwrap(), None, mode, &|_| {}, &never).unwrap().root.hash;
        let gone = ContentHash::of(b"gone");
        let fetchers = Fetchers::of(&store);
        fetchers.sending(root, asker(1, true)).note(5);
        fetchers.sending(root, asker(1, true)).note(6);
        fetchers.sending(gone, asker(1, true)).note(7);
        let before = fetchers.sent_of(&root);
        assert_eq!(before.nodes()[0].sent.bytes, 11);
        drop((fetchers, store));

        let after = Fetchers::of(&open());

        assert_eq!(after.sent_of(&root), before);
        assert_eq!(after.sent_of(&gone), SentOfRoot::default());
    }
}
