//! How the files of a crate may use each other (`docs/architecture.md`): on the floors of the node downwards only, and nowhere in a
//! circle. And that a type's name stands for one thing in the whole house.
//!
//! What it is not: a check between packages; there Cargo refuses circles.

mod arrows;
mod code;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    arrows::{Arrow, arrows, circles, shown},
    code::Modules,
};

/// The floors of the node, the lowest first.
const FLOORS: [&str; 6] = ["base", "net", "content", "reach", "connect", "node"];

/// The crates that others build on, by the files that they begin with: their types are spoken of together.
const NAMED: [&str; 6] = [
    "proto/net/src/lib.rs",
    "proto/ice/src/lib.rs",
    "proto/turn/src/lib.rs",
    "proto/wire/src/lib.rs",
    "node/src/lib.rs",
    "node/cli/src/lib.rs",
];

/// All others.
const OTHERS: [&str; 5] = [
    "simulations/src/main.rs",
    "tests/src/lib.rs",
    "tests/needs/src/lib.rs",
    "tests/tests/e2e/main.rs",
    "tests/tests/hostile/main.rs",
];

/// What each crate may have of its own, seen with the name of the crate in front.
const SHARED_NAMES: [&str; 3] = ["Config", "Error", "Event"];

#[test]
fn imports_go_down_only() {
    let repository = repository();
    let source = repository.join("node/src");
    let arrows = arrows(&source.join("lib.rs")).unwrap();
    assert!(arrows.len() > 300, "too few imports were found: {}", arrows.len());
    for floor in FLOORS {
        assert!(
            arrows.iter().any(|arrow| floor_of(&arrow.from, &source) == height(floor)),
            "nothing is on floor {floor}"
        );
    }
    let upward: Vec<_> = arrows
        .iter()
        .filter(|arrow| floor_of(&arrow.from, &source).is_some())
        .filter(|arrow| arrow.files().any(|used| floor_of(used, &source) > floor_of(&arrow.from, &source)))
        .map(|arrow| arrow.shown(&repository))
        .collect();
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn no_files_form_a_circle() {
    let repository = repository();
    let mut found = String::new();
    for root in NAMED.into_iter().chain(OTHERS) {
        let arrows = arrows(&repository.join(root)).unwrap();
        for circle in circles(&arrows) {
            found += &format!("{:?}\n", circle.iter().map(|file| shown(file, &repository)).collect::<Vec<_>>());
            found += &lines_of(&circle, &arrows, &repository);
        }
    }
    assert!(found.is_empty(), "circles of files:\n{found}");
}

#[test]
fn a_type_has_its_name_for_itself() {
    let repository = repository();
    let mut places = types(&NAMED.map(|root| repository.join(root)), &repository).unwrap();
    assert!(places.len() > 500, "too few types were found: {}", places.len());
    places.retain(|name, files| files.len() > 1 && !SHARED_NAMES.contains(&name.as_str()));
    assert!(places.is_empty(), "{places:#?}");
}

#[test]
fn a_type_is_found_wherever_it_is_defined() {
    let folder = crate_of(&[
        ("lib.rs", "mod a;\npub struct Twice;\npub const LIMIT: u8 = 1;\nimpl Iterator for Twice { type Item = u8; }"),
        ("a.rs", "pub(super) enum Twice {}\ntrait Once {}\nfn twice() {}\n#[cfg(test)]\nmod tests { struct Once; }"),
    ])
    .unwrap();
    let found = types(&[folder.path().join("lib.rs")], folder.path()).unwrap();
    let files = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(found, [("Once".to_owned(), files(&["a.rs"])), ("Twice".to_owned(), files(&["a.rs", "lib.rs"]))].into());
}

#[test]
fn a_path_leads_to_the_file_that_defines_its_name() {
    let found = arrows_between(&[
        ("lib.rs", "mod a;\nmod b;\npub use a::deep::Deep;\n#[cfg(test)]\nmod missing;"),
        (
            "a/mod.rs",
            "pub mod deep;\nmod other { pub fn here() { crate::b::run() } }\npub(crate) use self::deep::Again;",
        ),
        (
            "a/deep.rs",
            "use super::super::b::{self, Two as Second};\npub struct Deep;\npub struct Again;\nfn f() { b::run() }",
        ),
        (
            "b.rs",
            "use crate::{a::Again, Deep};\npub struct Two;\npub fn run() {}\n#[cfg(test)]\nmod tests { use super::*; use crate::a; }",
        ),
    ])
    .unwrap();
    assert_eq!(
        found,
        ["a/deep.rs:1 b.rs", "a/deep.rs:4 b.rs", "a/mod.rs:2 b.rs", "b.rs:1 a/deep.rs", "b.rs:1 a/deep.rs"]
    );
}

#[test]
fn a_parent_uses_what_it_says_and_not_what_it_only_hands_on() {
    let child = ("parent/child.rs", "use super::Limit;\npub struct Child(Limit);");
    let parent = |text| arrows_between(&[("lib.rs", "mod parent;"), ("parent.rs", text), child]).unwrap();
    let up = "parent/child.rs:1 parent.rs".to_owned();
    assert_eq!(parent("mod child;\npub use child::Child;\npub struct Limit;"), std::slice::from_ref(&up));
    let both = [up, "parent.rs:2 parent/child.rs".to_owned()];
    assert_eq!(parent("mod child;\npub use child::Child;\npub struct Limit;\nfn f(child: Child) {}"), both);
    assert_eq!(parent("mod child;\npub struct Limit(child::Child);"), both);
    assert_eq!(parent("mod child; pub struct Limit;\nfn f() { assert!(child::Child::new()) }"), both);
}

#[test]
fn who_may_see_something_is_no_use_of_it_and_neither_are_words() {
    let found = arrows_between(&[
        ("lib.rs", "mod a;\nmod b;\npub struct Root;"),
        ("a.rs", "//! [`crate::b::B`]\npub(in crate::b) struct A;\nconst TEXT: &str = \"crate::b::B\"; // crate::b::B"),
        ("b.rs", "pub struct B;\nfn f() -> impl Sized + use<> { for x in crate::Root {} }"),
    ])
    .unwrap();
    assert_eq!(found, ["b.rs:2 lib.rs"]);
}

/// The types that crates with these roots define, each with the files that do.
fn types(roots: &[PathBuf], below: &Path) -> io::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for root in roots {
        let modules = Modules::read(root)?;
        for (_, module) in modules.all() {
            for name in module.defined().filter(|name| is_type(name)) {
                places.entry(name.to_owned()).or_default().insert(shown(&module.file, below));
            }
        }
    }
    Ok(places)
}

