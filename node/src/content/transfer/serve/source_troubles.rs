//! Files that cannot be served as they were shared: which, why, and whether their owner was told.
//!
//! A file is told of once, until what is shared changes. One that could not be read in the midst of an answer is refused for a while, so that
//! whoever asks again gets what comes after it.
//!
//! What it is not: a judge of files; the store says what is wrong with one.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use keyferry_proto::{hash::ContentHash, message::Refusal};
use tokio::sync::{broadcast, watch};

use crate::content::store::{BlobError, Store, StoreError};

/// How many files are remembered as told of; one more, and all are forgotten: to be told twice does no harm.
const MAX_TOLD: usize = 4096;
/// How many blobs are remembered as unreadable; the same holds.
const MAX_UNREADABLE: usize = 1024;
/// How long a blob is not tried again that could not be read.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// How many troubles wait for whoever shows them; who is slower misses some.
const MAX_WAITING: usize = 256;

/// What is wrong with a file that is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTrouble {
    /// The file.
    pub path: PathBuf,
    /// The root that it was asked for with.
    pub root: ContentHash,
    /// What is wrong.
    pub fault: SourceFault,
}

/// Why a file cannot be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceFault {
    /// Its content is another one than was shared.
    Changed,
    /// It is not there.
    Gone,
    /// It cannot be read now, for this reason; of its content that says nothing.
    Unreadable(String),
}

impl SourceFault {
    /// What a peer is told who asks for it.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Changed => Refusal::Changed,
            Self::Gone => Refusal::Gone,
            Self::Unreadable(_) => Refusal::Unreadable,
        }
    }
}

impl SourceTrouble {
    /// What the store says, if it is about a file.
    pub(super) fn of_store(root: ContentHash, error: &StoreError) -> Option<Self> {
        let (path, fault) = match error {
            StoreError::Changed { path } => (path, SourceFault::Changed),
            StoreError::Vanished { path } => (path, SourceFault::Gone),
            StoreError::Io { path, source, .. } => (path, SourceFault::Unreadable(source.to_string())),
            StoreError::Damaged { path, problem } => (path, SourceFault::Unreadable(problem.clone())),
            StoreError::ReadOnly { path, .. } | StoreError::Unsteady { path } => {
                (path, SourceFault::Unreadable(error.to_string()))
            }
            _ => return None,
        };
        Some(Self { path: path.clone(), root, fault })
    }

    /// What came of reading a blob.
    pub(super) fn of_blob(root: ContentHash, error: &BlobError) -> Self {
        let (path, fault) = match error {
            BlobError::Changed { path } => (path, SourceFault::Changed),
            BlobError::NoParent { path, .. } => (path, SourceFault::Unreadable(error.to_string())),
            BlobError::Io { path, source } => (path, SourceFault::Unreadable(source.to_string())),
        };
        Self { path: path.clone(), root, fault }
    }
}

/// What is wrong with files that are shared.
#[derive(Debug)]
pub(super) struct SourceTroubles {
    told: Mutex<ToldSources>,
    unreadable: Mutex<HashMap<ContentHash, Instant>>,
    tell: broadcast::Sender<SourceTrouble>,
}

#[derive(Debug)]
struct ToldSources {
    files: HashSet<(PathBuf, Refusal)>,
    /// What is shared: another version of a file is told of anew.
    roots: watch::Receiver<()>,
}

impl SourceTroubles {
    pub(super) fn of(store: &Store) -> Self {
        Self {
            told: Mutex::new(ToldSources { files: HashSet::new(), roots: store.watch_roots() }),
            unreadable: Mutex::default(),
            tell: broadcast::Sender::new(MAX_WAITING),
        }
    }

