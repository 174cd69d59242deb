//! What is shared, seeded or kept: a list of roots in a plain file, `roots.json`, which is the truth.
//!
//! ```json
//! {"version": 2, "roots": [{"hash": "64 digits", "format": "collection", "size": 1, "files": 1,
//!                           "state": "shared", "name": "docs", "audience": {"to": "everyone", "listed": false, "announced": true},
//!                           "origin": {"kind": "in_place", "path": "/home/me/docs"}, "added": 1790000000}]}
//! ```
//! An origin in place that is followed has `"followed": true`, patterns of what is not wanted are a list `"excludes"`, a file that is not in a folder what is carried of it in `"attributes"`, and a
//! path that is not UTF-8 is `{"bytes": "hexadecimal digits"}`.
//!
//! A content may be shared under several names, each with an audience of its own; one that is not shared is there once.
//!
//! Version 1 had no states: everything was announced, and served to everybody.
//!
//! What it is not: the index of blobs, which can be made again from this list.

use std::{
    io,
    path::{Path, PathBuf},
};

use keyferry_net::time::UnixTime;
use keyferry_proto::{
    address::ShareName,
    collection::FileAttributes,
    hash::{ContentFormat, ContentHash},
};
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    audience::{Asker, Audience},
    selection::Excludes,
};
use crate::base::{any_path, atomic_file::write_atomically};

const VERSION: u32 = 2;
const VERSION_WITHOUT_STATES: u32 = 1;
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
    /// What else is carried of a file that is not in a folder; those of a folder are in its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<FileAttributes>,
    /// Whether it is offered, and to whom.
    #[serde(flatten)]
    pub state: RootState,
    /// Where its content is.
    pub origin: RootOrigin,
    /// When it came into the store.
    pub added: UnixTime,
}

/// Whether a root is offered, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RootState {
    /// Offered to an audience, under a name.
    Shared {
        /// The name in the catalogue.
        name: ShareName,
        /// To whom.
        audience: Audience,
    },
    /// Announced, and offered to whoever knows its hash.
    Seeded,
    /// Offered to nobody.
    Kept,
}

/// Where the content of a root is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RootOrigin {
    /// In the user's own file or folder, which was shared without a copy.
    InPlace {
        /// That file or folder, absolute.
        #[serde(with = "any_path")]
        path: PathBuf,
        /// Whether a change of it makes a new version by itself.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        followed: bool,
        /// What of the folder is not wanted.
        #[serde(default, skip_serializing_if = "Excludes::is_empty")]
        excludes: Excludes,
    },
    /// In the data folder.
    Copied,
    /// In the file or folder that it was fetched to.
    Fetched {
        /// That file or folder, absolute.
        #[serde(with = "any_path")]
        path: PathBuf,
    },
}

/// What became of a data folder of an earlier version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Roots with a name, which are shared with everyone.
    pub shared: u64,
    /// Others, which were announced and served, too, and are offered to nobody now.
    pub kept: u64,
    /// Folders whose lists of files were of an earlier version, and have other hashes now.
    pub relisted: u64,
}

impl Root {
    /// Its name in the catalogue, if it is shared.
    pub fn name(&self) -> Option<&ShareName> {
        match &self.state {
            RootState::Shared { name, .. } => Some(name),
            RootState::Seeded | RootState::Kept => None,
        }
    }

    /// Whether it is there for this asker. Whatever is there for those who know no more than the hash is announced.
    pub fn is_offered_to(&self, asker: &Asker) -> bool {
        match &self.state {
            RootState::Shared { audience, .. } => audience.admits(asker),
            RootState::Seeded => true,
            RootState::Kept => false,
        }
    }

    fn has_name(&self, name: &ShareName) -> bool {
        self.name() == Some(name)
    }
}

impl RootOrigin {
    /// What of its folder is not wanted.
    pub(super) fn excludes(&self) -> Excludes {
        match self {
            Self::InPlace { excludes, .. } => excludes.clone(),
            Self::Copied | Self::Fetched { .. } => Excludes::default(),
        }
    }

