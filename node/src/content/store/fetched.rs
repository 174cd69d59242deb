//! Taking over what was fetched.
//!
//! What it is not: fetching, or putting anything in its place; that is `transfer`.

use std::path::PathBuf;

use keyferry_proto::hash::ContentHash;

use super::{Root, RootOrigin, Store, StoreError};

/// How many files that were fetched are put into the index together.
const MAX_ADDED_TOGETHER: usize = 4096;

/// More files than this are not put into the index again for want of half a second.
const MAX_PUT_IN_AGAIN: u64 = 20_000;

/// Files that were noted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotedFiles {
    /// How many there are.
    pub count: u64,
    /// The last change of any of them, in nanoseconds since 1970.
    pub changed_nanos: Option<i128>,
}

impl Store {
    /// Takes over what was fetched: `placed` says where each blob of the root is now (hash, size in bytes, file), and
    /// from there it can be offered. The manifest of a collection was given by [`Store::put_blob_bytes`].
    ///
    /// # Errors
    /// [`StoreError::Changed`] or [`StoreError::Vanished`] if a file is not there with the size given.
    pub fn add_fetched(
        &self,
        root: Root,
        placed: impl IntoIterator<Item = (ContentHash, u64, PathBuf)>,
    ) -> Result<(), StoreError> {
        let _changing = self.lock_changing();
        let NotedFiles { count, changed_nanos } = self.note_files(placed)?;
        self.on_index(|index| {
            index.finish_root(&root.hash, count)?;
            if count > MAX_PUT_IN_AGAIN { index.write_out() } else { Ok(()) }
        })?;
        if let (RootOrigin::Fetched { path }, Some(changed_nanos)) = (&root.origin, changed_nanos) {
            self.note_fetch_end(path, changed_nanos);
        }
        self.add_root(|_| Some(root)).map(|_| ())
    }

    /// Notes files that were fetched, and have these blobs (hash, size in bytes), so that nobody has to fetch them again.
    ///
    /// # Errors
    /// [`StoreError::Changed`] or [`StoreError::Vanished`] if a file is not there with the size given.
    pub fn note_files(
        &self,
        placed: impl IntoIterator<Item = (ContentHash, u64, PathBuf)>,
    ) -> Result<NotedFiles, StoreError> {
        let (mut placed, mut noted) = (placed.into_iter().peekable(), NotedFiles::default());
        // Of a million files, only some are in memory at a time.
        while placed.peek().is_some() {
            let mut places = Vec::new();
            for (hash, size, path) in placed.by_ref().take(MAX_ADDED_TOGETHER) {
                let location = self.locate(path)?;
                if location.stamp.size != size {
                    return Err(StoreError::Changed { path: location.path });
                }
                noted.changed_nanos = noted.changed_nanos.max(Some(location.stamp.changed));
                places.push((hash, location));
            }
            noted.count += places.len() as u64;
            self.add_places(&places)?;
        }
        Ok(noted)
    }
}
