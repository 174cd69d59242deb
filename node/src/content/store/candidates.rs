//! Which of a few blobs a file has: by its stamp where that vouches for it, else by all its bytes.
//!
//! What it is not: a search for a blob; see [`Store::blob`].

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use keyferry_proto::hash::{ContentFormat, ContentHash};

use super::{
    Inner, Store, StoreError,
    hashing::{self, FileToHash, Hashed, Observer, Sources},
    index::Location,
};
use crate::base::stamp::{Stamp, StampTrust};

/// A file that may have one of a few blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateFile {
    /// Where it is.
    pub path: PathBuf,
    /// The blobs, with their sizes in bytes. The first is the one that matters most: only its outboard is kept.
    pub may_have: Vec<(ContentHash, u64)>,
}

/// What a file turned out to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundBlob {
    /// The blob; none if it has none of those that it may have.
    pub hash: Option<ContentHash>,
    /// What it was like then.
    pub(crate) stamp: Stamp,
}

impl Store {
    /// Which blob each of these files has; none for what is no file, or cannot be read.
    ///
    /// # Errors
    /// [`StoreError::Cancelled`] once `go_on` says so; or if the index, or the data folder, cannot be used.
    pub fn blobs_of_files(
        &self,
        files: &[CandidateFile],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<FoundBlob>>, StoreError> {
        let mut found = Vec::with_capacity(files.len());
        let (mut unknown, mut numbers) = (Vec::new(), Vec::new());
        for (number, CandidateFile { path, may_have }) in files.iter().enumerate() {
            let Some(stamp) = stamp_of_file(path) else {
                found.push(None);
                continue;
            };
            let mut fitting = may_have.iter().filter(|(_, size)| *size == stamp.size).map(|(hash, _)| *hash);
            let known = match stamp.size {
                0 => fitting.clone().find(|hash| *hash == ContentHash::EMPTY),
                _ => fitting.clone().find(|hash| self.is_vouched_for(hash, path, &stamp)),
            };
            if let (None, Some(expected)) = (known, fitting.next()) {
                let (size, file) = (stamp.size, Some(stamp.file));
                unknown.push(FileToHash { path: path.clone(), size, file, expected: Some(expected) });
                numbers.push(number);
            }
            found.push(Some(FoundBlob { hash: known, stamp }));
        }
        if unknown.is_empty() && go_on() {
            return Ok(found);
        }
        let cancelled = AtomicBool::new(!go_on());
        let mut telling =
            Telling { store: self, files, numbers, found, places: Vec::new(), go_on, cancelled: &cancelled };
        let Inner { folders, machine, .. } = &*self.0;
        let sources = Sources { files: &unknown, folder: None };
        hashing::hash_files(folders, machine, sources, false, &mut telling, &cancelled)?;
        if cancelled.load(Ordering::Relaxed) {
            return Err(StoreError::Cancelled);
        }
        let Telling { found, places, .. } = telling;
        self.add_places(&places)?;
        Ok(found)
    }

    /// Which of a few blobs, given with their sizes, a file has, if it has one of them.
    ///
    /// # Errors
    /// As [`Store::blobs_of_files`].
    pub fn blob_of_file(
        &self,
        path: PathBuf,
        may_have: Vec<(ContentHash, u64)>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<FoundBlob>, StoreError> {
        let told = self.blobs_of_files(&[CandidateFile { path, may_have }], go_on)?;
        Ok(told.into_iter().flatten().find(|found| found.hash.is_some()))
    }

    /// What the file at a path is, if it is as an earlier fetch left it there.
    pub fn file_as_written(&self, path: &Path) -> Option<FoundBlob> {
        let versions = self.versions_at(path).into_iter().filter(|version| version.format == ContentFormat::Blob);
        // Of a version its size is not known.
        let size = fs::symlink_metadata(path).ok()?.len();
        let may_have: Vec<_> = versions.map(|version| (version.hash, size)).collect();
        self.blob_of_file(path.to_owned(), may_have, &|| true).ok()?
    }

    /// Whether a file is as it was when something was found out of it.
    pub fn is_as_found(&self, path: &Path, found: &FoundBlob) -> bool {
        stamp_of_file(path) == Some(found.stamp)
    }

    fn is_vouched_for(&self, hash: &ContentHash, path: &Path, stamp: &Stamp) -> bool {
        self.location(hash, path).is_some_and(|known| known.vouches_for(stamp, &self.0.machine))
            && self.has_outboard(hash, stamp.size)
    }
}

fn stamp_of_file(path: &Path) -> Option<Stamp> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| Stamp::of(&metadata))
}

/// Takes down what comes out for those files that had to be read.
struct Telling<'a> {
    store: &'a Store,
    files: &'a [CandidateFile],
    /// Which of them each source is.
    numbers: Vec<usize>,
    found: Vec<Option<FoundBlob>>,
    places: Vec<(ContentHash, Location)>,
    go_on: &'a dyn Fn() -> bool,
    cancelled: &'a AtomicBool,
}

impl Observer for Telling<'_> {
    fn done(&mut self, source: usize, result: Result<Hashed, StoreError>) -> ControlFlow<StoreError> {
        let number = self.numbers[source];
        let CandidateFile { path, may_have } = &self.files[number];
        match result {
            Ok(Hashed { hash, stamp, trust, .. }) => {
                let is_wanted = may_have.iter().any(|(wanted, _)| *wanted == hash);
                if is_wanted {
                    let before = self.store.location(&hash, path).filter(|known| known.stamp == stamp);
                    let before = before.map(|known| known.trust).filter(|before| *before != StampTrust::Never);
                    let machine = &self.store.0.machine;
                    let trust = before.map_or(trust, |before| before.after_hashing(&stamp, machine));
                    self.places.push((hash, Location { path: path.clone(), stamp, trust }));
                }
                self.found[number] = Some(FoundBlob { hash: is_wanted.then_some(hash), stamp });
            }
            Err(error @ (StoreError::DiskFull { .. } | StoreError::ReadOnly { .. } | StoreError::Cancelled)) => {
                return ControlFlow::Break(error);
            }
            Err(_) => self.found[number] = None,
        }
        ControlFlow::Continue(())
    }

    fn progress(&mut self, _bytes: u64) {
        if !(self.go_on)() {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }
}
