//! The store as the rest of the node meets it.

mod bad_input;
mod damage;
mod durability;
mod fetching;
mod folders;
mod full_disk;
mod keeping;
mod renewing;
mod vouching;

use std::{
    cell::{Cell, RefCell},
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::{Duration, SystemTime},
};

use keyferry_proto::{
    address::ShareName,
    hash::ContentHash,
    transfer::{groups::Step, units::UnitRanges},
};

use super::*;
use crate::base::clock;

/// A data folder and a folder of the user's own files beside it.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("files")).unwrap();
        Self { dir }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("files").join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn open(&self) -> Store {
        let (store, report) = Store::open(&self.home()).unwrap();
        assert!(report.is_clean(), "{report:?}");
        store
    }
}

/// Bytes that look random and differ by seed.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn import(store: &Store, path: &Path, name: &str, mode: ImportMode) -> Result<Imported, StoreError> {
    let name: ShareName = name.parse().unwrap();
    store.import(path, &name, None, mode, &|_| {}, &AtomicBool::new(false))
}

fn read_all(store: &Store, hash: &ContentHash) -> Vec<u8> {
    let blob = store.blob(hash).unwrap().expect("the blob is here");
    read_pieces(&blob).unwrap()
}

/// Reads a blob as it is sent, without the parents.
fn read_pieces(blob: &Blob) -> Result<Vec<u8>, BlobError> {
    let (mut bytes, mut piece) = (Vec::new(), Vec::new());
    let mut pieces = blob.pieces(&UnitRanges::all()).unwrap();
    while let Some(step) = pieces.append_next(&mut piece)? {
        if matches!(step, Step::Leaf { .. }) {
            bytes.extend_from_slice(&piece);
        }
        piece.clear();
    }
    Ok(bytes)
}

/// Sets the time of the last change back, so that a later change is seen however coarse the clock is.
fn age(path: &Path) {
    let past = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(path).unwrap().set_modified(past).unwrap();
}

fn verify(store: &Store) -> (VerifyReport, Vec<Damage>) {
    let found = RefCell::new(Vec::new());
    let report = store.verify(&|_| {}, &mut |damage| found.borrow_mut().push(damage), &AtomicBool::new(false)).unwrap();
    (report, found.into_inner())
}

#[test]
fn a_file_is_shared_in_place_under_the_hash_that_b3sum_prints() {
    let scene = Scene::new();
    let store = scene.open();
    for (seed, len) in [(1, 0), (2, 1), (3, 65_536), (4, 65_537), (5, 1_000_000), (6, 40 * 1024 * 1024 + 5)] {
        let content = bytes(seed, len);
        let path = scene.write(&format!("f{seed}"), &content);
        let imported = import(&store, &path, &format!("f{seed}"), ImportMode::InPlace).unwrap();
        assert_eq!(imported.root.hash, ContentHash::of(&content), "{len} bytes");
        assert_eq!(
            imported.root.origin,
            RootOrigin::InPlace { path: path.clone(), followed: false, excludes: Excludes::default() }
        );
        assert_eq!((imported.root.size, imported.root.files), (len as u64, 1));
        assert!(read_all(&store, &imported.root.hash) == content);
        assert_eq!(store.blob(&imported.root.hash).unwrap().unwrap().path(), path);
    }
}

#[test]
fn every_parent_of_a_blob_is_the_one_that_bao_tree_computes() {
    let scene = Scene::new();
    let store = scene.open();
    let content = bytes(1, 35 * 1024 * 1024 + 77);
    let path = scene.write("f", &content);
    let reference =
        bao_tree::io::outboard::PreOrderMemOutboard::create(&content, keyferry_proto::transfer::groups::BLOCK_SIZE);
    for mode in [ImportMode::InPlace, ImportMode::Copy] {
        let root = import(&store, &path, "f", mode).unwrap().root;
        let blob = store.blob(&root.hash).unwrap().unwrap();
        for (number, parent) in reference.data.chunks(64).enumerate() {
            assert_eq!(blob.read_parent(number as u64 * 64).unwrap()[..], *parent, "parent {number}");
        }
        let end = reference.data.len() as u64;
        assert!(matches!(blob.read_parent(end), Err(BlobError::NoParent { offset, .. }) if offset == end));
        store.remove_root(&root.hash).unwrap();
    }
}

