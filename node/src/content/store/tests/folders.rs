//! What is carried of a folder: all names, empty folders, links, times and rights; and files that change while they are read.

use std::{
    ffi::OsStr,
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt},
};

use keyferry_proto::collection::{EntryKind, FileTime, Manifest, ShownPath};

use super::*;

fn manifest(store: &Store, root: &Root) -> Manifest {
    store.manifest(&root.hash).unwrap().unwrap()
}

fn paths(manifest: &Manifest) -> Vec<String> {
    (0..manifest.len() as u32).map(|index| ShownPath(&manifest.path(index)).to_string()).collect()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_folder_is_carried_with_all_that_is_in_it() {
    let scene = Scene::new();
    let store = scene.open();
    let deep = bytes(1, 200_000);
    scene.write("d/deep/er/b.txt", &deep);
    scene.write("d/12:30 aux.c ", b"a");
    fs::write(scene.file("d").join(OsStr::from_bytes(b"caf\xe9\r")), b"").unwrap();
    chmod(&scene.write("d/tool", b"#!/bin/sh\n"), 0o755);
    chmod(&scene.write("d/key", b"key"), 0o600);
    fs::create_dir(scene.file("d/empty")).unwrap();
    chmod(&scene.file("d/empty"), 0o700);
    chmod(&scene.file("d"), 0o755);
    std::os::unix::fs::symlink("deep/er", scene.file("d/link")).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_000_000_000_123_456_789);
    File::open(scene.file("d/key")).unwrap().set_modified(then).unwrap();

    let imported = import(&store, &scene.file("d"), "d", ImportMode::InPlace).unwrap();

    assert!(imported.left_out.is_empty(), "{:?}", imported.left_out);
    assert_eq!((imported.root.size, imported.root.files), (200_000 + 1 + 10 + 3, 5));
    let manifest = manifest(&store, &imported.root);
    let expected = ["12:30 aux.c ", "caf\\xe9\\r", "deep", "deep/er", "deep/er/b.txt", "empty", "key", "link", "tool"];
    assert_eq!(paths(&manifest), expected);
    let kind = |path: &str| manifest.entry(manifest.find(path.as_bytes()).unwrap()).unwrap().kind;
    let EntryKind::File(key) = kind("key") else { panic!() };
    assert_eq!(key.attributes.modified, FileTime(1_000_000_000_123_456_789));
    assert!(key.attributes.private && !key.attributes.executable);
    assert!(matches!(kind("tool"), EntryKind::File(tool) if tool.attributes.executable && !tool.attributes.private));
    assert!(matches!(kind("empty"), EntryKind::Folder(empty) if empty.private));
    assert!(matches!(kind("link"), EntryKind::Link(link) if link.as_bytes() == b"deep/er"));
    assert!(!manifest.root().private);
    for (_, file) in manifest.files() {
        assert_eq!(ContentHash::of(&read_all(&store, &file.hash)), file.hash);
    }
    // The manifest itself is a blob like any other.
    assert_eq!(ContentHash::of(&read_all(&store, &imported.root.hash)), imported.root.hash);
}

