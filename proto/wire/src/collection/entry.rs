//! What a collection says of each thing in a folder.
//!
//! What it is not: owners, further rights, extended attributes or hard links, which are not carried.

use std::fmt;

use crate::hash::ContentHash;

/// The greatest length of a name, in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// A name in a folder, as the sender's file system has it: 1 to [`MAX_NAME_LEN`] bytes, none of them NUL or `/`, and neither `.` nor `..`.
///
/// Whether the receiver's file system takes it is another matter; see [`super::fitting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName<'a>(&'a [u8]);

/// Why some bytes are no name of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryNameError {
    /// No bytes at all.
    #[error("an empty name")]
    Empty,
    /// More than [`MAX_NAME_LEN`].
    #[error("a name of {got} bytes; at most {MAX_NAME_LEN} are allowed")]
    TooLong {
        /// Its length in bytes.
        got: usize,
    },
    /// `.` or `..`.
    #[error("the name {name:?}, which leads elsewhere")]
    Traversal {
        /// The name.
        name: String,
    },
    /// A NUL or a `/`.
    #[error("a name with the byte {byte:#04x} in it")]
    Byte {
        /// The byte.
        byte: u8,
    },
}

/// When a file was last changed: nanoseconds since 1970, UTC. What does not fit (before 1677, after 2262) is the nearest time that does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct FileTime(pub i64);

/// What is carried of a file besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct FileAttributes {
    /// When it was last changed.
    pub modified: FileTime,
    /// Whether somebody may execute it.
    pub executable: bool,
    /// Whether nobody but its owner has any right to it.
    pub private: bool,
}

/// What is carried of a folder besides what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FolderAttributes {
    /// When its list of names was last changed.
    pub modified: FileTime,
    /// Whether nobody but its owner has any right to it.
    pub private: bool,
}

/// A file of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileEntry {
    /// Its size in bytes.
    pub size: u64,
    /// The hash of its bytes.
    pub hash: ContentHash,
    /// What else is carried of it.
    pub attributes: FileAttributes,
}

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind<'a> {
    /// A folder; what is in it follows.
    Folder(FolderAttributes),
    /// A regular file.
    File(FileEntry),
    /// A symbolic link to something in the same collection, whether that is there or not.
    Link(LinkTarget<'a>),
}

/// One entry of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CollectionEntry<'a> {
    /// In how many folders of the collection it lies: 0 for what is in the shared folder itself.
    pub depth: u8,
    /// Its name in the innermost of them.
    pub name: EntryName<'a>,
    /// What it is.
    pub kind: EntryKind<'a>,
}

/// The greatest length of what a link leads to, in bytes.
pub const MAX_TARGET_LEN: usize = 4095;

/// What a symbolic link leads to: a relative path that stays in the collection, seen from a folder at a certain depth.
///
/// `..` comes first or not at all, and climbs no higher than the shared folder. Behind a name, which may be a link itself, `..` would lead to
/// nobody knows where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkTarget<'a>(&'a [u8]);

/// Why a link is not one that stays inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No bytes at all.
    #[error("a link to nothing")]
    Empty,
    /// More than [`MAX_TARGET_LEN`].
    #[error("a link whose target has {got} bytes; at most {MAX_TARGET_LEN} are allowed")]
    TooLong {
        /// Its length in bytes.
        got: usize,
    },
    /// A NUL.
    #[error("a link whose target has a NUL in it")]
    Nul,
    /// An absolute path.
    #[error("a link to an absolute path")]
    Absolute,
    /// A path that leaves the folder, or that might.
    #[error("a link that leads out of the folder")]
    Escapes,
}

impl<'a> EntryName<'a> {
    /// Checks a name.
    pub fn new(name: &'a [u8]) -> Result<Self, EntryNameError> {
        match name {
            b"" => Err(EntryNameError::Empty),
            _ if name.len() > MAX_NAME_LEN => Err(EntryNameError::TooLong { got: name.len() }),
            b"." | b".." => Err(EntryNameError::Traversal { name: ShownPath(name).to_string() }),
            _ => match name.iter().find(|byte| matches!(byte, 0 | b'/')) {
                Some(byte) => Err(EntryNameError::Byte { byte: *byte }),
                None => Ok(Self(name)),
            },
        }
    }

