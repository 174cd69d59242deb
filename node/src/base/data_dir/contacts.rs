//! The contacts: nodes that this one's owner knows, by a name of their choice.
//!
//! ```text
//! contacts       one `NODEKEY name` a line, UTF-8; empty lines and those that begin with `#` are kept as they are
//! ```
//! People may edit the file; it is read again whenever it is needed.
//!
//! What it is not: secret, or checked against anybody's claims.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use keyferry_proto::identity::{NodeKey, NodeKeyError};

use crate::base::atomic_file::write_atomically;

/// The greatest number of contacts.
pub const MAX_CONTACTS: usize = 4096;
/// The greatest length of a contact's name, in bytes.
pub const MAX_CONTACT_NAME_LEN: usize = 128;

const CONTACTS_FILE: &str = "contacts";
/// Held while the file is changed; a file of its own, because the other one is replaced.
const LOCK_FILE: &str = "contacts.lock";
const MODE: u32 = 0o600;
/// The greatest length of the file, in bytes: room for all contacts, and as much for notes.
const MAX_FILE_LEN: u64 = 2 * MAX_CONTACTS as u64 * (64 + MAX_CONTACT_NAME_LEN as u64);

/// A node that the owner knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Its key.
    pub node: NodeKey,
    /// Its name.
    pub name: ContactName,
}

/// The name of a contact: 1 to [`MAX_CONTACT_NAME_LEN`] bytes without control characters, and no space at either end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContactName(String);

/// The file of a data folder. It may be absent: then there are no contacts. No lock on the data folder is needed.
#[derive(Debug, Clone)]
pub struct ContactsFile {
    folder: PathBuf,
}

/// What is in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContactList {
    lines: Vec<ContactLine>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ContactLine {
    Contact(Contact),
    /// A note or an empty line.
    Other(String),
}

