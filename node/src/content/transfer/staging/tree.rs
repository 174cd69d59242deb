//! A collection as it lies on this machine: its entries under the names that the file system takes.
//!
//! What it is not: the bytes of its files.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
    sync::Arc,
};

use keyferry_proto::collection::{EntryKind, FileEntry, FolderAttributes, Manifest, ShownPath, fitting::FittedNames};

use super::file_system::TargetFileSystem;

/// How many names that are not as the sender has them are told; the rest is only counted.
const MAX_RENAMED_LISTED: usize = 100;

/// A collection, and the names that it has here.
#[derive(Debug)]
pub struct FittedTree {
    manifest: Arc<Manifest>,
    names: Arc<FittedNames>,
    target: TargetFileSystem,
    /// The files that are not there, by their numbers.
    lacking: HashSet<u32>,
}

/// What of a collection is not here as the sender has it, since the file system does not take it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotAsSent {
    /// Paths of the sender, and the names that they have here; at most 100.
    pub renamed: Vec<(String, String)>,
    /// How many those are in all.
    pub renamed_count: u64,
    /// Symbolic links that could not be made.
    pub links: u64,
    /// Symbolic links that lead out of the part that was wanted, and are left out.
    pub links_out: u64,
    /// Whether files have rights that the sender did not give to everybody.
    pub is_open: bool,
}

impl FittedTree {
    /// Fits the names of a collection to a file system.
    pub fn new(manifest: Manifest, target: TargetFileSystem) -> Self {
        let names = FittedNames::of(&manifest, &target.names);
        Self { manifest: Arc::new(manifest), names: Arc::new(names), target, lacking: HashSet::new() }
    }

    /// What the sender has.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The file system.
    pub fn target(&self) -> &TargetFileSystem {
        &self.target
    }

    /// The name of an entry.
    pub fn name(&self, index: u32) -> &OsStr {
        OsStr::from_bytes(self.names.name(&self.manifest, index))
    }

    /// The path of an entry in the folder.
    pub fn path(&self, index: u32) -> PathBuf {
        OsString::from_vec(self.names.path(&self.manifest, index)).into()
    }

    /// The folders, each before those in it.
    pub fn folders(&self) -> impl DoubleEndedIterator<Item = (PathBuf, FolderAttributes)> {
        self.indexes().filter_map(|index| match self.manifest.entry(index)?.kind {
            EntryKind::Folder(attributes) => Some((self.path(index), attributes)),
            EntryKind::File(_) | EntryKind::Link(_) => None,
        })
    }

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = (PathBuf, &FileEntry)> {
        let there = self.manifest.files().filter(|(index, _)| !self.lacking.contains(index));
        there.map(|(index, file)| (self.path(index), file))
    }

    /// The links, where there can be any, and what they lead to.
    pub fn links(&self) -> impl Iterator<Item = (PathBuf, PathBuf)> {
        self.indexes().filter_map(|index| Some((self.path(index), self.link_target(index)?)))
    }

    /// What an entry leads to here; none if it is no link, or there can be none.
    pub fn link_target(&self, index: u32) -> Option<PathBuf> {
        let target = self.names.target(&self.manifest, index, &self.target.names).filter(|_| self.target.has_links)?;
        Some(OsString::from_vec(target).into())
    }

    /// Whether an entry is a link that there cannot be here.
    pub fn is_left_out(&self, index: u32) -> bool {
        !self.target.has_links && matches!(self.manifest.entry(index).map(|entry| entry.kind), Some(EntryKind::Link(_)))
    }

    /// What to wait for until all of it is on the disk: links are there with the folders that they are in.
    pub fn to_sync(&self) -> impl Iterator<Item = PathBuf> {
        self.files().map(|(path, _)| path).chain(self.folders().map(|(path, _)| path))
    }

    /// Everything that is no folder.
    pub fn leaves(&self) -> impl Iterator<Item = PathBuf> {
        self.files().map(|(path, _)| path).chain(self.links().map(|(path, _)| path))
    }

    /// The same without some of its files, by their numbers. The others keep their names.
    pub fn without(&self, lacking: HashSet<u32>) -> Self {
        let (manifest, names) = (Arc::clone(&self.manifest), Arc::clone(&self.names));
        Self { manifest, names, target: self.target.clone(), lacking }
    }

    /// Whether a file is not there.
    pub fn lacks(&self, index: u32) -> bool {
        self.lacking.contains(&index)
    }

    /// What is not as the sender has it.
    pub fn not_as_sent(&self) -> NotAsSent {
        let changed = self.names.changed();
        let shown = |index: &u32| {
            let fitted = self.names.path(&self.manifest, *index);
            let name = fitted.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            (ShownPath(&self.manifest.path(*index)).to_string(), ShownPath(name).to_string())
        };
        let is_link =
            |index: &u32| matches!(self.manifest.entry(*index).map(|entry| entry.kind), Some(EntryKind::Link(_)));
        let is_private = self.manifest.entries().any(|entry| match entry.kind {
            EntryKind::Folder(folder) => folder.private,
            EntryKind::File(file) => file.attributes.private,
            EntryKind::Link(_) => false,
        });
        NotAsSent {
            renamed: changed.iter().take(MAX_RENAMED_LISTED).map(shown).collect(),
            renamed_count: changed.len() as u64,
            links_out: 0,
            links: if self.target.has_links { 0 } else { self.indexes().filter(is_link).count() as u64 },
            is_open: is_private && !self.target.has_modes,
        }
    }

    /// The numbers of all entries.
    pub fn indexes(&self) -> std::ops::Range<u32> {
        0..self.manifest.len() as u32
    }
}