    /// Takes a name out of a collection in hand, where it was checked.
    pub(super) fn checked(name: &'a [u8]) -> Self {
        Self(name)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> LinkTarget<'a> {
    /// Checks what a link leads to that lies in `depth` folders of the collection.
    pub fn new(target: &'a [u8], depth: u8) -> Result<Self, LinkError> {
        match target {
            b"" => return Err(LinkError::Empty),
            _ if target.len() > MAX_TARGET_LEN => return Err(LinkError::TooLong { got: target.len() }),
            _ if target.contains(&0) => return Err(LinkError::Nul),
            [b'/', ..] => return Err(LinkError::Absolute),
            _ => {}
        }
        let (mut left, mut has_name) = (depth, false);
        for part in Self(target).parts() {
            match part {
                b".." if has_name => return Err(LinkError::Escapes),
                b".." => left = left.checked_sub(1).ok_or(LinkError::Escapes)?,
                _ => has_name = true,
            }
        }
        Ok(Self(target))
    }

    /// Takes a target out of a collection in hand, where it was checked.
    pub(super) fn checked(target: &'a [u8]) -> Self {
        Self(target)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Its components, without those that say nothing.
    pub(super) fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.0.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
    }
}

impl fmt::Display for EntryName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ShownPath(self.0).fmt(f)
    }
}

/// A path or a name as people may see it: what is no text, or acts on the terminal, is shown as an escape such as `\x1b`.
#[derive(Debug, Clone, Copy)]
pub struct ShownPath<'a>(pub &'a [u8]);

impl fmt::Display for ShownPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c.is_control() || is_deceptive(c) {
                    true => write!(f, "{}", c.escape_default())?,
                    false => fmt::Write::write_char(f, c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Characters that change the order of others, break lines, or cannot be seen.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_a_file_system_takes_and_leads_nowhere() {
        for name in [&b"a"[..], b"...", b"caf\xe9", b"a:b\\c", b"Icon\r", b" ", &[b'x'; 255]] {
            assert_eq!(EntryName::new(name).unwrap().as_bytes(), name);
        }
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &[b'x'; 256]] {
            assert!(EntryName::new(name).is_err(), "{}", ShownPath(name));
        }
    }

    #[test]
    fn a_link_stays_inside_and_climbs_before_it_goes_down_only() {
        for (target, depth) in
            [("a", 0), ("a/b", 0), (".", 0), ("./a//b/", 0), ("../a", 1), ("../..", 2), ("./../a", 1)]
        {
            assert_eq!(LinkTarget::new(target.as_bytes(), depth).unwrap().as_bytes(), target.as_bytes());
        }
        for (target, depth) in [("..", 0), ("../..", 1), ("a/..", 3), ("a/../b", 3), ("../a/..", 2), ("./../a", 0)] {
            assert_eq!(LinkTarget::new(target.as_bytes(), depth), Err(LinkError::Escapes), "{target}");
        }
        assert_eq!(LinkTarget::new(b"/etc/passwd", 9), Err(LinkError::Absolute));
        assert_eq!(LinkTarget::new(b"", 9), Err(LinkError::Empty));
        assert_eq!(LinkTarget::new(b"a\0", 9), Err(LinkError::Nul));
        assert_eq!(LinkTarget::new(&[b'a'; 4096], 9), Err(LinkError::TooLong { got: 4096 }));
    }

    #[test]
    fn what_is_shown_of_a_name_does_nothing_to_a_terminal() {
        assert_eq!(ShownPath("ä b".as_bytes()).to_string(), "ä b");
        assert_eq!(ShownPath(b"caf\xe9\x1b[2J\n").to_string(), "caf\\xe9\\u{1b}[2J\\n");
        assert_eq!(ShownPath("a\u{202e}txt".as_bytes()).to_string(), "a\\u{202e}txt");
    }
}
