//! Taking files and folders of the user into the store: where they are, or as copies.
//!
//! A file of a folder that changes while it is read is read once more; if it changes then, too, a copy is made of what is in it at one moment.
//! One that cannot be read, or holds still at no time, is left out and reported.
//!
//! What it is not: looking for files (see [`super::found`]), or hashing them (see [`super::hashing`]).

use std::{
    borrow::Cow,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use keyferry_proto::{
    address::ShareName,
    collection::FileAttributes,
    hash::{ContentFormat, ContentHash},
};

use super::{
    Audience, Inner, Root, RootOrigin, RootState, Store, StoreError,
    fetched::MAX_ADDED_TOGETHER,
    found::FoundTree,
    hashing::{self, FileToHash, Hashed, HashedPlace, Observer, Sources},
    index::Location,
    known_files::KnownFiles,
    left_out::{LeftOut, LeftOutReason},
    roots::{audience_of, is_followed, narrow},
    selection::Excludes,
    tree,
};
use crate::base::clock;

/// Where the content of an import is afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportMode {
    /// In the user's own files, which must stay as they are, unless the share follows them already.
    InPlace,
    /// In the user's own files, which the share follows when they change.
    Followed,
    /// In the data folder.
    Copy,
    /// In the data folder, where the file was written to be shared, and nothing is left of it.
    Taken,
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

/// How an import goes about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// Where the content is afterwards.
    pub mode: ImportMode,
    /// What of a folder is not wanted.
    pub excludes: Excludes,
    /// Whether to refuse a folder of which something would be left out.
    pub is_strict: bool,
}

impl From<ImportMode> for ImportOptions {
    fn from(mode: ImportMode) -> Self {
        Self { mode, excludes: Excludes::default(), is_strict: false }
    }
}

/// The result of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// What can be fetched now.
    pub root: Root,
    /// What was left out of it.
    pub left_out: LeftOut,
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
pub(super) struct ReadContent {
    pub(super) hash: ContentHash,
    pub(super) format: ContentFormat,
    pub(super) size: u64,
    pub(super) files: u64,
    /// Those of a single file.
    pub(super) attributes: Option<FileAttributes>,
    pub(super) left_out: LeftOut,
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
    /// [`StoreError::Folder`] if there is more in it than a collection takes, [`StoreError::LeavesOut`] if something of it cannot be shared
    /// and all is wanted.
    pub fn import(
        &self,
        path: &Path,
        name: &ShareName,
        audience: Option<&Audience>,
        options: impl Into<ImportOptions>,
        progress: &dyn Fn(ImportProgress),
        cancelled: &AtomicBool,
    ) -> Result<Imported, StoreError> {
        let options = options.into();
        let mode = options.mode;
        let path = if mode == ImportMode::Taken { self.spooled(path)? } else { self.shareable(path)? };
        if let Some(audience) = audience {
            self.change_roots(|roots| narrow(roots, name, audience))?;
        }
        let _changing = self.lock_changing();
        let former = self.root_named(name);
        let read = match mode {
            ImportMode::Taken => self.take_in(&path, progress, cancelled)?,
            _ => self.read_content(&path, former.as_ref(), &options, progress, cancelled)?,
        };
        let root = self.add_root(|roots| {
            let audience = audience.or_else(|| audience_of(roots, name)).cloned().unwrap_or_default();
            let follows = mode == ImportMode::Followed || is_followed(roots, name, &path);
            let origin = match mode {
                ImportMode::InPlace | ImportMode::Followed => {
                    RootOrigin::InPlace { path, followed: follows, excludes: options.excludes }
                }
                ImportMode::Copy | ImportMode::Taken => RootOrigin::Copied,
            };
            Some(read.root(name, audience, origin))
        })?;
        let root = root.ok_or(StoreError::Cancelled)?;
        tracing::info!(format = ?root.format, size = root.size, files = root.files, "took content into the store");
        Ok(Imported { root, left_out: read.left_out })
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
        let excludes = former.origin.excludes();
        let options = ImportOptions { excludes: excludes.clone(), ..ImportMode::Followed.into() };
        let read = self.read_content(path, Some(&former), &options, &|_| {}, cancelled)?;
        // Who mirrors the share would take what is left out for removed.
        if let Some((path, _)) = read.left_out.listed.iter().find(|(_, why)| *why == LeftOutReason::Unsteady) {
            return Err(StoreError::Unsteady { path: path.clone() });
        }
        if read.hash == former.hash {
            return Ok(Renewed::Same);
        }
        if read.files == 0 && former.files > 0 {
            return Err(StoreError::Emptied { path: path.to_owned() });
        }
        let root = self.add_root(|roots| {
            // It may have been withdrawn meanwhile, or have another audience.
            let audience = audience_of(roots, name).filter(|_| is_wanted(roots))?.clone();
            Some(read.root(name, audience, RootOrigin::InPlace { path: path.to_owned(), followed: true, excludes }))
        })?;
        tracing::info!(?name, files = read.files, "a share has a new version");
        Ok(root.map_or(Renewed::Unfollowed, Renewed::Newer))
    }

