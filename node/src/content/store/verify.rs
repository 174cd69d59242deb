//! Reading everything again and comparing it with its hash; and mending what can be mended on the way.
//!
//! Outboards and lists of files are written anew, and the index notes files as they are now: one that was touched or moved back is whole
//! again if its bytes are right. A file with other bytes can only be reported.

use std::{
    collections::HashSet,
    fs,
    ops::ControlFlow,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use keyferry_proto::hash::{ContentFormat, ContentHash};

use super::{
    Inner, OpenReport, Root, RootOrigin, Store, StoreError,
    hashing::{self, FileToHash, Hashed, Observer, Sources},
    index::Location,
};

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Bytes read so far.
    pub done_bytes: u64,
    /// Bytes to read in all, about: content that several roots share is read once.
    pub total_bytes: u64,
}

/// A blob that is not here any more, though a root has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The blob.
    pub hash: ContentHash,
    /// Where it should be.
    pub path: PathBuf,
    /// What is wrong, in words.
    pub problem: String,
}

/// The result of a verification.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Blobs that are sound.
    pub sound: u64,
    /// Blobs that are not.
    pub damaged: u64,
    /// Sound blobs that the index had lost or noted wrongly, and lists of files that were made again; now they are right.
    pub repaired: u64,
}

/// A blob with the places where it may be; the first is where it should be.
struct Expected {
    hash: ContentHash,
    size: u64,
    paths: Vec<PathBuf>,
    is_sound: bool,
    problem: Option<(PathBuf, String)>,
}

impl Store {
    /// Reads every blob of every root, on all cores, and calls `damaged` for each that is not what it should be.
    pub fn verify(
        &self,
        progress: &dyn Fn(VerifyProgress),
        damaged: &mut dyn FnMut(Damage),
        cancelled: &AtomicBool,
    ) -> Result<VerifyReport, StoreError> {
        let _changing = self.lock_changing();
        let roots = self.roots();
        let total_bytes = roots.iter().map(|root| root.size).sum();
        let mut state = VerifyProgress { done_bytes: 0, total_bytes };
        let mut report = VerifyReport::default();
        let mut seen = HashSet::new();
        for root in &roots {
            let mut expected = Vec::new();
            report.repaired += u64::from(self.mend_manifest(root, cancelled)?);
            if let Err(error) = self.expect(root, &mut expected) {
                report.damaged += 1;
                let path = self.0.folders.blob(&root.hash);
                damaged(Damage { hash: root.hash, path, problem: error.to_string() });
            }
            expected.retain(|blob| seen.insert(blob.hash));
            self.verify_blobs(&mut expected, &mut state, &mut report, progress, cancelled)?;
            for blob in expected {
                if blob.is_sound {
                    report.sound += 1;
                } else {
                    report.damaged += 1;
                    let (path, problem) = blob.problem.unwrap_or_else(|| {
                        (blob.paths.first().cloned().unwrap_or_default(), "it is not there".to_owned())
                    });
                    damaged(Damage { hash: blob.hash, path, problem });
                }
            }
        }
        Ok(report)
    }

    /// Makes the list of a folder's files again from the folder, if it is damaged or missing, and says whether it did.
    fn mend_manifest(&self, root: &Root, cancelled: &AtomicBool) -> Result<bool, StoreError> {
        if self.blobs_of(root).is_ok() {
            return Ok(false);
        }
        match self.remake_manifest(root, cancelled) {
            Err(error @ (StoreError::Cancelled | StoreError::DiskFull { .. } | StoreError::ReadOnly { .. })) => {
                Err(error)
            }
            // The folder is another one by now, or gone: the list stays what it is, and is reported.
            Err(_) => Ok(false),
            Ok(is_made) => Ok(is_made),
        }
    }

    /// Lists the blobs of a root with all places where they may be.
    fn expect(&self, root: &Root, expected: &mut Vec<Expected>) -> Result<(), StoreError> {
        let blob_path = |hash: &ContentHash| self.0.folders.blob(hash);
        let mut files = Vec::new();
        let manifest = match root.format {
            ContentFormat::Blob => None,
            ContentFormat::Collection => {
                let missing = || StoreError::Damaged {
                    path: blob_path(&root.hash),
                    problem: "the list of the folder's files is missing".to_owned(),
                };
                let manifest = self.manifest(&root.hash)?.ok_or_else(missing)?;
                let size = fs::metadata(blob_path(&root.hash)).map_or(0, |metadata| metadata.len());
                files.push((root.hash, size, blob_path(&root.hash)));
                Some(manifest)
            }
        };
        match (&root.origin, manifest) {
            (RootOrigin::Copied, None) => files.push((root.hash, root.size, blob_path(&root.hash))),
            (RootOrigin::Copied, Some(manifest)) => {
                files.extend(manifest.files().map(|(_, file)| (file.hash, file.size, blob_path(&file.hash))));
            }
            (RootOrigin::InPlace { path, .. } | RootOrigin::Fetched { path }, _) => {
                files.extend(self.files_of(root, path, &mut OpenReport::default())?);
            }
        }
        for (hash, size, path) in files {
            let mut paths = vec![path, blob_path(&hash)];
            paths.extend(self.locations(&hash)?.into_iter().map(|location| location.path));
            let first = paths[0].clone();
            paths.sort_unstable();
            paths.dedup();
            paths.retain(|path| *path != first && path.is_file());
            paths.insert(0, first);
            expected.push(Expected { hash, size, paths, is_sound: false, problem: None });
        }
        Ok(())
    }

