//! Putting a version of a folder into the folder that is there: each file takes its place at once, what is right already stays as it is, and so does
//! whatever is not of the version.
//!
//! After a kill some files are of the new version, and the rest is staged still: the next run goes on.
//!
//! What it is not: the decision what may be replaced; see [`super::present`].

use std::{
    io,
    path::{Path, PathBuf},
};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, Permissions, PermissionsExt as _};
use keyferry_proto::collection::EntryKind;

use super::{
    Staging, StagingError,
    carried::{finish_file, finish_folder},
    present::{GoneEntry, PresentState, PresentTree},
    tree::FittedTree,
};
use crate::content::store::FoundBlob;

/// What was done with the folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// Entries that were not put in their places after all: something had come there, or changed, in the meantime.
    pub kept: Vec<u32>,
    /// Files and links that were removed.
    pub removed: Vec<PathBuf>,
}

/// How to go about it.
pub struct Merging<'a> {
    /// What is there.
    pub present: &'a PresentTree,
    /// The entries that are to be put in their places, if they are wanted.
    pub tree: &'a FittedTree,
    /// Whether what is not in the version any more is removed.
    pub mirror: bool,
    /// Whether a file is as it was found.
    pub is_as_found: &'a dyn Fn(&Path, &FoundBlob) -> bool,
    /// Whether to go on.
    pub go_on: &'a dyn Fn() -> bool,
}

impl Staging {
    /// Puts what is staged, and is wanted, into the folder at the target. None if it is to go on no longer.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn merge(&self, merging: &Merging<'_>) -> Result<Option<Merged>, StagingError> {
        let into = self.open_target()?;
        let mut merged = Merged::default();
        if merging.mirror {
            self.remove_gone(&into, merging, &mut merged);
        }
        for (entry, index) in merging.tree.manifest().entries().zip(0..) {
            if !(merging.go_on)() {
                return Ok(None);
            }
            if merging.tree.lacks(index) {
                continue;
            }
            match (entry.kind, merging.present.state(index)) {
                (EntryKind::Folder(attributes), PresentState::Absent | PresentState::Outdated) => {
                    self.merge_folder(&into, merging, index, attributes.private, &mut merged)?;
                }
                (EntryKind::File(file), PresentState::Absent | PresentState::Outdated) => {
                    self.finish_file(&merging.tree.path(index), &file.attributes)?;
                    self.merge_leaf(&into, merging, index, &mut merged)?;
                }
                (EntryKind::Link(_), PresentState::Absent | PresentState::Outdated) => {
                    let Some(target) = merging.tree.link_target(index) else { continue };
                    let path = merging.tree.path(index);
                    self.make_link(&path, &target).map_err(|source| self.io(&path, source))?;
                    self.merge_leaf(&into, merging, index, &mut merged)?;
                }
                (EntryKind::File(file), PresentState::Right) if merging.present.is_restamped(index) => {
                    let path = merging.tree.path(index);
                    finish_file(&into, &path, &file.attributes, None).map_err(|source| self.final_io(&path, source))?;
                }
                (_, PresentState::Right | PresentState::Kept) => {}
            }
        }
        for (path, attributes) in merging.tree.folders().rev() {
            // One that is not there now is a file of its owner's.
            if into.symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                finish_folder(&into, &path, &attributes, None).map_err(|source| self.final_io(&path, source))?;
            }
        }
        self.discard()?;
        let root = merging.tree.manifest().root();
        finish_folder(&into, Path::new(""), &root, None).map_err(|source| self.final_io(Path::new(""), source))?;
        Ok(Some(merged))
    }

    fn merge_folder(
        &self,
        into: &Dir,
        merging: &Merging<'_>,
        index: u32,
        is_private: bool,
        merged: &mut Merged,
    ) -> Result<(), StagingError> {
        let path = merging.tree.path(index);
        let failed = |source| self.final_io(&path, source);
        if merging.present.state(index) == PresentState::Outdated && self.is_as_found(merging, index, &path) {
            into.remove_file(&path).map_err(failed)?;
        }
        let mut builder = DirBuilder::new();
        if is_private {
            builder.mode(0o700);
        }
        match into.create_dir_with(&path, &builder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !into.symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                    merged.kept.push(index);
                }
                Ok(())
            }
            // Something of its owner's has come in the way to it.
            Err(error) if is_in_the_way(&error) => Ok(()),
            Err(error) => Err(failed(error)),
            Ok(()) => match self.target.umask.filter(|_| !is_private) {
                None => Ok(()),
                Some(umask) => into.set_permissions(&path, Permissions::from_mode(umask.apply(0o777))).map_err(failed),
            },
        }
    }

    fn merge_leaf(
        &self,
        into: &Dir,
        merging: &Merging<'_>,
        index: u32,
        merged: &mut Merged,
    ) -> Result<(), StagingError> {
        let path = merging.tree.path(index);
        let moved = match merging.present.state(index) {
            PresentState::Outdated if !self.is_as_found(merging, index, &path) => {
                Err(io::ErrorKind::AlreadyExists.into())
            }
            PresentState::Outdated => self.replace(into, &path),
            _ => self.place_new(into, &path),
        };
        match moved {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists || is_in_the_way(&error) => {
                merged.kept.push(index);
                Ok(())
            }
            moved => moved.map_err(|source| self.final_io(&path, source)),
        }
    }

    fn replace(&self, into: &Dir, path: &Path) -> io::Result<()> {
        if into.symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
            into.remove_dir_all(path)?;
        }
        self.base.rename(path, into, path)
    }

    /// Gives a staged file its place, in which nothing may have come since.
    fn place_new(&self, into: &Dir, path: &Path) -> io::Result<()> {
        match self.base.hard_link(path, into, path) {
            Ok(()) => self.base.remove_file(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists || is_in_the_way(&error) => Err(error),
            // A file system without hard links.
            Err(_) if into.symlink_metadata(path).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => self.base.rename(path, into, path),
        }
    }

    fn is_as_found(&self, merging: &Merging<'_>, index: u32, path: &Path) -> bool {
        let found = merging.present.as_written(index);
        found.is_none_or(|found| (merging.is_as_found)(&self.final_path().join(path), found))
    }

    /// Removes what is gone, as far as nobody has changed it, and the folders that this empties. What cannot be removed stays.
    fn remove_gone(&self, into: &Dir, merging: &Merging<'_>, merged: &mut Merged) {
        for GoneEntry { path, found, is_folder } in merging.present.gone().iter().rev() {
            if *is_folder {
                let _ = into.remove_dir(path);
                continue;
            }
            let is_as_found = found.is_none_or(|found| (merging.is_as_found)(&self.final_path().join(path), &found));
            if is_as_found && into.remove_file(path).is_ok() {
                merged.removed.push(path.clone());
            }
        }
        merged.removed.reverse();
    }
}

/// Whether something on the way to a path is no folder.
fn is_in_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound)
}
