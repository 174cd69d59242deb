use proptest::prelude::*;

use super::{
    encoding::{EXECUTABLE, KIND_FOLDER, KIND_LINK, PRIVATE},
    *,
};
use crate::{hash::ContentHash, transfer::groups::MAX_BLOB_SIZE};

const PLAIN: FileAttributes = FileAttributes { modified: FileTime(0), executable: false, private: false };

const ROOT: FolderAttributes = FolderAttributes { modified: FileTime(5), private: true };

fn hash(content: &str) -> ContentHash {
    ContentHash::of(content.as_bytes())
}

fn name(text: &str) -> EntryName<'_> {
    EntryName::new(text.as_bytes()).unwrap()
}

fn file_of(depth: u8, text: &str, size: u64, hash: ContentHash) -> CollectionEntry<'_> {
    CollectionEntry { depth, name: name(text), kind: EntryKind::File(FileEntry { size, hash, attributes: PLAIN }) }
}

fn file(depth: u8, text: &str) -> CollectionEntry<'_> {
    file_of(depth, text, text.len() as u64, hash(text))
}

fn folder(depth: u8, text: &str) -> CollectionEntry<'_> {
    let kind = EntryKind::Folder(FolderAttributes { modified: FileTime(-7), private: true });
    CollectionEntry { depth, name: name(text), kind }
}

fn link<'a>(depth: u8, text: &'a str, target: &'a str) -> CollectionEntry<'a> {
    CollectionEntry {
        depth,
        name: name(text),
        kind: EntryKind::Link(LinkTarget::new(target.as_bytes(), depth).unwrap()),
    }
}

/// What is in front of the number of entries.
const HEADER: [u8; 25] = *b"keyferry-coll-2\n\x20\x05\0\0\0\0\0\0\0";

/// An encoding that keeps no rules between entries.
fn hostile(entries: &[CollectionEntry<'_>]) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    bytes.extend((entries.len() as u32).to_le_bytes());
    entries.iter().for_each(|entry| encode_entry(entry, &mut bytes));
    bytes
}

/// A tree with everything in it.
fn sample() -> Vec<CollectionEntry<'static>> {
    let attributes = FileAttributes { modified: FileTime(i64::MIN), executable: true, private: true };
    let run = EntryKind::File(FileEntry { size: 3, hash: hash("run"), attributes });
    vec![
        folder(0, "a"),
        file(1, "c"),
        folder(1, "empty"),
        file(0, "a.txt"),
        folder(0, "b"),
        CollectionEntry { depth: 1, name: EntryName::new(b"caf\xe9:\r").unwrap(), kind: run },
        link(1, "up", "../a/empty"),
        file(0, "b2"),
    ]
}

#[test]
fn a_tree_round_trips_with_all_that_is_carried() {
    let manifest = Manifest::from_entries(ROOT, sample()).unwrap();
    assert_eq!((manifest.len(), manifest.file_count(), manifest.total_size()), (8, 4, 1 + 5 + 3 + 2));
    let bytes = manifest.encode();
    assert_eq!(bytes.len(), manifest.encoded_len());
    let again = Manifest::decode(&bytes).unwrap();
    assert_eq!(again.entries().collect::<Vec<_>>(), sample());
    assert_eq!((again.root(), &again), (ROOT, &manifest));
}

#[test]
fn entries_are_found_by_their_paths_and_know_them() {
    let manifest = Manifest::from_entries(ROOT, sample()).unwrap();
    let paths: [&[u8]; 8] = [b"a", b"a/c", b"a/empty", b"a.txt", b"b", b"b/caf\xe9:\r", b"b/up", b"b2"];
    for (path, index) in paths.iter().zip(0..) {
        assert_eq!(manifest.path(index), *path);
        assert_eq!(manifest.find(path), Some(index));
    }
    for path in [&b""[..], b"a/", b"a/d", b"c", b"/a", b"a/c/x"] {
        assert_eq!(manifest.find(path), None, "{}", ShownPath(path));
    }
    assert_eq!((manifest.parent(0), manifest.parent(2), manifest.parent(99)), (None, Some(0), None));
}

#[test]
fn an_empty_folder_is_a_collection() {
    let manifest = Manifest::from_entries(ROOT, []).unwrap();
    assert!(manifest.is_empty());
    assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
}

