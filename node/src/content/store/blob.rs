//! A complete blob that is open for reading: its bytes, and its parents from the outboard.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use keyferry_proto::{
    hash::ContentHash,
    transfer::{
        groups::{GroupSteps, MARK_BYTES, MARK_ZEROS, Step, ZEROS},
        units::UnitRanges,
    },
};

use super::{
    BlobError, StoreError,
    disk::{self, Folders},
    doubts::SourceDoubts,
    proving,
    tree::{self, GROUP_LEN, PARENT_LEN},
};
use crate::base::{sparse, stamp::Stamp};

/// A complete blob, open for reading.
#[derive(Debug)]
pub struct Blob {
    hash: ContentHash,
    path: PathBuf,
    stamp: Stamp,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// All bytes of a blob of one group: they were hashed.
    Proven(Vec<u8>),
    /// A blob of several groups.
    File { file: File, outboard: File, vouched: Vouched },
}

/// What says that a file has a blob.
#[derive(Debug)]
pub(super) enum Vouched {
    /// Its stamp, for as long as it is the same.
    ByStamp,
    /// Nothing: each group is proven when it is read.
    Not {
        /// Where to note what turns out.
        doubts: SourceDoubts,
        /// Whether the stamp will tell a change from now on.
        is_stamp_good: bool,
    },
}

impl Blob {
    /// Reads the blob of one group that `file` should have: all of it, and hashes it.
    ///
    /// # Errors
    /// [`StoreError::Changed`] if it has another one.
    pub(super) fn small(hash: ContentHash, path: &Path, stamp: Stamp, file: &File) -> Result<Self, StoreError> {
        let mut bytes = vec![0; usize::try_from(stamp.size).unwrap_or(usize::MAX).min(GROUP_LEN as usize)];
        let changed = || StoreError::Changed { path: path.to_owned() };
        disk::read_exact_at(file, &mut bytes, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => changed(),
            _ => StoreError::io("read", path)(error),
        })?;
        if ContentHash::of(&bytes) != hash {
            return Err(changed());
        }
        Ok(Self { hash, path: path.to_owned(), stamp, content: Content::Proven(bytes) })
    }

    /// The blob of several groups that is, or may be, in `file`.
    pub(super) fn large(
        hash: ContentHash,
        path: &Path,
        stamp: Stamp,
        file: File,
        outboard: File,
        vouched: Vouched,
    ) -> Self {
        Self { hash, path: path.to_owned(), stamp, content: Content::File { file, outboard, vouched } }
    }

    /// Its size, in bytes.
    pub fn size(&self) -> u64 {
        self.stamp.size
    }

    /// The file that it is read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buffer` with what its file has from `offset` on. Whoever hands it on proves it, or reads by [`Blob::pieces`].
    ///
    /// # Errors
    /// [`BlobError::Changed`] if the file has become too short for that.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BlobError> {
        let changed = || BlobError::Changed { path: self.path.clone() };
        match &self.content {
            Content::Proven(bytes) => {
                let start = usize::try_from(offset).map_err(|_| changed())?;
                let end = start.checked_add(buffer.len()).ok_or_else(changed)?;
                buffer.copy_from_slice(bytes.get(start..end).ok_or_else(changed)?);
                Ok(())
            }
            Content::File { file, .. } => {
                disk::read_exact_at(file, buffer, offset).map_err(|source| match source.kind() {
                    io::ErrorKind::UnexpectedEof => changed(),
                    _ => BlobError::Io { path: self.path.clone(), source },
                })
            }
        }
    }

    /// Reads the parent at `outboard_offset`, in bytes.
    pub fn read_parent(&self, outboard_offset: u64) -> Result<[u8; PARENT_LEN], BlobError> {
        let mut parent = [0; PARENT_LEN];
        self.read_parents(outboard_offset, &mut parent)?;
        Ok(parent)
    }

    /// Fills `buffer` with whole parents, from `outboard_offset` on, in bytes.
    pub fn read_parents(&self, outboard_offset: u64, buffer: &mut [u8]) -> Result<(), BlobError> {
        let no_parent = || BlobError::NoParent { path: self.path.clone(), offset: outboard_offset };
        let Content::File { outboard, .. } = &self.content else { return Err(no_parent()) };
        disk::read_exact_at(outboard, buffer, outboard_offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => no_parent(),
            _ => BlobError::Io { path: self.path.clone(), source },
        })
    }

    /// Its pieces for `groups`, in the order in which they are sent.
    ///
    /// # Errors
    /// If it is larger than any blob may be.
    pub fn pieces(&self, groups: &UnitRanges) -> Result<BlobPieces<'_>, BlobError> {
        let steps = GroupSteps::new(self.size(), groups).map_err(|error| BlobError::Io {
            path: self.path.clone(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })?;
        let is_in_doubt = matches!(self.content, Content::File { vouched: Vouched::Not { .. }, .. });
        Ok(BlobPieces { blob: self, steps, is_marked: false, is_in_doubt, proven: UnitRanges::empty() })
    }

    /// Whether its file has holes.
    pub fn is_sparse(&self) -> bool {
        matches!(&self.content, Content::File { file, .. } if sparse::is_sparse(file))
    }

    /// The file of a blob of several groups.
    pub fn file(&self) -> Option<&File> {
        match &self.content {
            Content::Proven(_) => None,
            Content::File { file, .. } => Some(file),
        }
    }

    /// Whether its file is as it was when the blob was opened.
    fn is_unchanged(&self) -> bool {
        match &self.content {
            Content::Proven(_) => true,
            Content::File { file, .. } => file.metadata().is_ok_and(|metadata| Stamp::of(&metadata) == self.stamp),
        }
    }

    /// Whether these bytes are those of one of its groups.
    fn is_group(&self, group: u64, bytes: &[u8]) -> Result<bool, BlobError> {
        let Content::File { outboard, .. } = &self.content else { return Ok(true) };
        proving::is_group(bytes, outboard, &self.hash, self.size(), group).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => BlobError::Changed { path: self.path.clone() },
            _ => BlobError::Io { path: self.path.clone(), source },
        })
    }
}

