//! Relative paths that are safe to create on any system, though a stranger chose them.
//!
//! ```text
//! path        component *( "/" component )       1..=4096 bytes of UTF-8, in Unicode form NFC
//! component   1..=255 bytes; see SafePath for what it is not
//! ```
//!
//! What it is not: a path on this machine. Whether something (a symlink, a file) stands in the way there is checked
//! where files are created.

use std::fmt;

use caseless::Caseless;
use serde::{Deserialize, Deserializer, Serialize, de};
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// The greatest length of a path, in bytes.
pub const MAX_PATH_LEN: usize = 4096;

/// The greatest length of one component of a path, in bytes.
pub const MAX_COMPONENT_LEN: usize = 255;

/// A relative path of one or more components that is safe to create on any system.
///
/// It has no empty component, `.` or `..`, no backslash or colon (drives, streams), no name that Windows reserves, no
/// component that ends in a dot or a space, no control, escape, bidirectional or invisible character, and is in NFC.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SafePath(String);

/// Why a text is not a [`SafePath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No characters at all.
    #[error("the path is empty")]
    Empty,
    /// Longer than [`MAX_PATH_LEN`].
    #[error("the path has {got} bytes; at most {MAX_PATH_LEN} are allowed")]
    TooLong {
        /// Its length in bytes.
        got: usize,
    },
    /// It starts with `/`.
    #[error("the path is absolute")]
    Absolute,
    /// Two slashes in a row, or one at the end.
    #[error("the path has an empty component")]
    EmptyComponent,
    /// A component is longer than [`MAX_COMPONENT_LEN`].
    #[error("a component of the path has {got} bytes; at most {MAX_COMPONENT_LEN} are allowed")]
    ComponentTooLong {
        /// Its length in bytes.
        got: usize,
    },
    /// A component is `.` or `..`.
    #[error("the path has a component {component:?}, which leads elsewhere")]
    Traversal {
        /// The component.
        component: String,
    },
    /// A character that some system takes for something else, or that hides what the name is.
    #[error("the path has the character {found:?}, which is not allowed in names")]
    Character {
        /// The character.
        found: char,
    },
    /// A name that Windows reserves for a device, with or without an extension.
    #[error("{component:?} is a reserved name on Windows")]
    Reserved {
        /// The component.
        component: String,
    },
    /// A component ends in a dot or a space, which Windows drops.
    #[error("{component:?} ends in a dot or a space")]
    TrailingDotOrSpace {
        /// The component.
        component: String,
    },
    /// Not in Unicode normalisation form C.
    #[error("the path is not in Unicode normalisation form C")]
    NotNormalized,
}

impl SafePath {
    /// Checks a path that should be in its one form already, such as one from a peer.
    pub fn new(path: impl Into<String>) -> Result<Self, PathError> {
        let path = path.into();
        check(&path)?;
        Ok(Self(path))
    }

    /// Brings a path of this machine, with `/` between components, into Unicode form NFC, and checks it.
    pub fn normalized(path: &str) -> Result<Self, PathError> {
        Self::new(path.nfc().collect::<String>())
    }

    /// The path, with `/` between components.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components, outermost first.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Its last component.
    pub fn file_name(&self) -> &str {
        self.components().next_back().unwrap_or(&self.0)
    }

    /// What is in front of its last component; none if it has only one.
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// The form in which two paths are equal if some file system may take them for one: see [`fold_key`].
    pub fn fold_key(&self) -> String {
        fold_key(&self.0)
    }
}

/// Folds case, compatibility forms and invisible characters away: Unicode's compatibility caseless matching (D146),
/// without the characters that some file systems ignore.
pub fn fold_key(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let visible = text.chars().filter(|&c| !is_ignorable(c));
    visible.nfd().default_case_fold().nfkd().default_case_fold().nfkd().collect()
}

fn check(path: &str) -> Result<(), PathError> {
    match path.len() {
        0 => return Err(PathError::Empty),
        1..=MAX_PATH_LEN => {}
        got => return Err(PathError::TooLong { got }),
    }
    if path.starts_with('/') {
        return Err(PathError::Absolute);
    }
    if let Some(found) = path.chars().find(|&c| is_forbidden(c)) {
        return Err(PathError::Character { found });
    }
    if !is_nfc(path) {
        return Err(PathError::NotNormalized);
    }
    path.split('/').try_for_each(check_component)
}

fn check_component(component: &str) -> Result<(), PathError> {
    let owned = || component.to_owned();
    match component.len() {
        0 => Err(PathError::EmptyComponent),
        1..=MAX_COMPONENT_LEN if component == "." || component == ".." => {
            Err(PathError::Traversal { component: owned() })
        }
        1..=MAX_COMPONENT_LEN if is_reserved(component) => Err(PathError::Reserved { component: owned() }),
        1..=MAX_COMPONENT_LEN if component.ends_with(['.', ' ']) => {
            Err(PathError::TrailingDotOrSpace { component: owned() })
        }
        1..=MAX_COMPONENT_LEN => Ok(()),
        got => Err(PathError::ComponentTooLong { got }),
    }
}

/// Characters that no name may have: separators of other systems, controls (C0 with escape, DEL, C1), what changes the
/// direction of text, breaks lines, or cannot be seen at all.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\\' | ':'
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{2028}' | '\u{2029}'
            | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Characters that are allowed (joiners and variation selectors make up emoji and scripts) and that make no difference.
fn is_ignorable(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{180b}'..='\u{180f}' | '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}')
}

/// Whether Windows takes the name for a device: `CON`, `nul.txt`, `COM1`, `LPT³.log`, `CONIN$`, …
fn is_reserved(component: &str) -> bool {
    let stem = component.split('.').next().unwrap_or(component).trim_end_matches(' ');
    if ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"].iter().any(|name| stem.eq_ignore_ascii_case(name)) {
        return true;
    }
    let Some((device, digit)) = stem.split_at_checked(3) else { return false };
    let is_port = device.eq_ignore_ascii_case("COM") || device.eq_ignore_ascii_case("LPT");
    let mut digits = digit.chars();
    is_port && matches!((digits.next(), digits.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
}

impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SafePath({:?})", self.0)
    }
}

impl<'de> Deserialize<'de> for SafePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
