//! What is at the target of a folder that is there already, entry by entry: what is as it is to be, what a newer version may replace, and
//! what is its owner's.
//!
//! A newer version replaces what an earlier fetch put there, if it is still so, byte for byte. No link is followed.
//!
//! What it is not: a change of anything; see [`super::merging`].

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use cap_std::fs::{Dir, Metadata, MetadataExt as _};
use keyferry_proto::{
    collection::{CollectionEntry, EntryKind, FileAttributes, FileTime, Manifest, ShownPath},
    hash::ContentHash,
};
use rustix::fs::{Mode, OFlags};

use super::{StagingError, file_system::is_no_name, tree::FittedTree};
use crate::content::store::{CandidateFile, FetchedVersion, FoundBlob, Store, StoreError};

/// How many files are looked at together: of a million, only some are in memory at a time.
const LOOKED_AT_TOGETHER: usize = 1024;

/// Why it cannot be told what is there.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// This machine: the target.
    #[error(transparent)]
    Target(#[from] StagingError),
    /// This machine: the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is in the place of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresentState {
    /// Nothing.
    Absent,
    /// What is to be there, but for times and rights.
    Right,
    /// Something that may be replaced.
    Outdated,
    /// Something that is its owner's.
    Kept,
}

/// What is at the target of a folder.
#[derive(Debug)]
pub struct PresentTree {
    states: Vec<PresentState>,
    /// Files that may be replaced because they are as an earlier fetch left them.
    as_written: HashMap<u32, FoundBlob>,
    /// What an earlier version put there and this one does not have, each folder before what is in it.
    gone: Vec<GoneEntry>,
    /// Files that are right, but for their times or rights.
    restamped: HashSet<u32>,
    differences: Differences,
    is_fetched: bool,
}

/// Something that is not in a version any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoneEntry {
    /// Where it is in the folder.
    pub path: PathBuf,
    /// What a file is like; none of a folder or a link.
    pub found: Option<FoundBlob>,
    /// Whether it is a folder, which may have other things in it.
    pub is_folder: bool,
}

/// What is not the same though the bytes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Differences {
    /// Times of the last change.
    pub times: bool,
    /// Rights.
    pub rights: bool,
}

/// What is looked at, and how.
pub struct Looking<'a> {
    /// What knows files by their stamps.
    pub store: &'a Store,
    /// The target.
    pub path: &'a Path,
    /// The version that is to be there.
    pub wanted: ContentHash,
    /// Whether its owner's files may be replaced, too.
    pub overwrite: bool,
    /// Whether to go on.
    pub go_on: &'a dyn Fn() -> bool,
}

impl PresentTree {
    /// What is in the place of an entry.
    pub fn state(&self, index: u32) -> PresentState {
        self.states.get(index as usize).copied().unwrap_or(PresentState::Absent)
    }

    /// Whether an entry is to be put in its place.
    pub fn wants(&self, index: u32) -> bool {
        matches!(self.state(index), PresentState::Absent | PresentState::Outdated)
    }

    /// What the file was found to be that an entry replaces because it is as it was written.
    pub fn as_written(&self, index: u32) -> Option<&FoundBlob> {
        self.as_written.get(&index)
    }

    /// What an earlier version put there and this one does not have, each folder before what is in it.
    pub fn gone(&self) -> &[GoneEntry] {
        &self.gone
    }

    /// Whether a file is right, but for its time or rights.
    pub fn is_restamped(&self, index: u32) -> bool {
        self.restamped.contains(&index)
    }

    /// What is not the same though the bytes are.
    pub fn differences(&self) -> Differences {
        self.differences
    }

    /// Whether an earlier fetch has put something there.
    pub fn is_fetched(&self) -> bool {
        self.is_fetched
    }

    /// How many files and links have this state.
    pub fn count(&self, tree: &FittedTree, wanted: PresentState) -> u64 {
        self.leaves(tree).filter(|(_, state)| *state == wanted).count() as u64
    }

