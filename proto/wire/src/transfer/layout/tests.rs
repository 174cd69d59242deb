use proptest::prelude::*;

use super::*;
use crate::collection::{CollectionEntry, EntryKind, EntryName, FileAttributes, FileEntry, FileTime, FolderAttributes};

const ROOT: FolderAttributes = FolderAttributes { modified: FileTime(0), private: false };
const GROUP: u64 = GROUP_LEN as u64;

fn file(name: &str, size: u64) -> CollectionEntry<'_> {
    let hash = if size == 0 { ContentHash::EMPTY } else { ContentHash::of(&size.to_le_bytes()) };
    let attributes = FileAttributes { modified: FileTime(0), executable: false, private: false };
    let kind = EntryKind::File(FileEntry { size, hash, attributes });
    CollectionEntry { depth: 0, name: EntryName::new(name.as_bytes()).unwrap(), kind }
}

fn root() -> ContentHash {
    ContentHash::of(b"a manifest")
}

#[test]
fn items_follow_the_manifest_each_hash_once_and_no_empty_ones() {
    let manifest =
        Manifest::from_entries(ROOT, [file("a", GROUP + 1), file("b", 0), file("c", GROUP + 1), file("d", 3)]).unwrap();
    let layout = Layout::collection(root(), 100, &manifest).unwrap();
    let seen: Vec<_> = layout.items().iter().map(|item| (item.size, item.unit_range())).collect();
    assert_eq!(seen, [(100, 0..1), (GROUP + 1, 1..3), (3, 3..4)]);
    assert_eq!(layout.total_units(), 4);
    assert_eq!(layout.total_bytes(), 100 + GROUP + 1 + 3);
    assert_eq!(layout.byte_len(0..2), 100 + GROUP);
    assert_eq!(layout.byte_len(2..3), 1);
    assert_eq!(layout.byte_len(2..u64::MAX), 4);
    assert_eq!(layout.item_at(2).map(|(index, item)| (index, item.size)), Some((1, GROUP + 1)));
    assert_eq!(layout.item_at(4), None);
}

#[test]
fn requests_are_cut_into_the_groups_of_items() {
    let manifest = Manifest::from_entries(ROOT, [file("a", 3 * GROUP), file("b", 5), file("c", 2 * GROUP)]).unwrap();
    let layout = Layout::collection(root(), 1, &manifest).unwrap();
    let select =
        |ranges: UnitRanges| layout.select(&ranges).map(|(index, _, groups)| (index, groups)).collect::<Vec<_>>();
    let every = [(0, (0..1).into()), (1, (0..3).into()), (2, (0..1).into()), (3, (0..2).into())];
    assert_eq!(select(UnitRanges::all()), every);
    assert_eq!(select([2..3, 6..90].into_iter().collect()), [(1, (1..2).into()), (3, (1..2).into())]);
    assert_eq!(select((7..9).into()), []);
    assert_eq!(select(UnitRanges::empty()), []);
}

#[test]
fn impossible_claims_are_refused() {
    let size = MAX_BLOB_SIZE + 1;
    assert_eq!(Layout::blob(root(), size), Err(LayoutError::TooLarge { root: root(), size }));
    assert_eq!(Layout::blob(root(), 0), Err(LayoutError::Emptiness { root: root(), size: 0 }));
    assert!(Layout::blob(ContentHash::EMPTY, 1).is_err());
    let empty = Layout::blob(ContentHash::EMPTY, 0).unwrap();
    assert_eq!((empty.items().len(), empty.total_units(), empty.byte_len(0..u64::MAX)), (1, 0, 0));
}

proptest! {
    #[test]
    fn units_and_bytes_add_up(sizes in prop::collection::vec(0..4 * GROUP, 0..12), cut in any::<prop::sample::Index>()) {
        let names: Vec<_> = (0..sizes.len()).map(|at| format!("f{at:02}")).collect();
        let files = names.iter().zip(&sizes).map(|(name, size)| file(name, *size));
        let layout = Layout::collection(root(), 10, &Manifest::from_entries(ROOT, files).unwrap()).unwrap();
        let total = layout.total_units();
        prop_assert_eq!(layout.items().iter().map(|item| item.units).sum::<u64>(), total);
        let cut = cut.index(total as usize + 1) as u64;
        prop_assert_eq!(layout.byte_len(0..cut) + layout.byte_len(cut..total), layout.total_bytes());
        for unit in 0..total {
            let (index, item) = layout.item_at(unit).unwrap();
            prop_assert!(item.unit_range().contains(&unit) && layout.items()[index] == *item);
        }
    }
}
