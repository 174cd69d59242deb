//! Moving content: answering requests ([`serve`]) and fetching from one or several providers ([`fetch`]).
//!
//! What it is not: finding providers or making connections; sessions come from outside.

mod attempt;
mod changes;
pub mod comparing;
mod context;
pub mod describing;
pub mod destination;
pub mod fetch;
pub mod fetchers;
mod ledger;
pub mod listing;
mod parents;
mod part;
mod patience;
pub mod placement;
mod plan;
pub mod reading;
mod receive;
pub mod serve;
mod sink;
pub mod staging;
mod there;

use std::{fmt, io, path::PathBuf};

use keyferry_proto::{
    collection::{MAX_MANIFEST_LEN, ManifestError},
    hash::{ContentFormat, ContentHash},
    message::{MessageError, Refusal},
    transfer::{groups::GroupError, layout::LayoutError, schedule::ScheduleError},
};

use self::staging::present::LookError;
use crate::content::store::{BlobError, StoreError};

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
    /// The publisher or a provider: the size that it claims cannot be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The providers: none has the content.
    #[error("nobody who was reached gives {}: {why}", hash.short())]
    Unavailable {
        /// The root hash.
        hash: ContentHash,
        /// What the last provider said.
        why: Refusal,
    },
    /// The providers: some files of a folder are not to be had; the others are in their places.
    #[error("{_0}")]
    Incomplete(Box<Incomplete>),
    /// The user: some files of the target are not what a fetch put there, and are kept; the others are in their places.
    #[error("{_0}")]
    Kept(Box<KeptFiles>),
    /// The providers: they are gone, or their data was wrong.
    #[error("no provider is left to fetch from: {last}")]
    NoProvider {
        /// What went wrong with the last one.
        #[source]
        last: ProviderError,
    },
    /// The network: no provider was found in time.
    #[error("no provider of {} was found", hash.short())]
    NotFound {
        /// The root hash.
        hash: ContentHash,
    },
    /// The caller: the folder has nothing at this path, or the content is no folder.
    #[error("there is no {path} in it")]
    NotInFolder {
        /// The path, as people read it.
        path: String,
    },
    /// The caller: a link is of no use without what it leads to.
    #[error("{path} is a symbolic link to {target}")]
    IsALink {
        /// The path, as people read it.
        path: String,
        /// What it leads to.
        target: String,
    },
    /// The caller: it is a folder, and not one file to read.
    #[error("the content is a folder")]
    Folder,
    /// The file that it is read from: it changed, or cannot be read.
    #[error(transparent)]
    Source(#[from] BlobError),
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
    /// This program: something that cannot be.
    #[error("internal error: {0}")]
    Internal(#[from] InternalError),
}

impl FetchError {
    /// Why there is no content, by what last went wrong with a provider; by nothing, if there was none.
    fn in_vain(hash: ContentHash, last: Option<ProviderError>) -> Self {
        match last {
            None => Self::NotFound { hash },
            Some(ProviderError::Refused(why)) => Self::Unavailable { hash, why },
            Some(last) => Self::NoProvider { last },
        }
    }
}

/// A folder that was fetched as far as it is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incomplete {
    /// Where it is.
    pub path: PathBuf,
    /// How many files it should have.
    pub files: u64,
    /// How many of them are not there.
    pub missing_count: u64,
    /// Which, at most [`MAX_MISSING_LISTED`] of them.
    pub missing: Vec<MissingFile>,
}

/// A folder in which files of its owner's are in the way of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFiles {
    /// Where it is.
    pub path: PathBuf,
    /// How many are in the way.
    pub kept_count: u64,
    /// Which, at most [`MAX_MISSING_LISTED`] of them, by the names that the sender has for what was to be there.
    pub kept: Vec<String>,
}

/// A file that nobody gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingFile {
    /// Its path in the folder.
    pub path: String,
    /// Why not, by the word of a provider.
    pub why: Refusal,
}

/// How many missing files are listed; the rest is only counted.
pub const MAX_MISSING_LISTED: usize = 1000;
/// How many of them an error names.
const MAX_NAMED: usize = 3;

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, files, missing_count, missing } = self;
        write!(f, "{missing_count} of {files} files are missing in {}: ", path.display())?;
        for (number, MissingFile { path, why }) in missing.iter().take(MAX_NAMED).enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{path} ({why})")?;
        }
        match missing_count.saturating_sub(MAX_NAMED as u64) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// What went wrong with a provider.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The provider: it sent what is not the content that was asked for.
    #[error(transparent)]
    Lied(#[from] Lie),
    /// The provider: it will not give the content.
    #[error("it refuses: {0}")]
    Refused(Refusal),
    /// Another provider described the content differently, and one of them lies.
    #[error("it describes the content as {format:?} of {size} bytes, another provider differently")]
    Disagrees {
        /// The format that it says.
        format: ContentFormat,
        /// The size that it says.
        size: u64,
    },
    /// The connection.
    #[error("the connection was lost: {0}")]
    Connection(#[source] io::Error),
    /// Nothing has come for too long.
    #[error("it sends nothing")]
    Silent,
    /// Its answers end, and nothing new is in them.
    #[error("its answers bring nothing")]
    Useless,
}

/// What a provider sent that is not the content that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// Not the format that the publisher has signed.
    #[error("it says {got:?} of what the publisher calls a {signed:?}")]
    Format {
        /// What it says.
        got: ContentFormat,
        /// What the publisher says.
        signed: ContentFormat,
    },
    /// A header above the limit.
    #[error("a header of {got} bytes, at most {limit} are allowed")]
    LongHeader {
        /// The announced length.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// Something that is not the header or status that was due.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A size that cannot be.
    #[error(transparent)]
    Layout(LayoutError),
    /// A list of files above the limit.
    #[error("it claims a list of files of {got} bytes; at most {MAX_MANIFEST_LEN} are allowed")]
    LongManifest {
        /// The claimed size.
        got: u64,
    },
    /// A list of files that is not acceptable.
    #[error("the list of files is not acceptable: {0}")]
    Manifest(#[source] ManifestError),
    /// Bytes of another item.
    #[error("the bytes do not hash to {}", expected.short())]
    Hash {
        /// The hash that they should have.
        expected: ContentHash,
    },
    /// Groups that are not those of the item.
    #[error(transparent)]
    Groups(#[from] GroupError),
}

/// What cannot be, unless this program is wrong.
#[derive(Debug, thiserror::Error)]
pub enum InternalError {
    /// A task ended unexpectedly.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
    /// The schedule was told of something that it does not know.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// An attempt is complete without a plan.
    #[error("there is no plan")]
    NoPlan,
    /// A plan has content that no file is for.
    #[error("there is no file for the content")]
    NoPlace,
}

impl fmt::Display for KeptFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, kept_count, kept } = self;
        let path = path.display();
        match kept_count {
            1 => write!(f, "1 file in {path} has changed since it was fetched, and is kept: ")?,
            count => write!(f, "{count} files in {path} have changed since they were fetched, and are kept: ")?,
        }
        write!(f, "{}", kept[..kept.len().min(MAX_NAMED)].join(", "))?;
        match kept_count.saturating_sub(MAX_NAMED as u64) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

impl From<LookError> for FetchError {
    fn from(error: LookError) -> Self {
        match error {
            LookError::Store(StoreError::Cancelled) => Self::Interrupted,
            LookError::Store(error) => error.into(),
            LookError::Target(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests;
