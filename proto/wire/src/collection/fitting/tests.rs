use proptest::prelude::*;

use super::*;
use crate::collection::{CollectionEntry, FileAttributes, FileEntry, FileTime, FolderAttributes, LinkTarget};

fn fat() -> NameRules {
    NameRules {
        refused: (1..32).chain(*b":*?\"<>|\\").collect(),
        is_utf8: true,
        trims: true,
        has_devices: true,
        folds: true,
        max_len: 255,
    }
}

fn fit(name: &[u8]) -> String {
    String::from_utf8(fat().fit(EntryName::new(name).unwrap())).unwrap()
}

#[test]
fn names_of_devices_are_escaped_and_those_like_them_are_not() {
    for (name, expected) in [
        ("CON", "%43ON"),
        ("nul.txt", "%6Eul.txt"),
        ("aux .c.h", "%61ux .c.h"),
        ("com1", "%63om1"),
        ("LPT\u{b2}.log", "%4CPT\u{b2}.log"),
        ("conin$", "%63onin$"),
    ] {
        assert_eq!(fit(name.as_bytes()), expected);
        assert_eq!(unescape(expected.as_bytes()), name.as_bytes());
        let elsewhere = NameRules { has_devices: false, ..fat() };
        assert_eq!(elsewhere.fit(EntryName::new(name.as_bytes()).unwrap()), name.as_bytes());
    }
    for name in ["icon", "console", "com", "com10", "comx", "nul-1", "auxiliary.txt", "lpt"] {
        assert_eq!(fit(name.as_bytes()), name);
    }
}

fn entry<'a>(depth: u8, name: &'a [u8], kind: EntryKind<'a>) -> CollectionEntry<'a> {
    CollectionEntry { depth, name: EntryName::new(name).unwrap(), kind }
}

const ATTRIBUTES: FileAttributes = FileAttributes { modified: FileTime(0), executable: false, private: false };
const ROOT: FolderAttributes = FolderAttributes { modified: FileTime(0), private: false };
const FILE: EntryKind<'static> =
    EntryKind::File(FileEntry { size: 0, hash: crate::hash::ContentHash::EMPTY, attributes: ATTRIBUTES });
const FOLDER: EntryKind<'static> = EntryKind::Folder(ROOT);

fn link(target: &str, depth: u8) -> EntryKind<'_> {
    EntryKind::Link(LinkTarget::new(target.as_bytes(), depth).unwrap())
}

#[test]
fn what_a_file_system_does_not_take_is_escaped_where_it_stands() {
    assert_eq!(fit(b"12:30 a.log"), "12%3A30 a.log");
    assert_eq!(fit(b"what?"), "what%3F");
    assert_eq!(fit(b"Icon\r"), "Icon%0D");
    assert_eq!(fit(b"caf\xe9"), "caf%E9");
    assert_eq!(fit(b"end. ."), "end%2E%20%2E");
    assert_eq!(fit(b"..."), "%2E%2E%2E");
    assert_eq!(fit("50% größer.txt".as_bytes()), "50% größer.txt");
}

#[test]
fn a_name_that_imitates_an_escape_is_escaped_as_well() {
    assert_eq!(fit(b"a%3Ab"), "a%253Ab");
    assert_eq!(fit(b"a%3ab"), "a%3ab");
    assert_ne!(fit(b"a:b"), fit(b"a%3Ab"));
}

#[test]
fn where_everything_is_taken_nothing_is_changed() {
    let names: [&[u8]; 4] = [b"A%3A", b"a%3A", b"caf\xe9:\r", b"x."];
    let manifest = Manifest::from_entries(ROOT, names.iter().map(|name| entry(0, name, FILE))).unwrap();
    assert_eq!(FittedNames::of(&manifest, &NameRules::default()), FittedNames::default());
}

