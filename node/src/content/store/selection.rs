//! What of a folder its owner does not want to share: patterns of a command, and files `.keyferryignore` in the folder, as git reads its own.
//!
//! ```text
//! --exclude GLOB       as a line of a .keyferryignore in the shared folder itself
//! .keyferryignore      lines of gitignore(5); the innermost file, and in it the last line, that says something of a path decides
//! ```
//! What is in a folder that is excluded is not looked at.
//!
//! What it is not: what cannot be shared; see [`super::left_out`].

use std::{fs, path::Path};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};
use serde::{Deserialize, Serialize};

/// The name of the files that say what is not to be shared of their folders.
pub const IGNORE_FILE: &str = ".keyferryignore";

/// The greatest number of patterns of a share.
pub const MAX_EXCLUDES: usize = 1000;

/// A longer file of patterns is not read, in bytes.
const MAX_IGNORE_LEN: u64 = 1 << 20;

/// Patterns of what is not to be shared. In hand means that each is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Excludes(Vec<String>);

/// Why some texts are no patterns. The fault is the user's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExcludesError {
    /// One is malformed.
    #[error("{glob:?} is no pattern: {problem}")]
    Glob {
        /// The text.
        glob: String,
        /// What is wrong with it.
        problem: String,
    },
    /// More than [`MAX_EXCLUDES`].
    #[error("{got} patterns; a share has {MAX_EXCLUDES} at most (a file {IGNORE_FILE} takes any number)")]
    TooMany {
        /// How many there are.
        got: usize,
    },
}

impl Excludes {
    /// Checks patterns.
    pub fn new(globs: Vec<String>) -> Result<Self, ExcludesError> {
        if globs.len() > MAX_EXCLUDES {
            return Err(ExcludesError::TooMany { got: globs.len() });
        }
        let mut builder = GitignoreBuilder::new("/");
        // git takes a bracket that is never closed for a bracket; on a command line it is a mistake.
        builder.allow_unclosed_class(false);
        for glob in &globs {
            let failed = |error: ignore::Error| ExcludesError::Glob { glob: glob.clone(), problem: error.to_string() };
            builder.add_line(None, glob).map_err(failed)?;
        }
        Ok(Self(globs))
    }

    /// Whether nothing is excluded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<String>> for Excludes {
    type Error = ExcludesError;

    fn try_from(globs: Vec<String>) -> Result<Self, ExcludesError> {
        Self::new(globs)
    }
}

impl From<Excludes> for Vec<String> {
    fn from(excludes: Excludes) -> Self {
        excludes.0
    }
}

/// What a walk through a folder takes.
pub(super) struct Selection {
    excludes: Gitignore,
    /// Those of the files of the folders on the way, with the depths of what is in them.
    files: Vec<(usize, Gitignore)>,
}

impl Selection {
    /// What is to be shared of a folder.
    pub(super) fn of(folder: &Path, excludes: &Excludes) -> Self {
        let mut builder = GitignoreBuilder::new(folder);
        for glob in &excludes.0 {
            // Each was one when it was parsed.
            let _ = builder.add_line(None, glob);
        }
        let mut selection =
            Self { excludes: builder.build().unwrap_or_else(|_| Gitignore::empty()), files: Vec::new() };
        selection.enter(folder, 0);
        selection
    }

    /// Takes in what a folder says of what is in it, at this depth.
    pub(super) fn enter(&mut self, folder: &Path, depth: usize) {
        self.files.retain(|(of, _)| *of < depth);
        let path = folder.join(IGNORE_FILE);
        // Neither a link nor a pipe.
        let is_read = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= MAX_IGNORE_LEN);
        if is_read {
            // A line that is no pattern says nothing.
            let (patterns, _) = Gitignore::new(&path);
            self.files.push((depth, patterns));
        }
    }

    /// Whether something at this depth is to be shared.
    pub(super) fn takes(&mut self, path: &Path, depth: usize, is_folder: bool) -> bool {
        self.files.retain(|(of, _)| *of <= depth);
        if self.excludes.matched(path, is_folder).is_ignore() {
            return false;
        }
        let said = self.files.iter().rev().map(|(_, patterns)| patterns.matched(path, is_folder));
        !said.into_iter().find(|said| !matches!(said, Match::None)).is_some_and(|said| said.is_ignore())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_checked_before_anything_is_shared() {
        assert!(Excludes::new(vec!["*.o".to_owned(), "/build/".to_owned(), "!keep.o".to_owned()]).is_ok());
        let refused = Excludes::new(vec!["a[".to_owned()]);
        assert!(matches!(&refused, Err(ExcludesError::Glob { glob, .. }) if glob == "a["), "{refused:?}");
        assert_eq!(Excludes::new(vec![String::new(); 1001]), Err(ExcludesError::TooMany { got: 1001 }));
    }

    #[test]
    fn the_innermost_file_that_says_something_decides_and_the_command_above_all() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::write(root.join(IGNORE_FILE), "*.o\n/only-here\n").unwrap();
        fs::write(root.join("sub").join(IGNORE_FILE), "!kept.o\nlogs/\n").unwrap();
        let mut selection = Selection::of(root, &Excludes::new(vec!["secret*".to_owned()]).unwrap());
        let mut takes = |path: &str, is_folder| {
            let depth = path.matches('/').count();
            selection.takes(&root.join(path), depth, is_folder)
        };
        assert!(takes("a.c", false) && !takes("a.o", false) && !takes("kept.o", false));
        assert!(!takes("only-here", false) && !takes("secret.txt", false));
        selection.enter(&root.join("sub"), 1);
        let mut takes = |path: &str, is_folder| {
            let depth = path.matches('/').count();
            selection.takes(&root.join(path), depth, is_folder)
        };
        assert!(takes("sub/kept.o", false) && !takes("sub/other.o", false) && takes("sub/only-here", false));
        assert!(!takes("sub/logs", true) && takes("sub/logs", false) && !takes("sub/secret", false));
        // What a folder says holds for nothing beside it.
        assert!(takes("logs", true) && !takes("zzz/kept.o", false));
    }
}
