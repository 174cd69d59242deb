//! Where a fetch puts its bytes until they are all there: a hidden sibling of the target, renamed at the end.
//!
//! ```text
//! OUT/.NAME.HASH10.keyferry-part     a file
//! OUT/.NAME.HASH10.keyferry-part.d   a folder with the files of a collection in their final layout
//! OUT/NAME                           either of them after the commit; a folder that is there already gets its files one by one
//! ```
//! The name depends on nothing but the target, the root hash and its kind, so a later run finds what an earlier one left; what was left of another version
//! is taken over,
//! and whoever takes a folder for a file is not in the way of those who know better. All access below OUT goes through a
//! directory handle that no path and no symbolic link can leave.
//!
//! What it is not: a judge of content. What lies in a staging area is verified by the caller before it counts.

pub mod carried;
mod error;
pub mod file_system;
pub mod merging;
mod own_files;
mod parts;
pub mod present;
pub mod tree;

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use cap_std::{
    ambient_authority,
    fs::{Dir, DirBuilder, DirBuilderExt as _, OpenOptions, OpenOptionsExt},
};
use keyferry_proto::{
    address::Address,
    collection::{EntryName, FileAttributes, FileTime},
    hash::{ContentFormat, ContentHash},
};

pub use self::error::{StagingError, explain};
use self::{
    file_system::TargetFileSystem,
    own_files::{NO_LINK, is_link, is_own, is_own_file},
    parts::{leftovers, part_name, take_over},
    present::open_folder,
    tree::FittedTree,
};
use rustix::fs::OFlags;

use crate::base::{durable, umask::Umask};

/// Where the user wants the content.
#[derive(Debug, Clone)]
pub struct FetchTarget {
    /// The folder; it is made if it does not exist.
    pub out_dir: PathBuf,
    /// The file or folder name in it: one safe path component.
    pub name: String,
    /// What is fetched there, as its address says it: the same may come there again.
    pub source: Option<Address>,
    /// The rights that new files do not get, where they are others than those of this process.
    pub umask: Option<Umask>,
    /// Whether what is there already may be replaced, whoever wrote it.
    pub overwrite: bool,
    /// Whether files are removed that an earlier version had there.
    pub mirror: bool,
    /// Whether to wait until all of it is on the disk.
    pub sync: bool,
}

/// What is known of a file of which nobody has said more than its bytes.
pub const NOTHING_CARRIED: FileAttributes = FileAttributes { modified: FileTime(0), executable: false, private: false };

/// How many folders are known to be there. One more, and all are forgotten: a folder that is made again does no harm.
const MAX_REMEMBERED: usize = 4096;

/// An open staging area. One process at a time holds it.
#[derive(Debug)]
pub struct Staging {
    parent: Dir,
    target: FetchTarget,
    part_name: String,
    /// The folder that relative paths start from: `parent` for a file, the part folder for a collection.
    base: Dir,
    format: ContentFormat,
    made_dirs: Mutex<HashSet<PathBuf>>,
    is_new: bool,
    /// Whether it was begun for another version.
    taken_over: bool,
    /// Whether there was something at the target when it was opened.
    has_target: bool,
    _lock: fs::File,
}