/// `FROM:LINE TO` of each arrow of a crate with these files.
fn arrows_between(files: &[(&str, &str)]) -> io::Result<Vec<String>> {
    let folder = crate_of(files)?;
    let found = arrows(&folder.path().join("lib.rs"))?;
    let name = |file: &Path| shown(file, folder.path());
    Ok(found.iter().map(|arrow| format!("{}:{} {}", name(&arrow.from), arrow.line, name(&arrow.to))).collect())
}

fn crate_of(files: &[(&str, &str)]) -> io::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for (name, text) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap_or(folder.path()))?;
        fs::write(file, text)?;
    }
    Ok(folder)
}

/// Of a circle, the first line that leads from one of its files to another.
fn lines_of(circle: &[PathBuf], arrows: &BTreeSet<Arrow>, repository: &Path) -> String {
    let mut told = BTreeSet::new();
    arrows
        .iter()
        .filter(|arrow| circle.contains(&arrow.from) && circle.contains(&arrow.to))
        .filter(|arrow| told.insert((&arrow.from, &arrow.to)))
        .map(|arrow| format!("    {}\n", arrow.shown(repository)))
        .collect()
}

/// Constants are in capitals, functions in small letters.
fn is_type(name: &str) -> bool {
    name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase)
}

fn floor_of(file: &Path, source: &Path) -> Option<usize> {
    let below = file.strip_prefix(source).ok()?;
    height(&below.components().next()?.as_os_str().to_string_lossy())
}

fn height(floor: &str) -> Option<usize> {
    FLOORS.iter().position(|one| *one == floor)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("..")).to_owned()
}
