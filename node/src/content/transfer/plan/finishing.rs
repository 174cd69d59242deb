//! Making of what was fetched what the sender has: copies, empty files, folders, links, times, and the final place.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use keyferry_proto::transfer::layout::Item;
use tokio_util::sync::CancellationToken;

use super::{FetchPlan, FilePlace, Shape, go_on};
use crate::content::{
    store::PlacedFile,
    transfer::{
        FetchError,
        staging::{
            StagingError,
            merging::{Merged, Merging},
            present::PresentTree,
            tree::FittedTree,
        },
    },
};

/// How many files of one blob are noted, so that they need not be read again: as many as the index remembers.
const MAX_PLACES_NOTED: usize = 4;

/// Content that is in its place.
#[derive(Debug)]
pub(in super::super) struct Finished {
    /// Where it is.
    pub(in super::super) path: PathBuf,
    /// What was done with a folder that was there already.
    pub(in super::super) merged: Merged,
}

impl FetchPlan {
    /// Finishes the fetch: everything is verified and in the staging area, or in its place already.
    pub(in super::super) fn finish(&self, cancel: &CancellationToken) -> Result<Finished, FetchError> {
        self.check_room()?;
        self.place_items(&[], cancel)
    }

    /// Finishes the fetch of a folder without some of its items, whose numbers ascend. What is in the place of their files already stays.
    pub(in super::super) fn finish_without(
        &self,
        missing: &[usize],
        cancel: &CancellationToken,
    ) -> Result<Finished, FetchError> {
        for index in missing {
            for file in self.wanted_places(*index) {
                self.staging.remove_file(&self.place(file)?.relative)?;
            }
        }
        self.place_items(missing, cancel)
    }

    fn place_items(&self, missing: &[usize], cancel: &CancellationToken) -> Result<Finished, FetchError> {
        for empty in self.places.empty.iter().filter(|file| self.wants(**file)) {
            go_on(cancel)?;
            self.truncate(&self.place(*empty)?, 0)?;
        }
        for (index, item) in self.layout.items().iter().enumerate() {
            go_on(cancel)?;
            if missing.binary_search(&index).is_ok() {
                continue;
            }
            let mut wanted = self.wanted_places(index);
            let Some(first) = wanted.next() else { continue };
            let first = self.place(first)?;
            if item.units > 1 {
                self.truncate(&first, item.size)?;
                self.store.partial_outboard(item.hash, item.size)?.finish()?;
            }
            for other in wanted {
                self.duplicate(&first, &self.place(other)?, cancel)?;
            }
        }
        let missing: HashSet<u32> = missing.iter().flat_map(|index| self.wanted_places(*index)).collect();
        let tree = self.tree().map(|tree| tree.without(missing));
        match (&tree, &self.shape, self.present()) {
            // What is merged gets its times and rights file by file.
            (Some(_), _, Some(_)) => {}
            (Some(tree), _, None) => {
                if !self.staging.finish_tree(tree, &|| !cancel.is_cancelled())? {
                    return Err(FetchError::Interrupted);
                }
            }
            (None, Shape::File(path, Some(attributes)), _) => self.staging.finish_file(path, attributes)?,
            (None, Shape::File(path, None), _) => self.staging.finish_rights(path)?,
            (None, Shape::Folder(_), _) => {}
        }
        self.put_in_place(tree.as_ref(), cancel)
    }

