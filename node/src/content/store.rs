//! The content of a node: what it shares in place, what it copied, what it fetched, and what it is fetching.
//!
//! - `roots`, `audience`: the list of what is there, and what of it is offered to whom; a plain file, and the truth.
//! - `index`: which file has which blob; sled, made again from the roots when it is damaged.
//! - `tree`, `hashing`, `proving`: hash trees, computing them on all cores, and checking files against them.
//! - `known_files`, `superseded`: what is the same in the next version of a share, and the versions before.
//! - `found`, `selection`, `left_out`, `moment`: what is in a folder, what is not wanted and what cannot be shared of it, and files that never rest.
//! - `import`, `rebuild`, `verify`, `collect`, `former`: what is done with all that.
//! - `fetched`, `targets`, `candidates`, `power_cuts`: taking over what was fetched, what was fetched to which place, whether it is still so, and what
//!   of it is lost after a power cut.
//! - `blobs`, `blob`, `outboard`: which file a blob is read from, reading a complete one, and writing one that is being fetched.
//!
//! Every method blocks; asynchronous callers use a blocking thread. The process may be killed at any moment: a file has
//! its final name only when it is complete, and the list of roots is replaced as a whole, after everything it needs.
//!
//! What it is not: the network, or where fetched files go; that is `transfer`.

mod attributes;
mod audience;
mod blob;
mod blobs;
mod candidates;
mod collect;
mod disk;
mod doubts;
mod error;
mod fetched;
mod former;
mod found;
mod hashing;
mod import;
mod index;
mod known_files;
mod left_out;
mod moment;
mod needed;
mod outboard;
mod power_cuts;
mod proving;
mod rebuild;
mod roots;
mod selection;
mod source;
mod spooled;
mod superseded;
mod targets;
mod tree;
mod verify;

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use keyferry_proto::{
    address::ShareName,
    hash::{ContentFormat, ContentHash},
};

use tokio::sync::watch;

use self::{
    disk::Folders,
    doubts::SourceDoubts,
    index::{Index, IndexError, Location},
    outboard::ActiveOutboards,
    superseded::SupersededRoots,
    targets::FetchTargets,
};
use crate::base::stamp::{Machine, Stamp, StampTrust};

pub use self::{
    audience::{Asker, Audience, AudienceError, Invited, MAX_INVITED},
    blob::{Blob, BlobPieces},
    candidates::{CandidateFile, FoundBlob},
    collect::{Collected, UNFINISHED_GRACE},
    error::{BlobError, StoreError},
    fetched::PlacedFile,
    import::{ImportMode, ImportOptions, ImportProgress, Imported, Renewed},
    left_out::{LeftOut, LeftOutReason, MAX_LEFT_OUT_LISTED},
    outboard::OutboardFile,
    roots::{Migrated, Root, RootOrigin, RootState},
    selection::{Excludes, ExcludesError, IGNORE_FILE, MAX_EXCLUDES},
    targets::FetchedVersion,
    verify::{Damage, VerifyProgress, VerifyReport},
};

/// The content of a node. Clones share it.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folders: Folders,
    index: Index,
    roots: RwLock<Vec<Root>>,
    /// Told of each change of the roots.
    roots_changed: watch::Sender<()>,
    superseded: SupersededRoots,
    targets: FetchTargets,
    active: ActiveOutboards,
    doubts: SourceDoubts,
    machine: Machine,
    /// Held by whatever must not run beside a garbage collection: an import, and the collection itself.
    changing: Mutex<()>,
    /// Whether the index turned out to be damaged while in use and was made again, which happens once in a run at most.
    remade: AtomicBool,
}

/// What opening a store brought to light.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Where a damaged index was set aside, if there was one.
    pub set_aside: Option<PathBuf>,
    /// What was wrong with it, in words.
    pub problem: Option<String>,
    /// Whether the whole index was gone, or damaged, though there are roots.
    pub index_was_lost: bool,
    /// How many roots were put into the index again.
    pub reindexed_roots: u64,
    /// Files of those roots that changed or are gone, so that they cannot be served (at most [`OpenReport::MAX_LOST`]).
    pub lost: Vec<PathBuf>,
    /// How many those are in all.
    pub lost_count: u64,
    /// What became of a data folder of an earlier version.
    pub migrated: Option<Migrated>,
}

