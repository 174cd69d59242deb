//! Collections: the manifest of a folder, a blob that lists its files.
//!
//! ```text
//! manifest   16 bytes "keyferry-coll-1\n", list of entries (codec: u64 count, then the entries)
//! entry      string path, u64 size, [u8; 32] BLAKE3 hash, bool executable
//! ```
//! Entries are sorted by the bytes of their paths, without duplicates.
//!
//! What it is not: folders as such. A folder without files in it is not listed, nor are owners, times or symlinks.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    hash::ContentHash,
    path::{PathError, SafePath, fold_key},
    transfer::groups::MAX_BLOB_SIZE,
};

/// The first bytes of every manifest.
pub const MAGIC: [u8; 16] = *b"keyferry-coll-1\n";

/// The greatest number of entries of a manifest.
pub const MAX_ENTRIES: usize = 1_000_000;

/// The greatest number of components of a path in a manifest.
pub const MAX_DEPTH: usize = 64;

/// The greatest number of folders of a collection.
pub const MAX_FOLDERS: usize = 1_000_000;

/// The greatest length of an encoded manifest, in bytes.
pub const MAX_MANIFEST_LEN: usize = 64 * 1024 * 1024;

/// The greatest sum of the sizes of the files of a collection, in bytes: 64 PiB.
pub const MAX_TOTAL_SIZE: u64 = 1 << 56;

/// One file of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Where the file goes, relative to the folder.
    pub path: SafePath,
    /// Its size in bytes.
    pub size: u64,
    /// The hash of its bytes.
    pub hash: ContentHash,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// The list of the files of a folder. In hand means that it holds all the rules that [`ManifestError`] names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<ManifestEntry>,
    total_size: u64,
}

/// Why some bytes, or some entries, are no manifest. Of bytes, it is the fault of who made the collection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes do not decode.
    #[error("not a manifest: {0}")]
    Codec(#[from] CodecError),
    /// The bytes do not begin with [`MAGIC`].
    #[error("not a manifest: it does not begin with the mark of one")]
    Magic,
    /// More entries than [`MAX_ENTRIES`].
    #[error("{got} files; a collection has {MAX_ENTRIES} at most")]
    TooManyEntries {
        /// Number of entries.
        got: usize,
    },
    /// Encoded, it would be longer than [`MAX_MANIFEST_LEN`].
    #[error("the list of files takes {got} bytes; at most {MAX_MANIFEST_LEN} are allowed")]
    TooLong {
        /// Its length in bytes.
        got: usize,
    },
    /// A path is not safe.
    #[error("file {index} of the collection ({path:?}): {error}")]
    Path {
        /// Place of the entry, from 0.
        index: usize,
        /// The path as it came.
        path: String,
        /// What is wrong with it.
        error: PathError,
    },
    /// The entries are not in order.
    #[error("the files of the collection are not sorted at {path}")]
    Unsorted {
        /// The first path that is not behind the one before it.
        path: SafePath,
    },
    /// Two entries have the same path.
    #[error("the collection has {path} twice")]
    Duplicate {
        /// The path.
        path: SafePath,
    },
    /// A path of more than [`MAX_DEPTH`] components.
    #[error("{path} lies in more than {} folders, one in the other", MAX_DEPTH - 1)]
    TooDeep {
        /// The path.
        path: SafePath,
    },
    /// More folders than [`MAX_FOLDERS`].
    #[error("more than {MAX_FOLDERS} folders")]
    TooManyFolders,
    /// Two different paths are one on some file system.
    #[error("{first} and {second} are the same name on some systems")]
    Clash {
        /// The path, or its part, that came first.
        first: String,
        /// The path, or its part, that clashes with it.
        second: String,
    },
    /// A path is a file, and a folder of another file too.
    #[error("{path} is both a file and a folder")]
    FileAndFolder {
        /// The path.
        path: String,
    },
    /// A size above [`MAX_BLOB_SIZE`].
    #[error("{path} has {size} bytes; at most {MAX_BLOB_SIZE} are allowed")]
    FileTooLarge {
        /// The path.
        path: SafePath,
        /// The size in bytes.
        size: u64,
    },
    /// The sum of the sizes is above [`MAX_TOTAL_SIZE`].
    #[error("the files have more than {MAX_TOTAL_SIZE} bytes in all")]
    TotalTooLarge,
    /// Size 0 with a hash of something, or the hash of nothing with another size.
    #[error("{path} has {size} bytes and a hash that does not go with that")]
    Emptiness {
        /// The path.
        path: SafePath,
        /// The size in bytes.
        size: u64,
    },
    /// One hash with two sizes.
    #[error("{path} has {got} bytes, and the same hash as a file of {expected} bytes")]
    TwoSizes {
        /// The path of the second file.
        path: SafePath,
        /// The size of the first, in bytes.
        expected: u64,
        /// The size of the second, in bytes.
        got: u64,
    },
}