    fn put_in_place(&self, tree: Option<&FittedTree>, cancel: &CancellationToken) -> Result<Finished, FetchError> {
        // The data first: a name that is on the disk stands for a whole file.
        if self.staging.is_synced() {
            let files: Vec<PathBuf> = match tree {
                None => vec![self.staging.blob_path()],
                Some(tree) => self.staged_files(tree).collect(),
            };
            self.staging.sync_files(files.into_iter())?;
        }
        let path = self.staging.final_path();
        let staged = self.staging.staged_path(&tree.map_or_else(|| self.staging.blob_path(), |_| PathBuf::new()));
        if let Err(error) = self.store.begin_version(&path, self.version, self.target.source.as_ref(), &staged) {
            tracing::warn!(%error, "a newer version will take what is fetched now for its owner's");
        }
        let merged = match (tree, self.present()) {
            (Some(tree), Some(present)) => {
                let merging = Merging {
                    present,
                    tree,
                    mirror: self.target.mirror,
                    is_as_found: &|path, found| self.store.is_as_found(path, found),
                    go_on: &|| !cancel.is_cancelled(),
                };
                self.staging.merge(&merging)?.ok_or(FetchError::Interrupted)?
            }
            _ if self.is_target_as_found() => {
                self.staging.commit()?;
                Merged::default()
            }
            _ => return Err(StagingError::Exists { path }.into()),
        };
        if self.staging.is_synced() {
            self.staging.sync_place(tree)?;
            let hashes = self.layout.items().iter().map(|item| &item.hash);
            self.store.sync_blobs(hashes, tree.map(|_| &self.version.hash).into_iter())?;
        }
        Ok(Finished { path, merged })
    }

    /// The files that are staged.
    fn staged_files<'a>(&'a self, tree: &'a FittedTree) -> impl Iterator<Item = PathBuf> + 'a {
        let files = tree.manifest().files().map(|(file, _)| file);
        files.filter(|file| self.wants(*file) && !tree.lacks(*file)).map(|file| tree.path(file))
    }

    /// Every blob but those that are `missing`, with some of the files that were written for it, once the content is at `path`. Files that are `kept` are
    /// their owner's.
    pub(in super::super) fn placed<'a>(
        &'a self,
        path: &'a Path,
        missing: &'a [usize],
        kept: &'a [u32],
    ) -> impl Iterator<Item = PlacedFile> + 'a {
        let is_there = move |(index, _): &(usize, &Item)| missing.binary_search(index).is_err();
        self.layout.items().iter().enumerate().filter(is_there).flat_map(move |(index, item)| {
            let is_placed = |file: &&u32| {
                // What was right before is known, unless its stamp is another now.
                let is_new = |present: &PresentTree| present.wants(**file) || present.is_restamped(**file);
                self.present().is_none_or(is_new) && !kept.contains(file)
            };
            let places = self.places.of_item(index).iter().filter(is_placed).take(MAX_PLACES_NOTED);
            places.filter_map(|file| self.placed_file(path, item, *file))
        })
    }

    fn placed_file(&self, path: &Path, item: &Item, file: u32) -> Option<PlacedFile> {
        let place = self.place(file).ok()?;
        let (path, modified) = match &self.shape {
            Shape::File(_, attributes) => (path.to_owned(), attributes.map(|attributes| attributes.modified)),
            Shape::Folder(_) => (path.join(&place.relative), Some(place.attributes.modified)),
        };
        Some(PlacedFile { hash: item.hash, size: item.size, path, modified })
    }

    /// Finds that the files which are copies of others fit on the disk: a list of a few bytes may name one file a million times.
    fn check_room(&self) -> Result<(), FetchError> {
        let needed = self.bytes_of_copies()?;
        if needed > 0 { Ok(self.staging.check_room(needed)?) } else { Ok(()) }
    }

    /// The bytes that files which are copies of others still take.
    pub(super) fn bytes_of_copies(&self) -> Result<u64, FetchError> {
        let mut needed: u64 = 0;
        for (index, item) in self.layout.items().iter().enumerate() {
            for copy in self.wanted_places(index).skip(1) {
                let there = self.staging.len_of(&self.place(copy)?.relative);
                needed = needed.saturating_add(item.size.saturating_sub(there));
            }
        }
        Ok(needed)
    }

    /// Copies one file of the staging area to another place in it; where the file system can, both share their bytes on the disk.
    fn duplicate(&self, from: &FilePlace, to: &FilePlace, cancel: &CancellationToken) -> Result<(), FetchError> {
        let Some(source) = self.staging.open_existing(&from.relative)? else {
            return Err(self.disk(&from.relative, io::ErrorKind::NotFound.into()));
        };
        let copy = self.staging.open_file(&to.relative, &to.attributes)?;
        let copied = self.copy(&source, &copy, u64::MAX, &to.relative, cancel)?;
        copied.map_err(|source| self.disk(&from.relative, source))
    }
}
