//! Collections: the manifest of a folder, a blob that lists what is in it.
//!
//! - `entry`, `entry_path`: names, links and attributes; ways to entries.
//! - `manifest`: the list in memory.
//! - `encoding`: the bytes of a list.
//! - `builder`: the rules that a list keeps, whoever made it.
//! - `fitting`: names as the receiver's file system takes them.
//!
//! What it is not: the names of shares, which are chosen to be typed (see [`crate::path`]).

mod builder;
mod encoding;
mod entry;
mod entry_path;
mod error;
pub mod fitting;
mod manifest;

use self::encoding::{EntryReader, HEADER_LEN, MIN_ENTRY_LEN, encode_entry, encode_header, encoded_entry_len};
pub use self::{
    builder::ManifestBuilder,
    encoding::{FORMER_MAGIC, MAGIC, MAX_MANIFEST_LEN},
    entry::{
        CollectionEntry, EntryKind, EntryName, EntryNameError, FileAttributes, FileEntry, FileTime, FolderAttributes,
        LinkError, LinkTarget, MAX_NAME_LEN, MAX_TARGET_LEN, ShownPath,
    },
    entry_path::{EntryPath, EntryPathError},
    error::ManifestError,
    manifest::{MAX_DEPTH, MAX_ENTRIES, MAX_TOTAL_SIZE, Manifest},
};

impl Manifest {
    /// Makes the manifest of a folder and of these entries, each behind the folder that it is in.
    ///
    /// # Errors
    /// The first rule that they break.
    pub fn from_entries<'a>(
        root: FolderAttributes,
        entries: impl IntoIterator<Item = CollectionEntry<'a>>,
    ) -> Result<Self, ManifestError> {
        let mut builder = ManifestBuilder::new(root);
        entries.into_iter().try_for_each(|entry| builder.push(&entry))?;
        builder.finish()
    }

    /// Reads a manifest that anybody may have made.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_LEN {
            return Err(ManifestError::TooLong { got: bytes.len(), limit: MAX_MANIFEST_LEN });
        }
        let mut reader = EntryReader::new(bytes)?;
        let (root, count) = reader.header()?;
        let mut builder = ManifestBuilder::for_entries(root, count.min(reader.left() / MIN_ENTRY_LEN));
        for _ in 0..count {
            builder.push(&reader.entry()?)?;
        }
        match reader.left() {
            0 => builder.finish(),
            extra => Err(ManifestError::TrailingBytes { extra }),
        }
    }

    /// The bytes of the manifest, whose hash names the collection.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        // At most MAX_ENTRIES.
        encode_header(&self.root(), self.len() as u32, &mut bytes);
        self.entries().for_each(|entry| encode_entry(&entry, &mut bytes));
        bytes
    }

    /// The length of its encoding, in bytes.
    pub fn encoded_len(&self) -> usize {
        HEADER_LEN + self.entries().map(|entry| encoded_entry_len(&entry)).sum::<usize>()
    }

    /// What is in one of its folders, as a collection of its own, and how many links were left out since they lead out of it; none of an entry that
    /// is no folder.
    pub fn below(&self, index: u32) -> Option<(Self, u64)> {
        let folder = self.entry(index)?;
        let EntryKind::Folder(attributes) = folder.kind else { return None };
        let depth = folder.depth + 1;
        let (mut builder, mut links) = (ManifestBuilder::new(attributes), 0);
        for entry in self.entries().skip(index as usize + 1).take_while(|entry| entry.depth >= depth) {
            let inside = CollectionEntry { depth: entry.depth - depth, ..entry };
            let leads_out = matches!(inside.kind, EntryKind::Link(target) if LinkTarget::new(target.as_bytes(), inside.depth).is_err());
            match leads_out {
                true => links += 1,
                // What kept all rules in the whole keeps them in a part.
                false => builder.push(&inside).ok()?,
            }
        }
        Some((builder.finish().ok()?, links))
    }

    /// What is carried of the shared folder itself.
    pub fn root(&self) -> FolderAttributes {
        self.root
    }
}

#[cfg(test)]
mod tests;
