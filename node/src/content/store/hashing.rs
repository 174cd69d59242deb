//! Reading files on all cores and hashing them: what import, verification and rebuilding have in common.
//!
//! Workers take jobs from one queue: a file of up to 16 MiB is one job, a larger one is a job for each 16 MiB of it. So many
//! small files keep every core busy, and so does one huge file. Memory depends on neither number nor size: a worker holds a
//! quarter of a MiB of data and one segment's parents, a large file 32 bytes for each segment.
//!
//! What it is not: a decision about what the result means; see `import`, `verify` and `outboard`.

use std::{
    fs::File,
    io, iter,
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use keyferry_proto::{collection::FileAttributes, hash::ContentHash, transfer::groups::ZEROS};
use tempfile::NamedTempFile;

use super::{
    StoreError,
    attributes::file_attributes,
    disk::{self, Folders},
    source::{self, SourceFolder},
    tree::{self, GROUP_LEN, PARENT_LEN, SEGMENT_GROUPS, SEGMENT_LEN, Subtree, Value},
};
use crate::base::{
    sparse,
    stamp::{FileId, Machine, Stamp, StampTrust},
};

/// More threads than this do not help: the disk is the limit then.
const MAX_WORKERS: usize = 8;
/// How much a worker reads at a time; it stays in the core's own cache until it is hashed.
const READ_LEN: usize = 4 * GROUP_LEN as usize;
/// Results that wait for the caller; workers wait when it is full.
const RESULTS: usize = 256;
/// How often the caller hears of progress while no file is finished.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A file to hash.
#[derive(Debug, Clone)]
pub(super) struct FileToHash {
    pub(super) path: PathBuf,
    /// Its size when it was found, in bytes.
    pub(super) size: u64,
    /// Which file it was then, if that is known.
    pub(super) file: Option<FileId>,
    /// The hash that it should have; if it has another one, nothing of it is kept.
    pub(super) expected: Option<ContentHash>,
}

/// The files to hash.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) files: &'a [FileToHash],
    /// The folder that they are in, and must not lead out of.
    pub(super) folder: Option<&'a SourceFolder>,
}

/// A file that was hashed. Its outboard is in the store.
#[derive(Debug)]
pub(super) struct Hashed {
    pub(super) hash: ContentHash,
    /// How much was hashed, in bytes.
    pub(super) size: u64,
    pub(super) stamp: Stamp,
    /// How far the stamp vouches for it.
    pub(super) trust: StampTrust,
    pub(super) attributes: FileAttributes,
    /// Where it can be had again.
    pub(super) place: HashedPlace,
}

/// Where the bytes of a file are that was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashedPlace {
    /// In the file.
    File,
    /// In the file, as the index knows already.
    Indexed,
    /// In the data folder alone: the file has changed meanwhile.
    Copy,
}

/// What the caller is told and may decide while files are hashed. All calls come from the caller's own thread.
pub(super) trait Observer {
    /// A file is done; its place is that in the list of sources. `Break` stops the whole run.
    fn done(&mut self, source: usize, result: Result<Hashed, StoreError>) -> ControlFlow<StoreError>;
    /// So many bytes have been hashed so far.
    fn progress(&mut self, bytes: u64);
}

/// Hashes every source and keeps the outboards, and copies of the files if `copy` says so.
pub(super) fn hash_files(
    folders: &Folders,
    machine: &Machine,
    sources: Sources<'_>,
    copy: bool,
    observer: &mut dyn Observer,
    cancelled: &AtomicBool,
) -> Result<(), StoreError> {
    if sources.files.is_empty() {
        return Ok(());
    }
    let run = HashRun {
        folders,
        machine,
        sources,
        copy,
        queue: Mutex::new(Queue::default()),
        bytes: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        cancelled,
    };
    let (sender, receiver) = mpsc::sync_channel(RESULTS);
    thread::scope(|scope| {
        for _ in 0..workers() {
            let (sender, run) = (sender.clone(), &run);
            scope.spawn(move || run.work(&sender));
        }
        drop(sender);
        let result = run.listen(&receiver, observer);
        run.stop.store(true, Ordering::Relaxed);
        // Workers that wait to report something end when nobody listens.
        drop(receiver);
        result
    })
}

