//! Names as the receiver's file system takes them: what it does not take is escaped visibly, and the escape can be undone.
//!
//! ```text
//! escape     '%' and two upper-case hexadecimal digits for each byte that the file system does not take in that place
//! a '%'      in front of two such digits in a name is escaped too, where the file system does not take everything
//! device     the first character of a name that stands for a device there, such as "con" and "nul.txt", is escaped
//! clash      of names that are one there, the later ones have their first characters escaped, as many as it takes
//! too long   the beginning, "~", and 16 digits of the BLAKE3 hash of the name; that cannot be undone
//! ```
//! A file system that takes every name gets them as they are.
//!
//! What it is not: finding out what a file system takes; the receiver tries it.

use std::collections::{HashMap, HashSet};

use super::{
    entry::{EntryKind, EntryName, MAX_NAME_LEN},
    manifest::{Manifest, NO_PARENT},
};
use crate::path::fold_key;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// How much of a name that is too long is its hash, in digits.
const SHORTENED_DIGITS: usize = 16;

/// What a file system takes as the name of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRules {
    /// The bytes, all ASCII, that it takes nowhere.
    pub refused: Vec<u8>,
    /// Whether names must be UTF-8.
    pub is_utf8: bool,
    /// Whether it drops dots and spaces at the end of a name, or refuses such names.
    pub trims: bool,
    /// Whether it refuses names that stand for devices on Windows.
    pub has_devices: bool,
    /// Whether names are the same that differ in case, or in their Unicode form, only.
    pub folds: bool,
    /// The greatest length of a name, in bytes.
    pub max_len: usize,
}

impl Default for NameRules {
    /// Those of a file system that takes everything.
    fn default() -> Self {
        Self {
            refused: Vec::new(),
            is_utf8: false,
            trims: false,
            has_devices: false,
            folds: false,
            max_len: MAX_NAME_LEN,
        }
    }
}

impl NameRules {
    /// A name as this file system takes it, on its own.
    pub fn fit(&self, name: EntryName<'_>) -> Vec<u8> {
        self.fit_apart(name.as_bytes(), 0)
    }

    fn takes_everything(&self) -> bool {
        *self == Self { max_len: self.max_len, ..Self::default() } && self.max_len >= MAX_NAME_LEN
    }

    /// Escapes what is not taken, and the first `apart` characters in any case.
    fn fit_apart(&self, name: &[u8], apart: usize) -> Vec<u8> {
        let apart = if self.has_devices && is_device(name) { apart.max(1) } else { apart };
        let is_plain = apart == 0 && *self == Self { max_len: self.max_len, ..Self::default() };
        let fitted = if is_plain { name.to_vec() } else { self.escape(name, apart) };
        if fitted.len() <= self.max_len {
            return fitted;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(name).update(&(apart as u64).to_le_bytes());
        let digits = hasher.finalize().to_hex();
        let mut end = self.max_len.saturating_sub(1 + SHORTENED_DIGITS).min(fitted.len());
        while end > 0 && std::str::from_utf8(&fitted[..end]).is_err() && std::str::from_utf8(&fitted).is_ok() {
            end -= 1;
        }
        [&fitted[..end], b"~", &digits.as_bytes()[..SHORTENED_DIGITS]].concat()
    }

    fn escape(&self, name: &[u8], apart: usize) -> Vec<u8> {
        let mut escaped = Vec::with_capacity(name.len() + 8);
        let (mut at, mut characters) = (0, 0);
        let kept_end = if self.trims { trimmed_len(name) } else { name.len() };
        for chunk in name.utf8_chunks() {
            for c in chunk.valid().chars() {
                let bytes = &name[at..at + c.len_utf8()];
                let is_refused = match bytes {
                    [byte] => self.refused.contains(byte) || (*byte == b'%' && is_escape(&name[at..])),
                    _ => false,
                };
                match is_refused || characters < apart || at >= kept_end {
                    true => bytes.iter().for_each(|byte| push_escape(&mut escaped, *byte)),
                    false => escaped.extend(bytes),
                }
                at += bytes.len();
                characters += 1;
            }
            for byte in chunk.invalid() {
                match self.is_utf8 || characters < apart || at >= kept_end {
                    true => push_escape(&mut escaped, *byte),
                    false => escaped.push(*byte),
                }
                at += 1;
                characters += 1;
            }
        }
        escaped
    }
}

/// The name that an escaped one stands for.
pub fn unescape(fitted: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(fitted.len());
    let mut left = fitted;
    while let Some((first, rest)) = left.split_first() {
        left = match left {
            [b'%', high, low, behind @ ..] if is_escape(left) => {
                name.push(digit(*high) * 16 + digit(*low));
                behind
            }
            _ => {
                name.push(*first);
                rest
            }
        };
    }
    name
}

/// Whether a name stands for a device on Windows, with whatever extension.
fn is_device(name: &[u8]) -> bool {
    let stem = name.split(|byte| *byte == b'.').next().unwrap_or_default();
    let stem = stem[..trimmed_len(stem)].to_ascii_lowercase();
    match &stem[..] {
        b"con" | b"prn" | b"aux" | b"nul" | b"conin$" | b"conout$" => true,
        [b'c', b'o', b'm', number @ ..] | [b'l', b'p', b't', number @ ..] => {
            matches!(number, [b'0'..=b'9'] | [0xc2, 0xb9 | 0xb2 | 0xb3])
        }
        _ => false,
    }
}

fn trimmed_len(name: &[u8]) -> usize {
    name.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1)
}

