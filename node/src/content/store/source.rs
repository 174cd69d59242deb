//! Opening the user's files: what is there may have become a link, a pipe or another file since somebody looked.
//!
//! What it is not: whether the bytes are the right ones.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::StoreError;
use crate::base::stamp::FileId;

/// Follows no link, waits for nobody at the other end of a pipe, and takes no terminal.
const FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A folder whose files are taken in. No path below it, and no link, leads out of it.
#[derive(Debug)]
pub(super) struct SourceFolder {
    path: PathBuf,
    dir: Dir,
}

impl SourceFolder {
    /// Opens the folder that was found at `path`.
    ///
    /// # Errors
    /// [`StoreError::Unsteady`] if it is another one by now, or a link.
    pub(super) fn open(path: &Path, found: FileId) -> Result<Self, StoreError> {
        let unsteady = || StoreError::Unsteady { path: path.to_owned() };
        let flags = FLAGS.union(OFlags::DIRECTORY).union(OFlags::RDONLY);
        let folder = rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR | Errno::NOENT => unsteady(),
            error => StoreError::io("open", path)(error.into()),
        })?;
        match FileId::of(&folder.metadata().map_err(StoreError::io("read", path))?) == found {
            true => Ok(Self { path: path.to_owned(), dir: Dir::from_std_file(folder) }),
            false => Err(unsteady()),
        }
    }

    /// Opens a regular file below it, whose whole path is given.
    pub(super) fn open_file(&self, path: &Path) -> Result<(File, Metadata), StoreError> {
        let Ok(relative) = path.strip_prefix(&self.path) else { return open(path) };
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(FLAGS.bits().cast_signed());
        regular(path, self.dir.open_with(relative, &options).map(cap_std::fs::File::into_std))
    }
}

/// Opens a regular file.
///
/// # Errors
/// [`StoreError::Changed`] if something else is there, [`StoreError::Vanished`] if nothing is.
pub(super) fn open(path: &Path) -> Result<(File, Metadata), StoreError> {
    regular(path, fs::OpenOptions::new().read(true).custom_flags(FLAGS.bits().cast_signed()).open(path))
}

fn regular(path: &Path, opened: io::Result<File>) -> Result<(File, Metadata), StoreError> {
    let changed = || StoreError::Changed { path: path.to_owned() };
    let file = opened.map_err(|error| match (error.kind(), Errno::from_io_error(&error)) {
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _) => StoreError::Vanished { path: path.to_owned() },
        // A link, or a socket or a device without a driver.
        (_, Some(Errno::LOOP | Errno::NXIO | Errno::NODEV)) => changed(),
        _ => StoreError::io("open", path)(error),
    })?;
    let metadata = file.metadata().map_err(StoreError::io("read", path))?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(changed()) }
}
