//! Why content cannot be put where the user wants it.

use std::{io, path::PathBuf};

/// Why content cannot be put where the user wants it. Always this machine's or the user's side, never the peer's.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The target exists.
    #[error("{path} exists already")]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The target is a folder and the content is a file, or the other way round.
    #[error("{path} is a {found}, but the content needs a {needed} there")]
    Clash {
        /// The place in question.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What the content needs there.
        needed: &'static str,
    },
    /// A leftover under the staging name that another user made, or that has another name as well: its owner could change the content
    /// after it was verified.
    #[error("{path} is not this user's alone")]
    Foreign {
        /// The leftover.
        path: PathBuf,
    },
    /// The disk has less room than what is still to come would take.
    #[error("{path} has {free} bytes of free space, and {needed} are needed")]
    NoRoom {
        /// The folder.
        path: PathBuf,
        /// The bytes that are needed there.
        needed: u64,
        /// The bytes that are free.
        free: u64,
    },
    /// Another fetch is writing to the same target.
    #[error("another fetch is writing {path} right now")]
    Busy {
        /// The target.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot write {path}: {}", explain(source))]
    Io {
        /// The file or folder in question.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// What an I/O error means, in words that a person can act on.
pub fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::FileTooLarge => "the file system there takes no file of that size".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        io::ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        _ => error.to_string(),
    }
}