impl OpenReport {
    /// How many lost files are listed.
    pub const MAX_LOST: usize = 100;

    /// Whether everything was as it was left.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    fn lose(&mut self, path: PathBuf) {
        self.lost_count += 1;
        if self.lost.len() < Self::MAX_LOST {
            self.lost.push(path);
        }
    }
}

impl Store {
    /// Opens the store in the data folder `dir`, and makes it when it is absent.
    ///
    /// A damaged index is set aside and made again. The caller must hold the folder's lock.
    ///
    /// # Errors
    /// [`StoreError::Roots`] if the list of roots cannot be read; nothing is changed then.
    pub fn open(dir: &Path) -> Result<(Self, OpenReport), StoreError> {
        Self::open_on(dir, Machine::here())
    }

    fn open_on(dir: &Path, machine: Machine) -> Result<(Self, OpenReport), StoreError> {
        let folders = Folders::open(dir)?;
        let (roots, migrated) = roots::read(&folders.roots_file())?;
        if migrated.is_some()
            && let Err(error) = roots::write(&folders.roots_file(), &roots)
        {
            // Such as on a full disk, where the user has to come this far to make room. It is written with the next change.
            tracing::warn!(%error, "the list of roots is still that of an earlier version");
        }
        let was_there = folders.index().exists();
        let (index, set_aside) = index::open(&folders.index())?;
        let index_was_lost = !roots.is_empty() && (set_aside.is_some() || !was_there);
        let mut report = OpenReport { migrated, index_was_lost, ..OpenReport::default() };
        if let Some(set_aside) = set_aside {
            tracing::warn!(path = %set_aside.path.display(), problem = set_aside.problem, "set a damaged index aside");
            report.set_aside = Some(set_aside.path);
            report.problem = Some(set_aside.problem);
        }
        let targets = FetchTargets::in_folders(&folders);
        let store = Self(Arc::new(Inner {
            folders,
            index,
            roots: RwLock::new(roots),
            roots_changed: watch::Sender::default(),
            superseded: SupersededRoots::default(),
            targets,
            active: ActiveOutboards::default(),
            doubts: SourceDoubts::default(),
            machine,
            changing: Mutex::new(()),
            remade: AtomicBool::new(false),
        }));
        store.relist_former(&mut report);
        store.reindex_missing(&mut report)?;
        Ok((store, report))
    }

    /// Everything that is shared, seeded or kept, in the order in which it came.
    pub fn roots(&self) -> Vec<Root> {
        self.read_roots().clone()
    }

    /// The root with this name in the catalogue.
    pub fn root_named(&self, name: &ShareName) -> Option<Root> {
        self.read_roots().iter().find(|root| root.name() == Some(name)).cloned()
    }

    /// The root with this hash; the first one, if it has several names.
    pub fn root(&self, hash: &ContentHash) -> Option<Root> {
        self.read_roots().iter().find(|root| root.hash == *hash).cloned()
    }

    /// What content is announced: all of it is given to whoever knows its hash.
    pub fn announced(&self) -> Vec<ContentHash> {
        let mut seen = HashSet::new();
        let roots = self.read_roots();
        let announced = roots.iter().filter(|root| root.is_offered_to(&Asker::ByHash)).map(|root| root.hash);
        announced.filter(|hash| seen.insert(*hash)).collect()
    }

    /// What is there of this content for this asker: the format. None if it is not offered to them, which says nothing of whether it is here.
    pub fn offered(&self, hash: &ContentHash, asker: &Asker) -> Option<ContentFormat> {
        let roots = self.read_roots();
        let current = roots.iter().find(|root| root.hash == *hash && root.is_offered_to(asker)).map(|root| root.format);
        current.or_else(|| Some(self.0.superseded.offered(hash, asker, &roots, Instant::now())?.format))
    }