    /// The files and links, with what is in their places.
    pub fn leaves<'a>(&'a self, tree: &'a FittedTree) -> impl Iterator<Item = (u32, PresentState)> + 'a {
        let entries = tree.manifest().entries().zip(0..);
        let leaves = entries.filter(|(entry, _)| !matches!(entry.kind, EntryKind::Folder(_)));
        leaves.map(|(_, index)| (index, self.state(index)))
    }

    /// There is no folder yet.
    pub fn nothing(tree: &FittedTree) -> Self {
        Self {
            states: vec![PresentState::Absent; tree.manifest().len()],
            as_written: HashMap::new(),
            gone: Vec::new(),
            restamped: HashSet::new(),
            differences: Differences::default(),
            is_fetched: false,
        }
    }

    /// Looks at the folder that is at the target.
    ///
    /// # Errors
    /// If it cannot be read; or [`StoreError::Cancelled`].
    pub fn look(tree: &FittedTree, folder: &Dir, looking: &Looking<'_>) -> Result<Self, LookError> {
        let versions = looking.store.versions_at(looking.path);
        let former = Former::of(&versions, looking, tree);
        let present = Self { is_fetched: !versions.is_empty(), ..Self::nothing(tree) };
        let mut look = TargetLook { tree, looking, former: &former, present, waiting: Vec::new() };
        look.at_entries(folder)?;
        look.at_gone(folder)?;
        Ok(look.present)
    }
}

/// Earlier versions that were put there.
struct Former(Vec<FittedTree>);

impl Former {
    fn of(versions: &[FetchedVersion], looking: &Looking<'_>, tree: &FittedTree) -> Self {
        let others = versions.iter().filter(|version| version.hash != looking.wanted);
        // One whose list is lost, or damaged, is not known.
        let lists = others.filter_map(|version| looking.store.manifest(&version.hash).ok().flatten());
        Self(lists.map(|manifest| FittedTree::new(manifest, tree.target().clone())).collect())
    }

    /// What was at a path, as the sender has it.
    fn entries_at<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = (&'a FittedTree, u32)> {
        self.0.iter().filter_map(|tree| Some((tree, tree.manifest().find(path)?)))
    }

    /// The blobs of the files that were at a path, with their sizes.
    fn blobs_at(&self, path: &[u8]) -> Vec<(ContentHash, u64)> {
        self.entries_at(path).filter_map(|(tree, index)| blob_of(tree.manifest(), index)).collect()
    }

    fn has_link(&self, path: &[u8], target: &Path) -> bool {
        self.entries_at(path).any(|(tree, index)| tree.link_target(index).is_some_and(|found| found == target))
    }

    fn has_folder(&self, path: &[u8]) -> bool {
        let is_folder = |(tree, index): (&FittedTree, u32)| {
            matches!(tree.manifest().entry(index).map(|entry| entry.kind), Some(EntryKind::Folder(_)))
        };
        self.entries_at(path).any(is_folder)
    }
}

fn blob_of(manifest: &Manifest, index: u32) -> Option<(ContentHash, u64)> {
    match manifest.entry(index)?.kind {
        EntryKind::File(file) => Some((file.hash, file.size)),
        EntryKind::Folder(_) | EntryKind::Link(_) => None,
    }
}

struct TargetLook<'a> {
    tree: &'a FittedTree,
    looking: &'a Looking<'a>,
    former: &'a Former,
    present: PresentTree,
    /// Files whose bytes have to be told: entries, what else is not the same, and which blobs they may have.
    waiting: Vec<(u32, Differences, CandidateFile)>,
}

/// The folders on the way to what is looked at; of each, what is said of all in it, if it is no folder there.
struct Lineage(Vec<Result<Dir, PresentState>>);

impl Lineage {
    fn below(folder: &Dir) -> io::Result<Self> {
        Ok(Self(vec![Ok(folder.try_clone()?)]))
    }

