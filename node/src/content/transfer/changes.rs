//! What a version changes in a folder that is there already.

use std::path::Path;

use keyferry_proto::collection::ShownPath;

use super::staging::{
    merging::Merged,
    present::{GoneEntry, PresentState, PresentTree, shown},
    tree::FittedTree,
};

/// How many paths of each kind are listed; the rest is only counted.
const MAX_CHANGES_LISTED: usize = 1000;

/// What a version changes in a folder that is there already. Folders are not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files and links that were not there.
    pub added: Paths,
    /// Those in whose place something else was.
    pub replaced: Paths,
    /// Those that an earlier version had there, and this one does not have; they are there still.
    pub gone: Paths,
    /// The same, and they are there no more.
    pub removed: Paths,
    /// Those that are their owner's, and stay in the place of others.
    pub kept: Paths,
}

/// Some paths in a folder, as people read them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// The first of them, at most a thousand.
    pub listed: Vec<String>,
    /// How many there are in all.
    pub count: u64,
}

impl Paths {
    fn push(&mut self, path: impl FnOnce() -> String) {
        self.count += 1;
        if self.listed.len() < MAX_CHANGES_LISTED {
            self.listed.push(path());
        }
    }
}

impl Changes {
    /// What is to be done, by what is there.
    pub(super) fn to_come(tree: &FittedTree, present: &PresentTree) -> Self {
        let mut changes = Self::default();
        for (index, state) in present.leaves(tree) {
            let of_state = match state {
                PresentState::Absent if tree.is_left_out(index) => continue,
                PresentState::Absent => &mut changes.added,
                PresentState::Outdated => &mut changes.replaced,
                PresentState::Kept => &mut changes.kept,
                PresentState::Right => continue,
            };
            of_state.push(|| shown(tree, index));
        }
        present
            .gone()
            .iter()
            .filter(|gone| !gone.is_folder)
            .for_each(|gone| changes.gone.push(|| shown_path(&gone.path)));
        changes
    }

    /// What was done.
    pub(super) fn made(tree: &FittedTree, present: &PresentTree, merged: &Merged) -> Self {
        let mut changes = Self::to_come(tree, present);
        let is_removed = |gone: &GoneEntry| merged.removed.binary_search(&gone.path).is_ok();
        changes.gone = Paths::default();
        for gone in present.gone().iter().filter(|gone| !gone.is_folder) {
            let paths = if is_removed(gone) { &mut changes.removed } else { &mut changes.gone };
            paths.push(|| shown_path(&gone.path));
        }
        changes
    }

    /// Whether nothing was put in its place, or removed.
    pub fn are_none(&self) -> bool {
        self.added.count + self.replaced.count + self.removed.count == 0
    }
}

fn shown_path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    ShownPath(path.as_os_str().as_bytes()).to_string()
}
