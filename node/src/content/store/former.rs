//! Lists of files of an earlier version, which had neither folders nor links nor times: they are made anew when the store is opened.
//!
//! ```text
//! manifest   16 bytes "keyferry-coll-1\n", list of entries (codec: u64 count, then the entries)
//! entry      string path, u64 size, [u8; 32] BLAKE3 hash, bool executable
//! ```
//! No file is read for that. What the earlier list did not say is taken from the files, where they are.
//!
//! What it is not: a search for what the earlier version left out; sharing the folder again finds that.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use keyferry_net::time::UnixTime;
use keyferry_proto::{
    codec,
    collection::{
        CollectionEntry, EntryKind, EntryName, FORMER_MAGIC, FileAttributes, FileEntry, FileTime, FolderAttributes,
        MAX_MANIFEST_LEN, Manifest, ManifestBuilder, ManifestError,
    },
    hash::{ContentFormat, ContentHash},
};
use serde::Deserialize;

use super::{
    Migrated, OpenReport, Root, Store, StoreError,
    attributes::{file_attributes, folder_attributes},
};

#[derive(Deserialize)]
struct FormerEntry {
    path: String,
    size: u64,
    hash: ContentHash,
    executable: bool,
}

impl Store {
    /// Makes the former lists of all roots anew. One that cannot be made is left as it is, and its folder has to be shared again.
    pub(super) fn relist_former(&self, report: &mut OpenReport) {
        for root in self.roots().into_iter().filter(|root| root.format == ContentFormat::Collection) {
            match self.relist(&root) {
                Ok(true) => report.migrated.get_or_insert_with(Migrated::default).relisted += 1,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "a list of files is still that of an earlier version"),
            }
        }
    }

    /// Makes the list of a root anew if it is a former one, and says whether it was.
    fn relist(&self, root: &Root) -> Result<bool, StoreError> {
        let path = self.0.folders.blob(&root.hash);
        let Some(bytes) = former_bytes(&path) else { return Ok(false) };
        if ContentHash::of(&bytes) != root.hash {
            // Damage is for the verification to tell.
            return Ok(false);
        }
        let damaged = |problem: String| StoreError::Damaged { path: path.clone(), problem };
        let entries: Vec<FormerEntry> = codec::decode(&bytes[FORMER_MAGIC.len()..], MAX_MANIFEST_LEN)
            .map_err(|error| damaged(error.to_string()))?;
        let manifest =
            converted(entries, root.origin.path(), root.added).map_err(|error| damaged(error.to_string()))?;
        let bytes = manifest.encode();
        let hash = ContentHash::of(&bytes);
        self.put_blob_bytes(hash, &bytes)?;
        self.sync_blobs([].iter(), [hash].iter())?;
        self.on_index(|index| index.finish_root(&hash, root.files))?;
        let relisted = Root { hash, ..root.clone() };
        self.change_roots(|roots| roots.iter_mut().filter(|old| *old == root).for_each(|old| *old = relisted.clone()))?;
        // What is left of the former one is an orphan, which garbage collection finds.
        Ok(true)
    }
}

/// The bytes of a list of files, if it is a former one.
fn former_bytes(path: &Path) -> Option<Vec<u8>> {
    let mut file = fs::File::open(path).ok()?;
    let mut magic = [0; FORMER_MAGIC.len()];
    file.read_exact(&mut magic).ok().filter(|()| magic == FORMER_MAGIC)?;
    let len = file.metadata().ok()?.len();
    let mut bytes = magic.to_vec();
    (len <= MAX_MANIFEST_LEN as u64 && file.read_to_end(&mut bytes).is_ok()).then_some(bytes)
}

/// The same files in a list of today.
fn converted(mut entries: Vec<FormerEntry>, folder: Option<&Path>, added: UnixTime) -> Result<Manifest, ManifestError> {
    let added = FileTime(i64::try_from(added.0).unwrap_or(i64::MAX).saturating_mul(1_000_000_000));
    entries.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
    let mut open: Vec<&str> = Vec::new();
    let place = |names: &[&str]| folder.map(|folder| folder.join(names.iter().collect::<PathBuf>()));
    let folder_at = |names: &[&str]| {
        let found = place(names).and_then(|path| fs::symlink_metadata(path).ok());
        found.as_ref().map_or(FolderAttributes { modified: added, private: false }, folder_attributes)
    };
    let mut builder = ManifestBuilder::new(folder_at(&[]));
    for FormerEntry { path, size, hash, executable } in &entries {
        let names: Vec<&str> = path.split('/').collect();
        let Some((name, folders)) = names.split_last() else { continue };
        let same = open.iter().zip(folders).take_while(|(open, wanted)| open == wanted).count();
        open.truncate(same);
        for name in &folders[same..] {
            open.push(name);
            push(&mut builder, open.len() - 1, name, EntryKind::Folder(folder_at(&open)))?;
        }
        let found = place(&names).and_then(|path| fs::symlink_metadata(path).ok());
        let plain = FileAttributes { modified: added, executable: *executable, private: false };
        let attributes = found.as_ref().map_or(plain, file_attributes);
        let attributes = FileAttributes { executable: *executable, ..attributes };
        push(&mut builder, folders.len(), name, EntryKind::File(FileEntry { size: *size, hash: *hash, attributes }))?;
    }
    builder.finish()
}

fn push(builder: &mut ManifestBuilder, depth: usize, name: &str, kind: EntryKind<'_>) -> Result<(), ManifestError> {
    // The earlier version let no other names, and no greater depths, into a list.
    let Ok(name) = EntryName::new(name.as_bytes()) else { return Ok(()) };
    builder.push(&CollectionEntry { depth: u8::try_from(depth).unwrap_or(u8::MAX), name, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> FormerEntry {
        let hash = ContentHash::of(path.as_bytes());
        FormerEntry { path: path.to_owned(), size: path.len() as u64, hash, executable: path.ends_with('x') }
    }

    #[test]
    fn a_former_list_becomes_a_tree_in_today_s_order() {
        let paths = ["a.txt", "a/b/c", "a/x", "z"];
        let manifest = converted(paths.map(entry).into(), None, UnixTime(5)).unwrap();
        let found: Vec<_> =
            (0..manifest.len() as u32).map(|index| String::from_utf8(manifest.path(index)).unwrap()).collect();
        assert_eq!(found, ["a", "a/b", "a/b/c", "a/x", "a.txt", "z"]);
        let files: Vec<_> = manifest.files().map(|(_, file)| *file).collect();
        assert_eq!(files[1].attributes.modified, FileTime(5_000_000_000));
        assert_eq!(
            files.iter().map(|file| file.attributes.executable).collect::<Vec<_>>(),
            [false, true, false, false]
        );
    }
}
