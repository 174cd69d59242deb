//! The names of what is staged, and what earlier runs have left under such names.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use keyferry_proto::hash::{ContentFormat, ContentHash};

use super::own_files::{NO_LINK, is_own, is_own_file};

/// How many characters of a hash are in a name.
const SHORT_HASH_LEN: usize = 10;

/// The name of what is staged of a target.
pub(super) fn part_name(name: &str, root: &ContentHash, format: ContentFormat) -> String {
    let (prefix, ending) = around_hash(name, format);
    format!("{prefix}{}{ending}", root.short())
}

/// What is in front of the hash in a name, and behind it.
fn around_hash(name: &str, format: ContentFormat) -> (String, &'static str) {
    // A file name has at most 255 bytes; the hash makes up for what a long name loses.
    let mut end = name.len().min(200);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let ending = match format {
        ContentFormat::Blob => ".keyferry-part",
        ContentFormat::Collection => ".keyferry-part.d",
    };
    (format!(".{}.", &name[..end]), ending)
}

/// What interrupted fetches of any version have left of a target, the latest first.
pub(super) fn leftovers(out_dir: &Path, name: &str, format: ContentFormat) -> Vec<OsString> {
    let (prefix, ending) = around_hash(name, format);
    let Ok(entries) = out_dir.read_dir() else { return Vec::new() };
    let is_part = |name: &OsStr| {
        let name = name.as_bytes();
        let is_like_it = name.starts_with(prefix.as_bytes()) && name.ends_with(ending.as_bytes());
        is_like_it && name.len() == prefix.len() + SHORT_HASH_LEN + ending.len()
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| is_part(&entry.file_name()))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.file_name())))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, name)| name).collect()
}

/// Gives what an interrupted fetch of another version has left of a target, and nobody uses now, the name of this one. Returns whether there was
/// something.
pub(super) fn take_over(parent: &Dir, out_dir: &Path, name: &str, format: ContentFormat, part_name: &str) -> bool {
    let is_free = |name: &OsString| {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(NO_LINK);
        let Ok(opened) = parent.open_with(name, &options).map(cap_std::fs::File::into_std) else { return false };
        let is_it = opened.metadata().is_ok_and(|found| match format {
            ContentFormat::Blob => is_own_file(&found),
            ContentFormat::Collection => is_own(&found) && found.is_dir(),
        });
        is_it && opened.try_lock().is_ok()
    };
    let mut left = leftovers(out_dir, name, format).into_iter();
    left.find(is_free).is_some_and(|name| parent.rename(&name, parent, part_name).is_ok())
}