/// Hashes one file and keeps its outboard. `progress` is told how many bytes are hashed.
pub(super) fn hash_one(
    folders: &Folders,
    machine: &Machine,
    file: &FileToHash,
    cancelled: &AtomicBool,
    progress: &dyn Fn(u64),
) -> Result<Hashed, StoreError> {
    let mut one = OneFile { hashed: None, progress };
    hash_files(
        folders,
        machine,
        Sources { files: std::slice::from_ref(file), folder: None },
        false,
        &mut one,
        cancelled,
    )?;
    one.hashed.ok_or(StoreError::Cancelled)
}

struct OneFile<'a> {
    hashed: Option<Hashed>,
    progress: &'a dyn Fn(u64),
}

impl Observer for OneFile<'_> {
    fn done(&mut self, _source: usize, result: Result<Hashed, StoreError>) -> ControlFlow<StoreError> {
        match result {
            Ok(hashed) => {
                self.hashed = Some(hashed);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn progress(&mut self, bytes: u64) {
        (self.progress)(bytes);
    }
}

/// How many threads read and hash.
pub(super) fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS)
}

type HashReport = (usize, Result<Hashed, StoreError>);

struct HashRun<'a> {
    folders: &'a Folders,
    machine: &'a Machine,
    sources: Sources<'a>,
    copy: bool,
    queue: Mutex<Queue>,
    bytes: AtomicU64,
    stop: AtomicBool,
    cancelled: &'a AtomicBool,
}

#[derive(Default)]
struct Queue {
    next_source: usize,
    /// The large file whose segments are handed out now, and the next of them.
    large: Option<(Arc<LargeFile>, u64)>,
}

enum HashJob {
    File(usize),
    Segment(Arc<LargeFile>, u64),
    Failed(usize, StoreError),
}

/// A file of more than one segment while workers share it.
struct LargeFile {
    source: usize,
    opened: OpenSource,
    outboard: NamedTempFile,
    copy: Option<SourceCopy>,
    values: Mutex<Vec<Value>>,
    failure: Mutex<Option<StoreError>>,
    segments_left: AtomicU64,
}

/// The copy that is made of a source while it is hashed.
struct SourceCopy {
    file: NamedTempFile,
    /// Whether it shares its bytes with the source, so that nothing is to be written.
    is_cloned: bool,
    keeps_holes: bool,
}

impl SourceCopy {
    /// Writes whole groups, or the end of the source.
    fn write(&self, data: &[u8], offset: u64) -> Result<(), StoreError> {
        if self.is_cloned {
            return Ok(());
        }
        let write = |data: &[u8], offset| {
            disk::write_all_at(self.file.as_file(), data, offset).map_err(StoreError::io("write", self.file.path()))
        };
        if !self.keeps_holes {
            return write(data, offset);
        }
        let groups = data.chunks(ZEROS.len()).zip((offset..).step_by(ZEROS.len()));
        let mut with_bytes = groups.filter(|(group, _)| **group != ZEROS[..group.len()]);
        with_bytes.try_for_each(|(group, offset)| write(group, offset))
    }
}

/// A source that is open.
struct OpenSource {
    file: File,
    stamp: Stamp,
    trust: StampTrust,
    attributes: FileAttributes,
}

impl OpenSource {
    fn hashed(&self, hash: ContentHash) -> Hashed {
        let Self { stamp, trust, attributes, .. } = *self;
        Hashed { hash, size: stamp.size, stamp, trust, attributes, place: HashedPlace::File }
    }
}