    /// The file or folder outside the data folder that holds the content.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::InPlace { path, .. } | Self::Fetched { path } => Some(path),
            Self::Copied => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RootsFile {
    version: u32,
    roots: Vec<Root>,
}

#[derive(Deserialize)]
struct AnyRootsFile {
    version: u32,
}

#[derive(Deserialize)]
struct StatelessRootsFile {
    roots: Vec<StatelessRoot>,
}

#[derive(Deserialize)]
struct StatelessRoot {
    hash: ContentHash,
    format: ContentFormat,
    size: u64,
    files: u64,
    name: Option<ShareName>,
    origin: RootOrigin,
    added: UnixTime,
}

/// Reads the list; an absent file is an empty one. One without states gets them, and is to be written as it is returned.
pub(super) fn read(path: &Path) -> Result<(Vec<Root>, Option<Migrated>), StoreError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), None)),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let damaged = |problem: String| StoreError::Roots { path: path.to_owned(), problem };
    let malformed = |error: serde_json::Error| damaged(error.to_string());
    let AnyRootsFile { version } = serde_json::from_slice(&bytes).map_err(malformed)?;
    match version {
        VERSION => Ok((serde_json::from_slice::<RootsFile>(&bytes).map_err(malformed)?.roots, None)),
        VERSION_WITHOUT_STATES => {
            let (roots, migrated) = with_states(serde_json::from_slice(&bytes).map_err(malformed)?);
            Ok((roots, Some(migrated)))
        }
        _ => Err(damaged(format!("expected version {VERSION}, got {version}; it is of another keyferry"))),
    }
}

fn with_states(file: StatelessRootsFile) -> (Vec<Root>, Migrated) {
    let mut roots = Vec::with_capacity(file.roots.len());
    for StatelessRoot { hash, format, size, files, name, origin, added } in file.roots {
        let state = match name {
            Some(name) => RootState::Shared { name, audience: Audience::default() },
            None => RootState::Kept,
        };
        add(&mut roots, Root { hash, format, size, files, attributes: None, state, origin, added });
    }
    let shared = roots.iter().filter(|root| root.name().is_some()).count() as u64;
    let kept = roots.len() as u64 - shared;
    (roots, Migrated { shared, kept, relisted: 0 })
}

/// Replaces the list as a whole.
pub(super) fn write(path: &Path, roots: &[Root]) -> Result<(), StoreError> {
    let file = RootsFile { version: VERSION, roots: roots.to_vec() };
    let mut bytes = serde_json::to_vec_pretty(&file)
        .map_err(|error| StoreError::Roots { path: path.to_owned(), problem: error.to_string() })?;
    bytes.push(b'\n');
    write_atomically(path, &bytes, FILE_MODE).map_err(StoreError::io("write", path))
}

/// The audience of the share with this name.
pub(super) fn audience_of<'a>(roots: &'a [Root], wanted: &ShareName) -> Option<&'a Audience> {
    roots.iter().find_map(|root| match &root.state {
        RootState::Shared { name, audience } if name == wanted => Some(audience),
        _ => None,
    })
}

/// Whether the share with this name follows what is at `path`.
pub(super) fn is_followed(roots: &[Root], wanted: &ShareName, path: &Path) -> bool {
    let follows =
        |root: &Root| matches!(&root.origin, RootOrigin::InPlace { path: at, followed: true, .. } if at == path);
    roots.iter().any(|root| root.has_name(wanted) && follows(root))
}

/// Gives a share to fewer than before, if all of these had it already.
pub(super) fn narrow(roots: &mut [Root], wanted: &ShareName, to: &Audience) {
    for root in roots {
        if let RootState::Shared { name, audience } = &mut root.state
            && name == wanted
            && to.is_within(audience)
        {
            audience.clone_from(to);
        }
    }
}