#[test]
fn names_that_are_one_there_are_told_apart_by_escapes() {
    let names: [&[u8]; 6] = [b"README", b"Readme", b"readme", "u\u{308}".as_bytes(), b"x", "\u{fc}".as_bytes()];
    let manifest = Manifest::from_entries(ROOT, names.iter().map(|name| entry(0, name, FILE))).unwrap();
    let fitted = FittedNames::of(&manifest, &fat());
    let paths: Vec<_> = (0..6).map(|index| String::from_utf8(fitted.path(&manifest, index)).unwrap()).collect();
    assert_eq!(paths, ["README", "%52eadme", "%72eadme", "u\u{308}", "x", "%C3%BC"]);
    assert_eq!(fitted.changed(), [1, 2, 5]);
}

#[test]
fn a_name_that_another_one_would_be_escaped_to_does_not_get_in_its_way() {
    let names: [&[u8]; 3] = [b"%52EADME", b"README", b"Readme"];
    let manifest = Manifest::from_entries(ROOT, names.iter().map(|name| entry(0, name, FILE))).unwrap();
    let fitted = FittedNames::of(&manifest, &fat());
    let paths: HashSet<_> = (0..3).map(|index| fold(&fitted.path(&manifest, index))).collect();
    assert_eq!(paths.len(), 3);
}

#[test]
fn what_is_too_long_is_shortened_and_differs_by_its_hash() {
    let rules = NameRules { max_len: 143, ..NameRules::default() };
    let names = ["ä".repeat(100) + "a", "ä".repeat(100) + "b"];
    let [one, other] = names.each_ref().map(|name| rules.fit(EntryName::new(name.as_bytes()).unwrap()));
    assert!(one.len() <= 143 && one != other && String::from_utf8(one).is_ok());
    assert_eq!(rules.fit(EntryName::new(b"short:").unwrap()), b"short:");
}

#[test]
fn links_follow_the_names_that_things_have_here() {
    let entries = [
        entry(0, b"a:b", FOLDER),
        entry(1, b"X", FILE),
        entry(1, b"x", FILE),
        entry(0, b"l1", link("a:b/x", 0)),
        entry(0, b"l2", link("l1/a:b", 0)),
        entry(0, b"sub", FOLDER),
        entry(1, b"l3", link("../a:b", 1)),
        entry(1, b"l4", link(".", 1)),
        entry(1, b"l5", link("gone:", 1)),
    ];
    let manifest = Manifest::from_entries(ROOT, entries).unwrap();
    let rules = fat();
    let fitted = FittedNames::of(&manifest, &rules);
    let target = |index| fitted.target(&manifest, index, &rules).map(|target| String::from_utf8(target).unwrap());
    let wanted = [(3, "a%3Ab/%78"), (4, "l1/a%3Ab"), (6, "../a%3Ab"), (7, "."), (8, "gone%3A")];
    for (index, expected) in wanted {
        assert_eq!(target(index).as_deref(), Some(expected));
    }
    assert_eq!(target(1), None);
}

proptest! {
    #[test]
    fn an_escape_can_be_undone_and_holds_nothing_that_is_refused(name in prop::collection::vec(1_u8.., 1..60)) {
        let name: Vec<u8> = name.into_iter().map(|byte| if byte == b'/' { b':' } else { byte }).collect();
        let Ok(entry) = EntryName::new(&name) else { return Ok(()) };
        let rules = fat();
        let fitted = rules.fit(entry);
        prop_assert_eq!(unescape(&fitted), name);
        prop_assert!(!fitted.iter().any(|byte| rules.refused.contains(byte)));
        prop_assert!(EntryName::new(&fitted).is_ok() && std::str::from_utf8(&fitted).is_ok());
        prop_assert!(!matches!(fitted.last(), Some(b'.' | b' ')));
    }

    #[test]
    fn no_two_names_of_a_folder_become_one(names in prop::collection::btree_set("[aAäÄ%:25C. ]{1,4}", 1..20)) {
        let names: std::collections::BTreeSet<_> = names.into_iter().filter(|name| EntryName::new(name.as_bytes()).is_ok()).collect();
        let manifest = Manifest::from_entries(ROOT, names.iter().map(|name| entry(0, name.as_bytes(), FILE))).unwrap();
        let fitted = FittedNames::of(&manifest, &fat());
        let folded: HashSet<_> = (0..names.len() as u32).map(|index| fold(&fitted.path(&manifest, index))).collect();
        prop_assert_eq!(folded.len(), names.len());
    }
}
