//! The commands that change a data folder, and which of them can be the next.
//!
//! What it is not: what they change; see [`super::ground`].

use keyferry::{ContentHash, ShareName};
use rand::{RngExt, rngs::StdRng, seq::IteratorRandom};
use serde::Serialize;

use super::state::FolderState;

/// How many files are shared as copies.
pub(crate) const COPIED: usize = 3;
/// How many contacts there may be.
pub(crate) const CONTACTS: usize = 5;
/// How many names each may have.
const NAMES_OF_CONTACT: usize = 9;

/// What a command does. In this order each can follow those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Share,
    ShareCopy,
    Unshare,
    Get,
    StoreRemove,
    StoreGc,
    ContactsAdd,
    ContactsRemove,
}

impl Kind {
    pub(crate) const ALL: [Kind; 8] = [
        Kind::Share,
        Kind::ShareCopy,
        Kind::Unshare,
        Kind::Get,
        Kind::StoreRemove,
        Kind::StoreGc,
        Kind::ContactsAdd,
        Kind::ContactsRemove,
    ];
}

/// What there is to work on.
pub(crate) struct Choice {
    /// How much lies there to be shared in place.
    pub(crate) places: usize,
    /// The folders that can be fetched.
    pub(crate) trees: Vec<ContentHash>,
}

/// A command with what it is about.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Shares what lies at this place of the ground, whose name it has.
    Share(usize),
    /// Shares a copy of a new version of what lies at this place.
    ShareCopy(usize),
    Unshare(ShareName),
    /// Fetches this folder of the other node.
    Get(usize),
    StoreRemove(ContentHash),
    StoreGc,
    /// Gives the contact with this number a name.
    ContactsAdd(usize, String),
    /// Removes the contact with this key.
    ContactsRemove(String),
}

impl Change {
    /// Some command of this kind that can be carried out; none if there is none.
    pub(crate) fn random(kind: Kind, state: &FolderState, choice: &Choice, random: &mut StdRng) -> Option<Self> {
        match kind {
            Kind::Share => Some(Self::Share(random.random_range(0..choice.places))),
            Kind::ShareCopy => Some(Self::ShareCopy(random.random_range(0..COPIED))),
            Kind::Unshare => state.shares.keys().choose(random).cloned().map(Self::Unshare),
            Kind::Get => {
                let missing = (0..choice.trees.len()).filter(|&number| !state.has(&choice.trees[number]));
                missing.choose(random).map(Self::Get)
            }
            Kind::StoreRemove => {
                state.kept.iter().chain(state.shares.values()).choose(random).copied().map(Self::StoreRemove)
            }
            Kind::StoreGc => Some(Self::StoreGc),
            Kind::ContactsAdd => {
                let number = random.random_range(0..CONTACTS);
                let name = format!("contact {number} as {}", random.random_range(0..NAMES_OF_CONTACT));
                Some(Self::ContactsAdd(number, name))
            }
            Kind::ContactsRemove => state.contacts.keys().choose(random).cloned().map(Self::ContactsRemove),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Share(_) => Kind::Share,
            Self::ShareCopy(_) => Kind::ShareCopy,
            Self::Unshare(_) => Kind::Unshare,
            Self::Get(_) => Kind::Get,
            Self::StoreRemove(_) => Kind::StoreRemove,
            Self::StoreGc => Kind::StoreGc,
            Self::ContactsAdd(..) => Kind::ContactsAdd,
            Self::ContactsRemove(_) => Kind::ContactsRemove,
        }
    }
}
