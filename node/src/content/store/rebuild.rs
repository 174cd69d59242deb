//! Filling the index from what does not need it: the list of roots, manifests, outboards and the files themselves.
//!
//! No file is read for that if its outboard is there, or it needs none: one with the right size may have its blob, and is hashed
//! when it is used. Where the outboard is missing, the file is hashed for a new one.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    ops::ControlFlow,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use keyferry_proto::{
    collection::fitting::unescape,
    hash::{ContentFormat, ContentHash},
};
use unicode_normalization::UnicodeNormalization as _;

use super::{
    Inner, OpenReport, Root, Store, StoreError,
    blob::open_outboard,
    hashing::{self, FileToHash, Hashed, Observer, Sources},
    index::{Index, Location},
    tree,
};

impl Store {
    /// Puts the roots that the index does not have into it.
    pub(super) fn reindex_missing(&self, report: &mut OpenReport) -> Result<(), StoreError> {
        if !self.0.index.is_open() {
            return Ok(());
        }
        for root in self.roots() {
            if !self.on_index(|index| index.has_root(&root.hash))? {
                self.reindex(&root, report)?;
            }
        }
        if report.reindexed_roots > 0 {
            // Else a row of short commands would each do it again.
            self.0.index.begin_to_write_out();
        }
        Ok(())
    }

    /// Puts all roots into the index, whatever it has.
    pub(super) fn reindex_all(&self, report: &mut OpenReport) -> Result<(), StoreError> {
        self.on_index(Index::remove_damaged)?;
        self.roots().iter().try_for_each(|root| self.reindex(root, report))
    }

    fn reindex(&self, root: &Root, report: &mut OpenReport) -> Result<(), StoreError> {
        let wanted = match root.origin.path() {
            // A copy is found by its name.
            None => Vec::new(),
            Some(path) => self.files_of(root, path, report)?,
        };
        let Inner { folders, machine, .. } = &*self.0;
        let (mut places, mut unproven) = (Vec::new(), Vec::new());
        for (hash, size, path) in wanted {
            match self.locate(path.clone()) {
                Ok(location) if location.stamp.size == size => match self.has_outboard(&hash, size) {
                    true => places.push((hash, location)),
                    false => unproven.push(FileToHash { path, size, file: None, expected: Some(hash) }),
                },
                // A copy of a file that never rests is found by its hash.
                _ if folders.blob(&hash).is_file() => {}
                _ => report.lose(path),
            }
        }
        let mut rehashing = Rehashing::new(&unproven, places, report);
        let files = Sources { files: &unproven, folder: None };
        hashing::hash_files(folders, machine, files, false, &mut rehashing, &AtomicBool::new(false))?;
        let places = rehashing.places;
        let count = places.len() as u64;
        self.on_index(|index| {
            index.add(places.iter().cloned())?;
            index.finish_root(&root.hash, count)
        })?;
        self.forget_doubts(&places);
        report.reindexed_roots += 1;
        tracing::info!(files = count, "put a root into the index again");
        Ok(())
    }

    /// The blobs of a root with the files that should have them.
    pub(super) fn files_of(
        &self,
        root: &Root,
        path: &Path,
        report: &mut OpenReport,
    ) -> Result<Vec<(ContentHash, u64, PathBuf)>, StoreError> {
        if root.format == ContentFormat::Blob {
            return Ok(vec![(root.hash, root.size, path.to_owned())]);
        }
        let manifest = match self.manifest(&root.hash) {
            Ok(Some(manifest)) => manifest,
            Ok(None) | Err(StoreError::Damaged { .. }) => {
                report.lose(self.0.folders.blob(&root.hash));
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        // Only needed where the file system did not take a name as it is, or keeps another form of it.
        let mut by_name: Option<HashMap<Vec<u8>, PathBuf>> = None;
        let mut files = Vec::with_capacity(manifest.file_count());
        for (index, entry) in manifest.files() {
            let name = manifest.path(index);
            let mut file = path.join(OsStr::from_bytes(&name));
            if fs::symlink_metadata(&file).is_err()
                && let Some(found) = by_name.get_or_insert_with(|| names_in(path)).get(&plain_name(&name))
            {
                file.clone_from(found);
            }
            files.push((entry.hash, entry.size, file));
        }
        Ok(files)
    }

    pub(super) fn has_outboard(&self, hash: &ContentHash, size: u64) -> bool {
        tree::groups(size) == 1 || open_outboard(&self.0.folders, hash, size).is_ok()
    }
}

/// The files in a folder by what their names stand for.
fn names_in(folder: &Path) -> HashMap<Vec<u8>, PathBuf> {
    let files = walkdir::WalkDir::new(folder).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    let named = files.filter_map(|entry| {
        let name = entry.path().strip_prefix(folder).ok()?.as_os_str().as_bytes();
        Some((plain_name(name), entry.path().to_owned()))
    });
    named.collect()
}

/// A name without the escapes of a file system that does not take all names, in one Unicode form.
fn plain_name(name: &[u8]) -> Vec<u8> {
    let plain = unescape(name);
    std::str::from_utf8(&plain).map_or(plain.clone(), |text| text.nfc().collect::<String>().into_bytes())
}

/// Hashing files that should have known blobs: what has them, and what is lost.
pub(super) struct Rehashing<'a> {
    sources: &'a [FileToHash],
    places: Vec<(ContentHash, Location)>,
    report: &'a mut OpenReport,
}

impl<'a> Rehashing<'a> {
    /// Begins with `places` that need no hashing.
    pub(super) fn new(
        sources: &'a [FileToHash],
        places: Vec<(ContentHash, Location)>,
        report: &'a mut OpenReport,
    ) -> Self {
        Self { sources, places, report }
    }
}

impl Observer for Rehashing<'_> {
    fn done(&mut self, source: usize, result: Result<Hashed, StoreError>) -> ControlFlow<StoreError> {
        let FileToHash { path, expected, .. } = &self.sources[source];
        match result {
            Ok(hashed) if Some(hashed.hash) == *expected => {
                let place = Location { path: path.clone(), stamp: hashed.stamp, trust: hashed.trust };
                self.places.push((hashed.hash, place));
            }
            Err(error @ (StoreError::DiskFull { .. } | StoreError::ReadOnly { .. })) => {
                return ControlFlow::Break(error);
            }
            _ => self.report.lose(path.clone()),
        }
        ControlFlow::Continue(())
    }

    fn progress(&mut self, _bytes: u64) {}
}