#[test]
fn a_copy_stays_when_the_source_goes() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("d/small", b"small");
    scene.write("d/same as small", b"small");
    scene.write("d/large", &bytes(1, 17 * 1024 * 1024));
    let root = import(&store, &scene.file("d"), "d", ImportMode::Copy).unwrap().root;
    fs::remove_dir_all(scene.file("d")).unwrap();
    assert_eq!(root.origin, RootOrigin::Copied);
    assert_eq!(read_all(&store, &ContentHash::of(b"small")), b"small");
    assert!(read_all(&store, &ContentHash::of(&bytes(1, 17 * 1024 * 1024))) == bytes(1, 17 * 1024 * 1024));
    assert_eq!(verify(&store).0, VerifyReport { sound: 3, damaged: 0, repaired: 0 });
}

#[test]
fn progress_counts_up_to_all_bytes_and_files() {
    let scene = Scene::new();
    let store = scene.open();
    for number in 0..50 {
        scene.write(&format!("d/{number}"), &bytes(number, 1000));
    }
    scene.write("d/large", &bytes(1, 20 * 1024 * 1024));
    let last = Cell::new(None);
    let progress = |progress: ImportProgress| {
        if let Some(before) = last.replace(Some(progress)) {
            assert!(before.done_bytes <= progress.done_bytes && before.done_files <= progress.done_files);
        }
    };
    let path = scene.file("d");
    store.import(&path, &"f".parse().unwrap(), None, ImportMode::InPlace, &progress, &AtomicBool::new(false)).unwrap();
    let last = last.get().unwrap();
    assert_eq!((last.done_files, last.total_files), (51, 51));
    assert_eq!((last.done_bytes, last.total_bytes), (50_000 + 20 * 1024 * 1024, last.done_bytes));
}

#[test]
fn a_cancelled_import_shares_nothing_and_leaves_nothing_half_done() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("d/large", &bytes(1, 40 * 1024 * 1024));
    scene.write("d/small", b"small");
    let cancelled = AtomicBool::new(false);
    let progress = |_| cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
    let result = store.import(&scene.file("d"), &"d".parse().unwrap(), None, ImportMode::Copy, &progress, &cancelled);
    assert!(matches!(result, Err(StoreError::Cancelled)), "{result:?}");
    assert_eq!(store.roots(), []);
    assert_eq!(fs::read_dir(scene.home().join("tmp")).unwrap().count(), 0);
}

#[test]
fn sharing_a_changed_folder_again_replaces_it_under_its_name() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("d/kept", b"kept");
    let changing = scene.write("d/changing", b"before");
    let before = import(&store, &scene.file("d"), "d", ImportMode::InPlace).unwrap().root;
    fs::write(&changing, b"after!").unwrap();
    let after = import(&store, &scene.file("d"), "d", ImportMode::InPlace).unwrap().root;
    assert_eq!(store.roots(), std::slice::from_ref(&after));
    assert_eq!(store.root_named(&"d".parse().unwrap()), Some(after));
    store.forget_superseded();
    assert!(store.blob(&before.hash).unwrap().is_none());
    assert!(store.blob(&ContentHash::of(b"before")).unwrap().is_none());
    assert_eq!(read_all(&store, &ContentHash::of(b"kept")), b"kept");
    assert_eq!(read_all(&store, &ContentHash::of(b"after!")), b"after!");
}

#[test]
fn a_blob_with_several_places_is_read_from_one_that_still_has_it() {
    let scene = Scene::new();
    let store = scene.open();
    let first = scene.write("first", b"the same");
    let second = scene.write("second", b"the same");
    import(&store, &first, "first", ImportMode::InPlace).unwrap();
    import(&store, &second, "second", ImportMode::InPlace).unwrap();
    fs::remove_file(&second).unwrap();
    assert_eq!(read_all(&store, &ContentHash::of(b"the same")), b"the same");
    fs::remove_file(&first).unwrap();
    let result = store.blob(&ContentHash::of(b"the same"));
    assert!(matches!(result, Err(StoreError::Vanished { .. })), "{result:?}");
}