    /// Reads what is at `path`, as far as it is not known from `former`, and has all on the disk that a root of it needs.
    fn read_content(
        &self,
        path: &Path,
        former: Option<&Root>,
        options: &ImportOptions,
        progress: &dyn Fn(ImportProgress),
        cancelled: &AtomicBool,
    ) -> Result<ReadContent, StoreError> {
        let mode = options.mode;
        let mut found = FoundTree::at(path, &options.excludes, cancelled)?;
        check_strict(path, options, &found)?;
        let known = self.known_files(path, former.filter(|_| mode != ImportMode::Copy), &found.sources);
        let files = self.hash(&mut found, &known, mode, progress, cancelled)?;
        check_strict(path, options, &found)?;
        let (hash, format, attributes) = match (found.manifest(path, Some(&files))?, files.first()) {
            (Some(manifest), _) => {
                let bytes = manifest.encode();
                // A list of files is in memory once.
                drop(manifest);
                let hash = ContentHash::of(&bytes);
                self.put_blob_bytes(hash, &bytes)?;
                (hash, ContentFormat::Collection, None)
            }
            (None, Some(Some(file))) => (file.hash, ContentFormat::Blob, Some(file.attributes)),
            (None, _) => return Err(StoreError::Unsteady { path: path.to_owned() }),
        };
        if mode != ImportMode::Copy {
            self.index_files(&found, &files)?;
        }
        self.sync_kept(&files, &hash, format, mode)?;
        let count = files.iter().flatten().count() as u64;
        self.on_index(|index| index.finish_root(&hash, count))?;
        let size = files.iter().flatten().map(|file| file.size).sum();
        Ok(ReadContent { hash, format, size, files: count, attributes, left_out: found.left_out })
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

    /// Hashes the files that are not known, and leaves out of a folder those that cannot be hashed.
    fn hash(
        &self,
        found: &mut FoundTree,
        known: &KnownFiles<'_>,
        mode: ImportMode,
        progress: &dyn Fn(ImportProgress),
        cancelled: &AtomicBool,
    ) -> Result<Vec<Option<Hashed>>, StoreError> {
        let mut files = Vec::with_capacity(found.sources.len());
        for source in &found.sources {
            if cancelled.load(Ordering::Relaxed) {
                return Err(StoreError::Cancelled);
            }
            files.push(known.get(source));
        }
        let unknown = files.iter().enumerate().filter(|(_, file)| file.is_none());
        let numbers: Vec<usize> = unknown.map(|(number, _)| number).collect();
        let state = ImportProgress {
            done_bytes: 0,
            total_bytes: numbers.iter().map(|number| found.sources[*number].size).sum(),
            done_files: (files.len() - numbers.len()) as u64,
            total_files: files.len() as u64,
        };
        progress(state);
        let is_folder = found.folder.is_some();
        let mut importing = Importing { files, numbers, failed: Vec::new(), is_folder, state, progress };
        self.hash_numbered(found, &mut importing, mode, cancelled)?;
        for number in &importing.numbers {
            if let Some(hashed) = &mut importing.files[*number] {
                hashed.trust = known.trust(&found.sources[*number], hashed);
            }
        }
        self.hash_unsteady(found, &mut importing, mode, cancelled)?;
        // A worker reports every source or fails, so fewer can only mean that it was told to stop.
        let Importing { files, failed, .. } = importing;
        if files.iter().flatten().count() + failed.len() != files.len() {
            return Err(StoreError::Cancelled);
        }
        for (number, why) in failed {
            found.left_out.add(found.sources[number].path.clone(), why);
        }
        Ok(files)
    }

    /// Hashes the files with the numbers of `importing`.
    fn hash_numbered(
        &self,
        found: &FoundTree,
        importing: &mut Importing<'_>,
        mode: ImportMode,
        cancelled: &AtomicBool,
    ) -> Result<(), StoreError> {
        let to_hash: Cow<'_, [FileToHash]> = match importing.numbers.len() == found.sources.len() {
            true => Cow::Borrowed(&found.sources),
            false => importing.numbers.iter().map(|number| found.sources[*number].clone()).collect(),
        };
        let Inner { folders, machine, .. } = &*self.0;
        let sources = Sources { files: &to_hash, folder: found.folder.as_ref().map(|folder| &folder.handle) };
        hashing::hash_files(folders, machine, sources, mode == ImportMode::Copy, importing, cancelled)
    }