impl Manifest {
    /// Makes the manifest of these files, which may come in any order.
    pub fn from_entries(mut entries: Vec<ManifestEntry>) -> Result<Self, ManifestError> {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let manifest = Self::checked(entries)?;
        match manifest.encoded_len() {
            got if got > MAX_MANIFEST_LEN => Err(ManifestError::TooLong { got }),
            _ => Ok(manifest),
        }
    }

    /// Reads a manifest that anybody may have made.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_LEN {
            return Err(CodecError::TooLong { got: bytes.len(), limit: MAX_MANIFEST_LEN }.into());
        }
        let body = bytes.strip_prefix(&MAGIC).ok_or(ManifestError::Magic)?;
        let raw: Vec<RawEntry> = codec::decode(body, MAX_MANIFEST_LEN)?;
        if raw.len() > MAX_ENTRIES {
            return Err(ManifestError::TooManyEntries { got: raw.len() });
        }
        let entries = raw.into_iter().enumerate().map(RawEntry::check).collect::<Result<_, _>>()?;
        Self::checked(entries)
    }

    /// The bytes of the manifest, whose hash names the collection.
    pub fn encode(&self) -> Vec<u8> {
        let raw: Vec<RawEntryRef<'_>> = self.entries.iter().map(RawEntryRef::from).collect();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(codec::encode(&raw));
        bytes
    }

    /// The files, sorted by the bytes of their paths.
    pub fn entries(&self) -> &[ManifestEntry] {
        &self.entries
    }

    /// The sum of the sizes of all files, in bytes.
    pub fn total_size(&self) -> u64 {
        self.total_size
    }

    /// The length of its encoding, in bytes.
    pub fn encoded_len(&self) -> usize {
        const FIXED: usize = 8 + 8 + 32 + 1;
        MAGIC.len() + 8 + self.entries.iter().map(|entry| entry.path.as_str().len() + FIXED).sum::<usize>()
    }

    fn checked(entries: Vec<ManifestEntry>) -> Result<Self, ManifestError> {
        if entries.len() > MAX_ENTRIES {
            return Err(ManifestError::TooManyEntries { got: entries.len() });
        }
        check_order(&entries)?;
        check_names(&entries)?;
        let total_size = check_sizes(&entries)?;
        Ok(Self { entries, total_size })
    }
}

/// An entry as it is on the wire, before its path is looked at.
#[derive(Deserialize)]
struct RawEntry {
    path: String,
    size: u64,
    hash: ContentHash,
    executable: bool,
}

#[derive(Serialize)]
struct RawEntryRef<'a> {
    path: &'a str,
    size: u64,
    hash: ContentHash,
    executable: bool,
}

impl RawEntry {
    fn check((index, raw): (usize, Self)) -> Result<ManifestEntry, ManifestError> {
        let path = match SafePath::new(raw.path.as_str()) {
            Ok(path) => path,
            Err(error) => return Err(ManifestError::Path { index, path: raw.path, error }),
        };
        Ok(ManifestEntry { path, size: raw.size, hash: raw.hash, executable: raw.executable })
    }
}

impl<'a> From<&'a ManifestEntry> for RawEntryRef<'a> {
    fn from(entry: &'a ManifestEntry) -> Self {
        Self { path: entry.path.as_str(), size: entry.size, hash: entry.hash, executable: entry.executable }
    }
}

