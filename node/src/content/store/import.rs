//! Taking files and folders of the user into the store: where they are, or as copies.
//!
//! Of a folder, regular files are taken, with the executable bit and nothing else of their mode. Symbolic links and
//! special files are skipped and reported; empty folders are not kept, as a collection is a list of files.
//!
//! What it is not: hashing; see [`super::hashing`].

use std::{
    fs::{self, Metadata},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use keyferry_proto::{
    address::ShareName,
    collection::{MAX_ENTRIES, Manifest, ManifestEntry, ManifestError},
    hash::{ContentFormat, ContentHash},
    path::SafePath,
};

use super::{
    Audience, Inner, Root, RootOrigin, RootState, Store, StoreError,
    hashing::{self, FileToHash, Hashed, Observer, Sources},
    index::Location,
    roots::audience_of,
    source::SourceFolder,
    utf8,
};
use crate::base::{clock, stamp::FileId};

/// How many skipped files an import lists; the rest is only counted.
pub const MAX_SKIPPED_LISTED: usize = 100;

/// Where the content of an import is afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportMode {
    /// In the user's own files, which must stay as they are.
    InPlace,
    /// In the data folder.
    Copy,
}

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportProgress {
    /// Bytes hashed so far.
    pub done_bytes: u64,
    /// Bytes to hash in all.
    pub total_bytes: u64,
    /// Files finished so far.
    pub done_files: u64,
    /// Files in all.
    pub total_files: u64,
}

/// Why something in a folder is not part of its collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum SkipReason {
    /// A symbolic link, which might lead anywhere.
    #[error("a symbolic link")]
    SymbolicLink,
    /// A device, socket or pipe.
    #[error("a special file")]
    SpecialFile,
}

/// The result of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// What can be fetched now.
    pub root: Root,
    /// What was left out of it, at most [`MAX_SKIPPED_LISTED`] of them.
    pub skipped: Vec<(PathBuf, SkipReason)>,
    /// How much was left out in all.
    pub skipped_count: u64,
}

impl Store {
    /// Takes in a file or a folder and shares it, in place of what had its name before. Without an audience it has that of the share
    /// before it, or else everyone.
    ///
    /// `progress` is called from this thread, about ten times a second and for every file. `cancelled` stops the import
    /// within milliseconds; nothing of it is shared then.
    ///
    /// # Errors
    /// [`StoreError::Unsteady`] or [`StoreError::Vanished`] if a file changes meanwhile, [`StoreError::Name`] and
    /// [`StoreError::Folder`] for names that a stranger's machine could not take; each names the file.
    pub fn import(
        &self,
        path: &Path,
        name: &ShareName,
        audience: Option<&Audience>,
        mode: ImportMode,
        progress: &dyn Fn(ImportProgress),
        cancelled: &AtomicBool,
    ) -> Result<Imported, StoreError> {
        let path = self.shareable(path)?;
        let _changing = self.lock_changing();
        let mut found = FoundFiles::at(&path, cancelled)?;
        let files = self.hash(&found, mode, progress, cancelled)?;
        let (hash, format) = match &found.names {
            None => (files[0].hash, ContentFormat::Blob),
            Some(names) => (self.keep_manifest(&path, names, &files)?, ContentFormat::Collection),
        };
        if mode == ImportMode::InPlace {
            self.index_files(&found, &files)?;
        }
        self.sync_kept(&files, &hash, format, mode)?;
        let count = files.len() as u64;
        self.on_index(|index| index.finish_root(&hash, count))?;
        let root = self.add_root(|roots| Root {
            hash,
            format,
            size: files.iter().map(|file| file.stamp.size).sum(),
            files: count,
            state: RootState::Shared {
                name: name.clone(),
                audience: audience.or_else(|| audience_of(roots, name)).cloned().unwrap_or_default(),
            },
            origin: match mode {
                ImportMode::InPlace => RootOrigin::InPlace { path },
                ImportMode::Copy => RootOrigin::Copied,
            },
            added: clock::now(),
        })?;
        tracing::info!(format = ?root.format, size = root.size, files = root.files, "took content into the store");
        Ok(Imported { root, skipped: std::mem::take(&mut found.skipped), skipped_count: found.skipped_count })
    }

