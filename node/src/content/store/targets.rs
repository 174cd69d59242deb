//! What was fetched to which place: a newer version may replace there what nobody has changed since, and what a power cut took is told from
//! what its owner did.
//!
//! ```json
//! {"version": 2, "targets": [{"path": "/home/me/x", "source": "keyferry:NODE/holiday",
//!                             "versions": [{"hash": "64 digits", "format": "collection"}],
//!                             "end": {"boot": "32 digits", "changed_nanos": 1790000000123456789}}]}
//! ```
//! Versions are noted before anything of them is put in its place, the last one first. Some of what is there may still be of an earlier one: a
//! fetch may have been killed, or have gone without some files.
//!
//! This file may be lost, too: then everything at a target is its owner's, and nothing is taken for damage.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use keyferry_proto::{
    address::Address,
    hash::{ContentFormat, ContentHash},
};
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    disk::{self, Folders},
};
use crate::base::any_path;

const VERSION: u32 = 2;

/// How many targets are remembered; the last ones.
const MAX_TARGETS: usize = 1024;
/// How many versions are remembered of each; the last ones.
const MAX_VERSIONS: usize = 3;

/// One version of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedVersion {
    /// Its hash: that of the file, or of the list of files.
    pub hash: ContentHash,
    /// A file or a folder.
    pub format: ContentFormat,
}

/// When a fetch had put everything in its place; or, while it is about to, when it had written all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FetchEnd {
    /// The boot in which that was, as [`BootId`](crate::base::stamp::BootId) shows it.
    pub(super) boot: String,
    /// The last change of any of its files, in nanoseconds since 1970.
    pub(super) changed_nanos: i128,
}

/// The record of all targets.
#[derive(Debug)]
pub(super) struct FetchTargets {
    folders: Folders,
    /// Held while the file is changed.
    changing: Mutex<()>,
}

/// The file, in the order in which something was last fetched to each target.
#[derive(Debug, Default, Serialize, Deserialize)]
struct TargetsFile {
    version: u32,
    targets: Vec<TargetRecord>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct TargetRecord {
    #[serde(with = "any_path")]
    path: PathBuf,
    /// What was last fetched there, if an address said it.
    #[serde(default)]
    source: Option<Address>,
    versions: Vec<FetchedVersion>,
    #[serde(default)]
    end: Option<FetchEnd>,
}

impl FetchTargets {
    pub(super) fn in_folders(folders: &Folders) -> Self {
        Self { folders: folders.clone(), changing: Mutex::new(()) }
    }

    /// The versions that were put at `path`, the last one first.
    pub(super) fn versions_at(&self, path: &Path) -> Vec<FetchedVersion> {
        self.record_of(path).map(|record| record.versions).unwrap_or_default()
    }

    /// What was last fetched to `path`, as its address says it.
    pub(super) fn source_at(&self, path: &Path) -> Option<Address> {
        self.record_of(path)?.source
    }

    /// When the last fetch to `path` ended, or was about to; none if nothing was fetched there.
    pub(super) fn end_at(&self, path: &Path) -> Option<FetchEnd> {
        self.record_of(path)?.end
    }

    /// The lists of files that are needed to tell what is as it was put there.
    pub(super) fn lists(&self) -> Vec<ContentHash> {
        let versions = self.read().targets.into_iter().flat_map(|record| record.versions);
        versions.filter(|version| version.format == ContentFormat::Collection).map(|version| version.hash).collect()
    }

    /// Notes that the first of these versions, which was all written by `written`, is about to be put at `path`, where the others are.
    pub(super) fn begin(
        &self,
        path: &Path,
        mut versions: Vec<FetchedVersion>,
        source: Option<&Address>,
        written: Option<FetchEnd>,
    ) -> Result<(), StoreError> {
        versions.truncate(MAX_VERSIONS);
        self.change(path, |record| {
            record.source = source.cloned();
            record.versions = versions;
            record.end = written;
        })
    }

    /// Notes that all of a version is at `path`.
    pub(super) fn end(&self, path: &Path, end: FetchEnd) -> Result<(), StoreError> {
        self.change(path, |record| record.end = Some(end))
    }

    /// Forgets the targets that are gone from folders that are there. A folder that is not there may be on a disk that is not plugged in.
    pub(super) fn forget_gone(&self) -> Result<(), StoreError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = self.read();
        let before = file.targets.len();
        file.targets.retain(|record| {
            let is_folder_there = record.path.parent().is_some_and(Path::is_dir);
            !is_folder_there || record.path.symlink_metadata().is_ok()
        });
        if file.targets.len() == before { Ok(()) } else { self.write(&file) }
    }

