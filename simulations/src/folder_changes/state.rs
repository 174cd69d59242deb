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
pub(crate) struct FolderState {
    /// The key of the node, as text; none where nobody has seen it yet.
    pub(crate) node: Option<String>,
    /// What is shared, by name.
    pub(crate) shares: BTreeMap<ShareName, ContentHash>,
    /// What is stored and has no name.
    pub(crate) kept: BTreeSet<ContentHash>,
    /// Names by key.
    pub(crate) contacts: BTreeMap<String, String>,
}

impl FolderState {
    /// The state that `id`, `store ls` and `contacts ls` have told.
    pub(crate) fn told_by(events: &[Event]) -> Self {
        let mut state = Self::default();
        for event in events {
            match event {
                Event::Root(RootInfo { state: RootState::Shared { name, .. }, hash, .. }) => {
                    state.shares.insert(name.clone(), *hash);
                }
                Event::Root(root) => {
                    state.kept.insert(root.hash);
                }
                Event::Identity { node } => state.node = Some(node.clone()),
                Event::Contact(contact) => {
                    state.contacts.insert(contact.node.clone(), contact.name.clone());
                }
                _ => {}
            }
        }
        state
    }

    /// Whether a folder is in this state. A key that nobody has seen yet may be any.
    pub(crate) fn is_that_of(&self, found: &Self) -> bool {
        let node = self.node.clone().or_else(|| found.node.clone());
        Self { node, ..self.clone() } == *found
    }

    /// What is so in both states.
    pub(crate) fn in_common(&self, other: &Self) -> Self {
        Self {
            node: self.node.clone(),
            shares: self
                .shares
                .iter()
                .filter(|(name, hash)| other.shares.get(*name) == Some(*hash))
                .map(|(name, hash)| (name.clone(), *hash))
                .collect(),
            kept: self.kept.intersection(&other.kept).copied().collect(),
            contacts: BTreeMap::new(),
        }
    }

    /// Notes that a content has a name from now on. What had it is not stored any more.
    pub(crate) fn share(&mut self, name: &ShareName, hash: ContentHash) {
        self.shares.insert(name.clone(), hash);
        self.kept.remove(&hash);
    }

    /// Notes that a name is gone, and its content kept.
    pub(crate) fn unshare(&mut self, name: &ShareName) {
        self.kept.extend(self.shares.remove(name));
    }

    /// Notes that a content is not stored any more.
    pub(crate) fn remove(&mut self, hash: &ContentHash) {
        self.shares.retain(|_, of| of != hash);
        self.kept.remove(hash);
    }

    /// Whether this content is stored, shared or not.
    pub(crate) fn has(&self, hash: &ContentHash) -> bool {
        self.kept.contains(hash) || self.shares.values().any(|of| of == hash)
    }
}