    /// The shares that follow what is in their places.
    pub fn followed(&self) -> Vec<(ShareName, PathBuf)> {
        let followed = |root: &Root| match (&root.state, &root.origin) {
            (RootState::Shared { name, .. }, RootOrigin::InPlace { path, followed: true, .. }) => {
                Some((name.clone(), path.clone()))
            }
            _ => None,
        };
        self.read_roots().iter().filter_map(followed).collect()
    }

    /// Forgets the versions of shares that newer ones have taken the place of.
    pub fn forget_superseded(&self) {
        self.forget(&self.0.superseded.take(), &self.roots());
    }

    /// Changes whenever the roots have changed.
    pub fn watch_roots(&self) -> watch::Receiver<()> {
        self.0.roots_changed.subscribe()
    }

    /// Takes a share out of the catalogue and returns it. The content is kept, and is offered no more, unless under another name.
    pub fn unshare(&self, name: &ShareName) -> Result<Option<Root>, StoreError> {
        self.change_roots(|roots| roots::unshare(roots, name))
    }

    /// Ends every offer of a content, which is kept. Returns whether there was one.
    pub fn withdraw(&self, hash: &ContentHash) -> Result<bool, StoreError> {
        self.change_roots(|roots| roots::withdraw(roots, hash))
    }

    /// Drops a root under all its names, with its copies in the data folder. Files that are shared in place, or were
    /// fetched, are left alone. Returns whether there was such a root.
    ///
    /// On a full disk, where the list cannot be written, the copies go first; if that is all that succeeds, the root is still listed.
    pub fn remove_root(&self, hash: &ContentHash) -> Result<bool, StoreError> {
        let _changing = self.lock_changing();
        let (mut removed, kept): (Vec<Root>, Vec<Root>) = self.roots().into_iter().partition(|root| root.hash == *hash);
        let is_there = !removed.is_empty();
        removed.extend(self.0.superseded.take());
        let drop_root = || self.change_roots(|roots| roots.retain(|root| root.hash != *hash));
        match drop_root() {
            Err(StoreError::DiskFull { .. }) => {
                self.forget(&removed, &kept);
                drop_root()?;
            }
            result => {
                result?;
                self.forget(&removed, &kept);
            }
        }
        Ok(is_there)
    }

    /// Writes out what the index has, so that the next process need not put it in again.
    pub fn write_out_index(&self) {
        if let Err(error) = self.on_index(Index::write_out) {
            tracing::debug!(%error, "the next start puts some into the index again");
        }
    }

    /// A tree of the index's database for another part of the node, which may keep there what it can do without: a
    /// damaged index takes it along. None if the database refuses.
    pub fn expendable_tree(&self, name: &str) -> Option<sled::Tree> {
        self.0.index.other_tree(name).inspect_err(|error| tracing::warn!(%error, name, "no tree")).ok()
    }

    /// The places of a blob by the index; none without an index.
    fn locations(&self, hash: &ContentHash) -> Result<Vec<Location>, StoreError> {
        if !self.0.index.is_open() {
            return Ok(Vec::new());
        }
        self.on_mended_index(|index| index.locations(hash))
    }

    /// Calls the index; if it turns out to be damaged it is filled again, once, and called again.
    fn on_mended_index<T>(&self, call: impl Fn(&Index) -> Result<T, IndexError>) -> Result<T, StoreError> {
        match call(&self.0.index) {
            Err(IndexError::Damaged(problem)) if !self.0.remade.swap(true, Ordering::AcqRel) => {
                tracing::warn!(problem, "the index is damaged; filling it again");
                self.reindex_all(&mut OpenReport::default())?;
                self.on_index(call)
            }
            called => self.on_index(|_| called),
        }
    }

    /// Calls the index, and says where it is if it fails.
    fn on_index<T>(&self, call: impl FnOnce(&Index) -> Result<T, IndexError>) -> Result<T, StoreError> {
        call(&self.0.index).map_err(|error| match error {
            IndexError::Disk(error) => error,
            IndexError::Damaged(problem) => StoreError::Index { path: self.0.index.path().to_owned(), problem },
        })
    }

