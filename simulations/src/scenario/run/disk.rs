//! The file system of a node's folder, where it has one of its own: of a size, and to be filled.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use rustix::fs::statvfs;

use crate::network::is_dead;

/// What it is filled with.
const FILLER: &str = "filler";

/// Marks the file systems of runs, with the process that made them.
const SOURCE: &str = "keyferry-run-";

/// A file system in memory. Unmounted when dropped.
#[derive(Debug)]
pub(super) struct Mounted(PathBuf);

impl Mounted {
    /// Mounts an empty one of that size.
    pub(super) fn new(at: &Path, bytes: u64) -> Result<Self> {
        let source = format!("{SOURCE}{}", std::process::id());
        let size = format!("size={bytes},mode=0755");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &size, &source]).arg(at);
        let output = command.output().context("cannot start mount")?;
        ensure!(
            output.status.success(),
            "a file system for {} cannot be mounted: {}",
            at.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// Fills the file system of a folder until only so many bytes are left.
pub(super) fn fill(folder: &Path, leave_bytes: u64) -> Result<()> {
    let mut filler = File::options().create(true).append(true).open(folder.join(FILLER))?;
    let block = vec![0; 1 << 16];
    loop {
        let free = statvfs(folder)?;
        let surplus = (free.f_bavail * free.f_frsize).saturating_sub(leave_bytes);
        if surplus == 0 {
            return Ok(());
        }
        match filler.write_all(&block[..block.len().min(surplus as usize)]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Unmounts what runs have left whose process is dead.
pub(super) fn sweep_dead() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split_whitespace();
        let (Some(source), Some(at)) = (words.next(), words.next()) else { continue };
        let owner = source.strip_prefix(SOURCE).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(is_dead) {
            unmount(Path::new(at));
        }
    }
}

fn unmount(at: &Path) {
    let _ = Command::new("umount").arg("--lazy").arg(at).stderr(Stdio::null()).status();
}
