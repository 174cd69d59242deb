//! A complete blob that is open for reading: its bytes, and its parents from the outboard.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use keyferry_proto::hash::ContentHash;

use super::{
    BlobError, StoreError,
    disk::{self, Folders, Stamp},
    tree::{self, PARENT_LEN},
};

/// A complete blob, open for reading. What is read is what the file has now: the receiver proves every group of it.
#[derive(Debug)]
pub struct Blob {
    file: File,
    path: PathBuf,
    stamp: Stamp,
    /// None for a blob of one group, which has no parents.
    outboard: Option<File>,
}

impl Blob {
    /// Opens the file at `path` if it is still the one with this stamp.
    pub(super) fn open(
        folders: &Folders,
        hash: &ContentHash,
        path: &Path,
        expected: Option<Stamp>,
    ) -> Result<Self, StoreError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(StoreError::Vanished { path: path.to_owned() });
            }
            Err(error) => return Err(StoreError::io("open", path)(error)),
        };
        let stamp = Stamp::of(&file.metadata().map_err(StoreError::io("read", path))?);
        if expected.is_some_and(|expected| expected != stamp) {
            return Err(StoreError::Changed { path: path.to_owned() });
        }
        let outboard = open_outboard(folders, hash, stamp.size)?;
        Ok(Self { file, path: path.to_owned(), stamp, outboard })
    }

    /// Its size, in bytes.
    pub fn size(&self) -> u64 {
        self.stamp.size
    }

    /// The file that it is read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buffer` with its bytes from `offset` on.
    ///
    /// # Errors
    /// [`BlobError::Changed`] if the file has become too short for that.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BlobError> {
        disk::read_exact_at(&self.file, buffer, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => BlobError::Changed { path: self.path.clone() },
            _ => BlobError::Io { path: self.path.clone(), source },
        })
    }

    /// Reads the parent at `outboard_offset`, in bytes.
    pub fn read_parent(&self, outboard_offset: u64) -> Result<[u8; PARENT_LEN], BlobError> {
        let no_parent = || BlobError::NoParent { path: self.path.clone(), offset: outboard_offset };
        let outboard = self.outboard.as_ref().ok_or_else(no_parent)?;
        let mut parent = [0; PARENT_LEN];
        disk::read_exact_at(outboard, &mut parent, outboard_offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => no_parent(),
            _ => BlobError::Io { path: self.path.clone(), source },
        })?;
        Ok(parent)
    }

    /// Checks, by size and time of change, that the file has not changed since this blob was opened.
    ///
    /// A file that was deleted or replaced meanwhile is still read to its end from the one that is open.
    pub fn check_unchanged(&self) -> Result<(), BlobError> {
        let metadata = self.file.metadata().map_err(|source| BlobError::Io { path: self.path.clone(), source })?;
        if Stamp::of(&metadata) == self.stamp { Ok(()) } else { Err(BlobError::Changed { path: self.path.clone() }) }
    }
}

/// Opens a complete outboard; a blob of one group needs none.
fn open_outboard(folders: &Folders, hash: &ContentHash, size: u64) -> Result<Option<File>, StoreError> {
    let expected = tree::outboard_len(size);
    if expected == 0 {
        return Ok(None);
    }
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
    Ok(Some(file))
}
