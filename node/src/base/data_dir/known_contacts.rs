//! Whether a node is a contact, for whoever asks at every turn: the file is read again only when it has changed.
//!
//! What it is not: the list of contacts ([`ContactsFile`]).

use std::{
    collections::HashSet,
    fs,
    sync::{Arc, Mutex, PoisonError},
};

use keyferry_proto::identity::NodeKey;

use super::ContactsFile;
use crate::base::stamp::{Machine, Stamp};

/// The contacts of a data folder. Clones share what they have read.
#[derive(Debug, Clone)]
pub struct KnownContacts {
    file: ContactsFile,
    machine: Machine,
    read: Arc<Mutex<Option<ReadContacts>>>,
}

#[derive(Debug)]
struct ReadContacts {
    /// By what a change of the file shows; none while there is no file.
    stamp: Option<Stamp>,
    nodes: HashSet<NodeKey>,
}

impl KnownContacts {
    /// Those of this file, which may be absent.
    pub fn of(file: ContactsFile) -> Self {
        Self::on(Machine::here(), file)
    }

    fn on(machine: Machine, file: ContactsFile) -> Self {
        Self { file, machine, read: Arc::default() }
    }

    /// Whether a node is a contact now. Reads from the disk. While the file cannot be read, nobody is.
    pub fn include(&self, node: &NodeKey) -> bool {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = fs::metadata(self.file.path()).ok().map(|metadata| Stamp::of(&metadata));
        if let Some(known) = &*read
            && known.stamp == stamp
        {
            return known.nodes.contains(node);
        }
        let nodes = match self.file.read() {
            Ok(list) => list.iter().map(|contact| contact.node).collect(),
            Err(error) => {
                tracing::warn!(%error, "nobody counts as a contact: the contacts cannot be read");
                HashSet::new()
            }
        };
        let found = nodes.contains(node);
        // A young file may change again without a sign of it.
        let is_sure = stamp.is_none_or(|stamp| !stamp.is_young(&self.machine));
        *read = is_sure.then_some(ReadContacts { stamp, nodes });
        found
    }
}

#[cfg(test)]
mod tests {
    use keyferry_proto::identity::NodeSecret;

    use super::*;

    #[test]
    fn whoever_is_added_removed_or_edited_out_counts_at_once() {
        let machine = |now_nanos| Machine { now_nanos, ..Machine::here() };
        // Where every file is young, and where none is.
        for (machine, is_old) in [(machine(|| 0), false), (machine(|| i128::MAX), true)] {
            let dir = tempfile::tempdir().unwrap();
            let file = ContactsFile::of(dir.path());
            let known = KnownContacts::on(machine, file.clone());
            let [ada, bob] = [1, 2].map(|number| NodeSecret::from_bytes(&[number; 32]).public());
            let included = || [ada, bob].map(|node| known.include(&node));
            assert_eq!(included(), [false, false]);
            file.add(ada, Some("Ada")).unwrap();
            assert_eq!((included(), known.read.lock().unwrap().is_some()), ([true, false], is_old));
            file.add(bob, Some("Bob")).unwrap();
            assert_eq!(included(), [true, true]);
            file.remove("Ada").unwrap();
            assert_eq!((included(), included()), ([false, true], [false, true]));
            fs::write(file.path(), "not a list of contacts").unwrap();
            assert_eq!(included(), [false, false]);
            fs::remove_file(file.path()).unwrap();
            assert_eq!(included(), [false, false]);
        }
    }
}
