//! Which files become of each blob of a plan.

use std::collections::HashMap;

use keyferry_proto::{
    collection::{FileEntry, Manifest},
    hash::ContentHash,
    transfer::layout::Layout,
};

/// Which files become of each item: numbers of entries of the manifest, in one list, since there may be a million.
#[derive(Debug)]
pub(super) struct FilePlaces {
    files: Vec<u32>,
    /// Where those of each item end.
    ends: Vec<u32>,
    /// Those without content.
    pub(super) empty: Vec<u32>,
}

impl FilePlaces {
    pub(super) fn of_blob(is_empty: bool) -> Self {
        Self { files: vec![0], ends: vec![1], empty: if is_empty { vec![0] } else { Vec::new() } }
    }

    /// Those of one file of a collection.
    pub(super) fn of_file(layout: &Layout, file: &FileEntry) -> Self {
        let index = layout.items().iter().skip(1).position(|item| item.hash == file.hash).map(|at| at + 1);
        match index {
            Some(index) => {
                let ends = (0..layout.items().len()).map(|item| u32::from(item >= index)).collect();
                Self { files: vec![0], ends, empty: Vec::new() }
            }
            None => Self { files: Vec::new(), ends: vec![0; layout.items().len()], empty: vec![0] },
        }
    }

    pub(super) fn of_collection(layout: &Layout, manifest: &Manifest) -> Self {
        let items: HashMap<&ContentHash, u32> =
            layout.items().iter().zip(0..).skip(1).map(|(item, index)| (&item.hash, index)).collect();
        let mut empty = Vec::new();
        let mut by_item: Vec<(u32, u32)> = Vec::with_capacity(manifest.file_count());
        for (index, file) in manifest.files() {
            match items.get(&file.hash) {
                Some(item) if file.size > 0 => by_item.push((*item, index)),
                _ => empty.push(index),
            }
        }
        drop(items);
        by_item.sort_unstable();
        let ends = (0..layout.items().len() as u32)
            .map(|index| by_item.partition_point(|(item, _)| *item <= index) as u32)
            .collect();
        Self { files: by_item.into_iter().map(|(_, file)| file).collect(), ends, empty }
    }

    /// The files that have the content of an item; none for a manifest.
    pub(super) fn of_item(&self, index: usize) -> &[u32] {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.files[begin..self.ends[index] as usize]
    }
}
