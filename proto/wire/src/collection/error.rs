//! What can be wrong with a manifest.

use super::{
    entry::{EntryNameError, LinkError},
    manifest::{MAX_DEPTH, MAX_ENTRIES, MAX_TOTAL_SIZE},
};
use crate::transfer::groups::MAX_BLOB_SIZE;

/// Why some bytes, or some entries, are no manifest. Of bytes, it is the fault of who made the collection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes do not begin with the mark of one.
    #[error("not a manifest: it does not begin with the mark of one")]
    Magic,
    /// The bytes are a manifest of an earlier version.
    #[error("a manifest of an earlier version of keyferry; share the folder again")]
    Former,
    /// An entry goes on behind the last byte.
    #[error("not a manifest: it ends in the middle of an entry, after {got} bytes")]
    Truncated {
        /// Length, in bytes.
        got: usize,
    },
    /// There are bytes behind the last entry.
    #[error("not a manifest: {extra} bytes left over behind it")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// Something that is neither a file, nor a folder, nor a link, or has flags that do not go with it.
    #[error("not a manifest: an entry of the kind {got} at byte {at}")]
    Kind {
        /// Where the entry begins.
        at: usize,
        /// The byte.
        got: u8,
    },
    /// A name that no file can have.
    #[error("not a manifest: an entry at byte {at} with {error}")]
    Name {
        /// Where the entry begins.
        at: usize,
        /// What is wrong with the name.
        error: EntryNameError,
    },
    /// A link that might lead out of the folder.
    #[error("{path}: {error}")]
    Link {
        /// The name of the link.
        path: String,
        /// What is wrong with it.
        error: LinkError,
    },
    /// More entries than [`MAX_ENTRIES`].
    #[error("more than {MAX_ENTRIES} files, folders and links")]
    TooManyEntries,
    /// Encoded, it would be too long.
    #[error("the list of files takes {got} bytes; at most {limit} are allowed")]
    TooLong {
        /// Its length in bytes.
        got: usize,
        /// The greatest length, in bytes.
        limit: usize,
    },
    /// An entry in more than [`MAX_DEPTH`] - 1 folders.
    #[error("{path} lies in more than {} folders, one in the other", MAX_DEPTH - 1)]
    TooDeep {
        /// The name of the entry.
        path: String,
    },
    /// An entry that does not stand behind the folder that it would be in.
    #[error("{path} is in no folder of the collection")]
    NoFolder {
        /// The name of the entry.
        path: String,
    },
    /// The entries of a folder are not in order.
    #[error("the files of the collection are not sorted at {path}")]
    Unsorted {
        /// The first one that is not behind the one before it.
        path: String,
    },
    /// Two entries of a folder have the same name.
    #[error("the collection has {path} twice")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// A size above [`MAX_BLOB_SIZE`].
    #[error("{path} has {size} bytes; at most {MAX_BLOB_SIZE} are allowed")]
    FileTooLarge {
        /// The name of the file.
        path: String,
        /// The size in bytes.
        size: u64,
    },
    /// The sum of the sizes is above [`MAX_TOTAL_SIZE`].
    #[error("the files have more than {MAX_TOTAL_SIZE} bytes in all")]
    TotalTooLarge,
    /// Size 0 with a hash of something, or the hash of nothing with another size.
    #[error("{path} has {size} bytes and a hash that does not go with that")]
    Emptiness {
        /// The name of the file.
        path: String,
        /// The size in bytes.
        size: u64,
    },
    /// One hash with two sizes.
    #[error("{path} has {got} bytes, and the same hash as a file of {expected} bytes")]
    TwoSizes {
        /// The path of one of them.
        path: String,
        /// The size of the other, in bytes.
        expected: u64,
        /// Its size, in bytes.
        got: u64,
    },
}
