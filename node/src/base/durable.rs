//! Waiting until files are on the disk, with the folders that name them.
//!
//! Whoever writes a list that refers to files waits for the files first: a power cut may else leave the list, and nothing behind it.
//!
//! What it is not: for what can be made again, which nobody waits for.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// More files than this are not waited for one by one: the whole file system is, which takes no longer than its slowest file.
const MAX_ONE_BY_ONE: usize = 32;

/// Waits until these files, and all folders from `root` down to them, are on the disk. All of them are on one file system.
pub(crate) fn sync_below(root: &Path, files: &[PathBuf]) -> Result<(), (PathBuf, io::Error)> {
    #[cfg(test)]
    recorded::note(root, files);
    if files.len() > MAX_ONE_BY_ONE {
        return at(root, File::open(root).and_then(|root| sync_file_system(&root)));
    }
    for file in files {
        at(file, File::open(file).and_then(|file| file.sync_all()))?;
    }
    let folders: BTreeSet<&Path> =
        files.iter().flat_map(|file| file.ancestors().skip(1).take_while(|folder| folder.starts_with(root))).collect();
    // The deepest first: what is in a folder is there before the folder's own name is.
    folders.iter().rev().try_for_each(|folder| at(folder, sync_folder(folder)))
}

/// Makes what was renamed into a folder last through a power failure.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn sync_file_system(file: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn sync_file_system(_file: &File) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

fn at(path: &Path, result: io::Result<()>) -> Result<(), (PathBuf, io::Error)> {
    result.map_err(|error| (path.to_owned(), error))
}

/// What was waited for, for tests: each file, with what a list beside it said then.
#[cfg(test)]
pub(crate) mod recorded {
    use std::{
        fs,
        path::{Path, PathBuf},
        sync::{Mutex, PoisonError},
    };

    /// A file that was waited for below `root`, and what `root/roots.json` said at that time.
    #[derive(Debug, Clone)]
    pub(crate) struct Synced {
        pub(crate) root: PathBuf,
        pub(crate) file: PathBuf,
        pub(crate) list: String,
    }

    static SYNCED: Mutex<Vec<Synced>> = Mutex::new(Vec::new());

    pub(super) fn note(root: &Path, files: &[PathBuf]) {
        let list = fs::read_to_string(root.join("roots.json")).unwrap_or_default();
        let synced = files.iter().map(|file| Synced { root: root.to_owned(), file: file.clone(), list: list.clone() });
        SYNCED.lock().unwrap_or_else(PoisonError::into_inner).extend(synced);
    }

    /// What was waited for below `root`, in order.
    pub(crate) fn below(root: &Path) -> Vec<Synced> {
        let synced = SYNCED.lock().unwrap_or_else(PoisonError::into_inner);
        synced.iter().filter(|synced| synced.root == root).cloned().collect()
    }
}
