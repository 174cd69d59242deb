//! The floors of the node (`docs/architecture.md`): its files import from their own floor and from those below, never from above.
//!
//! What it is not: a check between packages; there Cargo refuses circles.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The floors, the lowest first.
const FLOORS: [&str; 6] = ["base", "net", "content", "reach", "connect", "node"];

#[test]
fn imports_go_down_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/src");
    let mut upward = Vec::new();
    for (at, floor) in FLOORS.iter().enumerate() {
        for file in sources(&source.join(floor)).unwrap() {
            let text = fs::read_to_string(&file).unwrap();
            for above in FLOORS[at + 1..].iter().filter(|above| imports(code_of(&text), above)) {
                upward.push(format!("{} imports from {above}", file.strip_prefix(&source).unwrap().display()));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn an_import_is_seen_in_each_of_its_forms() {
    for text in
        ["use crate::node::Node;", "use crate::{\n    base::clock,\n    node::{api, Node},\n};", "crate::node::now()"]
    {
        assert!(imports(text, "node"), "{text}");
    }
    for text in
        ["use crate::{net::node, base::{node}};", "//! [`crate::node`] is above", "use super::node;", "crate::nodes::x"]
    {
        assert!(!imports(text, "node"), "{text}");
    }
    assert_eq!(code_of("fn a() {}\n#[cfg(test)]\nmod tests { use crate::node::Node; }"), "fn a() {}\n");
}

/// The files below a folder that are not tests alone.
fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match path.is_dir() {
            _ if name == "tests" || name.starts_with("test_") || name == "nat_lab" => {}
            true => found.extend(sources(&path)?),
            false if path.extension().is_some_and(|ending| ending == "rs") => found.push(path),
            false => {}
        }
    }
    Ok(found)
}

/// What stands before the tests of a file.
fn code_of(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {").map_or(text, |at| &text[..at])
}

/// Whether code names the floor: `crate::FLOOR::…`, or as a first part within `crate::{…}`.
fn imports(code: &str, floor: &str) -> bool {
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    code.match_indices("crate::").any(|(at, found)| {
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(group) => first_parts(group).any(|part| part == floor),
            None => first_part(rest) == floor,
        }
    })
}

/// The first parts of the paths of a group, whose opening brace has been read.
fn first_parts(group: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut starts, mut end) = (0, vec![0], group.len());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                end = at;
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => starts.push(at + 1),
            _ => {}
        }
    }
    starts.into_iter().filter(move |start| *start <= end).map(move |start| first_part(group[start..end].trim_start()))
}

fn first_part(path: &str) -> &str {
    path.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default()
}
