//! What a client sees at the paths of its command. A node with other mounts (in a container, or under systemd with `PrivateTmp=`)
//! may have another folder there, or none: it would share what nobody meant, or put what it fetches where the client never finds it.
//!
//! What it is not: whose files they are; node and client are of one user.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::node::api::{Command, Failure, FailureKind};

/// A path, and what is there: the file or folder itself, or the nearest folder above it that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeenPath {
    path: PathBuf,
    /// The path of what exists.
    found: PathBuf,
    device: u64,
    inode: u64,
}

impl SeenPath {
    fn at(path: &Path) -> Option<Self> {
        path.ancestors().find_map(|found| {
            let metadata = std::fs::metadata(found).ok()?;
            let (device, inode) = (metadata.dev(), metadata.ino());
            Some(Self { path: path.to_owned(), found: found.to_owned(), device, inode })
        })
    }
}

/// What this process sees at the paths of a command.
pub(super) fn seen_paths(command: &Command) -> Vec<SeenPath> {
    match command {
        Command::Get { place, .. } => SeenPath::at(&place.folder).into_iter().collect(),
        Command::Share { paths, .. } => paths.iter().filter_map(|path| SeenPath::at(path)).collect(),
        _ => Vec::new(),
    }
}

/// Finds that this process sees the same as the client.
pub(super) fn check(seen: &[SeenPath]) -> Result<(), Failure> {
    match seen.iter().find(|seen| SeenPath::at(&seen.path).as_ref() != Some(seen)) {
        None => Ok(()),
        Some(SeenPath { path, .. }) => Err(Failure::new(
            FailureKind::Local,
            format!(
                "the running node has something else at {}, or nothing: it was started where other file systems are mounted",
                path.display()
            ),
        )
        .try_to("a folder that both see, or stop the node and run the command again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_another_folder_or_has_come_or_gone_is_not_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out/deep");
        let before = SeenPath::at(&path).unwrap();
        assert_eq!(before.found, dir.path());
        assert!(check(std::slice::from_ref(&before)).is_ok());

        std::fs::create_dir(dir.path().join("out")).unwrap();
        let failure = check(&[before]).unwrap_err();
        assert!(failure.kind == FailureKind::Local && failure.message.contains("out/deep"), "{failure:?}");

        let there = SeenPath::at(&path).unwrap();
        std::fs::rename(dir.path().join("out"), dir.path().join("other")).unwrap();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        assert!(check(std::slice::from_ref(&there)).is_err(), "another folder has its name");
    }
}
