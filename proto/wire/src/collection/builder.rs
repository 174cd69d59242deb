//! Making a manifest entry by entry: every rule of it is kept here, whether its bytes came from a peer or its files are this machine's.
//!
//! What it is not: the bytes; see [`super::encoding`].

use super::{
    encoding::{HEADER_LEN, MAX_MANIFEST_LEN, encoded_entry_len},
    entry::{CollectionEntry, EntryKind, FileEntry, FolderAttributes, LinkTarget, ShownPath},
    error::ManifestError,
    manifest::{EntryRecord, MAX_DEPTH, MAX_ENTRIES, MAX_TOTAL_SIZE, Manifest, NO_PARENT, RecordKind},
};
use crate::{hash::ContentHash, transfer::groups::MAX_BLOB_SIZE};

/// A manifest in the making.
#[derive(Debug)]
pub struct ManifestBuilder {
    root: FolderAttributes,
    records: Vec<EntryRecord>,
    text: Vec<u8>,
    /// The folders on the way to where the next entry may be.
    open: Vec<u32>,
    /// The last entry of the shared folder, and of each open one.
    last: Vec<u32>,
    encoded_len: usize,
    files: usize,
    total_size: u64,
}

impl ManifestBuilder {
    /// One of a folder in which nothing is yet.
    pub fn new(root: FolderAttributes) -> Self {
        Self::for_entries(root, 0)
    }

    /// One with room for so many entries.
    pub(super) fn for_entries(root: FolderAttributes, count: usize) -> Self {
        Self {
            root,
            records: Vec::with_capacity(count.min(MAX_ENTRIES)),
            text: Vec::new(),
            open: Vec::new(),
            last: Vec::new(),
            encoded_len: HEADER_LEN,
            files: 0,
            total_size: 0,
        }
    }

    /// Adds an entry behind the others. After an error the builder is of no further use.
    pub fn push(&mut self, entry: &CollectionEntry<'_>) -> Result<(), ManifestError> {
        if self.records.len() >= MAX_ENTRIES {
            return Err(ManifestError::TooManyEntries);
        }
        self.encoded_len += encoded_entry_len(entry);
        if self.encoded_len > MAX_MANIFEST_LEN {
            return Err(ManifestError::TooLong { got: self.encoded_len, limit: MAX_MANIFEST_LEN });
        }
        // At most MAX_ENTRIES.
        let index = self.records.len() as u32;
        let parent = self.find_place(entry, index)?;
        let kind = match &entry.kind {
            EntryKind::Folder(folder) => {
                self.open.push(index);
                RecordKind::Folder(*folder)
            }
            EntryKind::File(file) => {
                self.count(entry, file)?;
                RecordKind::File(*file)
            }
            EntryKind::Link(target) => {
                let link = |error| ManifestError::Link { path: entry.name.to_string(), error };
                LinkTarget::new(target.as_bytes(), entry.depth).map_err(link)?;
                // A target has at most 4,095 bytes.
                RecordKind::Link { start: self.keep(target.as_bytes()), len: target.as_bytes().len() as u16 }
            }
        };
        let name = entry.name.as_bytes();
        let name_start = self.keep(name);
        // A name has at most 255 bytes.
        self.records.push(EntryRecord { name_start, name_len: name.len() as u8, depth: entry.depth, parent, kind });
        Ok(())
    }

    /// The manifest of what was added.
    pub fn finish(self) -> Result<Manifest, ManifestError> {
        let Self { root, records, text, files, total_size, .. } = self;
        let manifest = Manifest { root, records, text, files, total_size };
        check_sizes(&manifest)?;
        Ok(manifest)
    }

    /// Finds the folder that an entry is in, where it must come behind the others.
    fn find_place(&mut self, entry: &CollectionEntry<'_>, index: u32) -> Result<u32, ManifestError> {
        let depth = usize::from(entry.depth);
        let path = || entry.name.to_string();
        if depth >= MAX_DEPTH {
            return Err(ManifestError::TooDeep { path: path() });
        }
        if depth > self.open.len() {
            return Err(ManifestError::NoFolder { path: path() });
        }
        self.open.truncate(depth);
        self.last.truncate(depth + 1);
        if let Some(last) = self.last.get_mut(depth) {
            let EntryRecord { name_start, name_len, .. } = self.records[*last as usize];
            let before = &self.text[name_start as usize..][..usize::from(name_len)];
            match before.cmp(entry.name.as_bytes()) {
                std::cmp::Ordering::Less => *last = index,
                std::cmp::Ordering::Equal => return Err(ManifestError::Duplicate { path: path() }),
                std::cmp::Ordering::Greater => return Err(ManifestError::Unsorted { path: path() }),
            }
        } else {
            self.last.push(index);
        }
        Ok(self.open.last().copied().unwrap_or(NO_PARENT))
    }

    fn count(&mut self, entry: &CollectionEntry<'_>, file: &FileEntry) -> Result<(), ManifestError> {
        let path = || entry.name.to_string();
        if file.size > MAX_BLOB_SIZE {
            return Err(ManifestError::FileTooLarge { path: path(), size: file.size });
        }
        if (file.size == 0) != (file.hash == ContentHash::EMPTY) {
            return Err(ManifestError::Emptiness { path: path(), size: file.size });
        }
        // A million files of MAX_BLOB_SIZE would not fit: 2^20 * 2^50.
        let total = self.total_size.checked_add(file.size).filter(|sum| *sum <= MAX_TOTAL_SIZE);
        self.total_size = total.ok_or(ManifestError::TotalTooLarge)?;
        self.files += 1;
        Ok(())
    }

    fn keep(&mut self, text: &[u8]) -> u32 {
        // All of it is shorter than MAX_MANIFEST_LEN.
        let start = self.text.len() as u32;
        self.text.extend(text);
        start
    }
}

fn check_sizes(manifest: &Manifest) -> Result<(), ManifestError> {
    let mut files: Vec<(u32, &FileEntry)> = manifest.files().collect();
    files.sort_unstable_by_key(|(_, file)| &file.hash);
    let same = files.windows(2).find(|pair| pair[0].1.hash == pair[1].1.hash && pair[0].1.size != pair[1].1.size);
    same.map_or(Ok(()), |pair| {
        let path = ShownPath(&manifest.path(pair[1].0)).to_string();
        Err(ManifestError::TwoSizes { path, expected: pair[0].1.size, got: pair[1].1.size })
    })
}
