//! Whether a node is a contact, for whoever asks at every turn: the file is read again only when it has changed.
//!
//! What it is not: the list of contacts ([`ContactsFile`]).

use std::{
    collections::HashSet,
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use keyferry_proto::identity::NodeKey;

use super::ContactsFile;
use crate::base::clock;

/// A file that has changed so recently may change again without a sign of it: clocks of file systems tick slowly.
const UNSURE_FOR: Duration = Duration::from_secs(2);

/// The contacts of a data folder. Clones share what they have read.
#[derive(Debug, Clone)]
pub struct KnownContacts {
    file: ContactsFile,
    read: Arc<Mutex<Option<ReadContacts>>>,
}

#[derive(Debug)]
struct ReadContacts {
    at: FileState,
    nodes: HashSet<NodeKey>,
}

/// By what a change of the file shows. An absent file has a state, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState {
    seen: Option<(SystemTime, u64, u64)>,
}

impl KnownContacts {
    /// Those of this file, which may be absent.
    pub fn of(file: ContactsFile) -> Self {
        Self { file, read: Arc::default() }
    }

    /// Whether a node is a contact now. Reads from the disk. While the file cannot be read, nobody is.
    pub fn include(&self, node: &NodeKey) -> bool {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let state = FileState::of(&self.file);
        if let Some(ReadContacts { at, nodes }) = &*read
            && *at == state
        {
            return nodes.contains(node);
        }
        let nodes = match self.file.read() {
            Ok(list) => list.iter().map(|contact| contact.node).collect(),
            Err(error) => {
                tracing::warn!(%error, "nobody counts as a contact: the contacts cannot be read");
                HashSet::new()
            }
        };
        let found = nodes.contains(node);
        *read = state.is_sure().then_some(ReadContacts { at: state, nodes });
        found
    }
}

impl FileState {
    fn of(file: &ContactsFile) -> Self {
        let metadata = fs::metadata(file.path()).ok();
        let seen = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len(), number(&metadata))));
        Self { seen }
    }

    fn is_sure(&self) -> bool {
        self.seen.is_none_or(|(modified, ..)| clock::age(modified).is_some_and(|age| age >= UNSURE_FOR))
    }
}

/// What tells a file from the one that it replaced.
#[cfg(unix)]
fn number(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

/// What tells a file from the one that it replaced; nothing does here.
#[cfg(not(unix))]
fn number(_metadata: &fs::Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use keyferry_proto::identity::NodeSecret;

    use super::*;

    #[test]
    fn whoever_is_added_removed_or_edited_out_counts_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = ContactsFile::of(dir.path());
        let known = KnownContacts::of(file.clone());
        let [ada, bob] = [1, 2].map(|number| NodeSecret::from_bytes(&[number; 32]).public());
        let included = || [ada, bob].map(|node| known.include(&node));
        // As if the last change of the file were an hour ago, so that it need not be read each time.
        let age = || {
            let past = SystemTime::now() - Duration::from_secs(3600);
            File::options().write(true).open(file.path()).unwrap().set_modified(past).unwrap();
        };
        assert_eq!(included(), [false, false]);
        file.add(ada, Some("Ada")).unwrap();
        assert_eq!(included(), [true, false]);
        age();
        assert_eq!((included(), known.read.lock().unwrap().is_some()), ([true, false], true));
        file.add(bob, Some("Bob")).unwrap();
        assert_eq!(included(), [true, true]);
        file.remove("Ada").unwrap();
        assert_eq!(included(), [false, true]);
        age();
        assert_eq!(included(), [false, true]);
        fs::write(file.path(), "not a list of contacts").unwrap();
        assert_eq!(included(), [false, false]);
        fs::remove_file(file.path()).unwrap();
        assert_eq!(included(), [false, false]);
    }
}
