//! Replacing a small file as a whole: whoever reads it sees the old bytes or the new ones, after a crash too.
//!
//! What it is not: for bulk data; every call waits for the disk twice.

use std::{io, io::Write, path::Path, time::Duration};

use super::{clock, durable::sync_folder};

/// What is being written into a data folder has this in front of its name; what a killed process left of it is removed after an hour.
pub const TEMPORARY_PREFIX: &str = ".keyferry-tmp-";
/// Writing one takes no longer than this, on any disk.
const LEFT_BEHIND_AGE: Duration = Duration::from_secs(60 * 60);

/// Writes a file whole: into a temporary one beside it, to the disk, and then renamed into place.
///
/// `mode` holds Unix permission bits and is ignored elsewhere.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Removes temporary files that a killed process left in `folder`. Others may be writing there: what is young may be theirs.
pub(crate) fn remove_leftovers(folder: &Path) {
    let Ok(entries) = folder.read_dir() else { return };
    for entry in entries.flatten() {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = changed.ok().and_then(clock::age).is_some_and(|age| age >= LEFT_BEHIND_AGE);
        if is_old && entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
            // A file that cannot be removed does no harm; the next start tries again.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
