//! Taking files and folders of the user into the store: where they are, or as copies.
//!
//! Of a folder, regular files are taken, with the executable bit and nothing else of their mode. Symbolic links and
//! special files are skipped and reported; empty folders are not kept, as a collection is a list of files.
//!
//! What it is not: hashing; see [`super::hashing`].

use std::{
    borrow::Cow,
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
    known_files::KnownFiles,
    roots::{audience_of, is_followed, narrow},
    source::SourceFolder,
    utf8,
};
use crate::base::{clock, stamp::FileId};

/// How many skipped files an import lists; the rest is only counted.
pub const MAX_SKIPPED_LISTED: usize = 100;

/// Where the content of an import is afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportMode {
    /// In the user's own files, which must stay as they are, unless the share follows them already.
    InPlace,
    /// In the user's own files, which the share follows when they change.
    Followed,
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

/// What came of looking again at what a share follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// It is as it was shared.
    Same,
    /// It has changed, and this is shared now.
    Newer(Root),
    /// There is no such share any more, or it follows something else.
    Unfollowed,
}

/// What was read to be shared.
struct ReadContent {
    hash: ContentHash,
    format: ContentFormat,
    size: u64,
    files: u64,
    skipped: Vec<(PathBuf, SkipReason)>,
    skipped_count: u64,
}

