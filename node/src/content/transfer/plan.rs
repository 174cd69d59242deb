//! What a fetch has to do once the shape of the content is known: every blob, and the files that it becomes.
//!
//! - `places`: which files become of each blob.
//! - `target`: what is at the target, and stays or is replaced.
//! - `stock`, `taken_over`: what is here already, and what an earlier version has left.
//! - `base`: files of an older version, of which some is the same.
//! - `finishing`: what is to be done when everything is here.
//!
//! What it is not: a decision about who is asked for what; that is `keyferry_proto::transfer::schedule`.

mod base;
pub(super) mod finishing;
mod places;
mod stock;
mod taken_over;
mod target;

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use keyferry_proto::{
    collection::{EntryKind, EntryPath, FileAttributes, MAGIC, MAX_MANIFEST_LEN, Manifest, ShownPath},
    hash::{ContentFormat, ContentHash},
    transfer::layout::{Item, Layout},
};
use tokio_util::sync::CancellationToken;

use self::places::FilePlaces;
use super::{
    FetchError, InternalError,
    part::WantedPart,
    staging::{
        FetchTarget, NOTHING_CARRIED, Staging,
        present::PresentTree,
        tree::{FittedTree, NotAsSent},
    },
};
use crate::{
    base::sparse::{self, CopyFailure},
    content::store::{FetchedVersion, FoundBlob, OutboardFile, Store},
};

/// The plan of one fetch. Shared by all its requests.
#[derive(Debug)]
pub(super) struct FetchPlan {
    /// The root hash.
    pub(super) root: ContentHash,
    /// A file or a folder.
    pub(super) format: ContentFormat,
    /// Encoded size of the root blob: the file itself, or the manifest.
    pub(super) root_size: u64,
    /// All units, in order.
    pub(super) layout: Layout,
    shape: Shape,
    /// What is put in place, as a version of its own.
    version: FetchedVersion,
    /// How many links a part goes without, since they lead out of it.
    links_out: u64,
    staging: Staging,
    store: Store,
    places: FilePlaces,
    /// What the target is for this fetch.
    target: FetchTarget,
    /// What is in the folder at the target, if there is one and it has been looked at.
    present: OnceLock<PresentTree>,
    /// What the file at the target is, if it may be replaced because it is as it was written.
    as_written: Option<FoundBlob>,
}

/// What becomes of the content.
#[derive(Debug)]
enum Shape {
    /// A file of this path in the staging area, and what its sender says of it.
    File(PathBuf, Option<FileAttributes>),
    Folder(FittedTree),
}

/// One file to be written, relative to the staging area.
#[derive(Debug)]
struct FilePlace {
    relative: PathBuf,
    attributes: FileAttributes,
}

/// The open destination of one item.
#[derive(Debug)]
pub(super) struct ItemFile {
    /// The data, at its final offsets.
    pub(super) data: File,
    /// The hash tree; none for an item of one unit.
    pub(super) outboard: Option<OutboardFile>,
}

impl FetchPlan {
    /// The plan for one file.
    pub(super) fn blob(
        store: Store,
        target: FetchTarget,
        root: ContentHash,
        size: u64,
        attributes: Option<FileAttributes>,
    ) -> Result<Self, FetchError> {
        let layout = Layout::blob(root, size)?;
        let (carried, mut as_written) = (attributes.unwrap_or(NOTHING_CARRIED), None);
        let staging = Staging::open(target.clone(), &root, ContentFormat::Blob, &carried, |path| {
            as_written = store.file_as_written(path);
            as_written.is_some()
        })?;
        Ok(Self {
            root,
            format: ContentFormat::Blob,
            root_size: size,
            places: FilePlaces::of_blob(size == 0),
            shape: Shape::File(staging.blob_path(), attributes),
            version: FetchedVersion::file(root),
            links_out: 0,
            layout,
            staging,
            store,
            target,
            present: OnceLock::new(),
            as_written,
        })
    }

