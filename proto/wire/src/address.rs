//! Addresses: the text that one person gives another to fetch something.
//!
//! ```text
//! keyferry:NODE               the catalogue of a node
//! keyferry:NODE/NAME          what a name in that catalogue stands for
//! keyferry:NODE/NAME/PATH     what is at a path in the folder that it stands for
//! keyferry:NODE/HASH          content, which that node holds
//! keyferry:HASH               content, from whoever holds it
//! …?via=MULTIADDR&via=…       at most 8 hints: where to ask first
//! ```
//! NODE is the peer-id form of [`crate::identity`], HASH the 64 hexadecimal digits of [`crate::hash`]. PATH has `/` between names. In NAME and the names of PATH all bytes
//! but letters, digits, `-`, `.`, `_` and `~` are percent-encoded, in MULTIADDR all but those, `/` and `:`. Every address
//! has one text form, and only that is accepted.
//!
//! What it is not: a transport address; see [`keyferry_ice::Candidate`].

mod name;

use std::{fmt, str::FromStr};

use multiaddr::Multiaddr;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode};
use serde::{Deserialize, Serialize};

pub use self::name::{NameError, ShareName};
use crate::{
    collection::{EntryPath, EntryPathError},
    hash::{ContentHash, HashError},
    identity::{NodeKey, NodeKeyError},
    offer::is_plain_multiaddr,
};

/// The greatest number of hints in an address.
pub const MAX_HINTS: usize = 8;

/// The greatest length of an address, in bytes of its text form.
pub const MAX_ADDRESS_LEN: usize = 24 * 1024;

const SCHEME: &str = "keyferry:";
const NAME_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const HINT_ESCAPED: &AsciiSet = &NAME_ESCAPED.remove(b'/').remove(b':');

/// Where something is shared, and hints of where to ask first. To serde it is its text form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    node: Option<NodeKey>,
    target: AddressTarget,
    /// Where in what the target names; only behind a name.
    path: Option<Box<EntryPath>>,
    hints: Vec<Multiaddr>,
}

/// What an address names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AddressTarget {
    /// The whole catalogue of the node.
    Catalogue,
    /// What a name in the node's catalogue stands for.
    Name(ShareName),
    /// Content by its hash.
    Content(ContentHash),
}