impl Store {
    /// Takes in a file or a folder and shares it, in place of what had its name before. Without an audience it has that of the share
    /// before it, or else everyone. A smaller audience than before is in force at once. Of what was shared before, only what has changed is
    /// read.
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
        if let Some(audience) = audience {
            self.change_roots(|roots| narrow(roots, name, audience))?;
        }
        let _changing = self.lock_changing();
        let former = self.root_named(name);
        let read = self.read_content(&path, former.as_ref(), mode, progress, cancelled)?;
        let root = self.add_root(|roots| {
            let audience = audience.or_else(|| audience_of(roots, name)).cloned().unwrap_or_default();
            let follows = mode == ImportMode::Followed || is_followed(roots, name, &path);
            let origin = match mode {
                ImportMode::InPlace | ImportMode::Followed => RootOrigin::InPlace { path, followed: follows },
                ImportMode::Copy => RootOrigin::Copied,
            };
            Some(read.root(name, audience, origin))
        })?;
        let root = root.ok_or(StoreError::Cancelled)?;
        tracing::info!(format = ?root.format, size = root.size, files = root.files, "took content into the store");
        Ok(Imported { root, skipped: read.skipped, skipped_count: read.skipped_count })
    }

    /// Looks again at what a share follows, and shares it as it is now. Only what has changed is read.
    ///
    /// # Errors
    /// As [`Store::import`], and [`StoreError::Emptied`] if nothing is there any more; then all is as before.
    pub fn renew(&self, name: &ShareName, path: &Path, cancelled: &AtomicBool) -> Result<Renewed, StoreError> {
        let _changing = self.lock_changing();
        let is_wanted = |roots: &[Root]| is_followed(roots, name, path);
        let Some(former) = self.root_named(name).filter(|former| is_wanted(std::slice::from_ref(former))) else {
            return Ok(Renewed::Unfollowed);
        };
        let read = self.read_content(path, Some(&former), ImportMode::Followed, &|_| {}, cancelled)?;
        if read.hash == former.hash {
            return Ok(Renewed::Same);
        }
        if read.files == 0 && former.files > 0 {
            return Err(StoreError::Emptied { path: path.to_owned() });
        }
        let root = self.add_root(|roots| {
            // It may have been withdrawn meanwhile, or have another audience.
            let audience = audience_of(roots, name).filter(|_| is_wanted(roots))?.clone();
            Some(read.root(name, audience, RootOrigin::InPlace { path: path.to_owned(), followed: true }))
        })?;
        tracing::info!(?name, files = read.files, "a share has a new version");
        Ok(root.map_or(Renewed::Unfollowed, Renewed::Newer))
    }

    /// Reads what is at `path`, as far as it is not known from `former`, and has all on the disk that a root of it needs.
    fn read_content(
        &self,
        path: &Path,
        former: Option<&Root>,
        mode: ImportMode,
        progress: &dyn Fn(ImportProgress),
        cancelled: &AtomicBool,
    ) -> Result<ReadContent, StoreError> {
        let found = FoundFiles::at(path, cancelled)?;
        let known = self.known_files(path, former.filter(|_| mode != ImportMode::Copy), found.names.as_deref());
        let files = self.hash(&found, &known, mode, progress, cancelled)?;
        let (hash, format) = match &found.names {
            None => (files[0].hash, ContentFormat::Blob),
            Some(names) => (self.keep_manifest(path, names, &files)?, ContentFormat::Collection),
        };
        if mode != ImportMode::Copy {
            self.index_files(&found, &files)?;
        }
        self.sync_kept(&files, &hash, format, mode)?;
        let count = files.len() as u64;
        self.on_index(|index| index.finish_root(&hash, count))?;
        let size = files.iter().map(|file| file.stamp.size).sum();
        let FoundFiles { skipped, skipped_count, .. } = found;
        Ok(ReadContent { hash, format, size, files: count, skipped, skipped_count })
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
        known: &KnownFiles<'_>,
        mode: ImportMode,
        progress: &dyn Fn(ImportProgress),
        cancelled: &AtomicBool,
    ) -> Result<Vec<Hashed>, StoreError> {
        let name = |number: usize| found.names.as_ref().map(|names| &names[number]);
        let mut files = Vec::with_capacity(found.sources.len());
        for (number, source) in found.sources.iter().enumerate() {
            if cancelled.load(Ordering::Relaxed) {
                return Err(StoreError::Cancelled);
            }
            files.push(known.get(source, name(number)));
        }
        let unknown = files.iter().enumerate().filter(|(_, file)| file.is_none());
        let numbers: Vec<usize> = unknown.map(|(number, _)| number).collect();
        let to_hash: Cow<'_, [FileToHash]> = match numbers.len() == files.len() {
            true => Cow::Borrowed(&found.sources),
            false => numbers.iter().map(|number| found.sources[*number].clone()).collect(),
        };
        let state = ImportProgress {
            done_bytes: 0,
            total_bytes: to_hash.iter().map(|source| source.size).sum(),
            done_files: (files.len() - numbers.len()) as u64,
            total_files: files.len() as u64,
        };
        progress(state);
        let mut importing = Importing { files, numbers, state, progress };
        let Inner { folders, machine, .. } = &*self.0;
        let sources = Sources { files: &to_hash, folder: found.folder.as_ref() };
        hashing::hash_files(folders, machine, sources, mode == ImportMode::Copy, &mut importing, cancelled)?;
        for number in importing.numbers {
            if let Some(hashed) = &mut importing.files[number] {
                hashed.trust = known.trust(&found.sources[number], name(number), hashed);
            }
        }
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
        let known = self.known_files(path, None, Some(names));
        let files = self.hash(&found, &known, ImportMode::InPlace, &|_| {}, cancelled)?;
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
        for (source, file) in found.sources.iter().zip(files).filter(|(_, file)| !file.is_indexed) {
            let path = utf8(source.path.clone())?;
            places.push((file.hash, Location { path, stamp: file.stamp, trust: file.trust }));
        }
        self.add_places(&places)
    }
}

impl ReadContent {
    fn root(&self, name: &ShareName, audience: Audience, origin: RootOrigin) -> Root {
        let Self { hash, format, size, files, .. } = *self;
        let state = RootState::Shared { name: name.clone(), audience };
        Root { hash, format, size, files, state, origin, added: clock::now() }
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
    /// Which of them each source is.
    numbers: Vec<usize>,
    state: ImportProgress,
    progress: &'a dyn Fn(ImportProgress),
}

impl Observer for Importing<'_> {
    fn done(&mut self, source: usize, result: Result<Hashed, StoreError>) -> ControlFlow<StoreError> {
        match result {
            Ok(hashed) => {
                self.files[self.numbers[source]] = Some(hashed);
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
