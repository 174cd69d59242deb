//! Opening the index without trusting it: sled may panic, hang or ask for all memory on a damaged folder.
//!
//! It is opened and read whole in a thread of its own, under a time limit; a marker file stands while that goes on, so
//! that an index which took the whole process down is not tried again. One that fails is renamed to `index.damaged-N`
//! and a new one is begun.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::{Index, IndexError, guarded};
use crate::content::store::StoreError;

/// sled's own default is 1 GiB; the whole node is to stay below 100 MiB.
const CACHE_LEN: u64 = 16 * 1024 * 1024;
/// How long to wait for a small index to be open and read: one that takes longer hangs.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// A larger one may take as long as reading it takes from the slowest disk, in bytes a second.
const SLOWEST_READING: u64 = 1024 * 1024;
/// How often sled writes out what is new, tidies its file and waits for the disk. No process ends in that time, and on ext4 it may be long after
/// a large fetch; what is not written out when a process ends is put in again by the next one.
const WRITE_OUT_EVERY: Duration = Duration::from_secs(30);
/// How long to wait for an index that is still being closed: sled waits for the disk then.
const LOCK_LIMIT: Duration = Duration::from_secs(25);
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How many damaged ones are kept for whoever wants to look; older ones are removed.
const MAX_DAMAGED_KEPT: u64 = 3;

/// A damaged index that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::content::store) struct SetAside {
    /// Where it is now.
    pub(in crate::content::store) path: PathBuf,
    /// What was wrong with it, in words.
    pub(in crate::content::store) problem: String,
}

/// Opens the index in `path`; a damaged one is set aside first, and a new, empty one takes its place.
///
/// What it says may be older than the list of roots: sled may take a damaged file for an older state, or an empty one. On a full disk
/// there may be none that is open.
pub(in crate::content::store) fn open(path: &Path) -> Result<(Index, Option<SetAside>), StoreError> {
    let marker = path.with_extension("opening");
    let mut set_aside = None;
    if marker.exists() && path.exists() {
        let problem = "keyferry ended while it opened the index".to_owned();
        set_aside = Some(move_away(path, problem)?);
    }
    match File::create(&marker).map_err(StoreError::io("create", &marker)) {
        // Without the marker, an index that takes the process down is tried again; on a full disk it still has to be possible to make room.
        Ok(_) | Err(StoreError::DiskFull { .. }) => {}
        Err(error) => return Err(error),
    }
    let index = match open_checked(path) {
        Ok(index) => Ok(index),
        Err(IndexError::Damaged(problem)) => {
            set_aside = Some(move_away(path, problem)?);
            open_checked(path)
        }
        Err(error) => Err(error),
    };
    match fs::remove_file(&marker) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result.map_err(StoreError::io("remove", &marker))?,
    }
    match index {
        Ok(index) => Ok((index, set_aside)),
        Err(IndexError::Disk(error @ StoreError::DiskFull { .. })) => {
            tracing::warn!(%error, "going on without the index");
            Ok((Index::absent(path.to_owned()), set_aside))
        }
        Err(IndexError::Disk(error)) => Err(error),
        Err(IndexError::Damaged(problem)) => Err(StoreError::Index { path: path.to_owned(), problem }),
    }
}

fn open_checked(path: &Path) -> Result<Index, IndexError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let owned = path.to_owned();
    let spawned = thread::Builder::new().name("open index".to_owned()).spawn(move || {
        // Nobody listens any more if it took too long; the index is dropped then.
        let _ = sender.send(open_here(owned));
    });
    spawned.map_err(|error| IndexError::Disk(StoreError::io("open", path)(error)))?;
    let limit = open_limit(path);
    receiver
        .recv_timeout(limit)
        .unwrap_or_else(|_| Err(IndexError::Damaged(format!("it was not open after {} s", limit.as_secs()))))
}

fn open_limit(path: &Path) -> Duration {
    let files = path.read_dir().into_iter().flatten().flatten();
    let size: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    OPEN_LIMIT + Duration::from_secs(size / SLOWEST_READING)
}

fn open_here(path: PathBuf) -> Result<Index, IndexError> {
    let started = Instant::now();
    let database = loop {
        let every_ms = u64::try_from(WRITE_OUT_EVERY.as_millis()).ok();
        let config = sled::Config::new().path(&path).cache_capacity(CACHE_LEN).flush_every_ms(every_ms);
        match guarded(&path, || config.open()) {
            Err(IndexError::Damaged(problem)) if problem.contains("could not acquire lock") => {
                if started.elapsed() > LOCK_LIMIT {
                    let source = io::Error::new(io::ErrorKind::WouldBlock, "another process uses it");
                    return Err(IndexError::Disk(StoreError::io("open", &path)(source)));
                }
                thread::sleep(LOCK_RETRY);
            }
            result => break result?,
        }
    };
    let index = Index::new(path, database)?;
    match index.read_all().and_then(|()| index.take_over_former()) {
        Ok(()) => Ok(index),
        Err(error) => {
            // Here, so that nothing of it is written any more when it is set aside.
            index.close();
            Err(error)
        }
    }
}

/// Renames a damaged index, and removes the oldest of those set aside before.
fn move_away(path: &Path, problem: String) -> Result<SetAside, StoreError> {
    let numbered = |number: u64| path.with_extension(format!("damaged-{number}"));
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut taken: Vec<u64> = folder
        .read_dir()
        .map_err(StoreError::io("read", folder))?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix(path.file_name()?.to_str()?)?.strip_prefix(".damaged-")?.parse().ok()
        })
        .collect();
    taken.sort_unstable();
    let next = taken.last().map_or(1, |last| last + 1);
    while taken.len() as u64 >= MAX_DAMAGED_KEPT {
        let oldest = numbered(taken.remove(0));
        fs::remove_dir_all(&oldest).map_err(StoreError::io("remove", &oldest))?;
    }
    fs::rename(path, numbered(next)).map_err(StoreError::io("rename", path))?;
    Ok(SetAside { path: numbered(next), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_index_is_given_the_time_that_a_slow_disk_needs() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open_limit(dir.path()), OPEN_LIMIT);
        for name in ["db", "snap"] {
            File::create(dir.path().join(name)).unwrap().set_len(300 * SLOWEST_READING).unwrap();
        }
        assert_eq!(open_limit(dir.path()), OPEN_LIMIT + Duration::from_secs(600));
        assert_eq!(open_limit(&dir.path().join("none yet")), OPEN_LIMIT);
    }
}
