//! Reads a file and what it includes into one table.
//!
//! What is included comes first: lists of tables (`[[node]]`, …) come before those of the file that includes it, and whatever else that
//! file says again replaces it.

use std::path::{Component, Path, PathBuf};

use super::{
    form::{Fields, texts_of},
    keys,
    problem::{Problems, quoted},
    source::{At, Source, Sources},
    tree::{Key, Kind, Table, Value, parse},
};

/// How deep files include each other, at most.
pub(crate) const MAX_DEPTH: usize = 8;
/// How many files one is made of, at most.
pub(crate) const MAX_FILES: usize = 32;

/// Where files are read from: the disk, or the scenarios that this program has in it.
pub(crate) trait Shelf {
    /// The text of a file, or why there is none.
    fn text(&self, path: &Path) -> Result<String, String>;
}

/// Reads a file whose text is known already.
pub(crate) fn read(first: Source, shelf: &dyn Shelf, sources: &mut Sources, problems: &Problems) -> Table {
    let mut stack = Vec::new();
    Reading { shelf, sources, problems }.file(first, &mut stack)
}

struct Reading<'a> {
    shelf: &'a dyn Shelf,
    sources: &'a mut Sources,
    problems: &'a Problems,
}

impl Reading<'_> {
    fn file(&mut self, source: Source, including: &mut Vec<PathBuf>) -> Table {
        including.push(source.path.clone());
        let number = self.sources.add(source.clone());
        let own = parse(&source.text, number, self.problems);
        // Unknown keys are told where they stand; what is merged has no place of its own.
        let _ = Fields::of(&own, &keys::TOP, self.problems);
        let included: Vec<(String, At)> = own.get("include").map_or_else(Vec::new, |value| {
            texts_of(value, self.problems).into_iter().map(|(name, at)| (name.to_owned(), at)).collect()
        });
        let mut all = Table { at: own.at, entries: Vec::new() };
        for (name, at) in included {
            if let Some(table) = self.included(&source.path, &name, at, including) {
                merge(&mut all, table);
            }
        }
        merge(&mut all, own);
        including.pop();
        all
    }

    fn included(&mut self, by: &Path, name: &str, at: At, including: &mut Vec<PathBuf>) -> Option<Table> {
        let path = plain(&by.parent().unwrap_or(Path::new("")).join(name));
        if including.iter().any(|other| plain(other) == path) {
            let what = format!("{} includes itself", quoted(&path.display().to_string()));
            self.problems.add_hole(at, what, "take one of the `include`s out");
            return None;
        }
        if including.len() > MAX_DEPTH || self.sources.len() >= MAX_FILES {
            let advice = format!("at most {MAX_DEPTH} deep, and {MAX_FILES} files in all");
            self.problems.add_hole(at, "too many files include each other", advice);
            return None;
        }
        match self.shelf.text(&path) {
            Ok(text) => Some(self.file(Source { path, text }, including)),
            Err(why) => {
                let what = format!("cannot read {}: {why}", quoted(&path.display().to_string()));
                self.problems.add_hole(at, what, "paths are relative to the file that includes them");
                None
            }
        }
    }
}

/// A path without `.` and, where that is possible, `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// Lays a table over another.
fn merge(below: &mut Table, above: Table) {
    for (key, value) in above.entries {
        match below.entries.iter_mut().find(|(other, _)| other.name == key.name) {
            None => below.entries.push((key, value)),
            Some((_, old)) => lay_over(old, &key, value),
        }
    }
}

fn lay_over(old: &mut Value, key: &Key, new: Value) {
    // The lists of scalars in `[matrix]` are values; only those of tables are added to.
    let adds = |list: &[Value]| list.iter().any(|value| matches!(value.kind, Kind::Table(_)));
    match (&mut old.kind, new.kind) {
        (Kind::Table(below), Kind::Table(above)) => merge_tables(below, above, key),
        (Kind::List(below), Kind::List(above)) if adds(below) && adds(&above) => below.extend(above),
        (_, kind) => *old = Value { at: new.at, kind },
    }
}

/// `[rendezvous]`, `[matrix]` and `[template]` are laid over key by key; a single template is replaced as a whole.
fn merge_tables(below: &mut Table, above: Table, key: &Key) {
    if key.name != "template" {
        return merge(below, above);
    }
    for (name, value) in above.entries {
        below.entries.retain(|(other, _)| other.name != name.name);
        below.entries.push((name, value));
    }
}
