//! What is in a folder, for people: one level of it.

use keyferry_proto::collection::{CollectionEntry, EntryKind, EntryPath, FileTime, Manifest, ShownPath};

use super::FetchError;

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEntry {
    /// Its name, as people read it.
    pub name: String,
    /// What it is.
    pub kind: ListedKind,
    /// Bytes in it; none in a link.
    pub size: u64,
    /// Files in it.
    pub files: u64,
    /// When it was last changed; a link has no time.
    pub modified: Option<FileTime>,
}

/// What is in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedKind {
    /// A file, and whether somebody may execute it.
    File(bool),
    /// A folder.
    Folder,
    /// A symbolic link, and what it leads to.
    Link(String),
}

/// Lists what is at a path in a folder: the entries of a folder there, or a file or a link alone. The folder itself without a path.
///
/// # Errors
///
/// If nothing is there.
pub fn list(manifest: &Manifest, path: Option<&EntryPath>) -> Result<Vec<ListedEntry>, FetchError> {
    let Some(path) = path else { return Ok(list_below(manifest, 0, 0)) };
    let not_there = || FetchError::NotInFolder { path: path.to_string() };
    let index = manifest.find(path.as_bytes()).ok_or_else(not_there)?;
    let entry = manifest.entry(index).ok_or_else(not_there)?;
    match entry.kind {
        EntryKind::Folder(_) => Ok(list_below(manifest, index as usize + 1, entry.depth + 1)),
        EntryKind::File(_) | EntryKind::Link(_) => Ok(vec![listed_entry(&entry)]),
    }
}

/// The entries of this depth, from this one on, as long as they are in one folder.
fn list_below(manifest: &Manifest, first: usize, depth: u8) -> Vec<ListedEntry> {
    let mut listed: Vec<ListedEntry> = Vec::new();
    for entry in manifest.entries().skip(first).take_while(|entry| entry.depth >= depth) {
        match (entry.depth == depth, listed.last_mut(), entry.kind) {
            (true, ..) => listed.push(listed_entry(&entry)),
            (false, Some(above), EntryKind::File(file)) => {
                above.files += 1;
                above.size += file.size;
            }
            (false, ..) => {}
        }
    }
    listed
}

fn listed_entry(entry: &CollectionEntry<'_>) -> ListedEntry {
    let name = entry.name.to_string();
    match entry.kind {
        EntryKind::Folder(folder) => {
            ListedEntry { name, kind: ListedKind::Folder, size: 0, files: 0, modified: Some(folder.modified) }
        }
        EntryKind::File(file) => ListedEntry {
            name,
            kind: ListedKind::File(file.attributes.executable),
            size: file.size,
            files: 1,
            modified: Some(file.attributes.modified),
        },
        EntryKind::Link(target) => {
            let target = ShownPath(target.as_bytes()).to_string();
            ListedEntry { name, kind: ListedKind::Link(target), size: 0, files: 0, modified: None }
        }
    }
}