fn is_escape(text: &[u8]) -> bool {
    matches!(text, [b'%', high, low, ..] if HEX.contains(high) && HEX.contains(low))
}

fn digit(hex: u8) -> u8 {
    HEX.iter().position(|known| *known == hex).map_or(0, |at| at as u8)
}

fn push_escape(escaped: &mut Vec<u8>, byte: u8) {
    escaped.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// The names of a collection as a file system takes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FittedNames {
    /// Those that are not as the sender has them, by the numbers of their entries.
    changed: HashMap<u32, Box<[u8]>>,
}

impl FittedNames {
    /// Fits all names of a collection.
    pub fn of(manifest: &Manifest, rules: &NameRules) -> Self {
        if rules.takes_everything() {
            return Self::default();
        }
        let mut changed = HashMap::new();
        // The names that are taken in each open folder: those of what was there before, in the order of the collection.
        let mut taken: Vec<HashSet<Vec<u8>>> = Vec::new();
        for (entry, index) in manifest.entries().zip(0..) {
            let depth = usize::from(entry.depth);
            taken.truncate(depth + 1);
            if taken.len() == depth {
                taken.push(HashSet::new());
            }
            let Some(taken) = taken.last_mut() else { continue };
            let name = entry.name.as_bytes();
            let mut apart = 0;
            let fitted = loop {
                let fitted = rules.fit_apart(name, apart);
                let key = if rules.folds { fold(&fitted) } else { fitted.clone() };
                if taken.insert(key) {
                    break fitted;
                }
                apart += 1;
            };
            if fitted != name {
                changed.insert(index, fitted.into_boxed_slice());
            }
        }
        Self { changed }
    }

    /// The name of an entry.
    pub fn name<'a>(&'a self, manifest: &'a Manifest, index: u32) -> &'a [u8] {
        match self.changed.get(&index) {
            Some(name) => name,
            None => manifest.records.get(index as usize).map_or(&[], |record| manifest.name(record)),
        }
    }

    /// The path of an entry in the folder, with `/` between names.
    pub fn path(&self, manifest: &Manifest, index: u32) -> Vec<u8> {
        match self.changed.is_empty() {
            true => manifest.path(index),
            false => {
                let names: Vec<&[u8]> =
                    manifest.lineage(index).into_iter().map(|index| self.name(manifest, index)).collect();
                names.join(&b'/')
            }
        }
    }

    /// What a link leads to, by the names that things have here; none if the entry is no link.
    pub fn target(&self, manifest: &Manifest, index: u32, rules: &NameRules) -> Option<Vec<u8>> {
        let Some(EntryKind::Link(target)) = manifest.entry(index).map(|entry| entry.kind) else { return None };
        if rules.takes_everything() {
            return Some(target.as_bytes().to_vec());
        }
        let mut folder = manifest.parent(index);
        let mut is_known = true;
        let mut fitted: Vec<Vec<u8>> = Vec::new();
        for part in target.parts() {
            if part == b".." {
                folder = folder.and_then(|folder| manifest.parent(folder));
                fitted.push(part.to_vec());
                continue;
            }
            // Behind a link, and where nothing is, there is nothing to look names up in.
            let found = Some(part).filter(|_| is_known).and_then(|part| manifest.child(folder, part));
            fitted.push(match found {
                Some(found) => self.name(manifest, found).to_vec(),
                None => rules.fit_apart(part, 0),
            });
            is_known = found.is_some_and(|found| {
                matches!(manifest.entry(found).map(|entry| entry.kind), Some(EntryKind::Folder(_)))
            });
            folder = found;
        }
        Some(if fitted.is_empty() { b".".to_vec() } else { fitted.join(&b'/') })
    }

    /// The numbers of the entries whose names are not as the sender has them, ascending.
    pub fn changed(&self) -> Vec<u32> {
        let mut changed: Vec<u32> = self.changed.keys().copied().collect();
        changed.sort_unstable();
        changed
    }
}

impl Manifest {
    /// The entry with this name in a folder.
    fn child(&self, folder: Option<u32>, name: &[u8]) -> Option<u32> {
        let mut path = folder.map_or_else(Vec::new, |folder| self.path(folder));
        if folder.is_some() {
            path.push(b'/');
        }
        path.extend(name);
        let found = self.find(&path)?;
        let parent = self.records.get(found as usize)?.parent;
        Some(found).filter(|_| parent == folder.unwrap_or(NO_PARENT))
    }
}

fn fold(name: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(name) {
        Ok(text) => fold_key(text).into_bytes(),
        Err(_) => name.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests;
