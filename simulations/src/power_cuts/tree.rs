//! Files and folders in memory, and the operations that change them, each of which a disk has as a whole or not at all. Only the
//! pages of a write are had one by one.
//!
//! What it is not: which of them the disk has; see [`super::disk`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    time::SystemTime,
};

use fuser::FileType;

/// The number of the topmost folder.
pub(super) const ROOT: u64 = 1;
/// What a disk writes at once.
const PAGE: usize = 4096;

/// A file, folder or whatever else has a name.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) body: Body,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) modified: SystemTime,
    pub(super) changed: SystemTime,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(super) enum Body {
    File(Vec<u8>),
    Folder(BTreeMap<OsString, u64>),
    Link(OsString),
    /// A socket or a pipe, whose bytes are not the disk's.
    Special(FileType),
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) folder: u64,
    pub(super) name: OsString,
}

/// One change.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Create { place: Place, number: u64, node: Node },
    Link { place: Place, number: u64 },
    Remove { place: Place },
    Rename { number: u64, from: Place, to: Place },
    Exchange { one: (Place, u64), other: (Place, u64) },
    Write { number: u64, offset: usize, bytes: Vec<u8> },
    Resize { number: u64, len: usize },
    Attributes { number: u64, mode: Option<u16>, uid: Option<u32>, gid: Option<u32>, modified: Option<SystemTime> },
}

/// All nodes by number, those without a name as well.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: HashMap<u64, Node>,
}

impl Body {
    pub(super) fn kind(&self) -> FileType {
        match self {
            Self::File(_) => FileType::RegularFile,
            Self::Folder(_) => FileType::Directory,
            Self::Link(_) => FileType::Symlink,
            Self::Special(kind) => *kind,
        }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File(bytes) => bytes.len() as u64,
            Self::Link(target) => target.len() as u64,
            Self::Folder(_) | Self::Special(_) => 0,
        }
    }
}

impl Operation {
    /// Whether a folder is on the disk only with this operation, once somebody has waited for it.
    pub(super) fn is_of_folder(&self, folder: u64) -> bool {
        match self {
            Self::Create { place, .. } | Self::Link { place, .. } | Self::Remove { place } => place.folder == folder,
            Self::Rename { from, to, .. } => from.folder == folder || to.folder == folder,
            Self::Exchange { one, other } => one.0.folder == folder || other.0.folder == folder,
            Self::Attributes { number, .. } => *number == folder,
            Self::Write { .. } | Self::Resize { .. } => false,
        }
    }

    /// The same of a file. A name of it belongs to the folder that has it.
    pub(super) fn is_of_file(&self, file: u64) -> bool {
        match self {
            Self::Write { number, .. } | Self::Resize { number, .. } | Self::Attributes { number, .. } => {
                *number == file
            }
            _ => false,
        }
    }
}

impl Tree {
    /// An empty folder.
    pub(super) fn new(uid: u32, gid: u32, now: SystemTime) -> Self {
        let body = Body::Folder(BTreeMap::new());
        let root = Node { body, mode: 0o755, uid, gid, links: 2, modified: now, changed: now };
        Self { nodes: HashMap::from([(ROOT, root)]) }
    }

    pub(super) fn get(&self, number: u64) -> Option<&Node> {
        self.nodes.get(&number)
    }

    /// The entries of a folder; none if it is none.
    pub(super) fn entries(&self, folder: u64) -> Option<&BTreeMap<OsString, u64>> {
        match &self.nodes.get(&folder)?.body {
            Body::Folder(entries) => Some(entries),
            _ => None,
        }
    }

    pub(super) fn at(&self, place: &Place) -> Option<u64> {
        self.entries(place.folder)?.get(&place.name).copied()
    }

