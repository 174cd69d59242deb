//! Taking in what somebody else wrote into the data folder to be shared, such as standard input.
//!
//! What it is not: writing it.

use std::{
    fs::{self, File},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use keyferry_proto::{
    collection::{FileAttributes, FileTime},
    hash::ContentFormat,
};

use super::{
    Inner, Store, StoreError, disk,
    hashing::{self, FileToHash},
    import::{ImportProgress, ReadContent},
    left_out::LeftOut,
};
use crate::base::{atomic_file::TEMPORARY_PREFIX, clock, stamp::FileId};

impl Store {
    /// The absolute form of a file that was written to be taken in: a temporary one in the data folder, and no link.
    pub(super) fn spooled(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let refused = || StoreError::NotShareable { path: path.to_owned() };
        let (folder, name) = path.parent().zip(path.file_name()).ok_or_else(refused)?;
        let folder = folder.canonicalize().map_err(StoreError::io("read", path))?;
        let absolute = folder.join(name);
        let is_file = fs::symlink_metadata(&absolute).is_ok_and(|found| found.is_file());
        let is_temporary = folder == self.0.folders.root() && name.as_bytes().starts_with(TEMPORARY_PREFIX.as_bytes());
        if is_file && is_temporary { Ok(absolute) } else { Err(refused()) }
    }

    /// Takes a file in: it is hashed, and moved.
    pub(super) fn take_in(
        &self,
        path: &Path,
        progress: &dyn Fn(ImportProgress),
        cancelled: &AtomicBool,
    ) -> Result<ReadContent, StoreError> {
        let Inner { folders, machine, .. } = &*self.0;
        let metadata = fs::symlink_metadata(path).map_err(StoreError::io("read", path))?;
        let size = metadata.len();
        let file = FileToHash { path: path.to_owned(), size, file: Some(FileId::of(&metadata)), expected: None };
        let tell =
            |done_bytes| progress(ImportProgress { done_bytes, total_bytes: size, done_files: 0, total_files: 1 });
        let hash = hashing::hash_one(folders, machine, &file, cancelled, &tell)?.hash;
        let file = File::open(path).map_err(StoreError::io("read", path))?;
        match disk::is_kept(&file, &folders.blob(&hash))? {
            true => fs::remove_file(path).map_err(StoreError::io("remove", path))?,
            false => disk::rename(path, &folders.blob(&hash))?,
        }
        self.sync_blobs([hash].iter(), [hash].iter())?;
        self.on_index(|index| index.finish_root(&hash, 1))?;
        let modified = FileTime(i64::try_from(clock::now().0).unwrap_or(i64::MAX).saturating_mul(1_000_000_000));
        Ok(ReadContent {
            hash,
            format: ContentFormat::Blob,
            size,
            files: 1,
            // It is as open as what a shell would have written it to.
            attributes: Some(FileAttributes { modified, executable: false, private: false }),
            left_out: LeftOut::default(),
        })
    }
}
