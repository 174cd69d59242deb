//! Where to put what comes, by the one path that a user gives for it.
//!
//! ```text
//! PATH/, ., .., a folder that is there     into that folder, under the name that it comes with
//! any other path                           at that path itself: its last component is the name
//! ```
//! A folder that is there may be what was fetched to that path itself before. Whoever gets the same again means the same place.
//!
//! What it is not: the check of what is at that place already; see [`super::staging`].

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// A place for what comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The folder, as an absolute path; it need not be there yet.
    pub folder: PathBuf,
    /// The name in it; none for the name that it comes with.
    pub name: Option<String>,
    /// Whether the path would mean itself if the folder were not there.
    pub may_be_itself: bool,
}

/// Why a path is no place. The fault is the user's.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// It has no absolute form, as an empty one.
    #[error("cannot put anything at {path:?}: {source}")]
    Path {
        /// The path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Its name is not Unicode, which is what names are here.
    #[error("the name of {path:?} is not Unicode")]
    Name {
        /// The path.
        path: PathBuf,
    },
}

impl Placement {
    /// The place that a path means, as the file system is now.
    ///
    /// # Errors
    ///
    /// If it means none.
    pub fn of(path: &Path) -> Result<Self, PlacementError> {
        let absolute =
            std::path::absolute(path).map_err(|source| PlacementError::Path { path: path.to_owned(), source })?;
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Ok(Self { folder: absolute, name: None, may_be_itself: false });
        };
        let may_be_itself = !names_a_folder(path.as_os_str());
        if !may_be_itself || std::fs::metadata(&absolute).is_ok_and(|found| found.is_dir()) {
            return Ok(Self { folder: absolute, name: None, may_be_itself });
        }
        let name = name.to_str().ok_or_else(|| PlacementError::Name { path: path.to_owned() })?;
        Ok(Self { folder: parent.to_owned(), name: Some(name.to_owned()), may_be_itself })
    }
}

/// Whether a path can be nothing but a folder, by how it ends.
fn names_a_folder(path: &OsStr) -> bool {
    let last = path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    matches!(last, b"" | b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_there_or_a_slash_at_the_end_means_the_folder_and_any_other_path_itself() {
        let dir = tempfile::tempdir().unwrap();
        let at = |relative: &str| dir.path().join(relative);
        std::fs::create_dir(at("there")).unwrap();
        std::fs::write(at("file"), b"").unwrap();
        std::os::unix::fs::symlink("there", at("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        for folder in ["there", "there/", "link", "new/", "a/b/", "there/.", "new/.", "there/.."] {
            let place = Placement::of(&at(folder)).unwrap();
            assert_eq!(place.name, None, "{folder}");
            assert!(place.folder.is_absolute(), "{folder}");
            assert_eq!(place.may_be_itself, ["there", "link"].contains(&folder), "{folder}");
        }
        for (path, name) in [("photo.jpg", "photo.jpg"), ("a/b/c", "c"), ("file", "file"), ("dangling", "dangling")] {
            let place = Placement::of(&at(path)).unwrap();
            assert_eq!((place.name.as_deref(), &*place.folder), (Some(name), at(path).parent().unwrap()), "{path}");
        }
        assert_eq!(Placement::of(Path::new("/")).unwrap().name, None);
    }

    #[test]
    fn a_path_that_is_none_is_refused() {
        assert!(matches!(Placement::of(Path::new("")), Err(PlacementError::Path { .. })));
        let odd = Path::new(OsStr::from_bytes(b"/nowhere/caf\xe9"));
        assert!(matches!(Placement::of(odd), Err(PlacementError::Name { .. })));
    }
}
