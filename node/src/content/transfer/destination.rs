//! Where a user wants what an address names, and how.
//!
//! What it is not: the place itself; what the address names may say its name, and what is there already may matter.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::{any_path, umask::Umask};

/// Where the user wants what an address names, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The folder (absolute); it is made if it does not exist.
    #[serde(with = "any_path")]
    pub folder: PathBuf,
    /// The name in it, in place of the one that it comes with: one safe path component.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether the folder itself is the place, if the same was fetched to it before.
    #[serde(default)]
    pub may_be_itself: bool,
    /// The rights that new files do not get; none: those that files of this process do not get.
    #[serde(default)]
    pub umask: Option<Umask>,
    /// Whether files that exist may be replaced, whoever wrote them.
    #[serde(default)]
    pub overwrite: bool,
    /// Whether files are removed that an earlier version had there.
    #[serde(default)]
    pub mirror: bool,
    /// Whether to wait until all of it is on the disk.
    #[serde(default)]
    pub sync: bool,
    /// Whether to offer it to others from there, by its hash.
    #[serde(default)]
    pub seed: bool,
}

impl Destination {
    /// In this folder, under the name that it comes with; nothing of others is replaced, and nobody else is given it.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder,
            name: None,
            may_be_itself: false,
            umask: None,
            overwrite: false,
            mirror: false,
            sync: false,
            seed: false,
        }
    }
}
