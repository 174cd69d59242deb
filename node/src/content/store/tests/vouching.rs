//! Nothing leaves that was not shared, and nothing is refused that was: stamps, what they are good for, and proof.

use std::{fs::FileTimes, os::unix::fs::MetadataExt, sync::mpsc, thread};

use super::*;
use crate::{
    base::stamp::{BootId, FileId},
    content::store::{
        hashing::{FileToHash, Hashed, Observer, Sources, hash_files},
        source::SourceFolder,
    },
};

const GROUP: usize = 65_536;
/// A blob of 9 groups: a change of the second one is beside the three that are looked at first.
const LARGE: usize = 9 * GROUP - 5;

/// An hour from now, when nothing that the test does is young any more.
fn later() -> i128 {
    clock::now_nanos() + 3_600_000_000_000
}

fn boot(number: u128) -> Machine {
    Machine { boot: BootId::numbered(number), now_nanos: later }
}

fn open_on(scene: &Scene, machine: Machine) -> Store {
    Store::open_on(&scene.home(), machine).unwrap().0
}

/// Whether the index vouches for the file at `path` as it is now.
fn is_vouched_for(store: &Store, hash: &ContentHash, path: &Path) -> bool {
    let stamp = Stamp::of(&fs::metadata(path).unwrap());
    store.locations(hash).unwrap().iter().any(|known| known.vouches_for(&stamp, &store.0.machine))
}

/// Writes into a file, and sets its time back to what it was.
fn overwrite_in_secret(path: &Path, with: &[u8], offset: u64) {
    let file = File::options().write(true).open(path).unwrap();
    let before = file.metadata().unwrap();
    disk::write_all_at(&file, with, offset).unwrap();
    file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    let after = file.metadata().unwrap();
    assert_eq!((before.len(), before.mtime_nsec(), before.ino()), (after.len(), after.mtime_nsec(), after.ino()));
}

#[test]
fn bytes_that_were_not_shared_are_refused_though_size_and_time_are_as_before() {
    let scene = Scene::new();
    let store = open_on(&scene, boot(1));
    for (name, content) in [("small", bytes(1, 1000)), ("large", bytes(2, LARGE))] {
        let path = scene.write(name, &content);
        let hash = import(&store, &path, name, ImportMode::InPlace).unwrap().root.hash;
        overwrite_in_secret(&path, b"PRIVATE", 0);
        let result = store.blob(&hash);
        assert!(matches!(&result, Err(StoreError::Changed { path: named }) if *named == path), "{result:?}");
    }
}