    /// Carries out an operation that a program has asked for, or that the disk has as a whole.
    pub(super) fn apply(&mut self, operation: &Operation, at: SystemTime) {
        match operation {
            Operation::Create { place, number, node } => {
                self.nodes.insert(*number, node.clone());
                self.name(place, *number, at);
            }
            Operation::Link { place, number } => self.name(place, *number, at),
            Operation::Remove { place } => self.unname(place, at),
            Operation::Rename { number, from, to } => {
                if self.at(from) == Some(*number) {
                    self.unname(from, at);
                }
                self.name(to, *number, at);
            }
            Operation::Exchange { one, other } => {
                self.name(&one.0, other.1, at);
                self.name(&other.0, one.1, at);
            }
            Operation::Write { number, offset, bytes } => {
                self.grow(*number, offset + bytes.len(), at);
                self.put_pages(*number, *offset, bytes, || true);
            }
            Operation::Resize { number, len } => self.change(*number, at, |node| {
                if let Body::File(bytes) = &mut node.body {
                    bytes.resize(*len, 0);
                    node.modified = at;
                }
            }),
            Operation::Attributes { number, mode, uid, gid, modified } => self.change(*number, at, |node| {
                node.mode = mode.unwrap_or(node.mode);
                node.uid = uid.unwrap_or(node.uid);
                node.gid = gid.unwrap_or(node.gid);
                node.modified = modified.unwrap_or(node.modified);
            }),
        }
    }

    /// Has a node that no folder names yet.
    pub(super) fn bear(&mut self, number: u64, node: &Node) {
        self.nodes.insert(number, node.clone());
    }

    /// Makes a file as long as a write makes it, with zeros where its bytes are to come.
    pub(super) fn grow(&mut self, number: u64, len: usize, at: SystemTime) {
        self.change(number, at, |node| {
            if let Body::File(bytes) = &mut node.body {
                bytes.resize(bytes.len().max(len), 0);
                node.modified = at;
            }
        });
    }

    /// Puts those pages of a write into a file, as far as it is long, that `is_there` is true of.
    pub(super) fn put_pages(&mut self, number: u64, offset: usize, bytes: &[u8], mut is_there: impl FnMut() -> bool) {
        let Some(Node { body: Body::File(file), .. }) = self.nodes.get_mut(&number) else { return };
        let end = (offset + bytes.len()).min(file.len());
        let mut from = offset;
        while from < end {
            let to = ((from / PAGE + 1) * PAGE).min(end);
            if is_there() {
                file[from..to].copy_from_slice(&bytes[from - offset..to - offset]);
            }
            from = to;
        }
    }

    /// Forgets what no folder names, as a file system does when it is mounted.
    pub(super) fn forget_unnamed(&mut self) {
        let (mut named, mut waiting) = (BTreeMap::from([(ROOT, 2)]), vec![ROOT]);
        let mut seen = BTreeSet::new();
        while let Some(folder) = waiting.pop() {
            if !seen.insert(folder) {
                continue;
            }
            for &number in self.entries(folder).into_iter().flat_map(BTreeMap::values) {
                let is_folder = self.entries(number).is_some();
                *named.entry(number).or_insert(u32::from(is_folder)) += 1;
                waiting.extend(is_folder.then_some(number));
            }
        }
        self.nodes.retain(|number, node| {
            named.get(number).is_some_and(|links| {
                node.links = *links;
                true
            })
        });
    }

    fn change(&mut self, number: u64, at: SystemTime, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(&number) {
            change(node);
            node.changed = at;
        }
    }

    fn name(&mut self, place: &Place, number: u64, at: SystemTime) {
        if self.at(place) == Some(number) {
            return;
        }
        self.unname(place, at);
        let mut is_there = false;
        self.change(place.folder, at, |folder| {
            if let Body::Folder(entries) = &mut folder.body {
                entries.insert(place.name.clone(), number);
                folder.modified = at;
                is_there = true;
            }
        });
        self.change(number, at, |node| {
            if is_there && !matches!(node.body, Body::Folder(_)) {
                node.links += 1;
            }
        });
    }

    fn unname(&mut self, place: &Place, at: SystemTime) {
        let mut removed = None;
        self.change(place.folder, at, |folder| {
            if let Body::Folder(entries) = &mut folder.body {
                removed = entries.remove(&place.name);
                folder.modified = at;
            }
        });
        if let Some(number) = removed {
            self.change(number, at, |node| node.links = node.links.saturating_sub(1));
        }
    }
}