    /// The new name is not waited for: whatever is waited for next, such as the list of roots, takes it along where the file system has a
    /// journal.
    fn change(&self, path: &Path, change: impl FnOnce(&mut TargetRecord)) -> Result<(), StoreError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = self.read();
        let before = file.targets.iter().position(|record| record.path == path).map(|at| file.targets.remove(at));
        let mut record =
            before.unwrap_or(TargetRecord { path: path.to_owned(), source: None, versions: Vec::new(), end: None });
        change(&mut record);
        file.targets.push(record);
        let surplus = file.targets.len().saturating_sub(MAX_TARGETS);
        file.targets.drain(..surplus);
        self.write(&file)
    }

    fn write(&self, file: &TargetsFile) -> Result<(), StoreError> {
        let place = self.folders.fetch_targets();
        let bytes = serde_json::to_vec(file).map_err(|error| StoreError::io("write", &place)(error.into()))?;
        let written = self.folders.temporary_file()?;
        disk::write_all_at(written.as_file(), &bytes, 0).map_err(StoreError::io("write", &place))?;
        // Else a power cut might leave nothing of what it was, for any target.
        written.as_file().sync_data().map_err(StoreError::io("write", &place))?;
        disk::keep(written, &place)
    }

    fn record_of(&self, path: &Path) -> Option<TargetRecord> {
        self.read().targets.into_iter().rfind(|record| record.path == path)
    }

    /// Reads the file; one that is absent, or damaged, knows nothing.
    fn read(&self) -> TargetsFile {
        let read = fs::read(self.folders.fetch_targets()).ok();
        let read = read.and_then(|bytes| serde_json::from_slice::<TargetsFile>(&bytes).ok());
        read.filter(|file| file.version == VERSION).unwrap_or(TargetsFile { version: VERSION, targets: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(content: &[u8]) -> FetchedVersion {
        FetchedVersion { hash: ContentHash::of(content), format: ContentFormat::Collection }
    }

    #[test]
    fn the_last_versions_of_the_last_targets_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let targets = FetchTargets::in_folders(&Folders::open(dir.path()).unwrap());
        let path = Path::new("/somewhere/x");
        assert_eq!(targets.versions_at(path), []);
        targets.begin(path, [b"4", b"3", b"2", b"1"].map(|content| version(content)).to_vec(), None, None).unwrap();
        assert_eq!(targets.versions_at(path), [version(b"4"), version(b"3"), version(b"2")]);

        let end = FetchEnd { boot: "b".to_owned(), changed_nanos: 1_790_000_000_123_456_789 };
        targets.end(path, end.clone()).unwrap();
        assert_eq!(targets.source_at(path), None);
        let source = Address::content(None, ContentHash::of(b"5"));
        assert_eq!(targets.end_at(path), Some(end));
        targets.begin(path, vec![version(b"5")], Some(&source), None).unwrap();
        assert_eq!(targets.end_at(path), None, "it is being changed");
        assert_eq!(targets.source_at(path), Some(source));

        for other in 0..MAX_TARGETS {
            targets.begin(Path::new(&format!("/other/{other}")), vec![version(b"o")], None, None).unwrap();
        }
        assert_eq!(targets.versions_at(path), []);
        assert_eq!(targets.lists().len(), MAX_TARGETS);
    }

    #[test]
    fn what_is_gone_from_a_folder_that_is_there_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let targets = FetchTargets::in_folders(&Folders::open(dir.path()).unwrap());
        let [there, gone, unplugged] = ["there", "gone", "unplugged/x"].map(|name| dir.path().join(name));
        fs::write(&there, b"").unwrap();
        for path in [&there, &gone, &unplugged] {
            targets.begin(path, vec![version(b"1")], None, None).unwrap();
        }
        targets.forget_gone().unwrap();
        let known = [&there, &gone, &unplugged].map(|path| !targets.versions_at(path).is_empty());
        assert_eq!(known, [true, false, true]);
    }

    #[test]
    fn a_record_that_cannot_be_read_knows_nothing_and_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::open(dir.path()).unwrap();
        let targets = FetchTargets::in_folders(&folders);
        let path = Path::new("/somewhere/x");
        for text in ["", "{", r#"{"version": 1, "fetched": []}"#, r#"{"version": 3, "targets": []}"#] {
            fs::write(folders.fetch_targets(), text).unwrap();
            assert_eq!(targets.versions_at(path), []);
        }
        targets.begin(path, vec![version(b"1")], None, None).unwrap();
        assert_eq!(targets.versions_at(path), [version(b"1")]);
    }
}
