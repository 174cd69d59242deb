//! Replacing a folder at once: what else is in the old one is linked into the new one, and then the two change places.
//!
//! Whoever looks sees the old folder or the new one, and after a kill it is one of them. What is linked is the same file under both
//! names, so that nothing is copied.
//!
//! What it is not: for file systems that cannot do this; files are replaced one by one there (see `staging`).

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use cap_std::fs::{Dir, DirBuilder};
use rustix::fs::{RenameFlags, renameat_with};

use super::tree::FittedTree;

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Replaced {
    /// The new folder is in its place.
    Whole,
    /// There is no doing it here; the old folder is as it was.
    NotHere,
    /// This is a file or a link in the old folder, and a folder in the new one, or the other way round.
    Clash(PathBuf),
}

/// Gives the folder `new` the place of the folder `old`; both are in `parent`. `tree` lists what is in the new one.
pub(super) fn replace_folder(parent: &Dir, old: &str, new: &str, tree: &FittedTree) -> io::Result<Replaced> {
    let (from, into) = (parent.open_dir(old)?, parent.open_dir(new)?);
    let wanted: HashSet<PathBuf> = tree.leaves().collect();
    remove_strays(&into, &wanted)?;
    match link_rest(&from, &into)? {
        Replaced::Whole => {}
        ended => return Ok(ended),
    }
    match renameat_with(parent, new, parent, old, RenameFlags::EXCHANGE) {
        Ok(()) => parent.remove_dir_all(new).map(|()| Replaced::Whole),
        // The folder is where a file system is mounted, or the file system does not know how.
        Err(_) => Ok(Replaced::NotHere),
    }
}

/// Removes what an earlier try linked into the new folder: the old one may have another file there by now.
fn remove_strays(into: &Dir, wanted: &HashSet<PathBuf>) -> io::Result<()> {
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in entries(into, &folder)? {
            let path = folder.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                true => folders.push(path),
                false if !wanted.contains(&path) => into.remove_file(&path)?,
                false => {}
            }
        }
    }
    Ok(())
}

/// Links what is in the old folder and not in the new one.
fn link_rest(from: &Dir, into: &Dir) -> io::Result<Replaced> {
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in entries(from, &folder)? {
            let (path, is_dir) = (folder.join(entry.file_name()), entry.file_type()?.is_dir());
            match into.symlink_metadata(&path) {
                Ok(found) if found.is_dir() != is_dir => return Ok(Replaced::Clash(path)),
                Ok(_) if is_dir => folders.push(path),
                Ok(_) => {}
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Err(_) if is_dir => {
                    into.create_dir_with(&path, &DirBuilder::new())?;
                    into.set_permissions(&path, from.symlink_metadata(&path)?.permissions())?;
                    folders.push(path);
                }
                Err(_) => {
                    if from.hard_link(&path, into, &path).is_err() {
                        return Ok(Replaced::NotHere);
                    }
                }
            }
        }
    }
    Ok(Replaced::Whole)
}

fn entries(dir: &Dir, folder: &Path) -> io::Result<Vec<cap_std::fs::DirEntry>> {
    match folder.as_os_str().is_empty() {
        true => dir.entries()?.collect(),
        false => dir.read_dir(folder)?.collect(),
    }
}
