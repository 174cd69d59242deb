//! What a fetch has to do once the shape of the content is known: every blob, and the files that it becomes.
//!
//! What it is not: a decision about who is asked for what; that is `keyferry_proto::transfer::schedule`.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use keyferry_proto::{
    collection::{MAGIC, MAX_MANIFEST_LEN, Manifest},
    hash::{ContentFormat, ContentHash},
    transfer::{
        groups::GROUP_LEN,
        layout::{Item, Layout},
        units::UnitRanges,
    },
};

use tokio_util::sync::CancellationToken;

use super::{
    FetchError, InternalError,
    staging::{FetchTarget, Staging},
};
use crate::content::store::{OutboardFile, Store};

/// How much of a file to copy before looking whether the user has had enough.
const COPIED_TOGETHER: u64 = 16 << 20;

/// The largest file that every file system takes: FAT has 32 bits for it.
const LARGEST_EVERYWHERE: u64 = u32::MAX as u64;

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
    /// The files of a collection.
    pub(super) manifest: Option<Manifest>,
    staging: Staging,
    store: Store,
    places: FilePlaces,
    /// Where a file that is no collection is staged.
    blob_path: PathBuf,
}

/// One file to be written, relative to the staging area.
#[derive(Debug, Clone, Copy)]
struct FilePlace<'a> {
    relative: &'a Path,
    executable: bool,
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
    pub(super) fn blob(store: Store, target: FetchTarget, root: ContentHash, size: u64) -> Result<Self, FetchError> {
        let staging = Staging::open(target, &root, ContentFormat::Blob)?;
        let layout = Layout::blob(root, size)?;
        Ok(Self {
            root,
            format: ContentFormat::Blob,
            root_size: size,
            places: FilePlaces::of_blob(size == 0),
            blob_path: staging.blob_path(),
            layout,
            manifest: None,
            staging,
            store,
        })
    }

    /// The plan for a folder, from the verified bytes of its manifest.
    pub(super) fn collection(
        store: Store,
        target: FetchTarget,
        root: ContentHash,
        manifest_bytes: Vec<u8>,
    ) -> Result<Self, FetchError> {
        let manifest = Manifest::decode(&manifest_bytes).map_err(FetchError::HostileManifest)?;
        // Kept first: whether a target that exists is the same is told by it.
        store.put_blob_bytes(root, &manifest_bytes)?;
        let staging = Staging::open(target, &root, ContentFormat::Collection)?;
        let root_size = manifest_bytes.len() as u64;
        // A manifest is in memory once.
        drop(manifest_bytes);
        let layout = Layout::collection(root, root_size, &manifest)?;
        let places = FilePlaces::of_collection(&layout, &manifest);
        Ok(Self {
            root,
            format: ContentFormat::Collection,
            root_size,
            layout,
            manifest: Some(manifest),
            blob_path: staging.blob_path(),
            staging,
            store,
            places,
        })
    }

    /// Whether a description by a provider is that of this plan.
    pub(super) fn agrees_with(&self, format: ContentFormat, size: u64) -> bool {
        self.format == format && self.root_size == size
    }

    /// Bytes of content in all, without the manifest.
    pub(super) fn content_len(&self) -> u64 {
        self.manifest.as_ref().map_or(self.root_size, Manifest::total_size)
    }

    /// Files in all.
    pub(super) fn file_count(&self) -> u64 {
        self.manifest.as_ref().map_or(1, |manifest| manifest.entries().len() as u64)
    }

    /// The units that need not be fetched: what an earlier run left, and what the store has from elsewhere.
    ///
    /// Everything that counts is hashed here; what is damaged is simply not counted.
    pub(super) fn take_stock(&self, cancel: &CancellationToken) -> Result<UnitRanges, FetchError> {
        let mut have = UnitRanges::empty();
        for (index, item) in self.layout.items().iter().enumerate().filter(|(_, item)| item.units > 0) {
            if cancel.is_cancelled() {
                return Err(FetchError::Interrupted);
            }
            if self.is_manifest(index) {
                have.insert(item.unit_range());
                continue;
            }
            for group in self.groups_at_hand(index, item, cancel)?.iter() {
                have.insert(item.first_unit + group.start..item.first_unit + group.end);
            }
        }
        self.check_space(&have)?;
        Ok(have)
    }

    /// Finds, before the first byte comes, that the file system has room for all that is not here yet, and takes files as large.
    fn check_space(&self, have: &UnitRanges) -> Result<(), FetchError> {
        let mut needed = self.bytes_of_copies()?;
        for (index, item) in self.layout.items().iter().enumerate() {
            if self.is_manifest(index) || have.covers(item.unit_range()) {
                continue;
            }
            let here: u64 = have.slice(item.unit_range()).iter().map(|range| self.layout.byte_len(range)).sum();
            needed = needed.saturating_add(item.size.saturating_sub(here));
            if item.size > LARGEST_EVERYWHERE {
                let place = self.first_place(index)?;
                let file = self.staging.open_file(place.relative, place.executable)?;
                self.try_length(place.relative, &file, item.size)?;
            }
        }
        if needed > 0 { Ok(self.staging.check_room(needed)?) } else { Ok(()) }
    }

    /// Finds that a file can become so long. It stays as it is.
    fn try_length(&self, relative: &Path, file: &File, size: u64) -> Result<(), FetchError> {
        let io = |source| self.disk(relative, source);
        let before = file.metadata().map_err(io)?.len();
        file.set_len(size).map_err(io)?;
        file.set_len(before).map_err(io)
    }

    fn groups_at_hand(&self, index: usize, item: &Item, cancel: &CancellationToken) -> Result<UnitRanges, FetchError> {
        let place = self.first_place(index)?;
        let left = self.groups_left(place, item)?;
        if left.total() == item.units {
            return Ok(left);
        }
        // The store may have all of it by now, from another fetch.
        match self.copy_from_store(place, item, cancel)? {
            Copied::Whole => Ok(UnitRanges::from(0..item.units)),
            Copied::Nothing => Ok(left),
            // What was written may have replaced what was left.
            Copied::Damaged => self.groups_left(place, item),
        }
    }

    /// The groups of an item that an earlier run left.
    fn groups_left(&self, place: FilePlace<'_>, item: &Item) -> Result<UnitRanges, FetchError> {
        let leftover = if self.staging.is_new() { None } else { self.staging.open_existing(place.relative)? };
        let Some(file) = leftover else { return Ok(UnitRanges::empty()) };
        if item.units == 1 {
            let is_whole = hash_of_small_file(&file, item.size).is_ok_and(|hash| hash == item.hash);
            return Ok(if is_whole { UnitRanges::from(0..1) } else { UnitRanges::empty() });
        }
        let outboard = self.store.partial_outboard(item.hash, item.size)?;
        Ok(outboard.verified_groups(&file, item.hash, item.size)?)
    }

    /// Copies an item that the store holds already, verifying it on the way. A damaged source counts as absent.
    fn copy_from_store(
        &self,
        place: FilePlace<'_>,
        item: &Item,
        cancel: &CancellationToken,
    ) -> Result<Copied, FetchError> {
        let Ok(Some(blob)) = self.store.blob(&item.hash) else { return Ok(Copied::Nothing) };
        if blob.size() != item.size {
            return Ok(Copied::Nothing);
        }
        let file = self.staging.open_file(place.relative, place.executable)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; item.size.min(1 << 20) as usize];
        let mut offset = 0;
        while offset < item.size {
            if cancel.is_cancelled() {
                return Err(FetchError::Interrupted);
            }
            let len = buffer.len().min((item.size - offset) as usize);
            if blob.read_at(offset, &mut buffer[..len]).is_err() {
                return Ok(Copied::Damaged);
            }
            hasher.update(&buffer[..len]);
            self.write_at(&file, place.relative, &buffer[..len], offset)?;
            offset += len as u64;
        }
        if ContentHash::from(hasher.finalize()) != item.hash {
            return Ok(Copied::Damaged);
        }
        file.set_len(item.size).map_err(|source| self.disk(place.relative, source))?;
        Ok(Copied::Whole)
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
        let data = self.staging.open_file(place.relative, place.executable)?;
        let outboard = match item.units {
            1 => None,
            _ => Some(self.store.partial_outboard(item.hash, item.size)?),
        };
        Ok(ItemFile { data, outboard })
    }

    /// Writes verified bytes of an item.
    pub(super) fn write_item(&self, index: usize, file: &File, bytes: &[u8], offset: u64) -> Result<(), FetchError> {
        self.write_at(file, self.first_place(index)?.relative, bytes, offset)
    }

    /// Cuts off what a leftover has beyond an item of one unit.
    pub(super) fn cut_item(&self, index: usize, file: &File) -> Result<(), FetchError> {
        self.cut(self.first_place(index)?.relative, file, self.layout.items()[index].size)
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

    /// The names of the files that have the content of an item.
    pub(super) fn names_of(&self, index: usize) -> impl Iterator<Item = &str> {
        let files = self.places.of_item(index).iter();
        files.filter_map(|file| Some(self.manifest.as_ref()?.entries().get(*file as usize)?.path.as_str()))
    }

    /// Finishes the fetch: everything is verified and in the staging area. Returns where the content is now.
    pub(super) fn finish(&self, cancel: &CancellationToken) -> Result<PathBuf, FetchError> {
        self.check_room()?;
        self.place_items(&[], self.manifest.as_ref(), cancel)
    }

    /// Finishes the fetch of a folder without some of its items, whose numbers ascend. What is in the place of their files already stays.
    pub(super) fn finish_without(&self, missing: &[usize], cancel: &CancellationToken) -> Result<PathBuf, FetchError> {
        for index in missing {
            for file in self.places.of_item(*index) {
                self.staging.remove_file(self.place(*file)?.relative)?;
            }
        }
        let lacking: HashSet<&str> = missing.iter().flat_map(|index| self.names_of(*index)).collect();
        let entries = self.manifest.iter().flat_map(Manifest::entries);
        let there = entries.filter(|entry| !lacking.contains(entry.path.as_str())).cloned().collect();
        let there = Manifest::from_entries(there).map_err(FetchError::HostileManifest)?;
        self.place_items(missing, Some(&there), cancel)
    }

    fn place_items(
        &self,
        missing: &[usize],
        manifest: Option<&Manifest>,
        cancel: &CancellationToken,
    ) -> Result<PathBuf, FetchError> {
        for empty in &self.places.empty {
            go_on(cancel)?;
            self.truncate(self.place(*empty)?, 0)?;
        }
        for (index, item) in self.layout.items().iter().enumerate() {
            go_on(cancel)?;
            if missing.binary_search(&index).is_ok() {
                continue;
            }
            let Some((first, others)) = self.places.of_item(index).split_first() else { continue };
            let first = self.place(*first)?;
            if item.units > 1 {
                self.truncate(first, item.size)?;
                self.store.partial_outboard(item.hash, item.size)?.finish()?;
            }
            for other in others {
                let other = self.place(*other)?;
                self.duplicate(first, other, cancel)?;
            }
        }
        // The data first: a name that is on the disk stands for a whole file.
        if self.staging.is_synced() {
            let files: Vec<PathBuf> = match manifest {
                None => vec![self.blob_path.clone()],
                Some(manifest) => manifest.entries().iter().map(|entry| entry.path.as_str().into()).collect(),
            };
            self.staging.sync_files(files.into_iter())?;
        }
        let path = self.staging.commit(manifest)?;
        if self.staging.is_synced() {
            self.staging.sync_place(manifest)?;
            let hashes = self.layout.items().iter().map(|item| &item.hash);
            self.store.sync_blobs(hashes, self.manifest.iter().map(|_| &self.root))?;
        }
        Ok(path)
    }

    /// Every blob but those that are `missing`, with a file that holds it, once the content is at `path`.
    pub(super) fn placed(&self, path: &Path, missing: &[usize]) -> impl Iterator<Item = (ContentHash, u64, PathBuf)> {
        let is_there = move |(index, _): &(usize, &Item)| missing.binary_search(index).is_err();
        self.layout.items().iter().enumerate().filter(is_there).filter_map(move |(index, item)| {
            let first = self.first_place(index).ok()?;
            let path = match self.format {
                ContentFormat::Blob => path.to_owned(),
                ContentFormat::Collection => path.join(first.relative),
            };
            Some((item.hash, item.size, path))
        })
    }

    /// Finds that the files which are copies of others fit on the disk: a list of a few bytes may name one file a million times.
    fn check_room(&self) -> Result<(), FetchError> {
        let needed = self.bytes_of_copies()?;
        if needed > 0 { Ok(self.staging.check_room(needed)?) } else { Ok(()) }
    }

    /// The bytes that files which are copies of others still take.
    fn bytes_of_copies(&self) -> Result<u64, FetchError> {
        let mut needed: u64 = 0;
        for (index, item) in self.layout.items().iter().enumerate() {
            for copy in self.places.of_item(index).iter().skip(1) {
                let there = self.staging.len_of(self.place(*copy)?.relative);
                needed = needed.saturating_add(item.size.saturating_sub(there));
            }
        }
        Ok(needed)
    }

    /// Copies one file of the staging area to another place in it.
    fn duplicate(&self, from: FilePlace<'_>, to: FilePlace<'_>, cancel: &CancellationToken) -> Result<(), FetchError> {
        let failed = |source| self.disk(to.relative, source);
        let Some(mut source) = self.staging.open_existing(from.relative)? else {
            return Err(self.disk(from.relative, io::ErrorKind::NotFound.into()));
        };
        let mut copy = self.staging.open_file(to.relative, to.executable)?;
        copy.set_len(0).map_err(failed)?;
        loop {
            go_on(cancel)?;
            if io::copy(&mut (&mut source).take(COPIED_TOGETHER), &mut copy).map_err(failed)? == 0 {
                return Ok(());
            }
        }
    }

    /// The file that the content of an item is written to.
    fn first_place(&self, index: usize) -> Result<FilePlace<'_>, FetchError> {
        self.place(*self.places.of_item(index).first().ok_or(InternalError::NoPlace)?)
    }

    fn place(&self, file: u32) -> Result<FilePlace<'_>, FetchError> {
        match &self.manifest {
            None => Ok(FilePlace { relative: &self.blob_path, executable: false }),
            Some(manifest) => {
                let entry = manifest.entries().get(file as usize).ok_or(InternalError::NoPlace)?;
                Ok(FilePlace { relative: Path::new(entry.path.as_str()), executable: entry.executable })
            }
        }
    }

    /// A leftover may be longer than the content, if it was something else before.
    fn truncate(&self, place: FilePlace<'_>, size: u64) -> Result<(), FetchError> {
        let file = self.staging.open_file(place.relative, place.executable)?;
        self.cut(place.relative, &file, size)
    }

    fn cut(&self, relative: &Path, file: &File, size: u64) -> Result<(), FetchError> {
        let io = |source| self.disk(relative, source);
        if file.metadata().map_err(io)?.len() != size {
            file.set_len(size).map_err(io)?;
        }
        Ok(())
    }

    fn write_at(&self, file: &File, relative: &Path, bytes: &[u8], offset: u64) -> Result<(), FetchError> {
        file.write_all_at(bytes, offset).map_err(|source| self.disk(relative, source))
    }

    fn disk(&self, relative: &Path, source: io::Error) -> FetchError {
        FetchError::Disk { path: self.staging.staged_path(relative), source }
    }
}