    /// The absolute form of a path that may be shared.
    fn shareable(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let absolute = path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => StoreError::NotFound { path: path.to_owned() },
            _ => StoreError::io("read", path)(error),
        })?;
        let home = self.0.folders.root();
        if home.starts_with(&absolute) || absolute.starts_with(home) {
            return Err(StoreError::OwnDataFolder { path: absolute });
        }
        Ok(absolute)
    }

    fn hash(
        &self,
        found: &FoundFiles,
        mode: ImportMode,
        progress: &dyn Fn(ImportProgress),
        cancelled: &AtomicBool,
    ) -> Result<Vec<Hashed>, StoreError> {
        let state = ImportProgress {
            done_bytes: 0,
            total_bytes: found.sources.iter().map(|source| source.size).sum(),
            done_files: 0,
            total_files: found.sources.len() as u64,
        };
        progress(state);
        let mut importing = Importing { files: Vec::new(), state, progress };
        importing.files.resize_with(found.sources.len(), || None);
        let Inner { folders, machine, .. } = &*self.0;
        let sources = Sources { files: &found.sources, folder: found.folder.as_ref() };
        hashing::hash_files(folders, machine, sources, mode == ImportMode::Copy, &mut importing, cancelled)?;
        let files: Vec<Hashed> = importing.files.into_iter().flatten().collect();
        // A worker reports every source or fails, so fewer can only mean that it was told to stop.
        if files.len() == found.sources.len() { Ok(files) } else { Err(StoreError::Cancelled) }
    }

    fn keep_manifest(&self, folder: &Path, names: &[SafePath], files: &[Hashed]) -> Result<ContentHash, StoreError> {
        let bytes = manifest_of(folder, names, files)?.encode();
        let hash = ContentHash::of(&bytes);
        self.put_blob_bytes(hash, &bytes)?;
        Ok(hash)
    }

    /// Makes the list of files of a folder anew, from the folder, and says whether it is the one that the root is named after.
    pub(super) fn remake_manifest(&self, root: &Root, cancelled: &AtomicBool) -> Result<bool, StoreError> {
        let Some(path) = root.origin.path() else { return Ok(false) };
        let found = FoundFiles::at(path, cancelled)?;
        let Some(names) = &found.names else { return Ok(false) };
        let files = self.hash(&found, ImportMode::InPlace, &|_| {}, cancelled)?;
        let bytes = manifest_of(path, names, &files)?.encode();
        if ContentHash::of(&bytes) != root.hash {
            return Ok(false);
        }
        self.put_blob_bytes(root.hash, &bytes)?;
        Ok(true)
    }

    /// Waits until everything is on the disk that the list of roots is about to refer to, and that is in the data folder. A copy may
    /// be the only one.
    fn sync_kept(
        &self,
        files: &[Hashed],
        root: &ContentHash,
        format: ContentFormat,
        mode: ImportMode,
    ) -> Result<(), StoreError> {
        let manifest = (format == ContentFormat::Collection).then_some(root);
        let copies = files.iter().filter(|_| mode == ImportMode::Copy).map(|file| &file.hash);
        self.sync_blobs(files.iter().map(|file| &file.hash), copies.chain(manifest))
    }

    fn index_files(&self, found: &FoundFiles, files: &[Hashed]) -> Result<(), StoreError> {
        let mut places = Vec::with_capacity(files.len());
        for (source, file) in found.sources.iter().zip(files) {
            let path = utf8(source.path.clone())?;
            places.push((file.hash, Location { path, stamp: file.stamp, trust: file.trust }));
        }
        self.add_places(&places)
    }
}

fn manifest_of(folder: &Path, names: &[SafePath], files: &[Hashed]) -> Result<Manifest, StoreError> {
    let entries = names.iter().zip(files).map(|(path, file)| ManifestEntry {
        path: path.clone(),
        size: file.stamp.size,
        hash: file.hash,
        executable: file.executable,
    });
    Manifest::from_entries(entries.collect()).map_err(|source| StoreError::Folder { path: folder.to_owned(), source })
}

/// The files that an import takes.
struct FoundFiles {
    sources: Vec<FileToHash>,
    /// The folder that they are in; none for a single file.
    folder: Option<SourceFolder>,
    /// Their names in the collection, in the same order; none for a single file.
    names: Option<Vec<SafePath>>,
    skipped: Vec<(PathBuf, SkipReason)>,
    skipped_count: u64,
}

