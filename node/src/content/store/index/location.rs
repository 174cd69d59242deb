//! Where a blob is.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::{
    any_path,
    stamp::{Machine, Stamp, StampTrust},
};

/// A file that has a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::content::store) struct Location {
    /// The file, absolute.
    #[serde(with = "any_path")]
    pub(in crate::content::store) path: PathBuf,
    /// What it was like when it was hashed, or found.
    pub(in crate::content::store) stamp: Stamp,
    /// How far that vouches for it.
    pub(in crate::content::store) trust: StampTrust,
}

impl Location {
    /// Whether a file with this stamp has the blob for sure.
    pub(in crate::content::store) fn vouches_for(&self, found: &Stamp, machine: &Machine) -> bool {
        self.stamp == *found && self.trust.holds(machine)
    }
}
