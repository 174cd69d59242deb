//! What can go wrong with the content store, in words that say what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use keyferry_proto::{collection::ManifestError, hash::ContentHash};

use super::left_out::LeftOut;

/// Why the store cannot do what it was asked. All of it is about this machine and its files.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A shared file is not what it was: another size, time of change, or another file in its place.
    #[error("the file changed since it was shared: {}; share it again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A shared file is gone.
    #[error("the file is gone since it was shared: {}; put it back, or share anew", path.display())]
    Vanished {
        /// The file.
        path: PathBuf,
    },
    /// A file was changed while it was read.
    #[error("the file changes while it is read: {}; share it again when it is at rest", path.display())]
    Unsteady {
        /// The file.
        path: PathBuf,
    },
    /// What is to be shared is not there.
    #[error("there is no {}", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// What is to be shared is neither a file nor a folder.
    #[error("{} is neither a file nor a folder, so it cannot be shared", path.display())]
    NotShareable {
        /// The path.
        path: PathBuf,
    },
    /// The folder to be shared holds the data folder, with the identity key, or lies in it.
    #[error("{} holds keyferry's own data folder, or lies in it, so it is not shared; choose another folder", path.display())]
    OwnDataFolder {
        /// The path.
        path: PathBuf,
    },
    /// The files of a folder do not make a collection.
    #[error("the folder {} cannot be shared: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: ManifestError,
    },
    /// Something of a folder cannot be shared, and all of it was wanted.
    #[error("of {} {} cannot be shared; share it without --strict to leave that out", path.display(), left_out.count)]
    LeavesOut {
        /// The folder.
        path: PathBuf,
        /// What, and why.
        left_out: Box<LeftOut>,
    },
    /// A folder that is followed has nothing in it any more, as if its disk were not there.
    #[error("{} is empty now; share it again if that is meant", path.display())]
    Emptied {
        /// The folder.
        path: PathBuf,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Cancelled,
    /// Bytes that do not have the hash under which they were to be kept.
    #[error("expected {expected}, got bytes with the hash {got}")]
    HashMismatch {
        /// The hash asked for.
        expected: ContentHash,
        /// The hash of the bytes.
        got: ContentHash,
    },
    /// A file of the store itself is not what it should be.
    #[error("a file of the store is damaged: {} ({problem}); run: keyferry store verify", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, in words.
        problem: String,
    },
    /// The list of what is shared cannot be read; it is left as it is.
    #[error(
        "the list of what is shared, {}, cannot be read: {problem}. Restore it from a backup, or move it away to start \
         with an empty one (shared files themselves are not in it)", path.display()
    )]
    Roots {
        /// The list.
        path: PathBuf,
        /// What is wrong, in words.
        problem: String,
    },
    /// The index failed while it was in use.
    #[error("the index {} failed: {problem}. Start keyferry again: it will be rebuilt, and nothing is lost", path.display())]
    Index {
        /// The folder of the index.
        path: PathBuf,
        /// What is wrong, in words.
        problem: String,
    },
    /// No space left.
    #[error("the disk is full: cannot {action} {}; free some space there, then try again", path.display())]
    DiskFull {
        /// What was tried, such as "write".
        action: &'static str,
        /// The path that it was tried on.
        path: PathBuf,
    },
    /// A file system or folder that cannot be written to.
    #[error("cannot {action} {}: it is read-only, or belongs to another user", path.display())]
    ReadOnly {
        /// What was tried, such as "write".
        action: &'static str,
        /// The path that it was tried on.
        path: PathBuf,
    },
    /// The operating system refused something else.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as "write".
        action: &'static str,
        /// The path that it was tried on.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Why bytes of a blob cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The file is not what it was when it was shared.
    #[error("the file changed since it was shared: {}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The outboard ends too early, or a place in it was asked for that it does not have.
    #[error("the outboard of {} has no parent at byte {offset}; run: keyferry store verify", path.display())]
    NoParent {
        /// The blob's file.
        path: PathBuf,
        /// The place in the outboard, in bytes.
        offset: u64,
    },
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl StoreError {
    /// Wraps what the operating system said about `path`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { action, path },
            // A refused read does not mean that something is read-only, so only writing actions come here.
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { action, path },
            io::ErrorKind::PermissionDenied if WRITING.contains(&action) => Self::ReadOnly { action, path },
            _ => Self::Io { action, path, source },
        }
    }
}

/// The actions that need permission to write.
const WRITING: [&str; 6] = ["write", "write in", "create", "empty", "remove", "rename"];
