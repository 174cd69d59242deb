//! Files that change whenever they are read, such as logs: a copy of what was in one at one moment is shared in its stead.
//!
//! What was there at first is copied and then read again. Only if it is the same both times was all of it there at one moment.
//!
//! What it is not: files at rest, which are shared where they are.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    Inner, Store, StoreError,
    attributes::file_attributes,
    disk,
    found::FoundTree,
    hashing::{self, FileToHash, Hashed, HashedPlace},
    source,
};
use crate::base::{
    sparse::{self, CopyFailure},
    stamp::{Stamp, StampTrust},
};

/// How much is compared at a time, in bytes.
const COMPARED_TOGETHER: usize = 256 * 1024;

impl Store {
    /// Copies what is in a file now and keeps it; none if it does not hold still for that.
    pub(super) fn take_moment(
        &self,
        found: &FoundTree,
        source: &FileToHash,
        cancelled: &AtomicBool,
    ) -> Result<Option<Hashed>, StoreError> {
        let opened = match &found.folder {
            Some(folder) => folder.handle.open_file(&source.path),
            None => source::open(&source.path),
        };
        let (mut file, metadata) = opened?;
        let Inner { folders, machine, .. } = &*self.0;
        let mut copy = folders.temporary_file()?;
        let len = metadata.len();
        let go_on = || !cancelled.load(Ordering::Relaxed);
        match sparse::copy(&file, copy.as_file(), len, &go_on) {
            Ok(true) => {}
            Ok(false) => return Err(StoreError::Cancelled),
            Err(CopyFailure::Read(error)) => return Err(StoreError::io("read", &source.path)(error)),
            Err(CopyFailure::Write(error)) => return Err(StoreError::io("write", copy.path())(error)),
        }
        file.seek(SeekFrom::Start(0)).map_err(StoreError::io("read", &source.path))?;
        copy.as_file_mut().rewind().map_err(StoreError::io("read", &source.path))?;
        if !is_same(copy.as_file_mut(), &mut file, len).map_err(StoreError::io("read", &source.path))? {
            return Ok(None);
        }
        let copied = FileToHash { path: copy.path().to_owned(), size: len, file: None, expected: None };
        let hashed = hashing::hash_one(folders, machine, &copied, cancelled, &|_| {})?;
        disk::keep_content(copy, &folders.blob(&hashed.hash))?;
        let (stamp, attributes) = (Stamp::of(&metadata), file_attributes(&metadata));
        Ok(Some(Hashed { stamp, attributes, trust: StampTrust::Never, place: HashedPlace::Copy, ..hashed }))
    }
}

/// Whether the first bytes of two files are the same.
fn is_same(one: &mut File, other: &mut File, len: u64) -> io::Result<bool> {
    let (mut first, mut second) = (vec![0; COMPARED_TOGETHER], vec![0; COMPARED_TOGETHER]);
    let mut left = len;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(COMPARED_TOGETHER);
        if !is_filled(one, &mut first[..len])? || !is_filled(other, &mut second[..len])? {
            return Ok(false);
        }
        if first[..len] != second[..len] {
            return Ok(false);
        }
        left -= len as u64;
    }
    Ok(true)
}

/// Fills a buffer; false if the file ends before that.
fn is_filled(file: &mut File, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}
