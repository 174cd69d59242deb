//! What is told of another running node that has this node's key.
//!
//! What it is not: how it is met (`net::twins`, `connect::connector::twins`).

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{
    base::any_path,
    net::twins::{TwinEncounter, TwinMeeting},
};

/// Another running node has this node's key: the data folder was copied, or restored elsewhere. Whoever looks for the key finds the one or
/// the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SameKeyInfo {
    /// The key, as text.
    pub node: String,
    /// Since when it is known: seconds since 1970 (UTC).
    pub since: u64,
    /// How it was found.
    pub seen: SameKeySeen,
    /// The file that has the key of this node. Where it is moved away, the node makes a new key at its next start.
    #[serde(with = "any_path")]
    pub key_file: PathBuf,
}

/// How another node with the same key was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SameKeySeen {
    /// It was reached at this address.
    At(SocketAddr),
    /// It has reached this node, from this host.
    From(IpAddr),
    /// It was called, or has called.
    ByCall,
    /// It says where it is, and was not reached there.
    ByOffer,
}

impl SameKeyInfo {
    pub(in super::super) fn new(node: String, key_file: PathBuf, TwinMeeting { since, by }: TwinMeeting) -> Self {
        let seen = match by {
            TwinEncounter::Dialled(addr) => SameKeySeen::At(addr),
            TwinEncounter::DialledFrom(host) => SameKeySeen::From(host),
            TwinEncounter::Called => SameKeySeen::ByCall,
            TwinEncounter::Published => SameKeySeen::ByOffer,
        };
        Self { node, since: since.0, seen, key_file }
    }
}