impl FoundFiles {
    fn at(path: &Path, cancelled: &AtomicBool) -> Result<Self, StoreError> {
        // Of a path without links: one that is there now has just been put there.
        let metadata = fs::symlink_metadata(path).map_err(StoreError::io("read", path))?;
        let mut found = Self { sources: Vec::new(), folder: None, names: None, skipped: Vec::new(), skipped_count: 0 };
        // The index keeps paths as text; better to say so before an hour of hashing.
        utf8(path.to_owned())?;
        if metadata.is_dir() {
            found.names = Some(Vec::new());
            found.folder = Some(SourceFolder::open(path, FileId::of(&metadata))?);
            found.walk(path, cancelled)?;
            found.check_names(path)?;
        } else if metadata.is_file() {
            found.add(path.to_owned(), &metadata);
        } else {
            return Err(StoreError::NotShareable { path: path.to_owned() });
        }
        Ok(found)
    }

    fn walk(&mut self, folder: &Path, cancelled: &AtomicBool) -> Result<(), StoreError> {
        for entry in walkdir::WalkDir::new(folder).min_depth(1).follow_root_links(false) {
            if cancelled.load(Ordering::Relaxed) {
                return Err(StoreError::Cancelled);
            }
            let entry = entry.map_err(|error| walk_error(folder, error))?;
            let kind = entry.file_type();
            if kind.is_file() {
                let metadata = entry.metadata().map_err(|error| walk_error(entry.path(), error))?;
                self.take(folder, entry.into_path(), &metadata)?;
            } else if !kind.is_dir() {
                let reason = if kind.is_symlink() { SkipReason::SymbolicLink } else { SkipReason::SpecialFile };
                self.skip(entry.into_path(), reason);
            }
        }
        Ok(())
    }

    /// Makes a manifest of the names alone, so that names that clash are reported before anything is hashed.
    fn check_names(&self, folder: &Path) -> Result<(), StoreError> {
        let names = self.names.iter().flatten();
        let empty = |path: &SafePath| ManifestEntry {
            path: path.clone(),
            size: 0,
            hash: ContentHash::EMPTY,
            executable: false,
        };
        match Manifest::from_entries(names.map(empty).collect()) {
            Ok(_) => Ok(()),
            Err(source) => Err(StoreError::Folder { path: folder.to_owned(), source }),
        }
    }

    fn take(&mut self, folder: &Path, path: PathBuf, metadata: &Metadata) -> Result<(), StoreError> {
        if self.sources.len() == MAX_ENTRIES {
            let source = ManifestError::TooManyEntries { got: MAX_ENTRIES + 1 };
            return Err(StoreError::Folder { path: folder.to_owned(), source });
        }
        let name = safe_name(folder, &path)?;
        self.names.get_or_insert_default().push(name);
        self.add(path, metadata);
        Ok(())
    }

    fn add(&mut self, path: PathBuf, metadata: &Metadata) {
        let file = Some(FileId::of(metadata));
        self.sources.push(FileToHash { path, size: metadata.len(), file, expected: None });
    }

    fn skip(&mut self, path: PathBuf, reason: SkipReason) {
        self.skipped_count += 1;
        if self.skipped.len() < MAX_SKIPPED_LISTED {
            self.skipped.push((path, reason));
        }
    }
}

/// The name of a file in the collection of a folder.
pub(super) fn safe_name(folder: &Path, path: &Path) -> Result<SafePath, StoreError> {
    let relative = path.strip_prefix(folder).unwrap_or(path);
    let mut components = Vec::new();
    for component in relative.components() {
        let text = component.as_os_str().to_str();
        components.push(text.ok_or_else(|| StoreError::NotUtf8 { path: path.to_owned() })?);
    }
    SafePath::normalized(&components.join("/")).map_err(|source| StoreError::Name { path: path.to_owned(), source })
}

pub(super) fn walk_error(folder: &Path, error: walkdir::Error) -> StoreError {
    let path = error.path().unwrap_or(folder).to_owned();
    let source = error.into_io_error().unwrap_or_else(|| std::io::ErrorKind::InvalidData.into());
    StoreError::io("read", &path)(source)
}

/// Gathers what the workers report, and tells the user.
struct Importing<'a> {
    files: Vec<Option<Hashed>>,
    state: ImportProgress,
    progress: &'a dyn Fn(ImportProgress),
}

impl Observer for Importing<'_> {
    fn done(&mut self, source: usize, result: Result<Hashed, StoreError>) -> ControlFlow<StoreError> {
        match result {
            Ok(hashed) => {
                self.files[source] = Some(hashed);
                self.state.done_files += 1;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn progress(&mut self, bytes: u64) {
        self.state.done_bytes = bytes;
        (self.progress)(self.state);
    }
}