/// Puts a root into the list, and returns the one that it displaced: what had its name before.
///
/// Content that is shared is not there without a name as well; and what is seeded stays so when it is fetched once more.
pub(super) fn add(roots: &mut Vec<Root>, root: Root) -> Option<Root> {
    let is_former = |old: &Root| root.name().is_some_and(|name| old.has_name(name)) && old.hash != root.hash;
    let displaced = roots.iter().position(is_former).map(|at| roots.remove(at));
    let same = |old: &Root| old.hash == root.hash && (old.name().is_none() || old.name() == root.name());
    match roots.iter().position(same) {
        Some(at) if (&roots[at].state, &root.state) == (&RootState::Seeded, &RootState::Kept) => {
            roots[at] = Root { state: RootState::Seeded, ..root };
        }
        Some(at) => roots[at] = root,
        None if root.name().is_none() && roots.iter().any(|old| old.hash == root.hash) => {}
        None => roots.push(root),
    }
    displaced
}

/// Takes a share out of the catalogue, and returns it. The root is kept, unless the same content is shared under another name.
pub(super) fn unshare(roots: &mut Vec<Root>, name: &ShareName) -> Option<Root> {
    let at = roots.iter().position(|root| root.has_name(name))?;
    let shared = roots[at].clone();
    if roots.iter().any(|root| root.hash == shared.hash && !root.has_name(name)) {
        roots.remove(at);
    } else {
        roots[at].state = RootState::Kept;
    }
    Some(shared)
}

