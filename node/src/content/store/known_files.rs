//! Files that were shared before: of one that is as it was then, the hash need not be computed again.
//!
//! A file in its old place has its blob if its stamp vouches for it. A new name gives a file another time of change, too: it is taken for what
//! it was, and vouched for by nothing, so it is proven when it is served.
//!
//! What it is not: proof. What nothing vouches for is hashed.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use keyferry_proto::{
    collection::Manifest,
    hash::{ContentFormat, ContentHash},
    path::SafePath,
};

use super::{
    Inner, Root, RootOrigin, Store,
    disk::is_executable,
    doubts::SourceFinding,
    hashing::{FileToHash, Hashed},
    index::Location,
};
use crate::base::stamp::{FileId, Stamp, StampTrust};

/// What was shared before from the same place.
pub(super) struct KnownFiles<'a> {
    store: &'a Store,
    folder: PathBuf,
    content: FormerContent,
    /// Those that are not in their old places, by what tells them from every other file.
    moved: HashMap<FileId, (ContentHash, Stamp)>,
}

enum FormerContent {
    Nothing,
    File(ContentHash),
    Folder(Manifest),
}

impl Store {
    /// What is known of the files at `path` from the share that has been made of it last; `names` are the names that they have now.
    pub(super) fn known_files(&self, path: &Path, former: Option<&Root>, names: Option<&[SafePath]>) -> KnownFiles<'_> {
        let is_here = |root: &&Root| matches!(&root.origin, RootOrigin::InPlace { path: at, .. } if at == path);
        let content = match former.filter(is_here) {
            Some(root) if root.format == ContentFormat::Blob => FormerContent::File(root.hash),
            Some(root) => {
                self.manifest(&root.hash).ok().flatten().map_or(FormerContent::Nothing, FormerContent::Folder)
            }
            None => FormerContent::Nothing,
        };
        let mut known = KnownFiles { store: self, folder: path.to_owned(), content, moved: HashMap::new() };
        known.find_moved(names.unwrap_or_default());
        known
    }

    fn location(&self, hash: &ContentHash, path: &Path) -> Option<Location> {
        self.locations(hash).ok()?.into_iter().find(|known| Path::new(&known.path) == path)
    }
}

impl KnownFiles<'_> {
    /// What is known of a file that was just found, under its name in the folder if it is in one.
    pub(super) fn get(&self, found: &FileToHash, name: Option<&SafePath>) -> Option<Hashed> {
        if let FormerContent::Nothing = self.content {
            return None;
        }
        let metadata = fs::symlink_metadata(&found.path).ok().filter(|metadata| metadata.is_file())?;
        let stamp = Stamp::of(&metadata);
        let executable = is_executable(&metadata);
        // A lost outboard is made again.
        let has_all = |hash: &ContentHash| self.store.has_outboard(hash, stamp.size);
        if let Some((hash, location)) = self.in_place(found, name) {
            let Inner { machine, .. } = &*self.store.0;
            let known = Hashed { hash, stamp, trust: location.trust, executable, is_indexed: true };
            let is_as_it_was = location.vouches_for(&stamp, machine)
                || (location.stamp == stamp && location.trust == StampTrust::Carried && !self.is_wrong(&hash, &stamp));
            return (is_as_it_was && has_all(&hash)).then_some(known);
        }
        let (hash, before) = self.moved.get(&stamp.file)?;
        let is_same = (before.size, before.modified) == (stamp.size, stamp.modified);
        let known = Hashed { hash: *hash, stamp, trust: StampTrust::Carried, executable, is_indexed: false };
        (is_same && has_all(hash)).then_some(known)
    }

    /// How far the stamp of a file vouches for it that was hashed just now: further, if it was hashed under the same stamp before.
    pub(super) fn trust(&self, found: &FileToHash, name: Option<&SafePath>, hashed: &Hashed) -> StampTrust {
        let before =
            self.in_place(found, name).filter(|(hash, known)| *hash == hashed.hash && known.stamp == hashed.stamp);
        before.map_or(hashed.trust, |(_, known)| known.trust.after_hashing(&hashed.stamp, &self.store.0.machine))
    }

    fn in_place(&self, found: &FileToHash, name: Option<&SafePath>) -> Option<(ContentHash, Location)> {
        let hash = match (&self.content, name) {
            (FormerContent::File(hash), None) => *hash,
            (FormerContent::Folder(manifest), Some(name)) => {
                let entries = manifest.entries();
                let at = entries.binary_search_by(|entry| entry.path.as_str().cmp(name.as_str())).ok()?;
                entries[at].hash
            }
            _ => return None,
        };
        Some((hash, self.store.location(&hash, &found.path)?))
    }

    /// Whether the file turned out to be another one when it was served.
    fn is_wrong(&self, hash: &ContentHash, stamp: &Stamp) -> bool {
        matches!(self.store.0.doubts.of(hash, stamp), SourceFinding::Wrong)
    }

    fn find_moved(&mut self, names: &[SafePath]) {
        let FormerContent::Folder(manifest) = &self.content else { return };
        let names: HashSet<&str> = names.iter().map(SafePath::as_str).collect();
        let gone = manifest.entries().iter().filter(|entry| !names.contains(entry.path.as_str()));
        let moved = gone.filter_map(|entry| {
            let location = self.store.location(&entry.hash, &self.folder.join(entry.path.as_str()))?;
            Some((location.stamp.file, (entry.hash, location.stamp)))
        });
        self.moved = moved.collect();
    }
}