    /// Hashes those once more that changed while they were read; of those that change again, what is in them at one moment.
    fn hash_unsteady(
        &self,
        found: &mut FoundTree,
        importing: &mut Importing<'_>,
        mode: ImportMode,
        cancelled: &AtomicBool,
    ) -> Result<(), StoreError> {
        let unsteady = importing.take_unsteady();
        if unsteady.is_empty() {
            return Ok(());
        }
        for number in &unsteady {
            found.look_again(*number);
        }
        importing.numbers = unsteady;
        (importing.progress)(importing.state);
        self.hash_numbered(found, importing, mode, cancelled)?;
        for number in importing.take_unsteady() {
            match self.take_moment(found, &found.sources[number], cancelled) {
                Ok(Some(hashed)) => importing.files[number] = Some(hashed),
                Ok(None) if importing.is_folder => importing.failed.push((number, LeftOutReason::Unsteady)),
                Ok(None) => return Err(StoreError::Unsteady { path: found.sources[number].path.clone() }),
                Err(error) => match reason_to_leave_out(&error).filter(|_| importing.is_folder) {
                    Some(why) => importing.failed.push((number, why)),
                    None => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Makes the list of files of a folder anew, from the folder, and says whether it is the one that the root is named after.
    pub(super) fn remake_manifest(&self, root: &Root, cancelled: &AtomicBool) -> Result<bool, StoreError> {
        let Some(path) = root.origin.path() else { return Ok(false) };
        let mut found = FoundTree::at(path, &root.origin.excludes(), cancelled)?;
        let known = self.known_files(path, None, &found.sources);
        let files = self.hash(&mut found, &known, ImportMode::InPlace, &|_| {}, cancelled)?;
        let Some(manifest) = found.manifest(path, Some(&files))? else { return Ok(false) };
        let bytes = manifest.encode();
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
        files: &[Option<Hashed>],
        root: &ContentHash,
        format: ContentFormat,
        mode: ImportMode,
    ) -> Result<(), StoreError> {
        let manifest = (format == ContentFormat::Collection).then_some(root);
        let is_copied = |file: &&Hashed| mode == ImportMode::Copy || file.place == HashedPlace::Copy;
        let files = || files.iter().flatten();
        let copies = files().filter(is_copied).map(|file| &file.hash);
        let with_outboards = files().filter(|file| tree::groups(file.size) > 1).map(|file| &file.hash);
        self.sync_blobs(with_outboards.chain(manifest), copies.chain(manifest))
    }

    fn index_files(&self, found: &FoundTree, files: &[Option<Hashed>]) -> Result<(), StoreError> {
        let hashed = found.sources.iter().zip(files).filter_map(|(source, file)| Some((source, file.as_ref()?)));
        let in_place = hashed.filter(|(_, file)| file.place == HashedPlace::File);
        let mut places = in_place.map(|(source, file)| {
            (file.hash, Location { path: source.path.clone(), stamp: file.stamp, trust: file.trust })
        });
        // Of a million files, only some are in memory twice.
        loop {
            let together: Vec<_> = places.by_ref().take(MAX_ADDED_TOGETHER).collect();
            if together.is_empty() {
                return Ok(());
            }
            self.add_places(&together)?;
        }
    }
}

impl ReadContent {
    fn root(&self, name: &ShareName, audience: Audience, origin: RootOrigin) -> Root {
        let Self { hash, format, size, files, attributes, .. } = *self;
        let state = RootState::Shared { name: name.clone(), audience };
        Root { hash, format, size, files, attributes, state, origin, added: clock::now() }
    }
}

/// Why a file that could not be read is left out; none if the fault is not the file's.
fn reason_to_leave_out(error: &StoreError) -> Option<LeftOutReason> {
    match error {
        StoreError::Vanished { .. } => Some(LeftOutReason::Vanished),
        StoreError::Unsteady { .. } | StoreError::Changed { .. } => Some(LeftOutReason::Unsteady),
        StoreError::Io { action: "open" | "read", source, .. } => Some(LeftOutReason::Unreadable(source.kind())),
        _ => None,
    }
}

/// Refuses to leave anything out where all is wanted.
fn check_strict(path: &Path, options: &ImportOptions, found: &FoundTree) -> Result<(), StoreError> {
    match options.is_strict && !found.left_out.is_empty() {
        true => Err(StoreError::LeavesOut { path: path.to_owned(), left_out: Box::new(found.left_out.clone()) }),
        false => Ok(()),
    }
}

/// Gathers what the workers report, and tells the user.
struct Importing<'a> {
    files: Vec<Option<Hashed>>,
    /// Which of them each source is.
    numbers: Vec<usize>,
    /// Which of them could not be hashed.
    failed: Vec<(usize, LeftOutReason)>,
    /// Whether one file may be left out.
    is_folder: bool,
    state: ImportProgress,
    progress: &'a dyn Fn(ImportProgress),
}

impl Importing<'_> {
    fn take_unsteady(&mut self) -> Vec<usize> {
        let is_unsteady = |(_, why): &(usize, LeftOutReason)| *why == LeftOutReason::Unsteady;
        let numbers = self.failed.iter().filter(|failed| is_unsteady(failed)).map(|(number, _)| *number).collect();
        self.failed.retain(|failed| !is_unsteady(failed));
        numbers
    }
}

impl Observer for Importing<'_> {
    fn done(&mut self, source: usize, result: Result<Hashed, StoreError>) -> ControlFlow<StoreError> {
        let number = self.numbers[source];
        match result {
            Ok(hashed) => {
                self.files[number] = Some(hashed);
                self.state.done_files += 1;
            }
            Err(error) => match reason_to_leave_out(&error) {
                Some(why) if self.is_folder || why == LeftOutReason::Unsteady => self.failed.push((number, why)),
                _ => return ControlFlow::Break(error),
            },
        }
        ControlFlow::Continue(())
    }

    fn progress(&mut self, bytes: u64) {
        self.state.done_bytes = bytes;
        (self.progress)(self.state);
    }
}