/// Ends every offer of a content, which is kept. Returns whether there was one.
pub(super) fn withdraw(roots: &mut Vec<Root>, hash: &ContentHash) -> bool {
    let is_offered = |root: &Root| root.hash == *hash && root.state != RootState::Kept;
    let Some(first) = roots.iter().position(is_offered) else { return false };
    let kept = Root { state: RootState::Kept, ..roots.remove(first) };
    roots.retain(|root| root.hash != *hash);
    roots.insert(first, kept);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> RootState {
        RootState::Shared { name: name.parse().unwrap(), audience: Audience::default() }
    }

    fn root(content: &str, state: RootState, path: &str) -> Root {
        Root {
            hash: ContentHash::of(content.as_bytes()),
            format: ContentFormat::Blob,
            size: content.len() as u64,
            files: 1,
            attributes: None,
            state,
            origin: RootOrigin::InPlace { path: path.into(), followed: false, excludes: Excludes::default() },
            added: UnixTime(1),
        }
    }

    #[test]
    fn the_list_round_trips_and_an_absent_one_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.json");
        assert_eq!(read(&path).unwrap(), (vec![], None));
        let roots = vec![
            root("a", named("one"), "/a"),
            root("s", RootState::Seeded, "/s"),
            Root { origin: RootOrigin::Copied, format: ContentFormat::Collection, ..root("b", RootState::Kept, "/b") },
        ];
        write(&path, &roots).unwrap();
        assert_eq!(read(&path).unwrap(), (roots, None));
        assert!(std::fs::read_to_string(&path).unwrap().contains(&ContentHash::of(b"a").to_string()));
    }

    #[test]
    fn a_list_that_cannot_be_read_is_an_error_and_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.json");
        let nobody = r#"{"version": 2, "roots": [{"hash": "HASH", "format": "blob", "size": 1, "files": 1, "state": "shared",
            "name": "n", "audience": {"to": "only", "contacts": false, "nodes": []}, "origin": {"kind": "copied"}, "added": 1}]}"#;
        let nobody = nobody.replace("HASH", &ContentHash::EMPTY.to_string());
        for text in ["", "{", r#"{"version": 3, "roots": []}"#, r#"{"version": 1, "roots": [{"hash": "x"}]}"#, &nobody]
        {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(StoreError::Roots { .. })), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn in_a_list_without_states_what_has_a_name_is_shared_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.json");
        let old = |content: &[u8], name: &str| {
            format!(
                r#"{{"hash": "{}", "format": "blob", "size": 1, "files": 1, "name": {name},
                    "origin": {{"kind": "fetched", "path": "/f"}}, "added": 1}}"#,
                ContentHash::of(content)
            )
        };
        let roots = [old(b"a", r#""one""#), old(b"a", r#""two""#), old(b"b", "null")].join(",");
        std::fs::write(&path, format!(r#"{{"version": 1, "roots": [{roots}]}}"#)).unwrap();

        let (roots, migrated) = read(&path).unwrap();

        assert_eq!(migrated, Some(Migrated { shared: 2, kept: 1, relisted: 0 }));
        let states: Vec<_> = roots.into_iter().map(|root| root.state).collect();
        assert_eq!(states, [named("one"), named("two"), RootState::Kept]);
    }

    #[test]
    fn newer_content_takes_the_name_and_the_place_wherever_it_is_from() {
        for path in ["/f", "/g"] {
            let mut roots = vec![root("old", named("n"), "/f")];
            assert_eq!(add(&mut roots, root("new", named("n"), path)), Some(root("old", named("n"), "/f")));
            assert_eq!(roots, [root("new", named("n"), path)]);
        }
    }

    #[test]
    fn the_same_content_may_have_two_names_and_one_without_a_name_gives_way() {
        for unnamed in [RootState::Seeded, RootState::Kept] {
            let mut roots = vec![root("x", unnamed.clone(), "/f")];
            add(&mut roots, root("x", named("one"), "/f"));
            add(&mut roots, root("x", named("two"), "/f"));
            add(&mut roots, root("x", unnamed, "/f"));
            assert_eq!(roots, [root("x", named("one"), "/f"), root("x", named("two"), "/f")]);
        }
    }

    #[test]
    fn what_is_seeded_stays_so_when_it_is_fetched_once_more() {
        let mut roots = vec![root("x", RootState::Kept, "/f")];
        add(&mut roots, root("x", RootState::Seeded, "/f"));
        add(&mut roots, root("x", RootState::Kept, "/g"));
        assert_eq!(roots, [root("x", RootState::Seeded, "/g")]);
    }

    #[test]
    fn a_share_is_narrowed_at_once_and_never_widened() {
        let everyone = |announced| Audience::Everyone { listed: false, announced };
        let contacts = Audience::Only(super::super::Invited::new(true, vec![]).unwrap());
        let name: ShareName = "n".parse().unwrap();
        let shared = |audience: &Audience| RootState::Shared { name: name.clone(), audience: audience.clone() };
        for (before, wanted, after) in [
            (everyone(true), contacts.clone(), contacts.clone()),
            (everyone(true), everyone(false), everyone(false)),
            (everyone(false), everyone(true), everyone(false)),
            (contacts.clone(), everyone(false), contacts.clone()),
        ] {
            let mut roots = vec![root("x", shared(&before), "/f"), root("y", named("other"), "/y")];
            narrow(&mut roots, &name, &wanted);
            assert_eq!(roots, [root("x", shared(&after), "/f"), root("y", named("other"), "/y")]);
        }
    }

    #[test]
    fn without_its_last_name_a_root_is_kept() {
        let mut roots = vec![root("x", named("one"), "/f"), root("x", named("two"), "/f")];
        unshare(&mut roots, &"one".parse().unwrap()).unwrap();
        assert_eq!(roots, [root("x", named("two"), "/f")]);
        unshare(&mut roots, &"two".parse().unwrap()).unwrap();
        assert_eq!(roots, [root("x", RootState::Kept, "/f")]);
        assert_eq!(unshare(&mut roots, &"two".parse().unwrap()), None);
    }

    #[test]
    fn content_is_withdrawn_under_all_its_names() {
        let others = [root("y", named("y"), "/y"), root("z", RootState::Seeded, "/z")];
        let [y, z] = others.clone();
        let mut roots = vec![y, root("x", named("one"), "/f"), z, root("x", named("two"), "/g")];
        assert!(withdraw(&mut roots, &ContentHash::of(b"x")));
        let [y, z] = others;
        assert_eq!(roots, [y, root("x", RootState::Kept, "/f"), z]);
        assert!(!withdraw(&mut roots, &ContentHash::of(b"x")));
    }
}
