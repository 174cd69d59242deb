//! Moving content: answering requests ([`serve`]) and fetching from one or several holders ([`fetch`]).
//!
//! What it is not: finding holders or making connections; sessions come from outside.

mod attempt;
pub mod fetch;
mod plan;
mod receive;
pub mod serve;
mod sink;
pub mod staging;

use std::{io, path::PathBuf};

use keyferry_proto::{collection::ManifestError, hash::ContentHash, message::Refusal, transfer::layout::LayoutError};

use crate::content::store::StoreError;

/// Why a fetch failed for good.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// This machine: the target.
    #[error(transparent)]
    Target(#[from] staging::StagingError),
    /// This machine: the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This machine: the disk.
    #[error("cannot write {path}: {}", staging::explain(source))]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The publisher: the content names itself a folder, but its list of files is not acceptable.
    #[error("the list of files is not acceptable: {0}")]
    HostileManifest(#[source] ManifestError),
    /// The publisher or a holder: the size that it claims cannot be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The holders: none has the content.
    #[error("nobody who was reached gives {}: {why}", hash.short())]
    Unavailable {
        /// The root hash.
        hash: ContentHash,
        /// What the last holder said.
        why: Refusal,
    },
    /// The holders: they are gone, or their data was wrong.
    #[error("no holder is left to fetch from: {last}")]
    NoHolder {
        /// What went wrong with the last one.
        last: String,
    },
    /// The network: no holder was found in time.
    #[error("no holder of {} was found", hash.short())]
    NotFound {
        /// The root hash.
        hash: ContentHash,
    },
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
    /// A task of this program ended unexpectedly.
    #[error("internal error: {0}")]
    Internal(String),
}

#[cfg(test)]
mod tests;