    /// Hears of each file once.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<SourceTrouble> {
        self.tell.subscribe()
    }

    /// Takes in what is wrong with a file.
    pub(super) fn note(&self, trouble: SourceTrouble) {
        if self.is_new(&trouble.path, trouble.fault.refusal()) {
            tracing::warn!(path = %trouble.path.display(), fault = ?trouble.fault, "a shared file cannot be served");
            // Nobody may be there to show it.
            let _ = self.tell.send(trouble);
        }
    }

    fn is_new(&self, path: &Path, why: Refusal) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // It fails only without a store, which the server holds.
        if told.roots.has_changed().unwrap_or_default() || told.files.len() >= MAX_TOLD {
            told.roots.mark_unchanged();
            told.files.clear();
        }
        told.files.insert((path.to_owned(), why))
    }

    /// Notes that the file of a blob could not be read.
    pub(super) fn add_unreadable(&self, hash: ContentHash, now: Instant) {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if unreadable.len() >= MAX_UNREADABLE {
            unreadable.clear();
        }
        unreadable.insert(hash, now);
    }

    /// Whether the file of a blob could not be read a moment ago.
    pub(super) fn is_unreadable(&self, hash: &ContentHash, now: Instant) -> bool {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        match unreadable.get(hash) {
            Some(since) if now.saturating_duration_since(*since) < RETRY_AFTER => true,
            Some(_) => {
                unreadable.remove(hash);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn trouble(path: &str, fault: SourceFault) -> SourceTrouble {
        SourceTrouble { path: path.into(), root: ContentHash::EMPTY, fault }
    }

    #[test]
    fn a_file_is_told_of_once_until_what_is_shared_changes() {
        let home = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(home.path()).unwrap();
        let troubles = SourceTroubles::of(&store);
        let mut heard = troubles.subscribe();
        let mut told = || std::iter::from_fn(|| heard.try_recv().ok()).collect::<Vec<_>>();
        let (changed, gone) = (trouble("/a", SourceFault::Changed), trouble("/a", SourceFault::Gone));
        for each in [&changed, &changed, &gone, &changed, &gone] {
            troubles.note(each.clone());
        }
        assert_eq!(told(), [changed.clone(), gone]);
        let bytes = ContentHash::of(b"x");
        store.put_blob_bytes(bytes, b"x").unwrap();
        let path = home.path().with_extension("file");
        std::fs::write(&path, b"shared").unwrap();
        let (name, stop) = ("f".parse().unwrap(), std::sync::atomic::AtomicBool::new(false));
        store.import(&path, &name, None, crate::content::store::ImportMode::InPlace, &|_| {}, &stop).unwrap();
        std::fs::remove_file(&path).unwrap();
        troubles.note(changed.clone());
        assert_eq!(told(), [changed]);
    }

    #[test]
    fn only_other_bytes_are_a_change_and_only_what_is_not_there_is_gone() {
        let path = PathBuf::from("/a");
        let io =
            |errno| StoreError::Io { action: "open", path: path.clone(), source: io::Error::from_raw_os_error(errno) };
        let cases = [
            (StoreError::Changed { path: path.clone() }, Some(Refusal::Changed)),
            (StoreError::Vanished { path: path.clone() }, Some(Refusal::Gone)),
            (StoreError::Damaged { path: path.clone(), problem: "x".to_owned() }, Some(Refusal::Unreadable)),
            (io(libc::EACCES), Some(Refusal::Unreadable)),
            (io(libc::EMFILE), Some(Refusal::Unreadable)),
            (io(libc::ENFILE), Some(Refusal::Unreadable)),
            (io(libc::EIO), Some(Refusal::Unreadable)),
            (io(libc::ESTALE), Some(Refusal::Unreadable)),
            (StoreError::Index { path: path.clone(), problem: "x".to_owned() }, None),
        ];
        for (error, expected) in cases {
            let found = SourceTrouble::of_store(ContentHash::EMPTY, &error).map(|trouble| trouble.fault.refusal());
            assert_eq!(found, expected, "{error:?}");
        }
        for (error, expected) in [
            (BlobError::Changed { path: path.clone() }, Refusal::Changed),
            (BlobError::NoParent { path: path.clone(), offset: 0 }, Refusal::Unreadable),
            (BlobError::Io { path, source: io::Error::from_raw_os_error(libc::EIO) }, Refusal::Unreadable),
        ] {
            assert_eq!(SourceTrouble::of_blob(ContentHash::EMPTY, &error).fault.refusal(), expected, "{error:?}");
        }
    }

    #[test]
    fn what_could_not_be_read_is_tried_again_after_a_while() {
        let home = tempfile::tempdir().unwrap();
        let troubles = SourceTroubles::of(&Store::open(home.path()).unwrap().0);
        let (hash, now) = (ContentHash::of(b"x"), Instant::now());
        assert!(!troubles.is_unreadable(&hash, now));
        troubles.add_unreadable(hash, now);
        assert!(troubles.is_unreadable(&hash, now + RETRY_AFTER / 2));
        assert!(!troubles.is_unreadable(&hash, now + RETRY_AFTER));
        assert!(!troubles.is_unreadable(&hash, now), "forgotten");
    }
}