#[test]
fn a_folder_below_a_name_that_is_no_text_is_shared_and_known_again() {
    let scene = Scene::new();
    let folder = scene.file("x").with_file_name(OsStr::from_bytes(b"t\xe9l"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("f"), bytes(1, 100_000)).unwrap();
    let root = import(&scene.open(), &folder, "d", ImportMode::InPlace).unwrap().root;

    let store = scene.open();

    assert_eq!(store.roots(), [root]);
    assert_eq!(store.blob(&ContentHash::of(&bytes(1, 100_000))).unwrap().unwrap().path(), folder.join("f"));
}

#[test]
fn a_single_file_is_carried_with_its_time_and_rights() {
    let scene = Scene::new();
    let store = scene.open();
    let path = scene.write("run", b"#!/bin/sh\n");
    chmod(&path, 0o700);
    let root = import(&store, &path, "run", ImportMode::InPlace).unwrap().root;
    let attributes = root.attributes.unwrap();
    assert!(attributes.executable && attributes.private && attributes.modified > FileTime(0));
    drop(store);
    assert_eq!(scene.open().roots(), [root]);
}

/// Imports a folder, and does something whenever its progress is told: before files are read, and before those are read again that
/// changed meanwhile.
fn import_while(scene: &Scene, store: &Store, meanwhile: &dyn Fn()) -> Imported {
    let never = AtomicBool::new(false);
    let progress = |_| meanwhile();
    store.import(&scene.file("d"), &"d".parse().unwrap(), None, ImportMode::InPlace, &progress, &never).unwrap()
}

#[test]
fn a_file_that_changes_once_while_it_is_read_is_read_again() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("d/a", b"a");
    let log = scene.write("d/log", b"one\n");
    let is_first = Cell::new(true);

    let imported = import_while(&scene, &store, &|| {
        if is_first.take() {
            fs::write(&log, b"one\ntwo\n").unwrap();
        }
    });

    assert!(imported.left_out.is_empty());
    assert_eq!((imported.root.files, imported.root.size), (2, 9));
    assert_eq!(store.blob(&ContentHash::of(b"one\ntwo\n")).unwrap().unwrap().path(), log);
}

#[test]
fn of_a_file_that_always_changes_a_copy_is_shared_as_it_was_at_one_moment() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("d/a", b"a");
    let log = scene.write("d/log", b"");
    let lines = Cell::new(0);

    let imported = import_while(&scene, &store, &|| {
        let mut file = File::options().append(true).open(&log).unwrap();
        file.write_all(b"a line\n").unwrap();
        lines.set(lines.get() + 1);
    });

    assert!(imported.left_out.is_empty(), "{:?}", imported.left_out);
    assert_eq!(imported.root.files, 2);
    let manifest = manifest(&store, &imported.root);
    let (_, shared) = manifest.files().last().unwrap();
    let shared = read_all(&store, &shared.hash);
    assert_eq!(shared, b"a line\n".repeat(shared.len() / 7));
    assert!((14..=lines.get() * 7).contains(&shared.len()), "{} of {} lines", shared.len() / 7, lines.get());
    // It is the data folder's own: whatever becomes of the file, it is served, and garbage collection leaves it alone.
    fs::remove_file(&log).unwrap();
    store.gc(Duration::ZERO).unwrap();
    assert_eq!(read_all(&store, &ContentHash::of(&shared)), shared);
    assert_eq!(verify(&store).0.damaged, 0);
}

#[test]
fn a_file_that_is_gone_before_it_is_read_is_left_out() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("d/a", b"a");
    let gone = scene.write("d/gone", b"gone");

    let imported = import_while(&scene, &store, &|| drop(fs::remove_file(&gone)));

    assert_eq!(imported.left_out.listed, [(gone, LeftOutReason::Vanished)]);
    assert_eq!(paths(&manifest(&store, &imported.root)), ["a"]);
}

#[test]
fn a_list_of_an_earlier_version_is_made_anew_when_the_store_is_opened() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("d/sub/f", b"f");
    chmod(&scene.write("d/x", b"x"), 0o755);
    let root = import(&store, &scene.file("d"), "d", ImportMode::InPlace).unwrap().root;
    let entries = [("sub/f", 1_u64, ContentHash::of(b"f"), false), ("x", 1, ContentHash::of(b"x"), true)];
    let former = [&b"keyferry-coll-1\n"[..], &keyferry_proto::codec::encode(&entries.to_vec())].concat();
    let hash = ContentHash::of(&former);
    store.put_blob_bytes(hash, &former).unwrap();
    store.change_roots(|roots| roots[0].hash = hash).unwrap();
    drop(store);

    let (store, report) = Store::open(&scene.home()).unwrap();

    assert_eq!(report.migrated, Some(Migrated { relisted: 1, ..Migrated::default() }));
    assert_eq!(report.lost_count, 0);
    // Nothing but what the earlier list did not know tells the new one from one of today, and here there is nothing of the kind.
    assert_eq!(store.roots(), [root]);
    assert_eq!(read_all(&store, &ContentHash::of(b"f")), b"f");
    drop(store);
    assert_eq!(scene.open().roots().len(), 1);
}
