//! To whom a share is offered, and who asks.
//!
//! What it is not: the list of contacts; whether somebody is one is said by whoever asks here.

use std::fmt;

use keyferry_proto::identity::NodeKey;
use serde::{Deserialize, Serialize};

/// The greatest number of nodes that an audience names one by one.
pub const MAX_INVITED: usize = 1024;

/// To whom a share is offered. To all others it does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case")]
pub enum Audience {
    /// To whoever has its address.
    Everyone {
        /// Whether the catalogue shows it to those who are no contacts, too.
        listed: bool,
        /// Whether it is announced and given by its hash alone.
        announced: bool,
    },
    /// To some nodes, by their keys. It is never announced.
    Only(Invited),
}

/// The nodes that a share is for: contacts, nodes that are named, or both. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "InvitedFields")]
pub struct Invited {
    contacts: bool,
    nodes: Vec<NodeKey>,
}

#[derive(Deserialize)]
struct InvitedFields {
    contacts: bool,
    nodes: Vec<NodeKey>,
}

/// Why some nodes are no audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AudienceError {
    /// There are none.
    #[error("it would be shared with nobody")]
    Nobody,
    /// There are too many.
    #[error("at most {MAX_INVITED} nodes can be named; make them contacts, and share with contacts")]
    TooMany,
}

/// Who asks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A node that has proven its key.
    Node {
        /// The key.
        key: NodeKey,
        /// Whether this node's owner has it among the contacts.
        is_contact: bool,
    },
    /// Whoever knows the hash of a content, under a key that will be thrown away.
    ByHash,
}

impl Default for Audience {
    fn default() -> Self {
        Self::Everyone { listed: false, announced: true }
    }
}

impl Audience {
    /// Whether the share is there for this asker.
    pub fn admits(&self, asker: &Asker) -> bool {
        match (self, asker) {
            (Self::Everyone { .. }, Asker::Node { .. }) => true,
            (Self::Everyone { announced, .. }, Asker::ByHash) => *announced,
            (Self::Only(invited), Asker::Node { key, is_contact }) => invited.includes(key, *is_contact),
            (Self::Only(_), Asker::ByHash) => false,
        }
    }

    /// Whether another audience has everybody in it who is in this one.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everyone { announced, .. }, Self::Everyone { announced: before, .. }) => *before || !announced,
            (Self::Everyone { .. }, Self::Only(_)) => false,
            (Self::Only(_), Self::Everyone { .. }) => true,
            (Self::Only(now), Self::Only(before)) => {
                (before.contacts || !now.contacts) && now.nodes.iter().all(|node| before.nodes.contains(node))
            }
        }
    }

    /// Whether the catalogue shows the share to this asker.
    pub fn is_shown_to(&self, asker: &Asker) -> bool {
        match (self, asker) {
            (_, Asker::ByHash) => false,
            (Self::Everyone { listed, .. }, Asker::Node { is_contact, .. }) => *listed || *is_contact,
            (Self::Only(_), Asker::Node { .. }) => self.admits(asker),
        }
    }
}

impl Invited {
    /// Contacts or not, and these nodes.
    ///
    /// # Errors
    ///
    /// If that is nobody, or too many.
    pub fn new(contacts: bool, mut nodes: Vec<NodeKey>) -> Result<Self, AudienceError> {
        nodes.sort_by_key(|node| *node.as_bytes());
        nodes.dedup();
        match nodes.len() {
            0 if !contacts => Err(AudienceError::Nobody),
            0..=MAX_INVITED => Ok(Self { contacts, nodes }),
            _ => Err(AudienceError::TooMany),
        }
    }

    /// Whether all contacts are among them.
    pub fn contacts(&self) -> bool {
        self.contacts
    }

    /// The nodes that are named.
    pub fn nodes(&self) -> &[NodeKey] {
        &self.nodes
    }

    /// All of them in words, with these names for those that are named.
    pub fn in_words(&self, name: impl Fn(&NodeKey) -> String) -> String {
        let contacts = self.contacts.then(|| "contacts".to_owned());
        contacts.into_iter().chain(self.nodes.iter().map(name)).collect::<Vec<_>>().join(", ")
    }

