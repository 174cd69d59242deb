//! Contents: files and trees that are made from the seed.

use std::ops::RangeInclusive;

use super::{layers::name, names::Names};
use crate::scenario::{
    file::{form::Fields, keys, problem::Problems, tree::Table},
    model::{Content, ContentId, ContentKind},
};

/// How many contents there are at most.
pub(crate) const MAX_CONTENTS: usize = 32;
/// How large one is at most, all its files together.
const MAX_BYTES: u64 = 16 << 30;
const FILES: RangeInclusive<i64> = 1..=100_000;

pub(crate) fn read(tables: &[&Table], problems: &Problems) -> (Vec<Content>, Names<ContentId>) {
    let mut names = Names::of("a content");
    let mut contents = Vec::new();
    for table in tables {
        let fields = Fields::of(table, &keys::CONTENT, problems);
        let kind = kind(&fields);
        let (Some((name, at)), Some(kind)) = (name(&fields), kind) else { continue };
        names.add(name, vec![ContentId(contents.len())], at, problems);
        contents.push(Content { name: name.to_owned(), kind });
    }
    (contents, names)
}

fn kind(fields: &Fields<'_>) -> Option<ContentKind> {
    let problems = fields.problems();
    let is_tree = fields.has("files") || fields.has("size-each");
    if fields.has("size") {
        if is_tree {
            let advice = "write `size`, or `files` and `size-each`";
            problems.add(fields.at_of("size"), "a content is a file or a tree, not both", advice);
        }
        return fields.bytes("size", 0..=MAX_BYTES).map(|bytes| ContentKind::File { bytes });
    }
    if !is_tree {
        fields.lacks("size", "\"300 MiB\"");
        return None;
    }
    let files = fields.required("files", "1000").and_then(|_| fields.integer("files", FILES));
    let bytes_each = fields.required("size-each", "\"10 KiB\"").and_then(|_| fields.bytes("size-each", 0..=MAX_BYTES));
    let (files, bytes_each) = (files? as u64, bytes_each?);
    if files.saturating_mul(bytes_each) > MAX_BYTES {
        problems.add(fields.at_of("size-each"), "these are too many bytes in all", "at most 16 GiB");
    }
    Some(ContentKind::Tree { files, bytes_each })
}