    /// The folder that an entry of this depth is in.
    fn at(&mut self, depth: u8) -> Result<&Dir, PresentState> {
        self.0.truncate(usize::from(depth) + 1);
        match self.0.last() {
            Some(Ok(folder)) => Ok(folder),
            Some(Err(state)) => Err(*state),
            None => Err(PresentState::Kept),
        }
    }

    /// Goes into a folder, of which this was found out.
    fn enter(&mut self, name: &OsStr, state: PresentState) {
        let folder = match (state, self.0.last()) {
            (PresentState::Right, Some(Ok(above))) => open_folder(above, name).map_err(|_| PresentState::Kept),
            (PresentState::Kept, _) => Err(PresentState::Kept),
            _ => Err(PresentState::Absent),
        };
        self.0.push(folder);
    }
}

/// Opens a folder that is in another, and no link.
pub fn open_folder(above: &Dir, name: &OsStr) -> io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(above, name, flags, Mode::empty())?;
    Ok(Dir::from_std_file(opened.into()))
}

impl TargetLook<'_> {
    fn at_entries(&mut self, folder: &Dir) -> Result<(), LookError> {
        let tree = self.tree;
        let mut lineage = Lineage::below(folder).map_err(|source| self.unreadable(Path::new(""), source))?;
        self.compare_folder(&folder.dir_metadata().map_err(|source| self.unreadable(Path::new(""), source))?, tree);
        for (entry, index) in tree.manifest().entries().zip(0..) {
            let state = match lineage.at(entry.depth) {
                Ok(folder) => {
                    let found = metadata_in(folder, tree.name(index));
                    let found = found.map_err(|source| self.unreadable(&tree.path(index), source))?;
                    match found {
                        None => PresentState::Absent,
                        Some(found) => self.state_of(index, &entry, folder, &found)?,
                    }
                }
                Err(state) => state,
            };
            self.present.states[index as usize] = state;
            if let EntryKind::Folder(_) = entry.kind {
                lineage.enter(tree.name(index), state);
            }
            if self.waiting.len() == LOOKED_AT_TOGETHER {
                self.tell_waiting()?;
            }
        }
        self.tell_waiting()
    }

    fn state_of(
        &mut self,
        index: u32,
        entry: &CollectionEntry<'_>,
        folder: &Dir,
        found: &Metadata,
    ) -> Result<PresentState, LookError> {
        let kind = found.file_type();
        match entry.kind {
            EntryKind::Folder(attributes) if kind.is_dir() => {
                self.present.differences.times |= self.has_other_time(found, attributes.modified);
                self.present.differences.rights |= attributes.private && found.mode() & 0o077 != 0;
                Ok(PresentState::Right)
            }
            EntryKind::File(file) if kind.is_file() => {
                let mut may_have = vec![(file.hash, file.size)];
                if !self.looking.overwrite {
                    may_have.extend(self.former.blobs_at(&self.tree.manifest().path(index)));
                }
                let path = self.looking.path.join(self.tree.path(index));
                let differences = self.compare_file(found, &file.attributes);
                self.waiting.push((index, differences, CandidateFile { path, may_have }));
                // For now.
                Ok(PresentState::Kept)
            }
            EntryKind::Link(_)
                if kind.is_symlink()
                    && self.tree.link_target(index).is_some_and(|wanted| {
                        folder.read_link_contents(self.tree.name(index)).is_ok_and(|target| target == wanted)
                    }) =>
            {
                Ok(PresentState::Right)
            }
            // There are no links on this file system.
            EntryKind::Link(_) if self.tree.link_target(index).is_none() => Ok(PresentState::Right),
            _ => self.state_of_other(index, matches!(entry.kind, EntryKind::Folder(_)), folder, found),
        }
    }

    /// Whether what is of another kind than what is to be there, or a link to something else, may be replaced.
    fn state_of_other(
        &mut self,
        index: u32,
        wants_folder: bool,
        folder: &Dir,
        found: &Metadata,
    ) -> Result<PresentState, LookError> {
        let path = self.tree.manifest().path(index);
        let kind = found.file_type();
        let may_replace = if kind.is_dir() {
            self.former.has_folder(&path) && self.is_as_written(index, &path)?
        } else if self.looking.overwrite && !wants_folder {
            true
        } else if kind.is_symlink() {
            let target = folder.read_link_contents(self.tree.name(index));
            target.is_ok_and(|target| self.former.has_link(&path, &target))
        } else if kind.is_file() {
            let at = self.looking.path.join(self.tree.path(index));
            let may_have = self.former.blobs_at(&path);
            let found = self.looking.store.blob_of_file(at, may_have, self.looking.go_on)?;
            if let Some(found) = found {
                self.present.as_written.insert(index, found);
            }
            found.is_some()
        } else {
            false
        };
        Ok(if may_replace { PresentState::Outdated } else { PresentState::Kept })
    }

    /// Whether all that is in a folder is as an earlier fetch left it.
    fn is_as_written(&self, index: u32, path: &[u8]) -> Result<bool, LookError> {
        let folder = self.looking.path.join(self.tree.path(index));
        let mut files = Vec::new();
        for found in walkdir::WalkDir::new(&folder).min_depth(1) {
            let Ok(found) = found else { return Ok(false) };
            let Ok(inside) = found.path().strip_prefix(&folder) else { return Ok(false) };
            let former = [path, b"/", inside.as_os_str().as_bytes()].concat();
            let kind = found.file_type();
            let is_former = if kind.is_dir() {
                self.former.has_folder(&former)
            } else if kind.is_symlink() {
                std::fs::read_link(found.path()).is_ok_and(|target| self.former.has_link(&former, &target))
            } else {
                files.push(CandidateFile { path: found.into_path(), may_have: self.former.blobs_at(&former) });
                true
            };
            if !is_former {
                return Ok(false);
            }
        }
        let told = self.looking.store.blobs_of_files(&files, self.looking.go_on)?;
        Ok(told.iter().all(|found| found.is_some_and(|found| found.hash.is_some())))
    }

    fn tell_waiting(&mut self) -> Result<(), LookError> {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (entries, files): (Vec<_>, Vec<_>) = waiting.map(|(index, other, file)| ((index, other), file)).unzip();
        let told = self.looking.store.blobs_of_files(&files, self.looking.go_on)?;
        for (((index, other), file), found) in entries.into_iter().zip(files).zip(told) {
            let wanted = file.may_have.first().map(|(hash, _)| *hash);
            self.present.states[index as usize] = match found {
                Some(found) if found.hash.is_some() && found.hash == wanted => {
                    self.present.differences.times |= other.times;
                    self.present.differences.rights |= other.rights;
                    if other != Differences::default() {
                        self.present.restamped.insert(index);
                    }
                    PresentState::Right
                }
                Some(found) if found.hash.is_some() => {
                    self.present.as_written.insert(index, found);
                    PresentState::Outdated
                }
                _ if self.looking.overwrite => PresentState::Outdated,
                _ => PresentState::Kept,
            };
        }
        Ok(())
    }

    fn at_gone(&mut self, folder: &Dir) -> Result<(), LookError> {
        let former = self.former;
        let mut seen = HashSet::new();
        for tree in &former.0 {
            let mut lineage = Lineage::below(folder).map_err(|source| self.unreadable(Path::new(""), source))?;
            let (mut files, mut others) = (Vec::new(), Vec::new());
            let mut expected = 0;
            for (entry, index) in tree.manifest().entries().zip(0..) {
                let is_still_in_it = self.finds(tree.manifest(), index, &mut expected);
                if is_still_in_it && !matches!(entry.kind, EntryKind::Folder(_)) {
                    continue;
                }
                let Ok(folder) = lineage.at(entry.depth) else {
                    if let EntryKind::Folder(_) = entry.kind {
                        lineage.enter(tree.name(index), PresentState::Kept);
                    }
                    continue;
                };
                let found = metadata_in(folder, tree.name(index)).ok().flatten();
                let is_folder = found.as_ref().is_some_and(Metadata::is_dir);
                let is_gone = found.is_some() && !is_still_in_it;
                let path = tree.path(index);
                let is_new = is_gone && seen.insert(path.clone());
                match entry.kind {
                    EntryKind::Folder(_) => {
                        if is_new && is_folder {
                            others.push(GoneEntry { path, found: None, is_folder });
                        }
                        let state = if is_folder { PresentState::Right } else { PresentState::Kept };
                        lineage.enter(tree.name(index), state);
                    }
                    EntryKind::File(file) if is_new => {
                        let file = CandidateFile {
                            path: self.looking.path.join(&path),
                            may_have: vec![(file.hash, file.size)],
                        };
                        files.push((path, file));
                    }
                    EntryKind::Link(_) if is_new => {
                        let target = folder.read_link_contents(tree.name(index)).ok();
                        if target.is_some() && target == tree.link_target(index) {
                            others.push(GoneEntry { path, found: None, is_folder: false });
                        }
                    }
                    EntryKind::File(_) | EntryKind::Link(_) => {}
                }
            }
            let (paths, files): (Vec<PathBuf>, Vec<CandidateFile>) = files.into_iter().unzip();
            let told = self.looking.store.blobs_of_files(&files, self.looking.go_on)?;
            let as_written = paths.into_iter().zip(told).filter_map(|(path, found)| {
                let found = Some(found.filter(|found| found.hash.is_some())?);
                Some(GoneEntry { path, found, is_folder: false })
            });
            self.present.gone.extend(as_written.chain(others));
        }
        self.present.gone.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(())
    }

    /// Whether the version has something at the path of an entry of an earlier one. Most follow each other in both as they did before: `expected` is the
    /// one that is next then.
    fn finds(&self, earlier: &Manifest, index: u32, expected: &mut u32) -> bool {
        let manifest = self.tree.manifest();
        let is_next = (*expected as usize) < manifest.len() && manifest.has_path_of(*expected, earlier, index);
        let found = if is_next { Some(*expected) } else { manifest.find(&earlier.path(index)) };
        *expected = found.map_or(*expected, |found| found + 1);
        found.is_some()
    }

    fn compare_folder(&mut self, found: &Metadata, tree: &FittedTree) {
        self.present.differences.times |= self.has_other_time(found, tree.manifest().root().modified);
    }

    fn compare_file(&self, found: &Metadata, wanted: &FileAttributes) -> Differences {
        let is_executable = found.mode() & 0o100 != 0;
        let is_too_open = wanted.private && found.mode() & 0o077 != 0;
        let has_other_rights = is_executable != wanted.executable || is_too_open;
        Differences {
            times: self.has_other_time(found, wanted.modified),
            rights: self.tree.target().has_modes && has_other_rights,
        }
    }

    fn has_other_time(&self, found: &Metadata, wanted: FileTime) -> bool {
        !self.tree.target().keeps_as(wanted, modified(found))
    }

    fn unreadable(&self, relative: &Path, source: io::Error) -> StagingError {
        StagingError::Io { path: self.looking.path.join(relative), source }
    }
}

fn metadata_in(folder: &Dir, name: &OsStr) -> io::Result<Option<Metadata>> {
    match folder.symlink_metadata(name) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_no_name(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn modified(found: &Metadata) -> FileTime {
    FileTime(found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec()))
}

/// A path of the sender, for people.
pub fn shown(tree: &FittedTree, index: u32) -> String {
    ShownPath(&tree.manifest().path(index)).to_string()
}
