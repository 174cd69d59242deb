//! The outboard of a blob that is being fetched: its proven parents go here, and a later run finds them again.
//!
//! What it is not: proof of anything by itself. What a file holds is believed only after
//! [`OutboardFile::verified_groups`] has followed it down from the blob's hash, so no order of writes, kill or crash can
//! make it lie.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use keyferry_proto::{hash::ContentHash, transfer::units::UnitRanges};

use super::{
    StoreError,
    disk::{self, Folders},
    proving,
    tree::{self, PARENT_LEN},
};

/// The blobs that are being fetched now, with the number of outboards that are open for each. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct ActiveOutboards(Arc<Mutex<HashMap<ContentHash, usize>>>);

/// The outboard of a blob that is being fetched. One of a blob of a single group takes no file.
#[derive(Debug)]
pub struct OutboardFile {
    file: Option<File>,
    partial: PathBuf,
    complete: PathBuf,
    is_complete: AtomicBool,
    expected_len: u64,
    _active: ActiveOutboard,
}

impl ActiveOutboards {
    /// Whether a blob is being fetched.
    pub(super) fn contains(&self, hash: &ContentHash) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(hash)
    }

    fn enter(&self, hash: ContentHash) -> ActiveOutboard {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(hash).or_insert(0) += 1;
        ActiveOutboard { all: self.clone(), hash }
    }
}

impl OutboardFile {
    /// Opens the outboard of a blob that is to be fetched: the one that an earlier run left, or a new one.
    pub(super) fn open(
        folders: &Folders,
        active: &ActiveOutboards,
        hash: ContentHash,
        size: u64,
    ) -> Result<Self, StoreError> {
        let active = active.enter(hash);
        let (partial, complete) = (folders.partial_outboard(&hash), folders.outboard(&hash));
        let expected_len = tree::outboard_len(size);
        let (file, is_complete) = if expected_len == 0 { (None, true) } else { open(folders, &hash, expected_len)? };
        let is_complete = AtomicBool::new(is_complete);
        Ok(Self { file, partial, complete, is_complete, expected_len, _active: active })
    }

    /// Which groups of a file that is being fetched are those of the blob `hash`: every one is read and proven again, on
    /// all cores.
    ///
    /// Where the file or the outboard has nothing yet, this costs next to nothing. So a fetch that was killed at any
    /// moment goes on from here, with no journal.
    pub fn verified_groups(&self, file: &File, hash: ContentHash, size: u64) -> Result<UnitRanges, StoreError> {
        proving::proven_on_disk(file, self.file.as_ref(), &self.partial, &hash, size)
    }

    /// Whether some of the groups of the blob `hash` are at their places in a file, by a few of them. All its parents must be here.
    pub fn resembles(&self, file: &File, hash: ContentHash, size: u64) -> Result<bool, StoreError> {
        let Some(outboard) = &self.file else { return Ok(false) };
        proving::has_any(file, outboard, &hash, size).map_err(StoreError::io("read", &self.partial))
    }

    /// Keeps a parent that was proven, at its place in bytes.
    pub fn write_parent(&self, outboard_offset: u64, parent: &[u8; PARENT_LEN]) -> Result<(), StoreError> {
        match &self.file {
            Some(file) if outboard_offset + PARENT_LEN as u64 <= self.expected_len => {
                disk::write_all_at(file, parent, outboard_offset).map_err(StoreError::io("write", &self.partial))
            }
            _ => Err(StoreError::Damaged {
                path: self.partial.clone(),
                problem: format!("it has no parent at byte {outboard_offset}"),
            }),
        }
    }

    /// Reads back the parent at `outboard_offset`, in bytes; none where nothing was written yet.
    pub fn read_parent(&self, outboard_offset: u64) -> Result<Option<[u8; PARENT_LEN]>, StoreError> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut parent = [0; PARENT_LEN];
        match disk::read_exact_at(file, &mut parent, outboard_offset) {
            Ok(()) if parent == [0; PARENT_LEN] => Ok(None),
            Ok(()) => Ok(Some(parent)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(StoreError::io("read", &self.partial)(error)),
        }
    }

    /// Whether every parent is there, because [`OutboardFile::finish`] was called in this run or an earlier one.
    pub fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// Says that every parent is there, which gives the file its final name. A second call does nothing.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if parents are missing at its end.
    pub fn finish(&self) -> Result<(), StoreError> {
        let Some(file) = self.file.as_ref().filter(|_| !self.is_complete()) else { return Ok(()) };
        let got = file.metadata().map_err(StoreError::io("read", &self.partial))?.len();
        if got > self.expected_len {
            // Somebody claimed a greater size, and parents of it were proven before the lie came out.
            file.set_len(self.expected_len).map_err(StoreError::io("truncate", &self.partial))?;
        } else if got < self.expected_len {
            let problem = format!("expected {} bytes, got {got}", self.expected_len);
            return Err(StoreError::Damaged { path: self.partial.clone(), problem });
        }
        match fs::rename(&self.partial, &self.complete) {
            // Two fetches of one blob share the file, and the other one was first.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.complete.exists() => {}
            result => result.map_err(StoreError::io("rename", &self.partial))?,
        }
        self.is_complete.store(true, Ordering::Release);
        Ok(())
    }
}

/// Opens the complete outboard, else the partial one, which is made if it is absent; says which of them it is.
///
/// A complete one is opened for writing too: proven parents mend it, should it be damaged.
fn open(folders: &Folders, hash: &ContentHash, expected_len: u64) -> Result<(Option<File>, bool), StoreError> {
    let complete = folders.outboard(hash);
    match File::options().read(true).write(true).open(&complete) {
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.len() == expected_len) => {
            return Ok((Some(file), true));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io("open", &complete)(error)),
    }
    let partial = folders.partial_outboard(hash);
    disk::create_parent(&partial)?;
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&partial);
    Ok((Some(file.map_err(StoreError::io("create", &partial))?), false))
}

/// Keeps a garbage collection away from an outboard that is in use.
#[derive(Debug)]
struct ActiveOutboard {
    all: ActiveOutboards,
    hash: ContentHash,
}

impl Drop for ActiveOutboard {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.hash);
            }
        }
    }
}