    fn verify_blobs(
        &self,
        expected: &mut [Expected],
        state: &mut VerifyProgress,
        report: &mut VerifyReport,
        progress: &dyn Fn(VerifyProgress),
        cancelled: &AtomicBool,
    ) -> Result<(), StoreError> {
        let (mut sources, mut blob_of) = (Vec::new(), Vec::new());
        for (number, blob) in expected.iter().enumerate() {
            for path in &blob.paths {
                sources.push(FileToHash { path: path.clone(), size: blob.size, file: None, expected: Some(blob.hash) });
                blob_of.push(number);
            }
        }
        let mut verifying =
            Verifying { sources: &sources, blob_of: &blob_of, expected, found: Vec::new(), state, progress };
        let before = verifying.state.done_bytes;
        let Inner { folders, machine, .. } = &*self.0;
        let files = Sources { files: &sources, folder: None };
        let result = hashing::hash_files(folders, machine, files, false, &mut verifying, cancelled);
        let found = std::mem::take(&mut verifying.found);
        state.done_bytes = before + expected.iter().map(|blob| blob.size).sum::<u64>();
        result?;
        if cancelled.load(Ordering::Relaxed) {
            return Err(StoreError::Cancelled);
        }
        self.note_found(found, report)
    }

    /// Puts places that the index does not have, or has otherwise, into it; those that it has are trusted more from now on.
    fn note_found(&self, found: Vec<(ContentHash, Location)>, report: &mut VerifyReport) -> Result<(), StoreError> {
        let Inner { folders, machine, .. } = &*self.0;
        let blobs = folders.blobs();
        let mut places = Vec::new();
        for (hash, mut location) in found {
            if location.path.starts_with(&blobs) {
                continue;
            }
            let mut known = self.locations(&hash)?.into_iter();
            match known.find(|known| known.path == location.path && known.stamp == location.stamp) {
                None => report.repaired += 1,
                Some(known) => location.trust = known.trust.after_hashing(&location.stamp, machine),
            }
            places.push((hash, location));
        }
        self.add_places(&places)
    }
}

struct Verifying<'a> {
    sources: &'a [FileToHash],
    blob_of: &'a [usize],
    expected: &'a mut [Expected],
    found: Vec<(ContentHash, Location)>,
    state: &'a mut VerifyProgress,
    progress: &'a dyn Fn(VerifyProgress),
}

impl Observer for Verifying<'_> {
    fn done(&mut self, source: usize, result: Result<Hashed, StoreError>) -> ControlFlow<StoreError> {
        let path = &self.sources[source].path;
        let blob = &mut self.expected[self.blob_of[source]];
        let problem = match result {
            Ok(hashed) if hashed.hash == blob.hash => {
                blob.is_sound = true;
                let place = Location { path: path.clone(), stamp: hashed.stamp, trust: hashed.trust };
                self.found.push((blob.hash, place));
                return ControlFlow::Continue(());
            }
            Ok(hashed) => format!("its bytes have the hash {}", hashed.hash),
            Err(StoreError::Vanished { .. }) => "it is not there".to_owned(),
            Err(StoreError::Unsteady { .. }) => format!("expected {} bytes, got another size", blob.size),
            Err(error @ (StoreError::DiskFull { .. } | StoreError::ReadOnly { .. })) => {
                return ControlFlow::Break(error);
            }
            Err(error) => error.to_string(),
        };
        // The place where it should be is the one to tell of.
        if blob.problem.is_none() || Some(path) == blob.paths.first() {
            blob.problem = Some((path.clone(), problem));
        }
        ControlFlow::Continue(())
    }

    fn progress(&mut self, bytes: u64) {
        (self.progress)(VerifyProgress { done_bytes: self.state.done_bytes + bytes, ..*self.state });
    }
}