impl Staging {
    /// Opens the staging area of `root`, making it if there is none; `attributes` are those of a file. `may_replace` says whether what is at the
    /// target may give way though its owner has not said so.
    pub fn open(
        mut target: FetchTarget,
        root: &ContentHash,
        format: ContentFormat,
        attributes: &FileAttributes,
        may_replace: impl FnOnce(&Path) -> bool,
    ) -> Result<Self, StagingError> {
        let out_dir = target.out_dir.clone();
        let fail = |source| StagingError::Io { path: out_dir.clone(), source };
        Dir::create_ambient_dir_all(&target.out_dir, ambient_authority()).map_err(fail)?;
        let parent = Dir::open_ambient_dir(&target.out_dir, ambient_authority()).map_err(fail)?;
        target.name = fitted_name(&parent, target.name).map_err(fail)?;
        let has_target = check_target(&parent, &target, format, may_replace)?;
        let part_name = part_name(&target.name, root, format);
        let part_path = target.out_dir.join(&part_name);
        let io = |source| StagingError::Io { path: part_path.clone(), source };
        let mut is_new = parent.symlink_metadata(&part_name).is_err();
        let taken_over = is_new && take_over(&parent, &target.out_dir, &target.name, format, &part_name);
        is_new &= !taken_over;
        let (base, lock) = match format {
            ContentFormat::Blob => {
                refuse_unless(&parent, &part_name, &part_path, |kind| kind.is_file())?;
                let file =
                    parent.open_with(&part_name, &write_options(attributes, target.umask)).map_err(io)?.into_std();
                if !is_own_file(&file.metadata().map_err(io)?) {
                    return Err(StagingError::Foreign { path: part_path });
                }
                (parent.try_clone().map_err(io)?, file)
            }
            ContentFormat::Collection => {
                refuse_unless(&parent, &part_name, &part_path, |kind| kind.is_dir())?;
                // Something of it may be private.
                match parent.create_dir_with(&part_name, DirBuilder::new().mode(0o700)) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io(error)),
                    _ => {}
                }
                let base = parent.open_dir(&part_name).map_err(io)?;
                // The handle of a folder itself is opened without the right to lock.
                let lock = base.open(".").map_err(io)?.into_std();
                if !is_own(&lock.metadata().map_err(io)?) {
                    return Err(StagingError::Foreign { path: part_path });
                }
                (base, lock)
            }
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(StagingError::Busy { path: target.out_dir.join(&target.name) });
            }
            Err(fs::TryLockError::Error(source)) => return Err(io(source)),
        }
        Ok(Self {
            parent,
            target,
            part_name,
            base,
            format,
            made_dirs: Mutex::default(),
            is_new,
            taken_over,
            has_target,
            _lock: lock,
        })
    }

    /// What the file system there takes.
    pub fn file_system(&self) -> Result<TargetFileSystem, StagingError> {
        let probed = TargetFileSystem::probe(&self.base).map_err(|source| self.io(Path::new(""), source))?;
        let folder_mode = self.target.umask.map_or(probed.folder_mode, |umask| umask.apply(0o777));
        Ok(TargetFileSystem { folder_mode, ..probed })
    }

    /// Whether there was nothing when it was opened.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where the content will be after the commit.
    pub fn final_path(&self) -> PathBuf {
        self.target.out_dir.join(&self.target.name)
    }

    /// Where a relative path of the staging area is now, for messages.
    pub fn staged_path(&self, relative: &Path) -> PathBuf {
        match self.format {
            ContentFormat::Blob => self.target.out_dir.join(relative),
            ContentFormat::Collection => self.target.out_dir.join(&self.part_name).join(relative),
        }
    }

    /// The relative path, for [`Self::open_file`], of the only file of a blob.
    pub fn blob_path(&self) -> PathBuf {
        PathBuf::from(&self.part_name)
    }

    /// Opens a file for reading and writing, and makes it and its folders if need be. It keeps its content, unless it is not this user's
    /// alone: then it is made anew.
    pub fn open_file(&self, relative: &Path, attributes: &FileAttributes) -> Result<fs::File, StagingError> {
        self.make_parent(relative)?;
        self.open_own(relative, attributes).map_err(|source| self.io(relative, source))
    }

    fn open_own(&self, relative: &Path, attributes: &FileAttributes) -> io::Result<fs::File> {
        match self
            .base
            .open_with(relative, &write_options(attributes, self.target.umask))
            .map(cap_std::fs::File::into_std)
        {
            Ok(file) if is_own_file(&file.metadata()?) => return Ok(file),
            Err(error) if !is_link(&error) => return Err(error),
            Ok(_) | Err(_) => {}
        }
        self.base.remove_file(relative)?;
        Ok(self.base.open_with(relative, write_options(attributes, self.target.umask).create_new(true))?.into_std())
    }

    /// Opens a file that an earlier run left, or none.
    pub fn open_existing(&self, relative: &Path) -> Result<Option<fs::File>, StagingError> {
        match self.base.open_with(relative, OpenOptions::new().read(true).write(true).custom_flags(NO_LINK)) {
            Ok(file) => {
                let file = file.into_std();
                let metadata = file.metadata().map_err(|source| self.io(relative, source))?;
                Ok(Some(file).filter(|_| is_own_file(&metadata)))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) if is_link(&error) => Ok(None),
            Err(source) => Err(self.io(relative, source)),
        }
    }

    /// Removes a file of the staging area, if it is there.
    pub fn remove_file(&self, relative: &Path) -> Result<(), StagingError> {
        match self.base.remove_file(relative) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
            removed => removed.map_err(|source| self.io(relative, source)),
        }
    }

    /// Removes a folder of the staging area, if there is nothing in it.
    pub fn remove_folder(&self, relative: &Path) -> Result<(), StagingError> {
        self.base.remove_dir(relative).map_err(|source| self.io(relative, source))
    }

    /// Moves a file of the staging area, in place of what is there.
    pub fn move_staged(&self, from: &Path, to: &Path) -> Result<(), StagingError> {
        self.make_parent(to)?;
        self.base.rename(from, &self.base, to).map_err(|source| self.io(from, source))
    }

    /// The length of what is at a relative path; 0 if there is nothing.
    pub fn len_of(&self, relative: &Path) -> u64 {
        self.base.symlink_metadata(relative).map_or(0, |found| found.len())
    }

    /// Finds that the disk has room for so many bytes more.
    pub fn check_room(&self, needed: u64) -> Result<(), StagingError> {
        let path = || self.target.out_dir.clone();
        let disk = rustix::fs::fstatvfs(&self.parent)
            .map_err(|error| StagingError::Io { path: path(), source: error.into() })?;
        // One that says of itself that it has nothing at all, such as a ramfs, does not count.
        if disk.f_blocks == 0 {
            return Ok(());
        }
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if needed <= free { Ok(()) } else { Err(StagingError::NoRoom { path: path(), needed, free }) }
    }

    /// Whether to wait until all of it is on the disk.
    pub fn is_synced(&self) -> bool {
        self.target.sync
    }

    /// Waits until these files of the staging area are on the disk.
    pub fn sync_files(&self, relative: impl Iterator<Item = PathBuf>) -> Result<(), StagingError> {
        let files: Vec<PathBuf> = relative.map(|relative| self.staged_path(&relative)).collect();
        durable::sync_below(&self.target.out_dir, &files).map_err(|(path, source)| StagingError::Io { path, source })
    }

    /// Waits until the final place is on the disk, once everything is there. `tree` lists what is in a collection.
    pub fn sync_place(&self, tree: Option<&FittedTree>) -> Result<(), StagingError> {
        let path = self.final_path();
        let files: Vec<PathBuf> = match tree {
            None => vec![path],
            Some(tree) => tree.to_sync().map(|relative| path.join(relative)).collect(),
        };
        durable::sync_below(&self.target.out_dir, &files).map_err(|(path, source)| StagingError::Io { path, source })
    }

    /// Whether it was begun for another version.
    pub fn is_taken_over(&self) -> bool {
        self.taken_over
    }

    /// Whether there was something at the target when this was opened.
    pub fn has_target(&self) -> bool {
        self.has_target
    }

    /// The folder at the target.
    ///
    /// # Errors
    /// If there is none, or a link.
    pub fn open_target(&self) -> Result<Dir, StagingError> {
        let opened = open_folder(&self.parent, OsStr::new(&self.target.name));
        opened.map_err(|source| self.final_io(Path::new(""), source))
    }

    /// Opens for reading what is at the target in the place of a file; none if it is no file.
    pub fn open_at_target(&self, relative: &Path) -> Result<Option<fs::File>, StagingError> {
        if !self.has_target {
            return Ok(None);
        }
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(NO_LINK | OFlags::NONBLOCK.bits().cast_signed());
        let opened = match self.format {
            ContentFormat::Blob => self.parent.open_with(&self.target.name, &options),
            ContentFormat::Collection => self.open_target()?.open_with(relative, &options),
        };
        // What cannot be read is no help.
        let file = opened.ok().map(cap_std::fs::File::into_std);
        Ok(file.filter(|file| file.metadata().is_ok_and(|found| found.is_file())))
    }

    /// Moves everything to its final place, and returns that place. A file takes the place of one that may be replaced.
    pub fn commit(&self) -> Result<PathBuf, StagingError> {
        match self.format {
            ContentFormat::Blob if self.has_target => self
                .parent
                .rename(&self.part_name, &self.parent, &self.target.name)
                .map_err(|source| StagingError::Io { path: self.final_path(), source })?,
            ContentFormat::Blob | ContentFormat::Collection => self.rename_without_replacing()?,
        }
        Ok(self.final_path())
    }

    /// Removes the staging area with all that is in it.
    pub fn discard(&self) -> Result<(), StagingError> {
        let removed = match self.format {
            ContentFormat::Blob => self.parent.remove_file(&self.part_name),
            ContentFormat::Collection => self.parent.remove_dir_all(&self.part_name),
        };
        removed.map_err(|source| StagingError::Io { path: self.target.out_dir.join(&self.part_name), source })
    }

    fn rename_without_replacing(&self) -> Result<(), StagingError> {
        use rustix::fs::{RenameFlags, renameat_with};
        let renamed =
            renameat_with(&self.parent, &self.part_name, &self.parent, &self.target.name, RenameFlags::NOREPLACE);
        let renamed = match renamed {
            // A file system without this flag: the check just before is all there is.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                self.parent.rename(&self.part_name, &self.parent, &self.target.name)
            }
            other => other.map_err(io::Error::from),
        };
        renamed.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => StagingError::Exists { path: self.final_path() },
            _ => StagingError::Io { path: self.final_path(), source },
        })
    }

    fn final_io(&self, relative: &Path, source: io::Error) -> StagingError {
        StagingError::Io { path: self.final_path().join(relative), source }
    }

    fn make_parent(&self, relative: &Path) -> Result<(), StagingError> {
        let Some(dir) = relative.parent().filter(|dir| !dir.as_os_str().is_empty()) else { return Ok(()) };
        let mut made = self.made_dirs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !made.contains(dir) {
            self.base.create_dir_all(dir).map_err(|source| self.io(relative, source))?;
            remember(&mut made, dir);
        }
        Ok(())
    }

    fn io(&self, relative: &Path, source: io::Error) -> StagingError {
        StagingError::Io { path: self.staged_path(relative), source }
    }
}

