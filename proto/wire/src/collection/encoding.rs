//! The bytes of a manifest.
//!
//! ```text
//! manifest   16 bytes "keyferry-coll-2\n", the shared folder itself, u32 number of entries, the entries, and nothing behind them
//! itself     u8 flags (32: private), i64 modified
//! entry      u8 kind (0 folder, 1 file, 2 link; + 16: executable, a file; + 32: private, a file or a folder)
//!            u8 depth (0: in the shared folder itself)
//!            u8 length of the name, name
//! folder     i64 modified
//! file       i64 modified, u64 size, [u8; 32] BLAKE3 hash
//! link       u16 length of the target, target
//! ```
//! Numbers are little endian; times are nanoseconds since 1970. A folder stands before what is in it. The entries of one folder are sorted by
//! the bytes of their names, each of which is there once. So a folder has one manifest, and no entry can be a file and a folder.
//!
//!
//! What it is not: the rules between entries; see [`super::builder`].

use super::{
    entry::{CollectionEntry, EntryKind, EntryName, FileAttributes, FileEntry, FileTime, FolderAttributes, LinkTarget},
    error::ManifestError,
};
use crate::hash::ContentHash;

/// The first bytes of every manifest.
pub const MAGIC: [u8; 16] = *b"keyferry-coll-2\n";

/// The first bytes of manifests of before there were folders, links and times in them.
pub const FORMER_MAGIC: [u8; 16] = *b"keyferry-coll-1\n";

/// The greatest length of an encoded manifest, in bytes.
pub const MAX_MANIFEST_LEN: usize = 72 * 1024 * 1024;

pub(super) const KIND_FOLDER: u8 = 0;
pub(super) const KIND_FILE: u8 = 1;
pub(super) const KIND_LINK: u8 = 2;
pub(super) const EXECUTABLE: u8 = 16;
pub(super) const PRIVATE: u8 = 32;

/// What is in front of the entries, in bytes.
pub(super) const HEADER_LEN: usize = MAGIC.len() + 1 + 8 + 4;

/// No entry is shorter, in bytes: a link of one letter to one letter.
pub(super) const MIN_ENTRY_LEN: usize = 3 + 1 + 2 + 1;

/// Takes entries from the front of bytes.
pub(super) struct EntryReader<'a> {
    left: &'a [u8],
    whole: usize,
}

impl<'a> EntryReader<'a> {
    /// Reads from behind the mark of a manifest on.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, ManifestError> {
        match bytes.strip_prefix(&MAGIC) {
            Some(left) => Ok(Self { left, whole: bytes.len() }),
            None if bytes.starts_with(&FORMER_MAGIC) => Err(ManifestError::Former),
            None => Err(ManifestError::Magic),
        }
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.left.len()
    }

    /// What is in front of the entries: the shared folder itself, and how many entries are claimed.
    pub(super) fn header(&mut self) -> Result<(FolderAttributes, usize), ManifestError> {
        let [flags] = self.array()?;
        let private = match flags {
            0 => false,
            PRIVATE => true,
            got => return Err(ManifestError::Kind { at: MAGIC.len(), got }),
        };
        let modified = FileTime(i64::from_le_bytes(self.array()?));
        let count = u32::from_le_bytes(self.array()?) as usize;
        Ok((FolderAttributes { modified, private }, count))
    }

    /// The next entry.
    pub(super) fn entry(&mut self) -> Result<CollectionEntry<'a>, ManifestError> {
        let at = self.whole - self.left.len();
        let [kind, depth, name_len] = self.array()?;
        let name = self.take(usize::from(name_len))?;
        let name = EntryName::new(name).map_err(|error| ManifestError::Name { at, error })?;
        let (executable, private) = (kind & EXECUTABLE != 0, kind & PRIVATE != 0);
        let kind = match kind & !(EXECUTABLE | PRIVATE) {
            KIND_FOLDER if !executable => {
                EntryKind::Folder(FolderAttributes { modified: FileTime(i64::from_le_bytes(self.array()?)), private })
            }
            KIND_FILE => {
                let modified = FileTime(i64::from_le_bytes(self.array()?));
                let size = u64::from_le_bytes(self.array()?);
                let hash = ContentHash::from_bytes(self.array()?);
                EntryKind::File(FileEntry { size, hash, attributes: FileAttributes { modified, executable, private } })
            }
            KIND_LINK if !executable && !private => {
                let len = usize::from(u16::from_le_bytes(self.array()?));
                let target = LinkTarget::new(self.take(len)?, depth);
                EntryKind::Link(target.map_err(|error| ManifestError::Link { path: name.to_string(), error })?)
            }
            _ => return Err(ManifestError::Kind { at, got: kind }),
        };
        Ok(CollectionEntry { depth, name, kind })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ManifestError> {
        let (taken, left) = self.left.split_at_checked(len).ok_or(ManifestError::Truncated { got: self.whole })?;
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ManifestError> {
        let (taken, left) = self.left.split_first_chunk().ok_or(ManifestError::Truncated { got: self.whole })?;
        self.left = left;
        Ok(*taken)
    }
}

/// Writes what is in front of the entries.
pub(super) fn encode_header(root: &FolderAttributes, count: u32, bytes: &mut Vec<u8>) {
    bytes.extend(MAGIC);
    bytes.push(if root.private { PRIVATE } else { 0 });
    bytes.extend(root.modified.0.to_le_bytes());
    bytes.extend(count.to_le_bytes());
}

/// Writes an entry.
pub(super) fn encode_entry(entry: &CollectionEntry<'_>, bytes: &mut Vec<u8>) {
    let name = entry.name.as_bytes();
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let kind = match &entry.kind {
        EntryKind::Folder(folder) => KIND_FOLDER | flag(folder.private, PRIVATE),
        EntryKind::File(FileEntry { attributes, .. }) => {
            KIND_FILE | flag(attributes.executable, EXECUTABLE) | flag(attributes.private, PRIVATE)
        }
        EntryKind::Link(_) => KIND_LINK,
    };
    // A name has at most 255 bytes, and a target 4,095.
    bytes.extend([kind, entry.depth, name.len() as u8]);
    bytes.extend(name);
    match &entry.kind {
        EntryKind::Folder(folder) => bytes.extend(folder.modified.0.to_le_bytes()),
        EntryKind::File(file) => {
            bytes.extend(file.attributes.modified.0.to_le_bytes());
            bytes.extend(file.size.to_le_bytes());
            bytes.extend(file.hash.as_bytes());
        }
        EntryKind::Link(target) => {
            bytes.extend((target.as_bytes().len() as u16).to_le_bytes());
            bytes.extend(target.as_bytes());
        }
    }
}

/// How long an entry is, in bytes.
pub(super) fn encoded_entry_len(entry: &CollectionEntry<'_>) -> usize {
    let body = match &entry.kind {
        EntryKind::Folder(_) => 8,
        EntryKind::File(_) => 8 + 8 + 32,
        EntryKind::Link(target) => 2 + target.as_bytes().len(),
    };
    3 + entry.name.as_bytes().len() + body
}
