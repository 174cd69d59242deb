//! How the files of a crate may use each other (`docs/architecture.md`): on the floors of the node downwards only, and nowhere in a
//! circle.
//!
//! What it is not: a check between packages; there Cargo refuses circles.

mod arrows;
mod code;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::arrows::{Arrow, arrows, circles, shown};

/// The floors of the node, the lowest first.
const FLOORS: [&str; 6] = ["base", "net", "content", "reach", "connect", "node"];

/// The files that crates begin with.
const ROOTS: [&str; 11] = [
    "proto/net/src/lib.rs",
    "proto/ice/src/lib.rs",
    "proto/turn/src/lib.rs",
    "proto/wire/src/lib.rs",
    "node/src/lib.rs",
    "node/cli/src/lib.rs",
    "simulations/src/main.rs",
    "tests/src/lib.rs",
    "tests/needs/src/lib.rs",
    "tests/tests/e2e/main.rs",
    "tests/tests/hostile/main.rs",
];

/// The circles that there still are, each by its files in order. This list only gets shorter: whoever opens a circle takes it off.
const KNOWN: &[&[&str]] = &[];

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
    let mut known: BTreeSet<Vec<String>> =
        KNOWN.iter().map(|files| files.iter().map(|&file| file.to_owned()).collect()).collect();
    let mut failures = String::new();
    for root in ROOTS {
        let arrows = arrows(&repository.join(root)).unwrap();
        for circle in circles(&arrows) {
            let files: Vec<_> = circle.iter().map(|file| shown(file, &repository)).collect();
            if !known.remove(&files) {
                failures += &format!("a circle that is not in the list of known ones: {files:?}\n");
                failures += &lines_of(&circle, &arrows, &repository);
            }
        }
    }
    for gone in known {
        failures += &format!("no such circle any more, take it off the list: {gone:?}\n");
    }
    assert!(failures.is_empty(), "\n{failures}");
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

/// `FROM:LINE TO` of each arrow of a crate with these files.
fn arrows_between(files: &[(&str, &str)]) -> io::Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    for (name, text) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap_or(folder.path()))?;
        fs::write(file, text)?;
    }
    let found = arrows(&folder.path().join("lib.rs"))?;
    let name = |file: &Path| shown(file, folder.path());
    Ok(found.iter().map(|arrow| format!("{}:{} {}", name(&arrow.from), arrow.line, name(&arrow.to))).collect())
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
