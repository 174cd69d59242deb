//! Files that were shared before: of one that is as it was then, the hash need not be computed again.
//!
//! A file in its old place has its blob if its stamp vouches for it. A new name gives a file another time of change, too: it is taken for what
//! it was, and vouched for by nothing, so it is proven when it is served.
//!
//! What it is not: proof. What nothing vouches for is hashed.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use keyferry_proto::{
    collection::{EntryKind, Manifest},
    hash::{ContentFormat, ContentHash},
};

use super::{
    Inner, Root, RootOrigin, Store,
    attributes::file_attributes,
    doubts::SourceFinding,
    hashing::{FileToHash, Hashed, HashedPlace},
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
    /// What is known of the files at `path` from the share that has been made of it last; `found` are those that are there now.
    pub(super) fn known_files(&self, path: &Path, former: Option<&Root>, found: &[FileToHash]) -> KnownFiles<'_> {
        let is_here = |root: &&Root| matches!(&root.origin, RootOrigin::InPlace { path: at, .. } if at == path);
        let content = match former.filter(is_here) {
            Some(root) if root.format == ContentFormat::Blob => FormerContent::File(root.hash),
            Some(root) => {
                self.manifest(&root.hash).ok().flatten().map_or(FormerContent::Nothing, FormerContent::Folder)
            }
            None => FormerContent::Nothing,
        };
        let mut known = KnownFiles { store: self, folder: path.to_owned(), content, moved: HashMap::new() };
        known.find_moved(found);
        known
    }

    /// What the index knows of a file that should have a blob.
    pub(super) fn location(&self, hash: &ContentHash, path: &Path) -> Option<Location> {
        self.locations(hash).ok()?.into_iter().find(|known| known.path == path)
    }
}

impl KnownFiles<'_> {
    /// What is known of a file that was just found.
    pub(super) fn get(&self, found: &FileToHash) -> Option<Hashed> {
        if let FormerContent::Nothing = self.content {
            return None;
        }
        let metadata = fs::symlink_metadata(&found.path).ok().filter(|metadata| metadata.is_file())?;
        let stamp = Stamp::of(&metadata);
        let attributes = file_attributes(&metadata);
        let size = stamp.size;
        // A lost outboard is made again.
        let has_all = |hash: &ContentHash| self.store.has_outboard(hash, stamp.size);
        if let Some((hash, location)) = self.in_place(found) {
            let Inner { machine, .. } = &*self.store.0;
            let known = Hashed { hash, size, stamp, trust: location.trust, attributes, place: HashedPlace::Indexed };
            let is_as_it_was = location.vouches_for(&stamp, machine)
                || (location.stamp == stamp && location.trust == StampTrust::Carried && !self.is_wrong(&hash, &stamp));
            return (is_as_it_was && has_all(&hash)).then_some(known);
        }
        let (hash, before) = self.moved.get(&stamp.file)?;
        let is_same = (before.size, before.modified) == (stamp.size, stamp.modified);
        let trust = StampTrust::Carried;
        let known = Hashed { hash: *hash, size, stamp, trust, attributes, place: HashedPlace::File };
        (is_same && has_all(hash)).then_some(known)
    }

    /// How far the stamp of a file vouches for it that was hashed just now: further, if it was hashed under the same stamp before.
    pub(super) fn trust(&self, found: &FileToHash, hashed: &Hashed) -> StampTrust {
        let before = self.in_place(found).filter(|(hash, known)| *hash == hashed.hash && known.stamp == hashed.stamp);
        before.map_or(hashed.trust, |(_, known)| known.trust.after_hashing(&hashed.stamp, &self.store.0.machine))
    }

    fn in_place(&self, found: &FileToHash) -> Option<(ContentHash, Location)> {
        let hash = match &self.content {
            FormerContent::Nothing => return None,
            FormerContent::File(hash) => *hash,
            FormerContent::Folder(manifest) => {
                let name = found.path.strip_prefix(&self.folder).ok()?;
                let entry = manifest.entry(manifest.find(name.as_os_str().as_bytes())?)?;
                let EntryKind::File(file) = entry.kind else { return None };
                file.hash
            }
        };
        Some((hash, self.store.location(&hash, &found.path)?))
    }

    /// Whether the file turned out to be another one when it was served.
    fn is_wrong(&self, hash: &ContentHash, stamp: &Stamp) -> bool {
        matches!(self.store.0.doubts.of(hash, stamp), SourceFinding::Wrong)
    }

    fn find_moved(&mut self, found: &[FileToHash]) {
        let FormerContent::Folder(manifest) = &self.content else { return };
        let found: HashSet<&Path> = found.iter().map(|found| found.path.as_path()).collect();
        let moved = manifest.files().filter_map(|(index, file)| {
            let path = self.folder.join(OsStr::from_bytes(&manifest.path(index)));
            let location = if found.contains(path.as_path()) { None } else { self.store.location(&file.hash, &path) }?;
            Some((location.stamp.file, (file.hash, location.stamp)))
        });
        self.moved = moved.collect();
    }
}