    /// The plan for a folder, from the verified bytes of its manifest, or for what is at a path in it.
    pub(super) fn collection(
        store: Store,
        target: FetchTarget,
        root: ContentHash,
        manifest_bytes: Vec<u8>,
        path: Option<&EntryPath>,
    ) -> Result<Self, FetchError> {
        let manifest = Manifest::decode(&manifest_bytes).map_err(FetchError::HostileManifest)?;
        // Kept first: whether a target that exists is the same is told by it.
        store.put_blob_bytes(root, &manifest_bytes)?;
        let root_size = manifest_bytes.len() as u64;
        // A manifest is in memory once.
        drop(manifest_bytes);
        let layout = Layout::collection(root, root_size, &manifest)?;
        let part = WantedPart::of(manifest, path)?;
        let version = part.version(root, path);
        let mut as_written = None;
        let (staging, shape, places, links_out) = match part {
            WantedPart::Folder(manifest, links_out) => {
                if path.is_some() {
                    store.put_blob_bytes(version.hash, &manifest.encode())?;
                }
                let kind = ContentFormat::Collection;
                let staging = Staging::open(target.clone(), &version.hash, kind, &NOTHING_CARRIED, |path| {
                    !store.versions_at(path).is_empty()
                })?;
                let places = FilePlaces::of_collection(&layout, &manifest);
                let tree = FittedTree::new(manifest, staging.file_system()?);
                (staging, Shape::Folder(tree), places, links_out)
            }
            WantedPart::File(file) => {
                let kind = ContentFormat::Blob;
                let staging = Staging::open(target.clone(), &file.hash, kind, &file.attributes, |path| {
                    as_written = store.file_as_written(path);
                    as_written.is_some()
                })?;
                let shape = Shape::File(staging.blob_path(), Some(file.attributes));
                (staging, shape, FilePlaces::of_file(&layout, &file), 0)
            }
        };
        Ok(Self {
            root,
            format: ContentFormat::Collection,
            root_size,
            layout,
            shape,
            version,
            links_out,
            staging,
            store,
            places,
            target,
            present: OnceLock::new(),
            as_written,
        })
    }

    /// Whether a description by a provider is that of this plan.
    pub(super) fn agrees_with(&self, format: ContentFormat, size: u64) -> bool {
        self.format == format && self.root_size == size
    }

    /// Bytes of content in all, without the manifest.
    pub(super) fn content_len(&self) -> u64 {
        let of_file = || self.layout.items().iter().enumerate().find(|(index, _)| self.files_of(*index) > 0);
        match self.tree() {
            Some(tree) => tree.manifest().total_size(),
            None => of_file().map_or(0, |(_, item)| item.size),
        }
    }

    /// A file or a folder, as it is put in place.
    pub(super) fn placed_format(&self) -> ContentFormat {
        self.version.format
    }

    /// Files in all.
    pub(super) fn file_count(&self) -> u64 {
        self.tree().map_or(1, |tree| tree.manifest().file_count() as u64)
    }

    /// What is not here as its sender has it, since the file system does not take it.
    pub(super) fn not_as_sent(&self) -> NotAsSent {
        let not_as_sent = self.tree().map(FittedTree::not_as_sent).unwrap_or_default();
        NotAsSent { links_out: self.links_out, ..not_as_sent }
    }

    fn tree(&self) -> Option<&FittedTree> {
        match &self.shape {
            Shape::File(..) => None,
            Shape::Folder(tree) => Some(tree),
        }
    }

    /// The bytes of a complete blob, if they turn out to be the list of files of a folder.
    pub(super) fn manifest_in_disguise(&self) -> Result<Option<Vec<u8>>, FetchError> {
        if self.format != ContentFormat::Blob || self.root_size > MAX_MANIFEST_LEN as u64 {
            return Ok(None);
        }
        let relative = self.staging.blob_path();
        let Some(file) = self.staging.open_existing(&relative)? else { return Ok(None) };
        let mut magic = [0; MAGIC.len()];
        if file.read_exact_at(&mut magic, 0).is_err() || magic != MAGIC {
            return Ok(None);
        }
        let mut bytes = vec![0; self.root_size as usize];
        file.read_exact_at(&mut bytes, 0).map_err(|source| self.disk(&relative, source))?;
        Ok(Manifest::decode(&bytes).is_ok().then_some(bytes))
    }

    /// Removes what was staged.
    pub(super) fn discard(&self) -> Result<(), FetchError> {
        Ok(self.staging.discard()?)
    }

    /// Opens the destination of an item for writing.
    pub(super) fn open_item(&self, index: usize) -> Result<ItemFile, FetchError> {
        let item = &self.layout.items()[index];
        let place = self.first_place(index)?;
        let data = self.staging.open_file(&place.relative, &place.attributes)?;
        let outboard = match item.units {
            1 => None,
            _ => Some(self.store.partial_outboard(item.hash, item.size)?),
        };
        Ok(ItemFile { data, outboard })
    }