/// Remembers that a folder was made, so that it is not made again for each of its files.
fn remember(made: &mut HashSet<PathBuf>, dir: &Path) {
    if made.len() >= MAX_REMEMBERED {
        made.clear();
    }
    made.insert(dir.to_owned());
}

/// Whether there is something at a target, or something that an interrupted fetch of it left.
pub fn has_older(target: &FetchTarget) -> bool {
    let FetchTarget { out_dir, name, .. } = target;
    let is_there = out_dir.join(name).symlink_metadata().is_ok();
    is_there || !leftovers(out_dir, name, ContentFormat::Collection).is_empty()
}

fn write_options(attributes: &FileAttributes, umask: Option<Umask>) -> OpenOptions {
    let rights = if attributes.executable { 0o777 } else { 0o666 };
    let rights = umask.map_or(rights, |umask| umask.apply(rights));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(NO_LINK);
    options.mode(if attributes.private { rights & 0o700 } else { rights });
    options
}

/// A name as the file system in that folder takes it. Of one that every file system takes, none is asked.
fn fitted_name(folder: &Dir, name: String) -> io::Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let Ok(entry) = EntryName::new(name.as_bytes()) else { return Ok(name) };
    if name.bytes().all(is_plain) && !name.ends_with('.') && name.len() < 100 {
        return Ok(name);
    }
    let fitted = TargetFileSystem::probe(folder)?.names.fit(entry);
    // What was text stays text.
    Ok(String::from_utf8(fitted).unwrap_or(name))
}

