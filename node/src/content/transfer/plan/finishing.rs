//! Making of what was fetched what the sender has: copies, empty files, folders, links, times, and the final place.

use std::{
    collections::HashSet,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use keyferry_proto::{
    hash::{ContentFormat, ContentHash},
    transfer::layout::Item,
};
use tokio_util::sync::CancellationToken;

use super::{FetchPlan, FilePlace, Shape, go_on};
use crate::content::transfer::{FetchError, staging::tree::FittedTree};

/// How much of a file to copy before looking whether the user has had enough.
const COPIED_TOGETHER: u64 = 16 << 20;

impl FetchPlan {
    /// Finishes the fetch: everything is verified and in the staging area. Returns where the content is now.
    pub(in super::super) fn finish(&self, cancel: &CancellationToken) -> Result<PathBuf, FetchError> {
        self.check_room()?;
        self.place_items(&[], cancel)
    }

    /// Finishes the fetch of a folder without some of its items, whose numbers ascend. What is in the place of their files already stays.
    pub(in super::super) fn finish_without(
        &self,
        missing: &[usize],
        cancel: &CancellationToken,
    ) -> Result<PathBuf, FetchError> {
        for index in missing {
            for file in self.places.of_item(*index) {
                self.staging.remove_file(&self.place(*file)?.relative)?;
            }
        }
        self.place_items(missing, cancel)
    }

    fn place_items(&self, missing: &[usize], cancel: &CancellationToken) -> Result<PathBuf, FetchError> {
        for empty in &self.places.empty {
            go_on(cancel)?;
            self.truncate(&self.place(*empty)?, 0)?;
        }
        for (index, item) in self.layout.items().iter().enumerate() {
            go_on(cancel)?;
            if missing.binary_search(&index).is_ok() {
                continue;
            }
            let Some((first, others)) = self.places.of_item(index).split_first() else { continue };
            let first = self.place(*first)?;
            if item.units > 1 {
                self.truncate(&first, item.size)?;
                self.store.partial_outboard(item.hash, item.size)?.finish()?;
            }
            for other in others {
                self.duplicate(&first, &self.place(*other)?, cancel)?;
            }
        }
        let lacking: HashSet<u32> = missing.iter().flat_map(|index| self.places.of_item(*index)).copied().collect();
        let tree = self.tree().map(|tree| tree.without(lacking));
        match (&tree, &self.shape) {
            (Some(tree), _) => {
                if !self.staging.finish_tree(tree, &|| !cancel.is_cancelled())? {
                    return Err(FetchError::Interrupted);
                }
            }
            (None, Shape::File(path, Some(attributes))) => self.staging.finish_file(path, attributes)?,
            (None, _) => {}
        }
        self.put_in_place(tree.as_ref())
    }

    fn put_in_place(&self, tree: Option<&FittedTree>) -> Result<PathBuf, FetchError> {
        // The data first: a name that is on the disk stands for a whole file.
        if self.staging.is_synced() {
            let files: Vec<PathBuf> = match tree {
                None => vec![self.staging.blob_path()],
                Some(tree) => tree.to_sync().collect(),
            };
            self.staging.sync_files(files.into_iter())?;
        }
        let path = self.staging.commit(tree)?;
        if self.staging.is_synced() {
            self.staging.sync_place(tree)?;
            let hashes = self.layout.items().iter().map(|item| &item.hash);
            self.store.sync_blobs(hashes, tree.map(|_| &self.root).into_iter())?;
        }
        Ok(path)
    }

    /// Every blob but those that are `missing`, with a file that holds it, once the content is at `path`.
    pub(in super::super) fn placed(
        &self,
        path: &Path,
        missing: &[usize],
    ) -> impl Iterator<Item = (ContentHash, u64, PathBuf)> {
        let is_there = move |(index, _): &(usize, &Item)| missing.binary_search(index).is_err();
        self.layout.items().iter().enumerate().filter(is_there).filter_map(move |(index, item)| {
            let first = self.first_place(index).ok()?;
            let path = match self.format {
                ContentFormat::Blob => path.to_owned(),
                ContentFormat::Collection => path.join(&first.relative),
            };
            Some((item.hash, item.size, path))
        })
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
            for copy in self.places.of_item(index).iter().skip(1) {
                let there = self.staging.len_of(&self.place(*copy)?.relative);
                needed = needed.saturating_add(item.size.saturating_sub(there));
            }
        }
        Ok(needed)
    }

    /// Copies one file of the staging area to another place in it; where the file system can, both share their bytes on the disk.
    fn duplicate(&self, from: &FilePlace, to: &FilePlace, cancel: &CancellationToken) -> Result<(), FetchError> {
        let failed = |source| self.disk(&to.relative, source);
        let Some(mut source) = self.staging.open_existing(&from.relative)? else {
            return Err(self.disk(&from.relative, io::ErrorKind::NotFound.into()));
        };
        let mut copy = self.staging.open_file(&to.relative, &to.attributes)?;
        copy.set_len(0).map_err(failed)?;
        if rustix::fs::ioctl_ficlone(&copy, &source).is_ok() {
            return Ok(());
        }
        loop {
            go_on(cancel)?;
            if io::copy(&mut (&mut source).take(COPIED_TOGETHER), &mut copy).map_err(failed)? == 0 {
                return Ok(());
            }
        }
    }
}
