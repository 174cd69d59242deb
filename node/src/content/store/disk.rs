//! Where things are in the data folder, and reads and writes at a position.
//!
//! ```text
//! roots.json              what is shared (see `roots`)
//! fetched.json            what was fetched to which place (see `targets`)
//! outboards/xx/HASH.obao  the parents of a blob above 64 KiB, complete; xx = the first two digits of HASH
//! outboards/xx/HASH.part  the same while it is fetched
//! blobs/xx/HASH           a copy, or a manifest; it is complete when it has this name
//! index/                  sled: which file has which blob (see `index`)
//! tmp/                    what is being written; emptied at every start
//! ```

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use keyferry_proto::hash::ContentHash;

use super::StoreError;

/// How much of two files is compared at once.
const COMPARED_TOGETHER: usize = 64 * 1024;

const COMPLETE: &str = "obao";
const PARTIAL: &str = "part";

/// The folders of a store.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    root: PathBuf,
}

impl Folders {
    /// Makes the folders that are missing and empties `tmp`.
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(StoreError::io("create", root))?;
        let root = root.canonicalize().map_err(StoreError::io("open", root))?;
        let folders = Self { root };
        // What a killed import left is of no use to anybody: it has no name yet.
        let temporary = folders.temporary();
        empty(&temporary).map_err(StoreError::io("empty", &temporary))?;
        for folder in [temporary, folders.outboards(), folders.blobs()] {
            fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        }
        Ok(folders)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn roots_file(&self) -> PathBuf {
        self.root.join("roots.json")
    }

    pub(super) fn fetch_targets(&self) -> PathBuf {
        self.root.join("fetched.json")
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn outboards(&self) -> PathBuf {
        self.root.join("outboards")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn blob(&self, hash: &ContentHash) -> PathBuf {
        let name = hash.to_string();
        self.blobs().join(&name[..2]).join(name)
    }

    pub(super) fn outboard(&self, hash: &ContentHash) -> PathBuf {
        let name = hash.to_string();
        self.outboards().join(&name[..2]).join(format!("{name}.{COMPLETE}"))
    }

    pub(super) fn partial_outboard(&self, hash: &ContentHash) -> PathBuf {
        self.outboard(hash).with_extension(PARTIAL)
    }

    /// Makes a file in `tmp`, which is removed unless [`keep`] gives it a name.
    pub(super) fn temporary_file(&self) -> Result<tempfile::NamedTempFile, StoreError> {
        let folder = self.temporary();
        tempfile::Builder::new().prefix("").tempfile_in(&folder).map_err(StoreError::io("write in", &folder))
    }

    /// The hash that a file of `outboards` or `blobs` is named after, if it is one of ours.
    pub(super) fn hash_of(path: &Path) -> Option<ContentHash> {
        let known = match path.extension() {
            None => true,
            Some(extension) => extension == COMPLETE || extension == PARTIAL,
        };
        path.file_stem().filter(|_| known)?.to_str()?.parse().ok()
    }
}

/// Removes what is in a folder. The folder itself stays: on a full disk it could not be made again.
fn empty(folder: &Path) -> io::Result<()> {
    let entries = match folder.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Gives a temporary file its name, and makes the folder that it goes to if need be.
pub(super) fn keep(file: tempfile::NamedTempFile, path: &Path) -> Result<(), StoreError> {
    let file = match file.persist(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::NotFound => error.file,
        Err(error) => return Err(StoreError::io("write", path)(error.error)),
    };
    create_parent(path)?;
    file.persist(path).map_err(|error| StoreError::io("write", path)(error.error))?;
    Ok(())
}

/// Gives a temporary file the name of what it has, unless a file with the same bytes has that name already.
pub(super) fn keep_content(file: tempfile::NamedTempFile, path: &Path) -> Result<(), StoreError> {
    if is_kept(file.as_file(), path)? { Ok(()) } else { keep(file, path) }
}

/// Whether a file with the name of what `file` has is there, and has the same bytes. It stays then: it may be on the disk, and `file`
/// is not. What has other bytes is damaged, and `file`, which is to take its place, is on the disk after this.
pub(super) fn is_kept(file: &File, path: &Path) -> Result<bool, StoreError> {
    let failed = StoreError::io("write", path);
    match File::open(path) {
        Ok(there) if has_same_bytes(file, &there).map_err(StoreError::io("read", path))? => {
            // As young as a new one, for a garbage collection. Where that is refused, it is as old as it is.
            let _ = there.set_modified(SystemTime::now());
            Ok(true)
        }
        Ok(_) => file.sync_all().map(|()| false).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn has_same_bytes(one: &File, other: &File) -> io::Result<bool> {
    let len = one.metadata()?.len();
    if other.metadata()?.len() != len {
        return Ok(false);
    }
    let (mut first, mut second) = (vec![0; COMPARED_TOGETHER], vec![0; COMPARED_TOGETHER]);
    for offset in (0..len).step_by(COMPARED_TOGETHER) {
        let read = read_up_to(one, &mut first, offset)?;
        if read_up_to(other, &mut second, offset)? != read || first[..read] != second[..read] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the folder that `path` lies in.
pub(super) fn create_parent(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(StoreError::io("create", folder)),
        None => Ok(()),
    }
}

/// Fills `buffer` from `offset` on; an end of file before that is `UnexpectedEof`.
pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < buffer.len() {
            let position = offset + done as u64;
            match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], position) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Reads into `buffer` from `offset` on, until it is full or the file ends; returns how much was read.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let available = file.metadata()?.len().saturating_sub(offset);
    let len = buffer.len().min(usize::try_from(available).unwrap_or(usize::MAX));
    read_exact_at(file, &mut buffer[..len], offset)?;
    Ok(len)
}

/// Writes all of `bytes` at `offset`.
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            done += std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], offset + done as u64)?;
        }
        Ok(())
    }
}

/// Renames a file of `tmp`, and makes the folder that it goes to if need be.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_parent(to)?;
            fs::rename(from, to).map_err(StoreError::io("rename", from))
        }
        result => result.map_err(StoreError::io("rename", from)),
    }
}
