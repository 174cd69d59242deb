//! Whom a node does something for: everyone, its contacts or nobody.
//!
//! What it is not: the list of contacts ([`ContactsFile`]), or what is done for them.

use std::{fmt, str::FromStr};

use keyferry_proto::identity::NodeKey;
use serde::{Deserialize, Serialize};

use super::ContactsFile;

/// Whom a node does something for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdmissionPolicy {
    /// Everyone.
    #[default]
    Everyone,
    /// Contacts.
    Contacts,
    /// Nobody.
    Nobody,
}

/// The policy, with the contacts that it refers to.
#[derive(Debug, Clone)]
pub struct Admission {
    policy: AdmissionPolicy,
    contacts: ContactsFile,
}

impl Admission {
    /// Admits by this policy. The file is read again for each question, so that a change of it counts at once.
    pub fn new(policy: AdmissionPolicy, contacts: ContactsFile) -> Self {
        Self { policy, contacts }
    }

    /// The policy.
    pub fn policy(&self) -> AdmissionPolicy {
        self.policy
    }

    /// Whether a node is admitted.
    pub async fn admit(&self, node: NodeKey) -> bool {
        match self.policy {
            AdmissionPolicy::Everyone => true,
            AdmissionPolicy::Nobody => false,
            AdmissionPolicy::Contacts => self.is_contact(node).await,
        }
    }

    /// Whether a node is a contact.
    pub(crate) async fn is_contact(&self, node: NodeKey) -> bool {
        self.contacts.lists(node).await
    }
}

impl FromStr for AdmissionPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "everyone" => Ok(Self::Everyone),
            "contacts" => Ok(Self::Contacts),
            "nobody" => Ok(Self::Nobody),
            _ => Err("this is not one of: everyone, contacts, nobody".to_owned()),
        }
    }
}

impl fmt::Display for AdmissionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everyone => "everyone",
            Self::Contacts => "contacts",
            Self::Nobody => "nobody",
        })
    }
}