    fn includes(&self, key: &NodeKey, is_contact: bool) -> bool {
        (self.contacts && is_contact) || self.nodes.contains(key)
    }
}

impl TryFrom<InvitedFields> for Invited {
    type Error = AudienceError;

    fn try_from(InvitedFields { contacts, nodes }: InvitedFields) -> Result<Self, Self::Error> {
        Self::new(contacts, nodes)
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone { announced: true, .. } => f.write_str("everyone"),
            Self::Everyone { announced: false, .. } => f.write_str("everyone who has the address"),
            Self::Only(invited) => f.write_str(&invited.in_words(NodeKey::to_string)),
        }
    }
}

#[cfg(test)]
mod tests {
    use keyferry_proto::identity::NodeSecret;

    use super::*;

    fn key(number: u8) -> NodeKey {
        NodeSecret::from_bytes(&[number; 32]).public()
    }

    fn node(number: u8, is_contact: bool) -> Asker {
        Asker::Node { key: key(number), is_contact }
    }

    #[test]
    fn a_share_is_there_for_its_audience_and_shown_to_contacts_unless_it_is_listed() {
        let everyone = |listed, announced| Audience::Everyone { listed, announced };
        let only = |contacts, nodes| Audience::Only(Invited::new(contacts, nodes).unwrap());
        // For a stranger, a contact, node 1 (no contact) and whoever has the hash: whether it is there, and whether it is shown.
        let cases = [
            (everyone(false, true), ["yes", "shown", "yes", "yes"]),
            (everyone(true, true), ["shown", "shown", "shown", "yes"]),
            (everyone(false, false), ["yes", "shown", "yes", "no"]),
            (only(true, vec![]), ["no", "shown", "no", "no"]),
            (only(false, vec![key(1)]), ["no", "no", "shown", "no"]),
            (only(true, vec![key(1)]), ["no", "shown", "shown", "no"]),
        ];
        let askers = [node(9, false), node(8, true), node(1, false), Asker::ByHash];
        for (audience, expected) in cases {
            let got = askers.map(|asker| match (audience.admits(&asker), audience.is_shown_to(&asker)) {
                (true, true) => "shown",
                (true, false) => "yes",
                (false, false) => "no",
                (false, true) => "shown, and not there",
            });
            assert_eq!(got, expected, "{audience:?}");
        }
    }

    #[test]
    fn an_audience_is_within_another_if_that_has_all_of_it() {
        let everyone = |announced| Audience::Everyone { listed: false, announced };
        let only = |contacts, nodes: &[u8]| {
            Audience::Only(Invited::new(contacts, nodes.iter().copied().map(key).collect()).unwrap())
        };
        // From the one that has most to the one that has least.
        let chain = [everyone(true), everyone(false), only(true, &[1, 2]), only(true, &[2])];
        for (at, smaller) in chain.iter().enumerate() {
            for (before, larger) in chain.iter().enumerate() {
                assert_eq!(smaller.is_within(larger), before <= at, "{smaller:?} in {larger:?}");
            }
        }
        assert!(!only(false, &[1]).is_within(&only(true, &[])), "whether it is a contact is not known here");
        assert!(!only(true, &[]).is_within(&only(false, &[1])));
    }

    #[test]
    fn an_audience_is_somebody_and_names_no_more_nodes_than_the_limit() {
        assert_eq!(Invited::new(false, vec![]), Err(AudienceError::Nobody));
        assert_eq!(Invited::new(false, vec![key(2), key(1), key(2)]).unwrap().nodes().len(), 2);
        let written = serde_json::to_string(&Audience::Only(Invited::new(true, vec![key(1)]).unwrap())).unwrap();
        assert!(serde_json::from_str::<Audience>(&written).is_ok(), "{written}");
        assert!(serde_json::from_str::<Audience>(r#"{"to": "only", "contacts": false, "nodes": []}"#).is_err());
    }
}
