//! Filling the index from what does not need it: the list of roots, manifests, outboards and the files themselves.
//!
//! A file need not be read whole if it has the right size, was not touched since the root came into the store, and has an
//! outboard that proves its first, middle and last group: then it is believed to have its blob. Any other is hashed anew. (Whoever fetches proves every group again, so a wrong belief costs a fetch, and never yields wrong content.)

use std::{
    collections::HashMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use keyferry_proto::hash::{ContentFormat, ContentHash};

use super::{
    OpenReport, Root, Store, StoreError,
    disk::Stamp,
    hashing::{self, FileToHash, Hashed, Observer},
    import::safe_name,
    index::Location,
    proving, utf8,
};

/// Clocks of file systems are coarse: a file touched this close to the import may have been touched after it.
const TOUCH_MARGIN_NANOS: i128 = 2_000_000_000;

impl Store {
    /// Puts the roots that the index does not have into it.
    pub(super) fn reindex_missing(&self, report: &mut OpenReport) -> Result<(), StoreError> {
        for root in self.roots() {
            if !self.on_index(|index| index.has_root(&root.hash))? {
                self.reindex(&root, report)?;
            }
        }
        Ok(())
    }

    /// Puts all roots into the index, whatever it has.
    pub(super) fn reindex_all(&self, report: &mut OpenReport) -> Result<(), StoreError> {
        self.roots().iter().try_for_each(|root| self.reindex(root, report))
    }

    fn reindex(&self, root: &Root, report: &mut OpenReport) -> Result<(), StoreError> {
        let wanted = match root.origin.path() {
            // A copy is found by its name.
            None => Vec::new(),
            Some(path) => self.files_of(root, path, report)?,
        };
        let (mut places, mut doubtful) = (Vec::new(), Vec::new());
        for (hash, size, path) in wanted {
            match self.believable(root, &hash, size, &path) {
                Some(location) => places.push((hash, location)),
                None => doubtful.push(FileToHash { path, size, expected: Some(hash) }),
            }
        }
        let mut rehashing = Rehashing { sources: &doubtful, places, report };
        hashing::hash_files(&self.0.folders, &doubtful, false, &mut rehashing, &AtomicBool::new(false))?;
        let places = rehashing.places;
        let count = places.len() as u64;
        self.on_index(|index| {
            index.add(places.iter().cloned())?;
            index.finish_root(&root.hash, count)
        })?;
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
        // Only needed where the file system's form of a name is not the collection's.
        let mut by_name: Option<HashMap<String, PathBuf>> = None;
        let mut files = Vec::with_capacity(manifest.entries().len());
        for entry in manifest.entries() {
            let mut file = path.join(entry.path.as_str());
            if fs::symlink_metadata(&file).is_err() && !entry.path.as_str().is_ascii() {
                let by_name = by_name.get_or_insert_with(|| names_in(path));
                if let Some(found) = by_name.get(entry.path.as_str()) {
                    file.clone_from(found);
                }
            }
            files.push((entry.hash, entry.size, file));
        }
        Ok(files)
    }

    fn believable(&self, root: &Root, hash: &ContentHash, size: u64, path: &Path) -> Option<Location> {
        // One group has no outboard to be proven by, and is hashed in no time.
        if super::tree::groups(size) == 1 {
            return None;
        }
        let file = fs::File::open(path).ok()?;
        let metadata = file.metadata().ok()?;
        let stamp = Stamp::of(&metadata);
        let added = i128::from(root.added.0) * 1_000_000_000;
        if !metadata.is_file() || stamp.size != size || stamp.modified + TOUCH_MARGIN_NANOS > added {
            return None;
        }
        let outboard_path = self.0.folders.outboard(hash);
        let outboard = fs::File::open(&outboard_path).ok()?;
        if outboard.metadata().ok()?.len() != super::tree::outboard_len(size) {
            return None;
        }
        let groups = super::tree::groups(size);
        for group in [0, groups / 2, groups - 1] {
            if !proving::is_group_proven(&file, &outboard, hash, size, group).ok()? {
                return None;
            }
        }
        Some(Location { path: utf8(path.to_owned()).ok()?, stamp })
    }
}

/// The files in a folder by their names in its collection.
fn names_in(folder: &Path) -> HashMap<String, PathBuf> {
    walkdir::WalkDir::new(folder)
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| Some((safe_name(folder, entry.path()).ok()?.as_str().to_owned(), entry.into_path())))
        .collect()
}

struct Rehashing<'a> {
    sources: &'a [FileToHash],
    places: Vec<(ContentHash, Location)>,
    report: &'a mut OpenReport,
}

impl Observer for Rehashing<'_> {
    fn done(&mut self, source: usize, result: Result<Hashed, StoreError>) -> ControlFlow<StoreError> {
        let FileToHash { path, expected, .. } = &self.sources[source];
        match (result, utf8(path.clone())) {
            (Ok(hashed), Ok(text)) if Some(hashed.hash) == *expected => {
                self.places.push((hashed.hash, Location { path: text, stamp: hashed.stamp }));
            }
            (Err(error @ (StoreError::DiskFull { .. } | StoreError::ReadOnly { .. })), _) => {
                return ControlFlow::Break(error);
            }
            _ => self.report.lose(path.clone()),
        }
        ControlFlow::Continue(())
    }

    fn progress(&mut self, _bytes: u64) {}
}