/// Finds that what is at the target, if anything is, may give way to the content, or be added to. Returns whether something is.
fn check_target(
    parent: &Dir,
    target: &FetchTarget,
    format: ContentFormat,
    may_replace: impl FnOnce(&Path) -> bool,
) -> Result<bool, StagingError> {
    let path = target.out_dir.join(&target.name);
    let Ok(found) = parent.symlink_metadata(&target.name) else { return Ok(false) };
    let is_empty = || parent.read_dir(&target.name).is_ok_and(|mut entries| entries.next().is_none());
    let is_room = found.is_dir() && format == ContentFormat::Collection && is_empty();
    if !target.overwrite && !is_room && !may_replace(&path) {
        return Err(StagingError::Exists { path });
    }
    match format {
        ContentFormat::Blob if found.is_dir() => Err(StagingError::Clash { path, found: "folder", needed: "file" }),
        ContentFormat::Collection if !found.is_dir() => {
            Err(StagingError::Clash { path, found: "file or link", needed: "folder" })
        }
        _ => Ok(true),
    }
}

/// Refuses a leftover of another kind, such as a symbolic link that somebody planted under the staging name.
fn refuse_unless(
    parent: &Dir,
    part_name: &str,
    part_path: &Path,
    expected: fn(&cap_std::fs::FileType) -> bool,
) -> Result<(), StagingError> {
    match parent.symlink_metadata(part_name) {
        Ok(found) if !expected(&found.file_type()) => {
            let path = part_path.to_owned();
            Err(StagingError::Clash { path, found: "thing that no fetch made", needed: "part file or folder" })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "staging/tests.rs"]
mod tests;
