//! Whose calls a node takes.
//!
//! What it is not: the list of contacts ([`crate::home::ContactsFile`]).

use std::{fmt, str::FromStr};

use keyferry_proto::identity::NodeKey;

use crate::home::ContactsFile;

/// Whose calls a node takes. All others learn no candidate of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CallPolicy {
    /// Those of everyone who has this node's key.
    #[default]
    Everyone,
    /// Those of contacts.
    Contacts,
    /// None.
    Nobody,
}

/// The policy, with the contacts that it refers to.
#[derive(Debug, Clone)]
pub struct Callers {
    policy: CallPolicy,
    contacts: ContactsFile,
}

impl Callers {
    /// Takes calls by this policy. The file is read again for each call, so that a change of it counts at once.
    pub fn new(policy: CallPolicy, contacts: ContactsFile) -> Self {
        Self { policy, contacts }
    }

    /// Whether a node may call.
    pub async fn admit(&self, caller: NodeKey) -> bool {
        match self.policy {
            CallPolicy::Everyone => true,
            CallPolicy::Nobody => false,
            CallPolicy::Contacts => {
                let file = self.contacts.clone();
                let listed = tokio::task::spawn_blocking(move || file.read());
                match listed.await {
                    Ok(Ok(contacts)) => contacts.name_of(&caller).is_some(),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "nobody can call: the contacts cannot be read");
                        false
                    }
                    Err(_) => false,
                }
            }
        }
    }
}

impl FromStr for CallPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "everyone" => Ok(Self::Everyone),
            "contacts" => Ok(Self::Contacts),
            "nobody" => Ok(Self::Nobody),
            _ => Err("whose calls are taken is one of: everyone, contacts, nobody".to_owned()),
        }
    }
}

impl fmt::Display for CallPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everyone => "everyone",
            Self::Contacts => "contacts",
            Self::Nobody => "nobody",
        })
    }
}