impl HashRun<'_> {
    fn listen(&self, receiver: &mpsc::Receiver<HashReport>, observer: &mut dyn Observer) -> Result<(), StoreError> {
        loop {
            let received = receiver.recv_timeout(PROGRESS_EVERY);
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(StoreError::Cancelled);
            }
            match received {
                Ok((source, result)) => {
                    if let ControlFlow::Break(error) = observer.done(source, result) {
                        return Err(error);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            }
            observer.progress(self.bytes.load(Ordering::Relaxed));
        }
    }

    fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.cancelled.load(Ordering::Relaxed)
    }

    fn work(&self, sender: &mpsc::SyncSender<HashReport>) {
        let mut buffer = vec![0; READ_LEN];
        while !self.should_stop() {
            let report = match self.next_job() {
                None => return,
                Some(HashJob::Failed(source, error)) => Some((source, Err(error))),
                Some(HashJob::File(source)) => Some((source, self.hash_file(source, &mut buffer))),
                Some(HashJob::Segment(large, segment)) => self.hash_large_segment(&large, segment, &mut buffer),
            };
            if report.is_some_and(|report| sender.send(report).is_err()) {
                return;
            }
        }
    }

    fn next_job(&self) -> Option<HashJob> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((large, segment)) = &mut queue.large {
            let job = HashJob::Segment(large.clone(), *segment);
            *segment += 1;
            if *segment * SEGMENT_LEN >= large.opened.stamp.size {
                queue.large = None;
            }
            return Some(job);
        }
        let source = queue.next_source;
        let size = self.sources.files.get(source)?.size;
        queue.next_source += 1;
        if size <= SEGMENT_LEN {
            return Some(HashJob::File(source));
        }
        match self.open_large(source) {
            Err(error) => Some(HashJob::Failed(source, error)),
            Ok(large) => {
                let large = Arc::new(large);
                queue.large = Some((large.clone(), 1));
                Some(HashJob::Segment(large, 0))
            }
        }
    }

    /// Opens a source, which must still be the file that was found, with the size that it had.
    fn open(&self, source: usize) -> Result<OpenSource, StoreError> {
        let FileToHash { path, size, file: found, .. } = &self.sources.files[source];
        let opened = match self.sources.folder {
            Some(folder) => folder.open_file(path),
            None => source::open(path),
        };
        let unsteady = || StoreError::Unsteady { path: path.clone() };
        let (file, metadata) = opened.map_err(|error| match error {
            StoreError::Changed { .. } => unsteady(),
            error => error,
        })?;
        let stamp = Stamp::of(&metadata);
        if stamp.size != *size || found.is_some_and(|found| found != stamp.file) {
            return Err(unsteady());
        }
        let trust = StampTrust::in_new(&stamp, self.machine);
        Ok(OpenSource { file, stamp, trust, attributes: file_attributes(&metadata) })
    }

    /// The last look at a source: while it was read it must not have changed.
    fn check_steady(&self, source: usize, opened: &OpenSource) -> Result<(), StoreError> {
        let path = &self.sources.files[source].path;
        let now = Stamp::of(&opened.file.metadata().map_err(StoreError::io("read", path))?);
        if now == opened.stamp { Ok(()) } else { Err(StoreError::Unsteady { path: path.clone() }) }
    }

    /// Whether what was made of a source may be kept under this hash.
    fn is_wanted(&self, source: usize, hash: &ContentHash) -> bool {
        self.sources.files[source].expected.is_none_or(|expected| expected == *hash)
    }

    /// Waits until an outboard is on the disk that takes the place of one: nobody else does, and whoever has been told of the
    /// blob counts on it.
    fn sync_if_known(&self, source: usize, outboard: &File) -> Result<(), StoreError> {
        match self.sources.files[source].expected {
            Some(_) => outboard.sync_all().map_err(StoreError::io("write in", &self.folders.temporary())),
            None => Ok(()),
        }
    }

    fn hash_file(&self, source: usize, buffer: &mut [u8]) -> Result<Hashed, StoreError> {
        let opened = self.open(source)?;
        let copy = self.begin_copy(&opened)?;
        let subtree = Subtree::whole(opened.stamp.size);
        let mut parents = vec![0; subtree.parents_len()];
        let value = self.hash_subtree(source, &opened.file, copy.as_ref(), subtree, &mut parents, buffer)?;
        self.check_steady(source, &opened)?;
        let hash = ContentHash::from_bytes(value);
        if self.is_wanted(source, &hash) {
            if !parents.is_empty() {
                let outboard = self.folders.temporary_file()?;
                let path = self.folders.outboard(&hash);
                disk::write_all_at(outboard.as_file(), &parents, 0).map_err(StoreError::io("write", &path))?;
                self.sync_if_known(source, outboard.as_file())?;
                disk::keep_content(outboard, &path)?;
            }
            self.keep_copy(copy, &hash)?;
        }
        Ok(opened.hashed(hash))
    }

    /// Begins the copy of a source, if there is one to make.
    fn begin_copy(&self, opened: &OpenSource) -> Result<Option<SourceCopy>, StoreError> {
        if !self.copy {
            return Ok(None);
        }
        let (file, size) = (self.folders.temporary_file()?, opened.stamp.size);
        let begin = || match sparse::clone(&opened.file, file.as_file(), size)? {
            true => Ok(true),
            // What is not written is a hole.
            false => file.as_file().set_len(size).map(|()| false),
        };
        let is_cloned = begin().map_err(StoreError::io("write", file.path()))?;
        Ok(Some(SourceCopy { is_cloned, keeps_holes: sparse::is_sparse(&opened.file), file }))
    }

    fn keep_copy(&self, copy: Option<SourceCopy>, hash: &ContentHash) -> Result<(), StoreError> {
        copy.map_or(Ok(()), |copy| disk::keep_content(copy.file, &self.folders.blob(hash)))
    }

    fn open_large(&self, source: usize) -> Result<LargeFile, StoreError> {
        let opened = self.open(source)?;
        let segments = opened.stamp.size.div_ceil(SEGMENT_LEN);
        Ok(LargeFile {
            source,
            copy: self.begin_copy(&opened)?,
            opened,
            outboard: self.folders.temporary_file()?,
            values: Mutex::new(vec![[0; 32]; usize::try_from(segments).unwrap_or(usize::MAX)]),
            failure: Mutex::new(None),
            segments_left: AtomicU64::new(segments),
        })
    }

    /// Hashes one segment; whoever hashes the last one finishes the file.
    fn hash_large_segment(&self, large: &Arc<LargeFile>, segment: u64, buffer: &mut [u8]) -> Option<HashReport> {
        let failed = large.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !failed {
            let subtree = Subtree::segment(large.opened.stamp.size, segment);
            let mut parents = vec![0; subtree.parents_len()];
            let copy = large.copy.as_ref();
            let result = self
                .hash_subtree(large.source, &large.opened.file, copy, subtree, &mut parents, buffer)
                .and_then(|value| {
                    large.values.lock().unwrap_or_else(PoisonError::into_inner)[segment as usize] = value;
                    disk::write_all_at(large.outboard.as_file(), &parents, subtree.outboard_offset())
                        .map_err(StoreError::io("write", large.outboard.path()))
                });
            if let Err(error) = result {
                large.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
        // Acquire and release, so that the last one sees what the others wrote.
        if large.segments_left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        Some((large.source, self.finish_large(large)))
    }

    fn finish_large(&self, large: &LargeFile) -> Result<Hashed, StoreError> {
        if let Some(error) = large.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let values = large.values.lock().unwrap_or_else(PoisonError::into_inner);
        let value = join_segments(Subtree::whole(large.opened.stamp.size), &values, &mut |offset, parent| {
            disk::write_all_at(large.outboard.as_file(), parent, offset)
        })
        .map_err(StoreError::io("write", large.outboard.path()))?;
        self.check_steady(large.source, &large.opened)?;
        let hash = ContentHash::from_bytes(value);
        if self.is_wanted(large.source, &hash) {
            // Renamed by path: the handles are shared with workers that are about to let go of them.
            self.sync_if_known(large.source, large.outboard.as_file())?;
            let copied = large.copy.as_ref().map(|copy| (&copy.file, self.folders.blob(&hash)));
            for (file, path) in iter::once((&large.outboard, self.folders.outboard(&hash))).chain(copied) {
                if !disk::is_kept(file.as_file(), &path)? {
                    disk::rename(file.path(), &path)?;
                }
            }
        }
        Ok(large.opened.hashed(hash))
    }

    /// Hashes the groups of a subtree of at most one segment, and copies them if there is a copy to make.
    fn hash_subtree(
        &self,
        source: usize,
        file: &File,
        copy: Option<&SourceCopy>,
        subtree: Subtree,
        parents: &mut [u8],
        buffer: &mut [u8],
    ) -> Result<Value, StoreError> {
        let FileToHash { path, size, .. } = &self.sources.files[source];
        let mut values = Vec::with_capacity(subtree.groups as usize);
        let start = subtree.first_group * GROUP_LEN;
        let end = size.min(&((subtree.first_group + subtree.groups) * GROUP_LEN)).to_owned();
        // A clone is as the file was at one moment.
        let from = copy.filter(|copy| copy.is_cloned).map_or(file, |copy| copy.file.as_file());
        let mut offset = start;
        while values.len() < subtree.groups as usize {
            if self.should_stop() {
                return Err(StoreError::Cancelled);
            }
            let len = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let data = &mut buffer[..len];
            disk::read_exact_at(from, data, offset).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => StoreError::Unsteady { path: path.clone() },
                _ => StoreError::io("read", path)(error),
            })?;
            if let Some(copy) = copy {
                copy.write(data, offset)?;
            }
            hash_groups(data, offset / GROUP_LEN, tree::groups(*size) == 1, &mut values);
            offset += len as u64;
            self.bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
        Ok(tree::join_groups(&values, parents, subtree.is_root))
    }
}

