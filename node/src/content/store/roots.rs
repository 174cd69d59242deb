//! What is shared or was fetched: a list of roots, kept in a plain file, `roots.json`, which is the truth.
//!
//! ```json
//! {"version": 1, "roots": [{"hash": "64 digits", "format": "collection", "size": 1, "files": 1, "name": "docs",
//!                           "origin": {"kind": "in_place", "path": "/home/me/docs"}, "added": 1790000000}]}
//! ```
//! A root is told from others by hash and name: the same content may have two names.
//!
//! What it is not: the index of blobs, which can be made again from this list.

use std::{
    io,
    path::{Path, PathBuf},
};

use keyferry_net::time::UnixTime;
use keyferry_proto::{
    address::ShareName,
    hash::{ContentFormat, ContentHash},
};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::base::atomic_file::write_atomically;

const VERSION: u32 = 1;
const FILE_MODE: u32 = 0o600;

/// A blob or a collection that this node holds completely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Its hash: that of the file, or of the manifest.
    pub hash: ContentHash,
    /// A file or a folder.
    pub format: ContentFormat,
    /// Bytes of content in all; a manifest is not counted.
    pub size: u64,
    /// Files in it; 1 for a blob.
    pub files: u64,
    /// Its name in the catalogue, if it has one.
    pub name: Option<ShareName>,
    /// Where its content is.
    pub origin: RootOrigin,
    /// When it came into the store.
    pub added: UnixTime,
}

/// Where the content of a root is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RootOrigin {
    /// In the user's own file or folder, which was shared without a copy.
    InPlace {
        /// That file or folder, absolute.
        path: PathBuf,
    },
    /// In the data folder.
    Copied,
    /// In the file or folder that it was fetched to.
    Fetched {
        /// That file or folder, absolute.
        path: PathBuf,
    },
}

impl RootOrigin {
    /// The file or folder outside the data folder that holds the content.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::InPlace { path } | Self::Fetched { path } => Some(path),
            Self::Copied => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RootsFile {
    version: u32,
    roots: Vec<Root>,
}

/// Reads the list; an absent file is an empty one.
pub(super) fn read(path: &Path) -> Result<Vec<Root>, StoreError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let damaged = |problem: String| StoreError::Roots { path: path.to_owned(), problem };
    let file: RootsFile = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if file.version != VERSION {
        return Err(damaged(format!("expected version {VERSION}, got {}; it is of another keyferry", file.version)));
    }
    Ok(file.roots)
}

/// Replaces the list as a whole.
pub(super) fn write(path: &Path, roots: &[Root]) -> Result<(), StoreError> {
    let file = RootsFile { version: VERSION, roots: roots.to_vec() };
    let mut bytes = serde_json::to_vec_pretty(&file)
        .map_err(|error| StoreError::Roots { path: path.to_owned(), problem: error.to_string() })?;
    bytes.push(b'\n');
    write_atomically(path, &bytes, FILE_MODE).map_err(StoreError::io("write", path))
}

/// Puts a root into the list, and returns the ones that it displaced.
///
/// A name belongs to one root. One that loses its name to newer content of the same file or folder goes, as its content
/// is no longer there; any other stays, without a name.
pub(super) fn add(roots: &mut Vec<Root>, root: Root) -> Vec<Root> {
    let mut displaced = Vec::new();
    if let Some(name) = &root.name
        && let Some(at) = roots.iter().position(|old| old.name.as_ref() == Some(name) && old.hash != root.hash)
    {
        if roots[at].origin.path().is_some() && roots[at].origin.path() == root.origin.path() {
            displaced.push(roots.remove(at));
        } else {
            roots[at].name = None;
        }
    }
    // One without a name gives way to the same content with a name, and does not stand beside it.
    let same = roots.iter().position(|old| old.hash == root.hash && (old.name == root.name || old.name.is_none()));
    match same {
        Some(at) => roots[at] = root,
        None if root.name.is_none() && roots.iter().any(|old| old.hash == root.hash) => {}
        None => roots.push(root),
    }
    displaced
}

/// Takes a name away. The root stays, without a name, unless the same content has another name.
pub(super) fn unname(roots: &mut Vec<Root>, name: &ShareName) -> Option<Root> {
    let at = roots.iter().position(|root| root.name.as_ref() == Some(name))?;
    let named = roots[at].clone();
    if roots.iter().any(|root| root.hash == named.hash && root.name.as_ref() != Some(name)) {
        roots.remove(at);
    } else {
        roots[at].name = None;
    }
    Some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(content: &str, name: Option<&str>, path: &str) -> Root {
        Root {
            hash: ContentHash::of(content.as_bytes()),
            format: ContentFormat::Blob,
            size: content.len() as u64,
            files: 1,
            name: name.map(|name| name.parse().unwrap()),
            origin: RootOrigin::InPlace { path: path.into() },
            added: UnixTime(1),
        }
    }

    #[test]
    fn the_list_round_trips_and_an_absent_one_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.json");
        assert_eq!(read(&path).unwrap(), []);
        let roots = vec![
            root("a", Some("one"), "/a"),
            Root { origin: RootOrigin::Copied, format: ContentFormat::Collection, ..root("b", None, "/b") },
        ];
        write(&path, &roots).unwrap();
        assert_eq!(read(&path).unwrap(), roots);
        assert!(std::fs::read_to_string(&path).unwrap().contains(&ContentHash::of(b"a").to_string()));
    }

    #[test]
    fn a_list_that_cannot_be_read_is_an_error_and_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.json");
        for text in ["", "{", r#"{"version": 2, "roots": []}"#, r#"{"version": 1, "roots": [{"hash": "x"}]}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(StoreError::Roots { .. })), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn newer_content_of_the_same_file_takes_the_name_and_the_place() {
        let mut roots = vec![root("old", Some("n"), "/f")];
        let displaced = add(&mut roots, root("new", Some("n"), "/f"));
        assert_eq!(displaced, [root("old", Some("n"), "/f")]);
        assert_eq!(roots, [root("new", Some("n"), "/f")]);
    }

    #[test]
    fn content_of_another_file_takes_the_name_only() {
        let mut roots = vec![root("old", Some("n"), "/f")];
        assert_eq!(add(&mut roots, root("new", Some("n"), "/g")), []);
        assert_eq!(roots, [root("old", None, "/f"), root("new", Some("n"), "/g")]);
    }

    #[test]
    fn the_same_content_may_have_two_names_and_one_without_a_name_gives_way() {
        let mut roots = vec![root("x", None, "/f")];
        add(&mut roots, root("x", Some("one"), "/f"));
        add(&mut roots, root("x", Some("two"), "/f"));
        add(&mut roots, root("x", None, "/f"));
        assert_eq!(roots, [root("x", Some("one"), "/f"), root("x", Some("two"), "/f")]);
    }

    #[test]
    fn without_its_last_name_a_root_stays() {
        let mut roots = vec![root("x", Some("one"), "/f"), root("x", Some("two"), "/f")];
        unname(&mut roots, &"one".parse().unwrap()).unwrap();
        assert_eq!(roots, [root("x", Some("two"), "/f")]);
        unname(&mut roots, &"two".parse().unwrap()).unwrap();
        assert_eq!(roots, [root("x", None, "/f")]);
        assert_eq!(unname(&mut roots, &"two".parse().unwrap()), None);
    }
}
