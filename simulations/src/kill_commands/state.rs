//! What a data folder holds, as its owner is told.
//!
//! What it is not: its files.

use std::collections::{BTreeMap, BTreeSet};

use keyferry::{
    ContentHash, ShareName,
    content::store::RootState,
    node::api::{Event, RootInfo},
};

/// All that commands change of a data folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FolderState {
    /// What is shared, by name.
    pub(super) shares: BTreeMap<ShareName, ContentHash>,
    /// What is stored and has no name.
    pub(super) kept: BTreeSet<ContentHash>,
    /// Names by key.
    pub(super) contacts: BTreeMap<String, String>,
}

impl FolderState {
    /// The state that `store ls` and `contacts ls` have told.
    pub(super) fn told_by(events: &[Event]) -> Self {
        let mut state = Self::default();
        for event in events {
            match event {
                Event::Root(RootInfo { state: RootState::Shared { name, .. }, hash, .. }) => {
                    state.shares.insert(name.clone(), *hash);
                }
                Event::Root(root) => {
                    state.kept.insert(root.hash);
                }
                Event::Contact(contact) => {
                    state.contacts.insert(contact.node.clone(), contact.name.clone());
                }
                _ => {}
            }
        }
        state
    }

    /// Notes that a content has a name from now on. What had it is not stored any more.
    pub(super) fn share(&mut self, name: &ShareName, hash: ContentHash) {
        self.shares.insert(name.clone(), hash);
        self.kept.remove(&hash);
    }

    /// Notes that a name is gone, and its content kept.
    pub(super) fn unshare(&mut self, name: &ShareName) {
        self.kept.extend(self.shares.remove(name));
    }

    /// Notes that a content is not stored any more.
    pub(super) fn remove(&mut self, hash: &ContentHash) {
        self.shares.retain(|_, of| of != hash);
        self.kept.remove(hash);
    }

    /// Whether this content is stored, shared or not.
    pub(super) fn has(&self, hash: &ContentHash) -> bool {
        self.kept.contains(hash) || self.shares.values().any(|of| of == hash)
    }
}