    /// Where the parents of an item go.
    pub(super) fn outboard_of(&self, item: &Item) -> Result<OutboardFile, FetchError> {
        Ok(self.store.partial_outboard(item.hash, item.size)?)
    }

    /// Writes verified bytes of an item.
    pub(super) fn write_item(&self, index: usize, file: &File, bytes: &[u8], offset: u64) -> Result<(), FetchError> {
        file.write_all_at(bytes, offset).map_err(|source| match self.first_place(index) {
            Ok(place) => self.disk(&place.relative, source),
            Err(error) => error,
        })
    }

    /// Makes a hole of a part of an item that is zeros; what is beyond the end of the file will be one.
    pub(super) fn clear_item(&self, index: usize, file: &File, bytes: Range<u64>) -> Result<(), FetchError> {
        sparse::clear(file, bytes).map_err(|source| match self.first_place(index) {
            Ok(place) => self.disk(&place.relative, source),
            Err(error) => error,
        })
    }

    /// Makes a staged file the same as the first `len` bytes of another. What is wrong with the other may be no reason to end.
    fn copy(
        &self,
        from: &File,
        to: &File,
        len: u64,
        at: &Path,
        cancel: &CancellationToken,
    ) -> Result<Result<(), io::Error>, FetchError> {
        match sparse::copy(from, to, len, &|| !cancel.is_cancelled()) {
            Ok(true) => Ok(Ok(())),
            Ok(false) => Err(FetchError::Interrupted),
            Err(CopyFailure::Read(error)) => Ok(Err(error)),
            Err(CopyFailure::Write(source)) => Err(self.disk(at, source)),
        }
    }

    /// Cuts off what a leftover has beyond an item of one unit.
    pub(super) fn cut_item(&self, index: usize, file: &File) -> Result<(), FetchError> {
        self.cut(&self.first_place(index)?.relative, file, self.layout.items()[index].size)
    }

    /// How many files have the content of an item.
    pub(super) fn files_of(&self, index: usize) -> u64 {
        self.places.of_item(index).len() as u64
    }

    /// How many files are empty.
    pub(super) fn empty_file_count(&self) -> u64 {
        self.places.empty.len() as u64
    }

    /// Whether an item is the manifest, which is kept in memory and in the store, not among the files.
    pub(super) fn is_manifest(&self, index: usize) -> bool {
        index == 0 && self.format == ContentFormat::Collection
    }

    /// The names of the files that are to get the content of an item, as their sender has them.
    pub(super) fn names_of(&self, index: usize) -> impl Iterator<Item = String> {
        self.wanted_places(index).filter_map(|file| Some(ShownPath(&self.tree()?.manifest().path(file)).to_string()))
    }

    /// The file that the content of an item is written to.
    fn first_place(&self, index: usize) -> Result<FilePlace, FetchError> {
        self.place(self.wanted_places(index).next().ok_or(InternalError::NoPlace)?)
    }

    fn place(&self, file: u32) -> Result<FilePlace, FetchError> {
        match &self.shape {
            Shape::File(path, attributes) => {
                Ok(FilePlace { relative: path.clone(), attributes: attributes.unwrap_or(NOTHING_CARRIED) })
            }
            Shape::Folder(tree) => match tree.manifest().entry(file).map(|entry| entry.kind) {
                Some(EntryKind::File(entry)) => {
                    Ok(FilePlace { relative: tree.path(file), attributes: entry.attributes })
                }
                _ => Err(InternalError::NoPlace.into()),
            },
        }
    }

    /// A leftover may be longer than the content, if it was something else before.
    fn truncate(&self, place: &FilePlace, size: u64) -> Result<(), FetchError> {
        let file = self.staging.open_file(&place.relative, &place.attributes)?;
        self.cut(&place.relative, &file, size)
    }

    fn cut(&self, relative: &Path, file: &File, size: u64) -> Result<(), FetchError> {
        let io = |source| self.disk(relative, source);
        if file.metadata().map_err(io)?.len() != size {
            file.set_len(size).map_err(io)?;
        }
        Ok(())
    }

    fn disk(&self, relative: &Path, source: io::Error) -> FetchError {
        FetchError::Disk { path: self.staging.staged_path(relative), source }
    }
}

/// Ends what takes long when the user has had enough.
fn go_on(cancel: &CancellationToken) -> Result<(), FetchError> {
    if cancel.is_cancelled() { Err(FetchError::Interrupted) } else { Ok(()) }
}

/// Runs what a plan does, which blocks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work).await.map_err(InternalError::from)?
}
