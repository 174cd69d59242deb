//! What an interrupted fetch of another version has left: what of it this version can use, by the content of files, and what only is in the way.
//!
//! What it is not: trust. What stays is hashed like any other leftover.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use keyferry_proto::hash::ContentHash;
use tokio_util::sync::CancellationToken;

use super::{FetchPlan, go_on};
use crate::content::{
    store::CandidateFile,
    transfer::{FetchError, staging::present::LookError},
};

/// How many blobs of one size a file is compared with.
const MAX_OF_ONE_SIZE: usize = 8;

impl FetchPlan {
    /// Sorts out what was left of another version: files in their places stay, files that belong elsewhere go there, and all else goes.
    pub(super) fn sort_out_taken_over(&self, cancel: &CancellationToken) -> Result<(), FetchError> {
        let Some(tree) = self.tree().filter(|_| self.staging.is_taken_over()) else { return Ok(()) };
        let files: HashSet<PathBuf> = tree.files().map(|(path, _)| path).collect();
        let folders: HashSet<PathBuf> = tree.folders().map(|(path, _)| path).collect();
        let (mut strays, mut other_folders) = (Vec::new(), Vec::new());
        let staged = self.staging.staged_path(Path::new(""));
        for found in walkdir::WalkDir::new(&staged).min_depth(1).contents_first(true).into_iter().flatten() {
            go_on(cancel)?;
            let Ok(path) = found.path().strip_prefix(&staged).map(Path::to_owned) else { continue };
            match found.file_type() {
                kind if kind.is_dir() && !folders.contains(&path) => other_folders.push(path),
                kind if kind.is_file() && !files.contains(&path) => {
                    strays.push((path, found.metadata().map_or(0, |metadata| metadata.len())));
                }
                kind if kind.is_dir() || kind.is_file() => {}
                _ => self.staging.remove_file(&path)?,
            }
        }
        let useful = self.set_aside(&strays, &files, cancel)?;
        // Each behind what is in it.
        for folder in other_folders {
            self.staging.remove_folder(&folder)?;
        }
        for (aside, index) in useful {
            let place = self.first_place(index)?.relative;
            self.staging.move_staged(&aside, &place)?;
        }
        Ok(())
    }

    /// Gives strays that this version has elsewhere a name that is in nobody's way, and removes the others. Returns those, with their items.
    fn set_aside(
        &self,
        strays: &[(PathBuf, u64)],
        files: &HashSet<PathBuf>,
        cancel: &CancellationToken,
    ) -> Result<Vec<(PathBuf, usize)>, FetchError> {
        let mut by_size: HashMap<u64, Vec<(ContentHash, usize)>> = HashMap::new();
        for (index, item) in self.layout.items().iter().enumerate().filter(|(index, _)| !self.is_manifest(*index)) {
            let of_size = by_size.entry(item.size).or_default();
            if of_size.len() < MAX_OF_ONE_SIZE {
                of_size.push((item.hash, index));
            }
        }
        let candidates = strays.iter().map(|(path, size)| CandidateFile {
            path: self.staging.staged_path(path),
            may_have: by_size.get(size).into_iter().flatten().map(|(hash, _)| (*hash, *size)).collect(),
        });
        let candidates: Vec<CandidateFile> = candidates.collect();
        let told = self.store.blobs_of_files(&candidates, &|| !cancel.is_cancelled()).map_err(LookError::from)?;
        let (mut useful, mut taken) = (Vec::new(), HashSet::new());
        for (number, ((path, size), found)) in strays.iter().zip(told).enumerate() {
            let hash = found.and_then(|found| found.hash);
            let item = by_size.get(size).into_iter().flatten().find(|(wanted, _)| Some(*wanted) == hash);
            let aside = PathBuf::from(format!(".keyferry-aside-{number}"));
            match item {
                Some((_, index)) if taken.insert(*index) && !files.contains(&aside) => {
                    self.staging.move_staged(path, &aside)?;
                    useful.push((aside, *index));
                }
                _ => self.staging.remove_file(path)?,
            }
        }
        Ok(useful)
    }
}
