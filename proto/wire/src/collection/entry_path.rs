//! A path in a folder: the names of folders on the way to an entry, and its own.

use std::fmt;

use super::{
    entry::{EntryName, EntryNameError, ShownPath},
    manifest::MAX_DEPTH,
};

/// A path in a folder, with `/` between names: 1 to [`MAX_DEPTH`] of them, [`EntryPath::MAX_LEN`] bytes at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(Vec<u8>);

/// Why some bytes are no path in a folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryPathError {
    /// Too many bytes.
    #[error("a path of {got} bytes; at most {max} are allowed", max = EntryPath::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        got: usize,
    },
    /// Too many names.
    #[error("a path of more than {MAX_DEPTH} names")]
    TooDeep,
    /// One of its names is none.
    #[error(transparent)]
    Name(#[from] EntryNameError),
}

impl EntryPath {
    /// The greatest length, in bytes.
    pub const MAX_LEN: usize = 4096;

    /// Checks a path.
    ///
    /// # Errors
    /// If it is none.
    pub fn new(path: impl Into<Vec<u8>>) -> Result<Self, EntryPathError> {
        let path = path.into();
        if path.len() > Self::MAX_LEN {
            return Err(EntryPathError::TooLong { got: path.len() });
        }
        let mut depth = 0;
        for name in path.split(|byte| *byte == b'/') {
            EntryName::new(name)?;
            depth += 1;
        }
        if depth > MAX_DEPTH { Err(EntryPathError::TooDeep) } else { Ok(Self(path)) }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its names.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }

    /// The name of what it leads to.
    pub fn last(&self) -> EntryName<'_> {
        EntryName::checked(self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default())
    }
}

impl fmt::Display for EntryPath {
    /// As people read it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ShownPath(&self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_names_and_no_more_than_a_collection_may_have() {
        for path in ["a", "a/b", "a/b c/\u{fc}", &["x"; MAX_DEPTH].join("/")] {
            let parsed = EntryPath::new(path).unwrap();
            assert_eq!((parsed.as_bytes(), parsed.names().count()), (path.as_bytes(), path.split('/').count()));
        }
        assert_eq!(EntryPath::new(&b"a/caf\xe9"[..]).unwrap().last().as_bytes(), b"caf\xe9");
        for path in ["", "/", "/a", "a/", "a//b", ".", "a/../b", "a/./b", "a\0b"] {
            assert!(matches!(EntryPath::new(path), Err(EntryPathError::Name(_))), "{path:?}");
        }
        assert_eq!(EntryPath::new(["x"; MAX_DEPTH + 1].join("/")), Err(EntryPathError::TooDeep));
        assert_eq!(EntryPath::new(vec![b'x'; 4097]), Err(EntryPathError::TooLong { got: 4097 }));
    }
}