    /// What the index notes of a file as it is now, which nobody has hashed under this stamp.
    fn locate(&self, path: PathBuf) -> Result<Location, StoreError> {
        let metadata = fs::symlink_metadata(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreError::Vanished { path: path.clone() },
            _ => StoreError::io("read", &path)(error),
        })?;
        if !metadata.is_file() {
            return Err(StoreError::Changed { path });
        }
        Ok(Location { path, stamp: Stamp::of(&metadata), trust: StampTrust::Never })
    }

    /// Notes where blobs are, and forgets what was thought of their files before.
    fn add_places(&self, places: &[(ContentHash, Location)]) -> Result<(), StoreError> {
        self.on_mended_index(|index| index.add(places.iter().cloned()))?;
        self.forget_doubts(places);
        Ok(())
    }

    fn forget_doubts(&self, places: &[(ContentHash, Location)]) {
        places.iter().for_each(|(hash, _)| self.0.doubts.forget(hash));
    }

    /// Puts a root into the list, if there is to be one by what is in it, and forgets the one that it displaces. What is fetched of an earlier
    /// version of the same files can be had for a while.
    fn add_root(&self, make: impl FnOnce(&[Root]) -> Option<Root>) -> Result<Option<Root>, StoreError> {
        let added = self.change_roots(|roots| {
            let root = make(roots)?;
            Some((root.clone(), roots::add(roots, root)))
        })?;
        let Some((root, displaced)) = added else { return Ok(None) };
        let place = |root: &Root| match &root.origin {
            RootOrigin::InPlace { path, .. } => Some(path.clone()),
            RootOrigin::Copied | RootOrigin::Fetched { .. } => None,
        };
        let over = match displaced {
            Some(former) if place(&former).is_some() && place(&former) == place(&root) => {
                self.0.superseded.add(former, Instant::now())
            }
            other => other.into_iter().collect(),
        };
        self.forget(&over, &self.roots_in_use());
        Ok(Some(root))
    }

    /// All roots, and those that newer versions have taken the place of.
    fn roots_in_use(&self) -> Vec<Root> {
        self.roots().into_iter().chain(self.0.superseded.roots()).collect()
    }

    /// Changes the list of roots on the disk, and then in memory.
    fn change_roots<T>(&self, change: impl FnOnce(&mut Vec<Root>) -> T) -> Result<T, StoreError> {
        let mut current = self.0.roots.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = current.clone();
        let result = change(&mut changed);
        if changed != *current {
            roots::write(&self.0.folders.roots_file(), &changed)?;
            *current = changed;
            self.0.roots_changed.send_replace(());
        }
        Ok(result)
    }

    /// The blobs of a root: its own, and those of its manifest.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if its manifest is missing or cannot be read.
    fn blobs_of(&self, root: &Root) -> Result<Vec<ContentHash>, StoreError> {
        let mut blobs = vec![root.hash];
        if root.format == ContentFormat::Collection {
            let missing = || StoreError::Damaged {
                path: self.0.folders.blob(&root.hash),
                problem: "the list of the folder's files is missing".to_owned(),
            };
            let manifest = self.manifest(&root.hash)?.ok_or_else(missing)?;
            blobs.extend(manifest.files().map(|(_, file)| file.hash));
        }
        Ok(blobs)
    }

    /// Forgets the blobs of roots that leave the list, unless a root that stays has them too.
    ///
    /// What goes wrong here is no failure of what the caller does: garbage collection finds the rest.
    fn forget(&self, removed: &[Root], kept: &[Root]) {
        let blobs: HashSet<ContentHash> =
            removed.iter().flat_map(|root| self.blobs_of(root).unwrap_or_else(|_| vec![root.hash])).collect();
        if blobs.is_empty() {
            return;
        }
        let needed = self.needed_by(kept);
        for blob in &blobs {
            if let Err(error) = self.remove_files(blob, &needed) {
                tracing::warn!(%error, "what is not needed any more was not removed");
            }
        }
        let unneeded: Vec<ContentHash> = blobs.into_iter().filter(|blob| !needed.has_entry(blob)).collect();
        if let Err(error) = self.on_index(|index| index.remove(&unneeded)) {
            tracing::warn!(%error, "the index still has what was removed");
        }
    }

    fn read_roots(&self) -> RwLockReadGuard<'_, Vec<Root>> {
        self.0.roots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_changing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.0.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
