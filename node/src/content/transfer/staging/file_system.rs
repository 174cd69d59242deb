//! What the file system at the target takes: tried with files of our own, since nothing else tells for sure.
//!
//! What it is not: fitting names to it; see `keyferry_proto::collection::fitting`.

use std::{
    ffi::OsStr,
    fs::FileTimes,
    io,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use cap_std::fs::{Dir, DirBuilder, MetadataExt as _, PermissionsExt as _};
use keyferry_proto::collection::{FileTime, fitting::NameRules};

/// The folder that everything is tried in.
const PROBE: &str = ".keyferry-probe";

/// File systems that keep times at all have no longer steps.
const LONGEST_TIME_STEP: Duration = Duration::from_secs(2);

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
    /// How far the time of a file may be from that which it was given; none if the file system does not keep it at all.
    pub time_step: Option<Duration>,
    /// The rights of a new folder, as this process makes it.
    pub folder_mode: u32,
}

impl Default for TargetFileSystem {
    /// One that takes everything.
    fn default() -> Self {
        Self {
            names: NameRules::default(),
            has_links: true,
            has_modes: true,
            time_step: Some(Duration::ZERO),
            folder_mode: 0o755,
        }
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

    /// That which a folder is on; one that takes everything, if nothing can be tried there.
    pub fn at(parent: &Dir) -> Self {
        Self::probe(parent).unwrap_or_default()
    }

    /// Whether a file that was given one time has the other one here.
    pub fn keeps_as(&self, given: FileTime, found: FileTime) -> bool {
        self.time_step.is_none_or(|step| u128::from(given.0.abs_diff(found.0)) <= step.as_nanos())
    }

    fn try_in(folder: &Dir) -> io::Result<Self> {
        // One that takes no plain name is no file system to speak of: its error is the one to tell.
        folder.create("plain")?;
        let names = NameRules {
            refused: refused(folder),
            is_utf8: !takes(folder, b"\xe9\xff"),
            trims: [b"dot.", b"dot "].into_iter().any(|name| !takes(folder, name) || is_there(folder, name, b"dot")),
            has_devices: [&b"con"[..], b"nul.txt"].into_iter().any(|name| !takes(folder, name)),
            folds: is_there(folder, b"case", b"CASE") || is_there(folder, "\u{e9}".as_bytes(), "e\u{301}".as_bytes()),
            max_len: max_name_len(folder),
        };
        Ok(Self {
            names,
            has_links: folder.symlink("plain", "link").is_ok(),
            has_modes: has_modes(folder),
            time_step: time_step(folder),
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

/// Whether the file system says that it has no such names at all, so that nothing is there under this one.
pub fn is_no_name(error: &io::Error) -> bool {
    let known = [rustix::io::Errno::INVAL, rustix::io::Errno::ILSEQ, rustix::io::Errno::NAMETOOLONG];
    error.raw_os_error().is_some_and(|code| known.iter().any(|known| known.raw_os_error() == code))
}

/// How exactly times are kept: FAT has steps of two seconds, NTFS of 100 ns.
fn time_step(folder: &Dir) -> Option<Duration> {
    let given = Duration::new(1_000_000_001, 999_999_999);
    let file = folder.open("plain").ok()?.into_std();
    file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + given)).ok()?;
    let kept = file.metadata().ok()?.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(kept.abs_diff(given)).filter(|step| *step <= LONGEST_TIME_STEP)
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
    fn times_that_are_kept_in_steps_are_the_same_within_one() {
        let keeps = |time_step, found| {
            TargetFileSystem { time_step, ..TargetFileSystem::default() }
                .keeps_as(FileTime(5_000_000_199), FileTime(found))
        };
        let (ntfs, fat) = (Some(Duration::from_nanos(99)), Some(Duration::from_nanos(1_999_999_999)));
        assert!(keeps(Some(Duration::ZERO), 5_000_000_199) && !keeps(Some(Duration::ZERO), 5_000_000_198));
        assert!(keeps(ntfs, 5_000_000_100) && !keeps(ntfs, 5_000_000_000));
        assert!(keeps(fat, 4_000_000_000) && !keeps(fat, 2_000_000_000));
        assert!(keeps(None, 0));
    }

    #[test]
    fn a_name_that_there_cannot_be_is_told_from_what_cannot_be_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Dir::open_ambient_dir(dir.path(), cap_std::ambient_authority()).unwrap();
        let too_long = folder.symlink_metadata("x".repeat(300)).unwrap_err();
        assert!(is_no_name(&too_long), "{too_long:?}");
        assert!(!is_no_name(&folder.symlink_metadata("not there").unwrap_err()));
        assert!(!is_no_name(&io::ErrorKind::PermissionDenied.into()));
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