/// Why a text is not an address. The fault is the user's, and the message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Longer than any address.
    #[error("an address has at most {MAX_ADDRESS_LEN} characters, this has {got}; copy it again")]
    TooLong {
        /// Length, in bytes.
        got: usize,
    },
    /// It does not begin with the scheme.
    #[error("an address begins with \"keyferry:\", such as keyferry:12D3KooW…/name; copy it whole")]
    Scheme,
    /// The node key in it is wrong.
    #[error("the node key of the address is wrong ({0}); copy the address again")]
    Node(#[from] NodeKeyError),
    /// The content hash in it is wrong.
    #[error("the content hash of the address is wrong ({0}); copy the address again")]
    Hash(#[from] HashError),
    /// The name in it is wrong.
    #[error("the name in the address is wrong: {0}")]
    Name(#[from] NameError),
    /// The path in it is wrong.
    #[error("the path in the address is wrong: {0}; names are separated by single slashes, and none is at the end")]
    Path(#[from] EntryPathError),
    /// Something follows a content hash.
    #[error("{found:?} follows where an address ends; remove it")]
    Extra {
        /// What follows.
        found: String,
    },
    /// Percent-encoding that does not give UTF-8.
    #[error("the percent-encoding in {found:?} does not give UTF-8; copy the address again")]
    Encoding {
        /// The part in question.
        found: String,
    },
    /// A parameter other than `via`.
    #[error("{found:?} is not a parameter of an address; only via=MULTIADDR is")]
    Parameter {
        /// The parameter.
        found: String,
    },
    /// A hint that is not a plain multiaddr.
    #[error("{found:?} is not a hint; one looks like via=/ip4/192.0.2.1/tcp/4040")]
    Hint {
        /// The hint, decoded.
        found: String,
    },
    /// Too many hints.
    #[error("{got} hints where at most {MAX_HINTS} are allowed; remove some via=…")]
    Hints {
        /// Hints found.
        got: usize,
    },
    /// The address is understood, and written in another form than the one that it has.
    #[error("the address must be written as {expected}")]
    NotCanonical {
        /// The one text form.
        expected: String,
    },
}

impl Address {
    /// The address of a node's catalogue.
    pub fn catalogue(node: NodeKey) -> Self {
        Self { node: Some(node), target: AddressTarget::Catalogue, path: None, hints: Vec::new() }
    }

    /// The address of a name in a node's catalogue.
    pub fn named(node: NodeKey, name: ShareName) -> Self {
        Self { node: Some(node), target: AddressTarget::Name(name), path: None, hints: Vec::new() }
    }

    /// The address of what is at a path in the folder that a name in a node's catalogue stands for.
    pub fn within(node: NodeKey, name: ShareName, path: EntryPath) -> Self {
        Self { path: Some(Box::new(path)), ..Self::named(node, name) }
    }

    /// The address of content, at a node or wherever it is held.
    pub fn content(node: Option<NodeKey>, hash: ContentHash) -> Self {
        Self { node, target: AddressTarget::Content(hash), path: None, hints: Vec::new() }
    }

    /// The same address with these hints; refuses more than [`MAX_HINTS`] and those that have no plain text form.
    pub fn with_hints(self, hints: Vec<Multiaddr>) -> Result<Self, AddressError> {
        if hints.len() > MAX_HINTS {
            return Err(AddressError::Hints { got: hints.len() });
        }
        if let Some(odd) = hints.iter().find(|hint| !is_plain_multiaddr(hint)) {
            return Err(AddressError::Hint { found: odd.to_string() });
        }
        Ok(Self { hints, ..self })
    }

    /// The same address without hints: what it names, wherever it is asked for.
    #[must_use]
    pub fn without_hints(&self) -> Self {
        Self { hints: Vec::new(), ..self.clone() }
    }

    /// The node; none only if the address names content that any provider may serve.
    pub fn node(&self) -> Option<NodeKey> {
        self.node
    }

    /// What the address names.
    pub fn target(&self) -> &AddressTarget {
        &self.target
    }

    /// The path in the folder that the name stands for, if it is not about the whole.
    pub fn path(&self) -> Option<&EntryPath> {
        self.path.as_deref()
    }

    /// Where to ask first, in order.
    pub fn hints(&self) -> &[Multiaddr] {
        &self.hints
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        if let Some(node) = self.node {
            write!(f, "{node}")?;
        }
        match &self.target {
            AddressTarget::Catalogue => {}
            AddressTarget::Name(name) => write!(f, "/{}", utf8_percent_encode(name.as_str(), NAME_ESCAPED))?,
            AddressTarget::Content(hash) if self.node.is_some() => write!(f, "/{hash}")?,
            AddressTarget::Content(hash) => write!(f, "{hash}")?,
        }
        for name in self.path().into_iter().flat_map(EntryPath::names) {
            write!(f, "/{}", percent_encode(name, NAME_ESCAPED))?;
        }
        for (index, hint) in self.hints.iter().enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            write!(f, "{separator}via={}", utf8_percent_encode(&hint.to_string(), HINT_ESCAPED))?;
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_ADDRESS_LEN {
            return Err(AddressError::TooLong { got: text.len() });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(AddressError::Scheme)?;
        let (what, query) = match rest.split_once('?') {
            Some((what, query)) => (what, Some(query)),
            None => (rest, None),
        };
        let address = parse_target(what)?.with_hints(query.map_or(Ok(Vec::new()), parse_hints)?)?;
        let expected = address.to_string();
        if expected != text {
            return Err(AddressError::NotCanonical { expected });
        }
        Ok(address)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

fn parse_target(text: &str) -> Result<Address, AddressError> {
    let (first, rest) = match text.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    };
    if name::looks_like_hash(first) {
        let hash = first.parse()?;
        return match rest {
            None => Ok(Address::content(None, hash)),
            Some(found) => Err(AddressError::Extra { found: format!("/{found}") }),
        };
    }
    let node = first.parse()?;
    let Some(rest) = rest else { return Ok(Address::catalogue(node)) };
    let (name, path) = match rest.split_once('/') {
        Some((name, path)) => (name, Some(path)),
        None => (rest, None),
    };
    match path {
        Some(path) if name::looks_like_hash(name) => Err(AddressError::Extra { found: format!("/{path}") }),
        None if name::looks_like_hash(name) => Ok(Address::content(Some(node), name.parse()?)),
        None => Ok(Address::named(node, percent_decode(name)?.parse()?)),
        Some(path) => {
            let path = EntryPath::new(percent_decode_str(path).collect::<Vec<u8>>())?;
            Ok(Address::within(node, percent_decode(name)?.parse()?, path))
        }
    }
}

fn parse_hints(query: &str) -> Result<Vec<Multiaddr>, AddressError> {
    let got = query.split('&').count();
    if got > MAX_HINTS {
        return Err(AddressError::Hints { got });
    }
    query
        .split('&')
        .map(|parameter| {
            let value = parameter
                .strip_prefix("via=")
                .ok_or_else(|| AddressError::Parameter { found: parameter.to_owned() })?;
            let found = percent_decode(value)?;
            found.parse().map_err(|_| AddressError::Hint { found })
        })
        .collect()
}

fn percent_decode(text: &str) -> Result<String, AddressError> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|decoded| decoded.into_owned())
        .map_err(|_| AddressError::Encoding { found: text.to_owned() })
}

#[cfg(test)]
mod tests;