/// Why the contacts cannot be read or changed. The fault is the owner's, or this machine's.
#[derive(Debug, thiserror::Error)]
pub enum ContactsError {
    /// A line is not a contact.
    #[error("line {line} of {}: {problem}; a line is a node key, a space and a name", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        problem: LineProblem,
    },
    /// The file is not text, or too long.
    #[error("{} is not a list of contacts: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// The name is not valid.
    #[error("{0}")]
    Name(#[from] ContactNameError),
    /// Another node has the name.
    #[error("{name} is the name of {node} already")]
    NameTaken {
        /// The name.
        name: ContactName,
        /// Who has it.
        node: NodeKey,
    },
    /// There is no such contact.
    #[error("there is no contact {what:?}; `keyferry contacts ls` lists them")]
    NoSuchContact {
        /// What was asked for.
        what: String,
    },
    /// There are too many.
    #[error("there are {MAX_CONTACTS} contacts already, which is the limit")]
    TooMany,
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as "write".
        action: &'static str,
        /// The path that it was tried on.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// The first word is no node key.
    #[error("{0}")]
    Node(#[from] NodeKeyError),
    /// The name is not valid.
    #[error("{0}")]
    Name(#[from] ContactNameError),
    /// The node, or the name, stands in an earlier line.
    #[error("this {0} stands in an earlier line already")]
    Twice(&'static str),
    /// There are too many.
    #[error("there are more than {MAX_CONTACTS} contacts")]
    TooMany,
}

/// Why a text cannot be the name of a contact.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a contact's name has 1 to {MAX_CONTACT_NAME_LEN} bytes, no control characters, and no space at its ends")]
pub struct ContactNameError;

impl ContactName {
    /// Checks a name.
    pub fn new(text: &str) -> Result<Self, ContactNameError> {
        let fits = (1..=MAX_CONTACT_NAME_LEN).contains(&text.len());
        if !fits || text.trim() != text || text.chars().any(char::is_control) {
            return Err(ContactNameError);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ContactsFile {
    /// The file of this data folder.
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Where the file is or would be.
    pub fn path(&self) -> PathBuf {
        self.folder.join(CONTACTS_FILE)
    }

    /// Reads the contacts.
    pub fn read(&self) -> Result<ContactList, ContactsError> {
        let path = self.path();
        let mut text = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(MAX_FILE_LEN + 1).read_to_end(&mut text).map_err(|e| self.failed("read", e))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ContactList::default()),
            Err(error) => return Err(self.failed("open", error)),
        };
        if text.len() as u64 > MAX_FILE_LEN {
            return Err(ContactsError::File { path, problem: "it is too long" });
        }
        match str::from_utf8(&text) {
            Ok(text) => ContactList::parse(text).map_err(|(line, problem)| ContactsError::Line { path, line, problem }),
            Err(_) => Err(ContactsError::File { path, problem: "it is not UTF-8 text" }),
        }
    }

    /// Whether a node is listed, as far as the file can be read.
    pub(crate) async fn lists(&self, node: NodeKey) -> bool {
        let file = self.clone();
        match tokio::task::spawn_blocking(move || file.read()).await {
            Ok(Ok(contacts)) => contacts.name_of(&node).is_some(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "nobody counts as a contact: the contacts cannot be read");
                false
            }
            Err(_) => false,
        }
    }

    /// Adds a contact, or gives one that is there another name. Without a name it gets one made of its key.
    pub fn add(&self, node: NodeKey, name: Option<&str>) -> Result<Contact, ContactsError> {
        let name = match name {
            Some(name) => ContactName::new(name)?,
            None => ContactName(node.short().trim_start_matches('…').to_owned()),
        };
        self.change(|list| list.add(Contact { node, name }))
    }

    /// Removes a contact, by its key or its name.
    pub fn remove(&self, what: &str) -> Result<Contact, ContactsError> {
        self.change(|list| list.remove(what))
    }

    fn change<T>(&self, change: impl FnOnce(&mut ContactList) -> Result<T, ContactsError>) -> Result<T, ContactsError> {
        let lock = File::create(self.folder.join(LOCK_FILE)).map_err(|error| self.failed("lock", error))?;
        lock.lock().map_err(|error| self.failed("lock", error))?;
        let mut list = self.read()?;
        let changed = change(&mut list)?;
        let text = list.to_string();
        write_atomically(&self.path(), text.as_bytes(), MODE).map_err(|error| self.failed("write", error))?;
        Ok(changed)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> ContactsError {
        ContactsError::Io { action, path: self.path(), source }
    }
}

impl ContactList {
    /// The contacts, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Contact> {
        self.lines.iter().filter_map(|line| match line {
            ContactLine::Contact(contact) => Some(contact),
            ContactLine::Other(_) => None,
        })
    }

    /// The name of a node.
    pub fn name_of(&self, node: &NodeKey) -> Option<&ContactName> {
        self.iter().find(|contact| contact.node == *node).map(|contact| &contact.name)
    }

    /// The node of a name.
    pub fn node_of(&self, name: &str) -> Option<NodeKey> {
        self.iter().find(|contact| contact.name.0 == name).map(|contact| contact.node)
    }

    /// Reads a list; on failure, the number of the line that is wrong, from 1.
    fn parse(text: &str) -> Result<Self, (usize, LineProblem)> {
        let mut list = Self::default();
        let (mut nodes, mut names) = (std::collections::HashSet::new(), std::collections::HashSet::new());
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                list.lines.push(ContactLine::Other(line.to_owned()));
                continue;
            }
            let contact = Contact::parse(line).map_err(|problem| (number, problem))?;
            if !nodes.insert(contact.node) {
                return Err((number, LineProblem::Twice("node")));
            }
            if !names.insert(contact.name.clone()) {
                return Err((number, LineProblem::Twice("name")));
            }
            if nodes.len() > MAX_CONTACTS {
                return Err((number, LineProblem::TooMany));
            }
            list.lines.push(ContactLine::Contact(contact));
        }
        Ok(list)
    }

    fn add(&mut self, contact: Contact) -> Result<Contact, ContactsError> {
        if let Some(node) = self.node_of(&contact.name.0).filter(|node| *node != contact.node) {
            return Err(ContactsError::NameTaken { name: contact.name, node });
        }
        let line = ContactLine::Contact(contact.clone());
        let is_same = |line: &ContactLine| matches!(line, ContactLine::Contact(known) if known.node == contact.node);
        match self.lines.iter().position(is_same) {
            Some(at) => self.lines[at] = line,
            None if self.iter().count() >= MAX_CONTACTS => return Err(ContactsError::TooMany),
            None => self.lines.push(line),
        }
        Ok(contact)
    }

    fn remove(&mut self, what: &str) -> Result<Contact, ContactsError> {
        let is_meant = |contact: &Contact| contact.name.0 == what || contact.node.to_string() == what;
        let at = self.lines.iter().position(|line| matches!(line, ContactLine::Contact(contact) if is_meant(contact)));
        match at.map(|at| self.lines.remove(at)) {
            Some(ContactLine::Contact(contact)) => Ok(contact),
            _ => Err(ContactsError::NoSuchContact { what: what.to_owned() }),
        }
    }
}

impl Contact {
    fn parse(line: &str) -> Result<Self, LineProblem> {
        let line = line.trim();
        let (node, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        Ok(Self { node: node.parse()?, name: ContactName::new(name.trim_start())? })
    }
}

impl fmt::Display for ContactList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| match line {
            ContactLine::Contact(Contact { node, name }) => writeln!(f, "{node} {name}"),
            ContactLine::Other(text) => writeln!(f, "{text}"),
        })
    }
}

#[cfg(test)]
mod tests;