fn check_order(entries: &[ManifestEntry]) -> Result<(), ManifestError> {
    for pair in entries.windows(2) {
        match pair[0].path.cmp(&pair[1].path) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return Err(ManifestError::Duplicate { path: pair[1].path.clone() }),
            std::cmp::Ordering::Greater => return Err(ManifestError::Unsorted { path: pair[1].path.clone() }),
        }
    }
    Ok(())
}

fn check_sizes(entries: &[ManifestEntry]) -> Result<u64, ManifestError> {
    let mut sizes = HashMap::with_capacity(entries.len());
    let mut total: u64 = 0;
    for ManifestEntry { path, size, hash, .. } in entries {
        if *size > MAX_BLOB_SIZE {
            return Err(ManifestError::FileTooLarge { path: path.clone(), size: *size });
        }
        if (*size == 0) != (*hash == ContentHash::EMPTY) {
            return Err(ManifestError::Emptiness { path: path.clone(), size: *size });
        }
        let expected = *sizes.entry(hash).or_insert(*size);
        if expected != *size {
            return Err(ManifestError::TwoSizes { path: path.clone(), expected, got: *size });
        }
        // A million files of MAX_BLOB_SIZE would not fit: 2^20 * 2^50.
        total = total.checked_add(*size).filter(|&sum| sum <= MAX_TOTAL_SIZE).ok_or(ManifestError::TotalTooLarge)?;
    }
    Ok(total)
}

/// A name in a folder, under its folded form, of which 128 bits of a hash are kept. The text is that of an entry, up to `end`.
struct Name {
    folded: [u8; 16],
    entry: u32,
    end: u16,
}

/// A folder whose entries are being gone through: what it is called there, and what is in it.
struct OpenFolder<'a> {
    path: &'a str,
    names: Vec<Name>,
}

/// Looks at every path, and at every folder on the way to it. Sorted, the entries of a folder stand together: only the names of the folders
/// on the way to the entry at hand are kept, and never those of all folders.
fn check_names(entries: &[ManifestEntry]) -> Result<(), ManifestError> {
    let mut open = vec![OpenFolder { path: "", names: Vec::new() }];
    let mut folders = 0;
    for (index, entry) in entries.iter().enumerate() {
        let path = entry.path.as_str();
        while open.last().is_some_and(|folder| !is_within(path, folder.path)) {
            close(open.pop(), entries)?;
        }
        let mut start = open.last().map_or(0, |folder| if folder.path.is_empty() { 0 } else { folder.path.len() + 1 });
        loop {
            let end = path[start..].find('/').map_or(path.len(), |at| start + at);
            let is_file = end == path.len();
            let hash = blake3::hash(fold_key(&path[start..end]).as_bytes());
            let mut folded = [0; 16];
            folded.copy_from_slice(&hash.as_bytes()[..16]);
            // A path has at most 4,096 bytes, and there are at most a million of them.
            let name = Name { folded, entry: index as u32, end: end as u16 };
            if let Some(folder) = open.last_mut() {
                folder.names.push(name);
            }
            if is_file {
                break;
            }
            folders += 1;
            if open.len() >= MAX_DEPTH {
                return Err(ManifestError::TooDeep { path: entry.path.clone() });
            }
            if folders > MAX_FOLDERS {
                return Err(ManifestError::TooManyFolders);
            }
            open.push(OpenFolder { path: &path[..end], names: Vec::new() });
            start = end + 1;
        }
    }
    open.into_iter().rev().try_for_each(|folder| close(Some(folder), entries))
}

fn is_within(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Compares the names of a folder that has no further ones.
fn close(folder: Option<OpenFolder<'_>>, entries: &[ManifestEntry]) -> Result<(), ManifestError> {
    let mut names = folder.map(|folder| folder.names).unwrap_or_default();
    let text = |name: &Name| &entries[name.entry as usize].path.as_str()[..usize::from(name.end)];
    names.sort_unstable_by_key(|name| (name.folded, name.entry));
    let same = names.windows(2).find(|pair| pair[0].folded == pair[1].folded);
    let Some((first, second)) = same.map(|pair| (text(&pair[0]), text(&pair[1]))) else { return Ok(()) };
    match first == second {
        true => Err(ManifestError::FileAndFolder { path: first.to_owned() }),
        false => Err(ManifestError::Clash { first: first.to_owned(), second: second.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
