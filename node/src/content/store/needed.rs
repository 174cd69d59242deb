//! Which blobs are needed by roots, so that the rest can be removed.
//!
//! A list of files that cannot be read may name any blob: its root keeps everything that it might refer to. So damage to one root costs
//! space, and nothing that others have.

use std::collections::HashSet;

use keyferry_proto::hash::ContentHash;

use super::{Root, RootOrigin, Store};

/// What must be kept in the data folder.
#[derive(Debug, Default)]
pub(super) struct Needed {
    blobs: HashSet<ContentHash>,
    /// Whether a root with its files elsewhere cannot be read: any outboard and any entry of the index may be its.
    any_entry: bool,
    /// Whether a root with its files in the data folder cannot be read: any copy may be its.
    any_copy: bool,
}

impl Needed {
    /// Whether the copy of a blob, or its list of files, is needed.
    pub(super) fn has_copy(&self, hash: &ContentHash) -> bool {
        self.any_copy || self.blobs.contains(hash)
    }

    /// Whether the outboard of a blob, and its entry in the index, are needed.
    pub(super) fn has_entry(&self, hash: &ContentHash) -> bool {
        self.any_entry || self.blobs.contains(hash)
    }
}

impl Store {
    /// What these roots need.
    pub(super) fn needed_by(&self, roots: &[Root]) -> Needed {
        let mut needed = Needed::default();
        needed.blobs.extend(self.0.targets.lists());
        for root in roots {
            match self.blobs_of(root) {
                Ok(blobs) => needed.blobs.extend(blobs),
                Err(error) => {
                    tracing::warn!(%error, "everything is kept that this root might refer to");
                    needed.blobs.insert(root.hash);
                    needed.any_entry = true;
                    needed.any_copy |= matches!(root.origin, RootOrigin::Copied);
                }
            }
        }
        needed
    }
}