#[test]
fn entries_out_of_their_places_are_refused() {
    let refused = |entries: &[CollectionEntry<'_>]| Manifest::decode(&hostile(entries)).unwrap_err();
    assert_eq!(refused(&[file(0, "b"), file(0, "a")]), ManifestError::Unsorted { path: "a".into() });
    assert_eq!(refused(&[file(0, "a"), file(0, "a")]), ManifestError::Duplicate { path: "a".into() });
    // A link, or a file, and a folder of one name.
    assert_eq!(refused(&[link(0, "a", "b"), folder(0, "a")]), ManifestError::Duplicate { path: "a".into() });
    assert_eq!(refused(&[file(0, "a"), folder(0, "a")]), ManifestError::Duplicate { path: "a".into() });
    // Below a file, or a link, there is nothing; nor below a folder that is over.
    for first in [file(0, "a"), link(0, "a", "b")] {
        assert_eq!(refused(&[first, file(1, "x")]), ManifestError::NoFolder { path: "x".into() });
    }
    assert_eq!(refused(&[file(1, "x")]), ManifestError::NoFolder { path: "x".into() });
    assert_eq!(refused(&[folder(0, "a"), file(2, "x")]), ManifestError::NoFolder { path: "x".into() });
    assert_eq!(
        refused(&[folder(0, "a"), file(1, "y"), file(0, "b"), file(1, "z")]),
        ManifestError::NoFolder { path: "z".into() }
    );
    let names: Vec<_> = (0..65).map(|at| format!("{at:02}")).collect();
    let deep: Vec<_> = names.iter().zip(0..).map(|(name, depth)| folder(depth, name)).collect();
    assert_eq!(refused(&deep), ManifestError::TooDeep { path: "64".into() });
    assert!(Manifest::decode(&hostile(&deep[..64])).is_ok());
}

#[test]
fn names_in_different_folders_do_not_meet() {
    let entries = [folder(0, "a"), file(1, "x"), folder(0, "b"), file(1, "a"), file(1, "x")];
    assert!(Manifest::from_entries(ROOT, entries).is_ok());
}

#[test]
fn names_and_links_that_lead_elsewhere_are_refused() {
    let raw = |kind: u8, depth: u8, name: &[u8], rest: &[u8]| {
        [&HEADER[..], &1_u32.to_le_bytes(), &[kind, depth, name.len() as u8], name, rest].concat()
    };
    for name in [&b""[..], b".", b"..", b"a/b", b"../x", b"/etc", b"a\0b"] {
        let refused = Manifest::decode(&raw(KIND_FOLDER, 0, name, &[0; 8]));
        assert!(matches!(refused, Err(ManifestError::Name { at: 29, .. })), "{refused:?}");
    }
    for target in [&b""[..], b"/etc/passwd", b"..", b"x/../..", b"a\0"] {
        let rest = [&(target.len() as u16).to_le_bytes()[..], target].concat();
        let refused = Manifest::decode(&raw(KIND_LINK, 0, b"l", &rest));
        assert!(matches!(refused, Err(ManifestError::Link { .. })), "{refused:?}");
    }
}

#[test]
fn kinds_and_flags_that_mean_nothing_are_refused() {
    let root = [&MAGIC[..], &[16], &[0; 12]].concat();
    assert_eq!(Manifest::decode(&root), Err(ManifestError::Kind { at: 16, got: 16 }));
    for kind in [3, 15, 64, 128, KIND_FOLDER | EXECUTABLE, KIND_LINK | PRIVATE, KIND_LINK | EXECUTABLE] {
        let bytes = [&HEADER[..], &1_u32.to_le_bytes(), &[kind, 0, 1, b'a'], &[1; 64]].concat();
        let refused = Manifest::decode(&bytes).unwrap_err();
        assert!(matches!(refused, ManifestError::Kind { at: 29, .. }), "{kind}: {refused:?}");
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let one = hash("x");
    let refused = |entries: &[CollectionEntry<'_>]| Manifest::decode(&hostile(entries)).unwrap_err();
    assert!(matches!(refused(&[file_of(0, "a", 0, one)]), ManifestError::Emptiness { size: 0, .. }));
    assert!(matches!(refused(&[file_of(0, "a", 1, ContentHash::EMPTY)]), ManifestError::Emptiness { size: 1, .. }));
    let two = refused(&[file_of(0, "a", 1, one), file_of(0, "b", 2, one)]);
    assert!(matches!(two, ManifestError::TwoSizes { .. }), "{two:?}");
    for size in [MAX_BLOB_SIZE + 1, u64::MAX] {
        assert!(matches!(refused(&[file_of(0, "a", size, one)]), ManifestError::FileTooLarge { .. }));
    }
    let names: Vec<_> = (0..65).map(|at| format!("{at:02}")).collect();
    let many: Vec<_> = names.iter().map(|name| file_of(0, name, MAX_BLOB_SIZE, one)).collect();
    assert_eq!(refused(&many), ManifestError::TotalTooLarge);
    assert!(Manifest::decode(&hostile(&many[..64])).is_ok());
}

#[test]
fn bytes_that_are_no_manifest_are_refused() {
    let bytes = Manifest::from_entries(ROOT, sample()).unwrap().encode();
    assert_eq!(Manifest::decode(b""), Err(ManifestError::Magic));
    assert_eq!(Manifest::decode(b"keyferry-coll-3\n\0\0\0\0"), Err(ManifestError::Magic));
    assert_eq!(Manifest::decode(b"keyferry-coll-1\n\0\0\0\0\0\0\0\0"), Err(ManifestError::Former));
    for end in MAGIC.len()..bytes.len() {
        assert!(matches!(Manifest::decode(&bytes[..end]), Err(ManifestError::Truncated { got }) if got == end));
    }
    let longer = [&bytes[..], b"x"].concat();
    assert_eq!(Manifest::decode(&longer), Err(ManifestError::TrailingBytes { extra: 1 }));
    // 2^32 - 1 entries are claimed, and none is there: nothing is allocated for them.
    let claimed = [&HEADER[..], &[0xff; 4]].concat();
    assert_eq!(Manifest::decode(&claimed), Err(ManifestError::Truncated { got: 29 }));
    let long = vec![0; MAX_MANIFEST_LEN + 1];
    assert_eq!(Manifest::decode(&long), Err(ManifestError::TooLong { got: long.len(), limit: MAX_MANIFEST_LEN }));
}

#[test]
fn more_entries_than_allowed_are_refused() {
    let names: Vec<_> = (0..=MAX_ENTRIES).map(|at| format!("{at:07}")).collect();
    let entries = names.iter().map(|name| file_of(0, name, 0, ContentHash::EMPTY));
    assert_eq!(Manifest::from_entries(ROOT, entries.clone()), Err(ManifestError::TooManyEntries));
    let whole = Manifest::from_entries(ROOT, entries.take(MAX_ENTRIES)).unwrap();
    assert!(whole.encoded_len() <= MAX_MANIFEST_LEN);
}

proptest! {
    #[test]
    fn any_bytes_never_panic_and_decode_as_they_encode(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = [&MAGIC[..], &bytes].concat();
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(manifest.encode(), bytes);
        }
    }

    #[test]
    fn damaged_manifests_never_panic_and_decode_as_they_encode(at in 16_usize..200, value: u8) {
        let mut bytes = Manifest::from_entries(ROOT, sample()).unwrap().encode();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(manifest.encode(), bytes);
        }
    }
}

#[test]
fn a_folder_of_a_collection_is_one_of_its_own_without_the_links_that_lead_out_of_it() {
    let name = |name: &'static str| EntryName::new(name.as_bytes()).unwrap();
    let attributes = FileAttributes { modified: FileTime(1), executable: false, private: false };
    let file = EntryKind::File(FileEntry { size: 1, hash: ContentHash::of(b"x"), attributes });
    let folder = |modified| EntryKind::Folder(FolderAttributes { modified: FileTime(modified), private: false });
    let link = |target: &'static str, depth| EntryKind::Link(LinkTarget::new(target.as_bytes(), depth).unwrap());
    let entry = |depth, entry: &'static str, kind| CollectionEntry { depth, name: name(entry), kind };
    let root = FolderAttributes { modified: FileTime(0), private: false };
    let whole = [
        entry(0, "a", folder(2)),
        entry(1, "b", folder(3)),
        entry(2, "file", file),
        entry(2, "in", link("file", 2)),
        entry(2, "out", link("../../z", 2)),
        entry(2, "up", link("../z", 2)),
        entry(1, "z", file),
        entry(0, "z", file),
    ];
    let whole = Manifest::from_entries(root, whole).unwrap();

    let (part, links) = whole.below(0).unwrap();

    let inside = [
        entry(0, "b", folder(3)),
        entry(1, "file", file),
        entry(1, "in", link("file", 1)),
        entry(1, "up", link("../z", 1)),
        entry(0, "z", file),
    ];
    let expected = Manifest::from_entries(FolderAttributes { modified: FileTime(2), private: false }, inside).unwrap();
    assert_eq!((part, links), (expected, 1));
    let (deeper, links) = whole.below(1).unwrap();
    assert_eq!((deeper.len(), deeper.total_size(), links), (2, 1, 2));
    assert_eq!((whole.below(2), whole.below(8)), (None, None));
}
