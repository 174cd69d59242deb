//! What a folder is besides the bytes of its files: folders, links, times and rights, put into the staging area when the bytes are there.
//!
//! Links come last, so that nothing is written through one, and the times of folders behind them.
//!
//! What it is not: the bytes.

use std::{
    fs::{File, FileTimes, Metadata, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, SystemTime},
};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _, PermissionsExt as _};
use keyferry_proto::collection::{FileAttributes, FileTime, FolderAttributes};

use super::{
    Staging, StagingError,
    own_files::{NO_LINK, is_link},
    tree::FittedTree,
};
use crate::base::umask::Umask;

const PRIVATE_FOLDER: u32 = 0o700;
/// The rights that a private file does not give.
const OTHERS: u32 = 0o077;

impl Staging {
    /// Makes of the files in the staging area what the collection says, all but its name.
    pub fn finish_tree(&self, tree: &FittedTree, go_on: &dyn Fn() -> bool) -> Result<bool, StagingError> {
        for (path, file) in tree.files() {
            if !go_on() {
                return Ok(false);
            }
            self.finish_file(&path, &file.attributes)?;
        }
        for (path, _) in tree.folders() {
            self.make_folder(&path)?;
        }
        for (path, target) in tree.links() {
            self.make_link(&path, &target).map_err(|source| self.io(&path, source))?;
        }
        for (path, attributes) in tree.folders().rev() {
            self.finish_folder(&path, &attributes, None)?;
        }
        // It was this user's alone until now.
        let mode = if tree.manifest().root().private { PRIVATE_FOLDER } else { tree.target().folder_mode };
        self.finish_folder(Path::new(""), &tree.manifest().root(), Some(mode))?;
        Ok(true)
    }

    /// Gives a file of the staging area its time and its rights.
    pub fn finish_file(&self, relative: &Path, attributes: &FileAttributes) -> Result<(), StagingError> {
        let umask = self.target.umask;
        finish_file(&self.base, relative, attributes, umask).map_err(|source| self.io(relative, source))
    }

    /// Gives a file of the staging area, of which nobody has said more than its bytes, its rights.
    pub fn finish_rights(&self, relative: &Path) -> Result<(), StagingError> {
        let Some(umask) = self.target.umask else { return Ok(()) };
        let mode = cap_std::fs::Permissions::from_mode(umask.apply(0o666));
        self.base.set_permissions(relative, mode).map_err(|source| self.io(relative, source))
    }

    fn make_folder(&self, relative: &Path) -> Result<(), StagingError> {
        self.base.create_dir_all(relative).map_err(|source| self.io(relative, source))
    }

    pub(super) fn make_link(&self, relative: &Path, target: &Path) -> io::Result<()> {
        match self.base.read_link_contents(relative) {
            Ok(found) if found == target => return Ok(()),
            Ok(_) => self.base.remove_file(relative)?,
            Err(_) => {}
        }
        if let Some(folder) = relative.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            self.base.create_dir_all(folder)?;
        }
        self.base.symlink_contents(target, relative)
    }

    fn finish_folder(
        &self,
        relative: &Path,
        attributes: &FolderAttributes,
        mode: Option<u32>,
    ) -> Result<(), StagingError> {
        let of_umask = |umask: Umask| if attributes.private { PRIVATE_FOLDER } else { umask.apply(0o777) };
        let mode = mode.or(self.target.umask.map(of_umask));
        finish_folder(&self.base, relative, attributes, mode).map_err(|source| self.io(relative, source))
    }
}

/// Gives a file its time and its rights, where they are others: by an umask, or by what it has. One that is not there, or a link, is let be.
pub fn finish_file(base: &Dir, relative: &Path, attributes: &FileAttributes, umask: Option<Umask>) -> io::Result<()> {
    let file = match base.open_with(relative, OpenOptions::new().read(true).custom_flags(NO_LINK)) {
        Ok(file) => file.into_std(),
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_link(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let mode = metadata.permissions().mode() & 0o777;
    let wanted = rights(umask.map_or(mode, |umask| umask.apply(0o666)), attributes);
    if wanted != mode {
        // A file system without rights says so, or not; the user is told in any case.
        let _ = file.set_permissions(Permissions::from_mode(wanted));
    }
    set_modified(&file, &metadata, attributes.modified);
    Ok(())
}

/// Gives a folder its time and its rights.
pub fn finish_folder(base: &Dir, relative: &Path, attributes: &FolderAttributes, mode: Option<u32>) -> io::Result<()> {
    let folder = open_folder(base, relative)?;
    let mode = mode.or(attributes.private.then_some(PRIVATE_FOLDER));
    if let Some(mode) = mode {
        let _ = folder.set_permissions(Permissions::from_mode(mode));
    }
    set_modified(&folder, &folder.metadata()?, attributes.modified);
    Ok(())
}

/// The rights to a file that has these, which an earlier run, or version, may have made: whoever may read it may execute it, or nobody may; and
/// others may do nothing.
fn rights(found: u32, attributes: &FileAttributes) -> u32 {
    let executable = if attributes.executable { (found & 0o444) >> 2 } else { 0 };
    ((found & !0o111) | executable) & if attributes.private { !OTHERS } else { u32::MAX }
}

fn open_folder(base: &Dir, relative: &Path) -> io::Result<File> {
    let path = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    // The handle of a folder itself is opened without the right to set times.
    Ok(base.open(path)?.into_std())
}

/// Sets the time of the last change, if it is another. A file system that does not take it keeps its own.
fn set_modified(file: &File, found: &Metadata, modified: FileTime) {
    if found.mtime().checked_mul(1_000_000_000).and_then(|nanos| nanos.checked_add(found.mtime_nsec()))
        == Some(modified.0)
    {
        return;
    }
    let apart = Duration::from_nanos(modified.0.unsigned_abs());
    let time = match modified.0 < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(apart),
        false => SystemTime::UNIX_EPOCH.checked_add(apart),
    };
    if let Some(time) = time
        && let Err(error) = file.set_times(FileTimes::new().set_modified(time))
    {
        tracing::debug!(%error, "a time is not kept");
    }
}