#[test]
fn of_a_file_in_doubt_no_group_is_read_that_is_not_the_blobs() {
    let scene = Scene::new();
    let store = open_on(&scene, boot(1));
    let path = scene.write("f", &bytes(1, LARGE));
    let hash = import(&store, &path, "f", ImportMode::InPlace).unwrap().root.hash;
    overwrite_in_secret(&path, b"PRIVATE", GROUP as u64 + 10);
    let blob = store.blob(&hash).unwrap().unwrap();
    let (mut pieces, mut read) = (blob.pieces(&UnitRanges::all()).unwrap(), Vec::new());
    let error = loop {
        match pieces.append_next(&mut read) {
            Ok(step) => assert!(step.is_some(), "all of it was read"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, BlobError::Changed { path: named } if *named == path), "{error}");
    assert!(read.ends_with(&bytes(1, GROUP)), "the first group is right");
    assert!(!read.windows(7).any(|window| window == b"PRIVATE"));
    // And it is known from now on.
    drop(pieces);
    assert!(matches!(store.blob(&hash), Err(StoreError::Changed { .. })));
    // Until it is shared again.
    let again = import(&store, &path, "f", ImportMode::InPlace).unwrap().root.hash;
    assert!(read_all(&store, &again) == fs::read(&path).unwrap());
}

#[test]
fn a_change_while_a_trusted_file_is_read_ends_with_the_last_group_that_is_right() {
    let scene = Scene::new();
    let store = open_on(&scene, boot(1));
    let path = scene.write("f", &bytes(1, LARGE));
    let hash = import(&store, &path, "f", ImportMode::InPlace).unwrap().root.hash;
    assert!(is_vouched_for(&store, &hash, &path));
    let blob = store.blob(&hash).unwrap().unwrap();
    let mut pieces = blob.pieces(&UnitRanges::all()).unwrap();
    let mut next_group = || loop {
        let mut piece = Vec::new();
        match pieces.append_next(&mut piece) {
            Ok(Some(Step::Parent { .. })) => {}
            Ok(step) => return step.map(|_| piece),
            Err(_) => return None,
        }
    };
    assert!(next_group().unwrap() == bytes(1, GROUP));
    overwrite_in_secret(&path, b"PRIVATE", 2 * GROUP as u64);
    assert!(next_group().is_some_and(|group| group[..] == bytes(1, LARGE)[GROUP..2 * GROUP]));
    assert_eq!(next_group(), None);
}

#[test]
fn a_file_that_was_touched_moved_or_deleted_while_it_is_read_is_read_to_its_end() {
    let scene = Scene::new();
    let store = open_on(&scene, boot(1));
    let path = scene.write("f", &bytes(1, LARGE));
    let hash = import(&store, &path, "f", ImportMode::InPlace).unwrap().root.hash;
    let blob = store.blob(&hash).unwrap().unwrap();
    age(&path);
    assert!(read_pieces(&blob).unwrap() == bytes(1, LARGE));
    fs::remove_file(&path).unwrap();
    assert!(read_pieces(&blob).unwrap() == bytes(1, LARGE));
}

#[test]
fn a_file_that_was_only_touched_or_copied_back_is_served_and_trusted_again_once_it_was_proven() {
    let scene = Scene::new();
    let store = open_on(&scene, boot(1));
    for (name, content) in [("small", bytes(1, 1000)), ("large", bytes(2, LARGE))] {
        let path = scene.write(name, &content);
        let hash = import(&store, &path, name, ImportMode::InPlace).unwrap().root.hash;
        age(&path);
        assert!(read_all(&store, &hash) == content);
        fs::rename(scene.write("copy", &content), &path).unwrap();
        assert!(!is_vouched_for(&store, &hash, &path));
        assert!(read_all(&store, &hash) == content);
        assert!(read_all(&store, &hash) == content);
    }
    assert!(is_vouched_for(&store, &ContentHash::of(&bytes(2, LARGE)), &scene.file("large")));
}

#[test]
fn the_same_bytes_under_another_stamp_are_served_whatever_made_it_another() {
    let scene = Scene::new();
    let store = open_on(&scene, boot(1));
    let set_time = |path: &Path, shift: i64| {
        let file = File::options().write(true).open(path).unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        let hour = Duration::from_secs(3600);
        let time = if shift > 0 { before + hour } else { before - hour };
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    let restore = |path: &Path| {
        // As `cp -p` from a backup: another inode with the time of the old one.
        let times = FileTimes::new().set_modified(fs::metadata(path).unwrap().modified().unwrap());
        let content = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        fs::write(path, content).unwrap();
        File::options().write(true).open(path).unwrap().set_times(times).unwrap();
    };
    let save = |path: &Path| {
        let new = path.with_extension("new");
        fs::copy(path, &new).unwrap();
        fs::rename(&new, path).unwrap();
    };
    let away_and_back = |path: &Path| {
        fs::rename(path, path.with_extension("away")).unwrap();
        fs::rename(path.with_extension("away"), path).unwrap();
    };
    let chmod = |path: &Path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    type Act<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Act<'_>); 7] = [
        ("touched", &age),
        ("restored", &restore),
        ("saved by rename", &save),
        ("moved away and back", &away_and_back),
        ("made executable", &chmod),
        ("an hour later, as on FAT in another time zone", &|path| set_time(path, 1)),
        ("an hour earlier", &|path| set_time(path, -1)),
    ];
    for (number, (case, act)) in cases.into_iter().enumerate() {
        for len in [1000, LARGE] {
            let (name, content) = (format!("{number}-{len}"), bytes(number as u64, len));
            let path = scene.write(&name, &content);
            let hash = import(&store, &path, &name, ImportMode::InPlace).unwrap().root.hash;
            act(&path);
            assert!(!is_vouched_for(&store, &hash, &path), "{case}: the stamp is the same");
            let blob = store.blob(&hash).unwrap_or_else(|error| panic!("{case}: {error}")).unwrap();
            assert!(read_pieces(&blob).is_ok_and(|read| read == content), "{case}, {len} bytes");
        }
    }
}

#[test]
fn a_young_stamp_vouches_for_nothing() {
    let scene = Scene::new();
    let path = scene.write("f", &bytes(1, LARGE));
    // The time of its change lies ahead.
    let store = open_on(&scene, Machine { now_nanos: || 0, ..boot(1) });
    let hash = import(&store, &path, "f", ImportMode::InPlace).unwrap().root.hash;
    assert!(!is_vouched_for(&store, &hash, &path));
    assert!(read_all(&store, &hash) == bytes(1, LARGE));
    assert!(!is_vouched_for(&store, &hash, &path));
    drop(store);
    let store = open_on(&scene, boot(1));
    import(&store, &path, "f", ImportMode::InPlace).unwrap();
    assert!(is_vouched_for(&store, &hash, &path));
}

#[test]
fn what_was_not_synced_is_trusted_in_its_boot_and_in_another_one_once_it_was_proven() {
    let scene = Scene::new();
    let path = scene.write("f", &bytes(1, LARGE));
    let hash = import(&open_on(&scene, boot(1)), &path, "f", ImportMode::InPlace).unwrap().root.hash;
    assert!(is_vouched_for(&open_on(&scene, boot(1)), &hash, &path));
    let store = open_on(&scene, boot(2));
    assert!(!is_vouched_for(&store, &hash, &path));
    assert!(read_all(&store, &hash) == bytes(1, LARGE));
    // It is noted when it is used the next time.
    assert!(read_all(&store, &hash) == bytes(1, LARGE));
    assert!(is_vouched_for(&store, &hash, &path));
    drop(store);
    assert!(is_vouched_for(&open_on(&scene, boot(3)), &hash, &path));
}

#[test]
fn an_outboard_that_a_power_cut_emptied_is_noticed_in_the_next_boot() {
    let scene = Scene::new();
    let path = scene.write("f", &bytes(1, LARGE));
    let hash = import(&open_on(&scene, boot(1)), &path, "f", ImportMode::InPlace).unwrap().root.hash;
    let store = open_on(&scene, boot(2));
    fs::write(store.0.folders.outboard(&hash), vec![0; tree::outboard_len(LARGE as u64) as usize]).unwrap();
    assert!(matches!(store.blob(&hash), Err(StoreError::Changed { .. })));
    verify(&store);
    assert!(read_all(&store, &hash) == bytes(1, LARGE));
}

#[test]
fn a_pipe_or_a_link_in_place_of_a_file_costs_nothing_and_gives_nothing() {
    let scene = Scene::new();
    let store = open_on(&scene, boot(1));
    for (name, content) in [("small", bytes(1, 1000)), ("large", bytes(2, LARGE))] {
        let path = scene.write(name, &content);
        let hash = import(&store, &path, name, ImportMode::InPlace).unwrap().root.hash;
        let moved = scene.file("moved");
        fs::rename(&path, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &path).unwrap();
        assert!(matches!(store.blob(&hash), Err(StoreError::Changed { .. })));
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        let (sender, receiver) = mpsc::channel();
        let opening = store.clone();
        thread::spawn(move || sender.send(opening.blob(&hash).map(drop)));
        let result = receiver.recv_timeout(Duration::from_secs(10)).expect("opening a pipe waits for nobody");
        assert!(matches!(result, Err(StoreError::Changed { .. })), "{result:?}");
        assert!(matches!(import(&store, &path, name, ImportMode::InPlace), Err(StoreError::NotShareable { .. })));
    }
}

/// Takes what one file came to.
struct One(Option<Result<Hashed, StoreError>>);

impl Observer for One {
    fn done(&mut self, _source: usize, result: Result<Hashed, StoreError>) -> std::ops::ControlFlow<StoreError> {
        self.0 = Some(result);
        std::ops::ControlFlow::Continue(())
    }

    fn progress(&mut self, _bytes: u64) {}
}

/// Hashes what the walk through `folder` has found at `path`: `found`, of the size of what is there now.
fn hash_found(store: &Store, folder: &SourceFolder, path: &Path, found: FileId) -> Result<Hashed, StoreError> {
    let size = fs::metadata(path).unwrap().len();
    let files = [FileToHash { path: path.to_owned(), size, file: Some(found), expected: None }];
    let mut one = One(None);
    let Inner { folders, machine, .. } = &*store.0;
    let sources = Sources { files: &files, folder: Some(folder) };
    hash_files(folders, machine, sources, false, &mut one, &AtomicBool::new(false)).unwrap();
    one.0.unwrap()
}

#[test]
fn what_takes_the_place_of_a_file_between_the_walk_and_the_reading_is_not_taken_in() {
    let scene = Scene::new();
    let store = scene.open();
    let id = |path: &Path| FileId::of(&fs::metadata(path).unwrap());
    let (shared, secret) = (scene.write("d/sub/f", b"shared"), scene.write("secrets/f", b"secret"));
    let folder = SourceFolder::open(&scene.file("d"), id(&scene.file("d"))).unwrap();
    let (found, of_secret) = (id(&shared), id(&secret));
    assert_eq!(hash_found(&store, &folder, &shared, found).unwrap().hash, ContentHash::of(b"shared"));
    // Another file of the same size under the name.
    fs::rename(scene.write("other", b"secret"), &shared).unwrap();
    let result = hash_found(&store, &folder, &shared, found);
    assert!(matches!(result, Err(StoreError::Unsteady { .. })), "{result:?}");
    // A link under the name.
    fs::remove_file(&shared).unwrap();
    std::os::unix::fs::symlink(&secret, &shared).unwrap();
    let result = hash_found(&store, &folder, &shared, of_secret);
    assert!(matches!(result, Err(StoreError::Unsteady { .. })), "{result:?}");
    // A link in place of a folder above it, which the walk has already followed.
    fs::remove_dir_all(scene.file("d/sub")).unwrap();
    std::os::unix::fs::symlink(scene.file("secrets"), scene.file("d/sub")).unwrap();
    let result = hash_found(&store, &folder, &shared, of_secret);
    assert!(result.is_err(), "{result:?}");
    // A link in place of the folder itself, or another folder.
    for found in [id(&scene.file("secrets")), id(&scene.file("d"))] {
        let result = SourceFolder::open(&scene.file("d/sub"), found);
        assert!(matches!(result, Err(StoreError::Unsteady { .. })), "{result:?}");
        fs::remove_file(scene.file("d/sub")).ok();
        fs::create_dir_all(scene.file("d/sub")).unwrap();
    }
}
