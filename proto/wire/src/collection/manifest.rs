//! The list of a folder in memory: a record an entry, and all names in one piece, since there may be a million.
//!
//! What it is not: a check; only [`super::builder`] makes one.

use super::entry::{CollectionEntry, EntryKind, EntryName, FileEntry, FolderAttributes, LinkTarget};

/// The greatest number of entries of a manifest: files, folders and links.
pub const MAX_ENTRIES: usize = 1 << 20;

/// The greatest number of names on the way to an entry, its own included.
pub const MAX_DEPTH: usize = 64;

/// The greatest sum of the sizes of the files of a collection, in bytes: 64 PiB.
pub const MAX_TOTAL_SIZE: u64 = 1 << 56;

/// What is in a folder. In hand means that it keeps all the rules that [`super::ManifestError`] names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub(super) root: FolderAttributes,
    pub(super) records: Vec<EntryRecord>,
    /// All names and targets, one behind the other.
    pub(super) text: Vec<u8>,
    pub(super) files: usize,
    pub(super) total_size: u64,
}

/// An entry, with its name elsewhere: there may be a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryRecord {
    pub(super) name_start: u32,
    pub(super) name_len: u8,
    pub(super) depth: u8,
    /// The entry of the folder that it is in; [`NO_PARENT`] in the shared folder itself.
    pub(super) parent: u32,
    pub(super) kind: RecordKind,
}

/// What stands for the shared folder itself.
pub(super) const NO_PARENT: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    Folder(FolderAttributes),
    File(FileEntry),
    Link { start: u32, len: u16 },
}

impl Manifest {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is nothing in the folder.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Its entries: a folder before what is in it, the names of a folder sorted by their bytes.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = CollectionEntry<'_>> {
        self.records.iter().map(|record| self.view(record))
    }

    /// One of its entries, counted from 0.
    pub fn entry(&self, index: u32) -> Option<CollectionEntry<'_>> {
        self.records.get(index as usize).map(|record| self.view(record))
    }

    /// The files among its entries, with their numbers.
    pub fn files(&self) -> impl Iterator<Item = (u32, &FileEntry)> {
        self.records.iter().zip(0..).filter_map(|(record, index)| match &record.kind {
            RecordKind::File(file) => Some((index, file)),
            RecordKind::Folder(_) | RecordKind::Link { .. } => None,
        })
    }

    /// How many of its entries are files.
    pub fn file_count(&self) -> usize {
        self.files
    }

    /// The sum of the sizes of all files, in bytes.
    pub fn total_size(&self) -> u64 {
        self.total_size
    }

    /// The number of the folder that an entry is in; none in the shared folder itself.
    pub fn parent(&self, index: u32) -> Option<u32> {
        self.records.get(index as usize).map(|record| record.parent).filter(|parent| *parent != NO_PARENT)
    }

    /// The numbers of the entries on the way to one, outermost first, and its own.
    pub fn lineage(&self, index: u32) -> Vec<u32> {
        let mut lineage: Vec<u32> = std::iter::successors(Some(index), |index| self.parent(*index)).collect();
        lineage.reverse();
        lineage
    }

    /// The path of an entry in the folder, with `/` between names.
    pub fn path(&self, index: u32) -> Vec<u8> {
        let names = self.names_to(index);
        names.join(&b'/')
    }

    /// The number of the entry at a path, with `/` between names.
    pub fn find(&self, path: &[u8]) -> Option<u32> {
        let wanted: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let (mut low, mut high) = (0, self.records.len() as u32);
        // In this order, the lists of names are sorted.
        while low < high {
            let middle = low + (high - low) / 2;
            match self.names_to(middle).cmp(&wanted) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Whether an entry has the same path as one of another list.
    pub fn has_path_of(&self, index: u32, other: &Self, other_index: u32) -> bool {
        self.names_to(index) == other.names_to(other_index)
    }

    fn names_to(&self, index: u32) -> Vec<&[u8]> {
        let names = self.lineage(index).into_iter();
        names.filter_map(|index| self.records.get(index as usize)).map(|record| self.name(record)).collect()
    }

    fn view(&self, record: &EntryRecord) -> CollectionEntry<'_> {
        let kind = match record.kind {
            RecordKind::Folder(folder) => EntryKind::Folder(folder),
            RecordKind::File(file) => EntryKind::File(file),
            RecordKind::Link { start, len } => {
                EntryKind::Link(LinkTarget::checked(self.text_at(start, usize::from(len))))
            }
        };
        CollectionEntry { depth: record.depth, name: EntryName::checked(self.name(record)), kind }
    }

    /// The name of an entry.
    pub(super) fn name(&self, record: &EntryRecord) -> &[u8] {
        self.text_at(record.name_start, usize::from(record.name_len))
    }

    fn text_at(&self, start: u32, len: usize) -> &[u8] {
        &self.text[start as usize..start as usize + len]
    }
}