/// Which files become of each item: numbers of entries of the manifest, in one list, since there may be a million.
#[derive(Debug)]
struct FilePlaces {
    files: Vec<u32>,
    /// Where those of each item end.
    ends: Vec<u32>,
    /// Those without content.
    empty: Vec<u32>,
}

impl FilePlaces {
    fn of_blob(is_empty: bool) -> Self {
        Self { files: vec![0], ends: vec![1], empty: if is_empty { vec![0] } else { Vec::new() } }
    }

    fn of_collection(layout: &Layout, manifest: &Manifest) -> Self {
        let items: HashMap<&ContentHash, u32> =
            layout.items().iter().zip(0..).skip(1).map(|(item, index)| (&item.hash, index)).collect();
        let mut empty = Vec::new();
        let mut by_item: Vec<(u32, u32)> = Vec::with_capacity(manifest.entries().len());
        for (entry, file) in manifest.entries().iter().zip(0..) {
            match items.get(&entry.hash) {
                Some(item) if entry.size > 0 => by_item.push((*item, file)),
                _ => empty.push(file),
            }
        }
        drop(items);
        by_item.sort_unstable();
        let ends = (0..layout.items().len() as u32)
            .map(|index| by_item.partition_point(|(item, _)| *item <= index) as u32)
            .collect();
        Self { files: by_item.into_iter().map(|(_, file)| file).collect(), ends, empty }
    }

    /// The files that have the content of an item; none for a manifest.
    fn of_item(&self, index: usize) -> &[u32] {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.files[begin..self.ends[index] as usize]
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

/// What became of a copy.
enum Copied {
    /// All of it is there, and is right.
    Whole,
    /// The store does not have it; nothing was written.
    Nothing,
    /// Something was written, but the store's source is not what it should be.
    Damaged,
}

/// The hash of a file of at most one unit; anything of another size is no match.
fn hash_of_small_file(mut file: &File, size: u64) -> io::Result<ContentHash> {
    let mut bytes = Vec::with_capacity(GROUP_LEN);
    if file.metadata()?.len() != size {
        return Err(io::ErrorKind::InvalidData.into());
    }
    file.read_to_end(&mut bytes)?;
    Ok(ContentHash::of(&bytes))
}
