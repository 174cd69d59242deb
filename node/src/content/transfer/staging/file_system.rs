//! What the file system at the target takes: tried with files of our own, since nothing else tells for sure.
//!
//! What it is not: fitting names to it; see `keyferry_proto::collection::fitting`.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt as _, path::Path};

use cap_std::fs::{Dir, DirBuilder, MetadataExt as _, PermissionsExt as _};
use keyferry_proto::collection::fitting::NameRules;

/// The folder that everything is tried in.
const PROBE: &str = ".keyferry-probe";

/// Bytes that some file systems take in no name.
const SUSPECTS: &[u8] = b":*?\"<>|\\\x01\x0d\x1f\x7f";

/// What a file system takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFileSystem {
    /// Names.
    pub names: NameRules,
    /// Whether there are symbolic links.
    pub has_links: bool,
    /// Whether files have rights of their own.
    pub has_modes: bool,
    /// The rights of a new folder, as this process makes it.
    pub folder_mode: u32,
}

impl Default for TargetFileSystem {
    /// One that takes everything.
    fn default() -> Self {
        Self { names: NameRules::default(), has_links: true, has_modes: true, folder_mode: 0o755 }
    }
}

impl TargetFileSystem {
    /// Tries what the file system takes that a folder is on.
    ///
    /// # Errors
    /// If nothing can be made there at all.
    pub fn probe(parent: &Dir) -> io::Result<Self> {
        remove(parent)?;
        parent.create_dir_with(PROBE, &DirBuilder::new())?;
        let folder = parent.open_dir(PROBE)?;
        let found = Self::try_in(&folder);
        drop(folder);
        remove(parent)?;
        found
    }

    fn try_in(folder: &Dir) -> io::Result<Self> {
        // One that takes no plain name is no file system to speak of: its error is the one to tell.
        folder.create("plain")?;
        let names = NameRules {
            refused: refused(folder),
            is_utf8: !takes(folder, b"\xe9\xff"),
            trims: is_there(folder, b"dot.", b"dot"),
            folds: is_there(folder, b"case", b"CASE") || is_there(folder, "\u{e9}".as_bytes(), "e\u{301}".as_bytes()),
            max_len: max_name_len(folder),
        };
        Ok(Self {
            names,
            has_links: folder.symlink("plain", "link").is_ok(),
            has_modes: has_modes(folder),
            folder_mode: folder.dir_metadata()?.mode() & 0o777,
        })
    }
}

/// The bytes that are taken in no name. Controls are refused together or not at all.
fn refused(folder: &Dir) -> Vec<u8> {
    let all: Vec<u8> = [b"x", SUSPECTS, b"x"].concat();
    if takes(folder, &all) {
        return Vec::new();
    }
    let mut refused: Vec<u8> = SUSPECTS.iter().copied().filter(|byte| !takes(folder, &[b'x', *byte, b'x'])).collect();
    if refused.contains(&1) {
        refused.extend((1..32).filter(|byte| !SUSPECTS.contains(byte)));
    }
    refused
}

fn takes(folder: &Dir, name: &[u8]) -> bool {
    folder.create(OsStr::from_bytes(name)).is_ok()
}

/// Whether what is made under one name is found under another.
fn is_there(folder: &Dir, made: &[u8], sought: &[u8]) -> bool {
    takes(folder, made) && folder.symlink_metadata(OsStr::from_bytes(sought)).is_ok()
}

fn max_name_len(folder: &Dir) -> usize {
    let named = rustix::fs::fstatvfs(folder).ok().and_then(|disk| usize::try_from(disk.f_namemax).ok());
    named.filter(|len| *len > 0).map_or(NameRules::default().max_len, |len| len.min(NameRules::default().max_len))
}

fn has_modes(folder: &Dir) -> bool {
    let set = |mode| {
        folder.set_permissions("plain", cap_std::fs::Permissions::from_mode(mode)).is_ok()
            && folder.symlink_metadata("plain").is_ok_and(|found| found.mode() & 0o777 == mode)
    };
    set(0o600) && set(0o700)
}

/// Removes what an earlier try left.
fn remove(parent: &Dir) -> io::Result<()> {
    match parent.remove_dir_all(Path::new(PROBE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_of_tests_takes_everything_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Dir::open_ambient_dir(dir.path(), cap_std::ambient_authority()).unwrap();
        let found = TargetFileSystem::probe(&folder).unwrap();
        assert_eq!(found, TargetFileSystem { folder_mode: found.folder_mode, ..TargetFileSystem::default() });
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_an_earlier_try_left_is_not_in_the_way_and_a_file_of_the_name_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Dir::open_ambient_dir(dir.path(), cap_std::ambient_authority()).unwrap();
        std::fs::create_dir(dir.path().join(PROBE)).unwrap();
        std::fs::write(dir.path().join(PROBE).join("plain"), b"").unwrap();
        assert!(TargetFileSystem::probe(&folder).is_ok());
        std::fs::write(dir.path().join(PROBE), b"").unwrap();
        assert!(TargetFileSystem::probe(&folder).is_err());
    }
}