/// Some pieces of a blob, in the order in which they are sent. Each group of it was proven, or comes from a file that was the same
/// after it was read as when it was hashed.
#[derive(Debug)]
pub struct BlobPieces<'a> {
    blob: &'a Blob,
    steps: GroupSteps,
    /// Whether there are marks before leaves, and nothing else of those that are zeros.
    is_marked: bool,
    /// Whether groups are proven. Not every change of a file is one of its bytes: it may have been moved, or deleted.
    is_in_doubt: bool,
    proven: UnitRanges,
}

impl BlobPieces<'_> {
    /// The same with marks before leaves, which stand for zeros.
    #[must_use]
    pub fn with_marks(mut self) -> Self {
        self.is_marked = true;
        self
    }

    /// Appends the next piece to `buffer`, and says which it is; none after the last one.
    ///
    /// # Errors
    /// [`BlobError::Changed`] if the file does not have the blob any more. `buffer` is as it was then.
    pub fn append_next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Step>, BlobError> {
        let Some(step) = self.steps.next() else { return Ok(None) };
        let start = buffer.len();
        let appended = match step {
            Step::Parent { outboard_offset } => {
                self.blob.read_parent(outboard_offset).map(|parent| buffer.extend(parent))
            }
            Step::Leaf { offset, len } => self.append_group(offset, len, buffer),
        };
        if appended.is_err() {
            buffer.truncate(start);
        }
        appended.map(|()| Some(step))
    }

    fn append_group(&mut self, offset: u64, len: usize, buffer: &mut Vec<u8>) -> Result<(), BlobError> {
        if self.is_marked {
            buffer.push(MARK_BYTES);
        }
        let start = buffer.len();
        buffer.resize(start + len, 0);
        self.read_group(offset, &mut buffer[start..])?;
        if self.is_marked && buffer[start..] == ZEROS[..len] {
            buffer.truncate(start - 1);
            buffer.push(MARK_ZEROS);
        }
        Ok(())
    }

    fn read_group(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), BlobError> {
        self.blob.read_at(offset, bytes)?;
        self.is_in_doubt |= !self.blob.is_unchanged();
        if !self.is_in_doubt {
            return Ok(());
        }
        let group = offset / GROUP_LEN;
        if !self.blob.is_group(group, bytes)? {
            if let Content::File { vouched: Vouched::Not { doubts, .. }, .. } = &self.blob.content {
                doubts.add_wrong(&self.blob.hash, &self.blob.stamp);
            }
            return Err(BlobError::Changed { path: self.blob.path.clone() });
        }
        self.proven.insert(group..group + 1);
        Ok(())
    }
}

impl Drop for BlobPieces<'_> {
    fn drop(&mut self) {
        if let Content::File { vouched: Vouched::Not { doubts, is_stamp_good: true }, .. } = &self.blob.content
            && !self.proven.is_empty()
            && self.blob.is_unchanged()
        {
            doubts.add_proven(&self.blob.hash, &self.blob.stamp, &self.proven);
        }
    }
}

/// Opens the complete outboard of a blob of several groups.
///
/// # Errors
/// [`StoreError::Damaged`] if there is none, or it has another length.
pub(super) fn open_outboard(folders: &Folders, hash: &ContentHash, size: u64) -> Result<File, StoreError> {
    let expected = tree::outboard_len(size);
    let path = folders.outboard(hash);
    let damaged = |problem: String| StoreError::Damaged { path: path.clone(), problem };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("it is missing".to_owned())),
        Err(error) => return Err(StoreError::io("open", &path)(error)),
    };
    let got = file.metadata().map_err(StoreError::io("read", &path))?.len();
    if got != expected {
        return Err(damaged(format!("expected {expected} bytes, got {got}")));
    }
    Ok(file)
}