/// Hashes whole groups (the last may be short, or empty if it is the only one).
fn hash_groups(data: &[u8], first_group: u64, is_root: bool, values: &mut Vec<Value>) {
    if data.is_empty() {
        return values.push(tree::hash_group(data, first_group, is_root));
    }
    for (group, data) in (first_group..).zip(data.chunks(GROUP_LEN as usize)) {
        values.push(tree::hash_group(data, group, is_root));
    }
}

/// Joins the values of the segments of a large blob, and writes the parents above them.
fn join_segments(
    subtree: Subtree,
    values: &[Value],
    write: &mut dyn FnMut(u64, &[u8; PARENT_LEN]) -> io::Result<()>,
) -> io::Result<Value> {
    if subtree.is_segment() {
        return Ok(values[(subtree.first_group / SEGMENT_GROUPS) as usize]);
    }
    let (left, right) = subtree.halves();
    let left = join_segments(left, values, write)?;
    let right = join_segments(right, values, write)?;
    write(subtree.outboard_offset(), &tree::parent(&left, &right))?;
    Ok(tree::join(&left, &right, subtree.is_root))
}

/// The hash of bytes at hand, and their outboard.
pub(super) fn hash_bytes(bytes: &[u8]) -> (ContentHash, Vec<u8>) {
    let size = bytes.len() as u64;
    let mut values = Vec::new();
    hash_groups(bytes, 0, tree::groups(size) == 1, &mut values);
    let mut parents = vec![0; Subtree::whole(size).parents_len()];
    let value = tree::join_groups(&values, &mut parents, true);
    (ContentHash::from_bytes(value), parents)
}
