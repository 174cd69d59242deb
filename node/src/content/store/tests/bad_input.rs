//! Files that change, names that cannot travel, disks that refuse.

use keyferry_proto::collection::MAX_DEPTH;

use super::*;

#[test]
fn a_file_that_changed_since_it_was_shared_is_never_served() {
    let scene = Scene::new();
    let store = scene.open();
    let path = scene.write("f", b"before");
    let root = import(&store, &path, "f", ImportMode::InPlace).unwrap().root;
    for changed in [&b"longer than before"[..], b"after!", b""] {
        fs::write(&path, changed).unwrap();
        let error = store.blob(&root.hash).unwrap_err();
        assert!(matches!(&error, StoreError::Changed { path: named } if *named == path), "{error}");
        assert!(error.to_string().starts_with("the file changed since it was shared"), "{error}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(store.blob(&root.hash), Err(StoreError::Vanished { .. })));
}

#[cfg(unix)]
#[test]
fn another_file_with_the_same_size_and_time_in_its_place_is_noticed() {
    let scene = Scene::new();
    let store = scene.open();
    let path = scene.write("f", b"before");
    age(&path);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let root = import(&store, &path, "f", ImportMode::InPlace).unwrap().root;
    let other = scene.write("other", b"after!");
    File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
    fs::rename(&other, &path).unwrap();
    assert!(matches!(store.blob(&root.hash), Err(StoreError::Changed { .. })));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_noticed() {
    let scene = Scene::new();
    let store = scene.open();
    let path = scene.write("f", &bytes(1, 400_000));
    let root = import(&store, &path, "f", ImportMode::InPlace).unwrap().root;
    let blob = store.blob(&root.hash).unwrap().unwrap();
    assert!(read_pieces(&blob).unwrap() == bytes(1, 400_000));
    File::options().write(true).open(&path).unwrap().set_len(300_000).unwrap();
    let error = read_pieces(&blob).unwrap_err();
    assert!(matches!(&error, BlobError::Changed { path: named } if *named == path), "{error}");
    assert!(error.to_string().contains("the file changed since it was shared"), "{error}");
}

#[test]
fn what_cannot_be_shared_of_a_folder_is_left_out_and_listed() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("outside", b"secret");
    scene.write("d/kept", b"kept");
    scene.write("d/.kept.0123456789.keyferry-part", b"half");
    scene.write("d/.more.0123456789.keyferry-part.d/half", b"half");
    std::os::unix::fs::symlink(scene.file("outside"), scene.file("d/absolute")).unwrap();
    std::os::unix::fs::symlink("../outside", scene.file("d/up")).unwrap();
    std::os::unix::fs::symlink("kept", scene.file("d/inside")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(scene.file("d/socket")).unwrap();
    scene.write(&format!("d/{}/x", vec!["f"; MAX_DEPTH].join("/")), b"deep");

    let mut imported = import(&store, &scene.file("d"), "d", ImportMode::InPlace).unwrap();

    assert_eq!((imported.root.files, imported.left_out.count), (1, 6));
    imported.left_out.listed.sort();
    let deep = scene.file("d").join(vec!["f"; MAX_DEPTH].join("/")).join("x");
    let expected = [
        (scene.file("d/.kept.0123456789.keyferry-part"), LeftOutReason::PartOfFetch),
        (scene.file("d/.more.0123456789.keyferry-part.d"), LeftOutReason::PartOfFetch),
        (scene.file("d/absolute"), LeftOutReason::LinkOut),
        (deep, LeftOutReason::TooDeep),
        (scene.file("d/socket"), LeftOutReason::SpecialFile),
        (scene.file("d/up"), LeftOutReason::LinkOut),
    ];
    assert_eq!(imported.left_out.listed, expected);
    let strict = ImportOptions { is_strict: true, ..ImportMode::InPlace.into() };
    let refused = store.import(&scene.file("d"), &"e".parse().unwrap(), None, strict, &|_| {}, &AtomicBool::new(false));
    assert!(matches!(&refused, Err(StoreError::LeavesOut { left_out, .. }) if left_out.count == 6), "{refused:?}");
    assert_eq!(store.roots().len(), 1);
    let error = import(&store, &scene.file("d/socket"), "s", ImportMode::InPlace).unwrap_err();
    assert!(matches!(error, StoreError::NotShareable { .. }), "{error}");
}

#[test]
fn what_is_not_there_is_said_so() {
    let scene = Scene::new();
    let store = scene.open();
    let error = import(&store, &scene.file("nothing"), "n", ImportMode::InPlace).unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    assert!(store.blob(&ContentHash::of(b"unknown")).unwrap().is_none());
    assert!(store.manifest(&ContentHash::of(b"unknown")).unwrap().is_none());
}

#[test]
fn the_data_folder_with_the_key_is_never_shared() {
    let scene = Scene::new();
    let store = scene.open();
    for path in [scene.dir.path().to_owned(), scene.home(), scene.home().join("blobs")] {
        let error = import(&store, &path, "oops", ImportMode::InPlace).unwrap_err();
        assert!(matches!(error, StoreError::OwnDataFolder { .. }), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_cannot_be_read_to_its_end_is_an_error_not_an_empty_share() {
    let scene = Scene::new();
    let store = scene.open();
    // A file of /proc says that it has no bytes, and has some; reading it as its size says is what any file gets.
    let error = import(&store, Path::new("/proc/self/mem"), "m", ImportMode::InPlace);
    assert!(error.is_err() || error.is_ok_and(|imported| imported.root.size == 0));
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_to_is_said_so() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new();
    let store = scene.open();
    let path = scene.write("f", &bytes(1, 100_000));
    let folder = scene.home().join("tmp");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    let result = import(&store, &path, "f", ImportMode::Copy);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    // Permissions do not bind root, under whom some machines run tests.
    match result {
        Err(error) => assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}"),
        Ok(_) => assert!(File::create(folder.join("root can")).is_ok()),
    }
}

#[test]
fn errors_of_the_disk_say_what_to_do() {
    let error = |kind: io::ErrorKind| StoreError::io("write", Path::new("/data/x"))(kind.into());
    let full = error(io::ErrorKind::StorageFull).to_string();
    assert_eq!(full, "the disk is full: cannot write /data/x; free some space there, then try again");
    assert!(matches!(error(io::ErrorKind::ReadOnlyFilesystem), StoreError::ReadOnly { .. }));
    assert!(matches!(error(io::ErrorKind::PermissionDenied), StoreError::ReadOnly { .. }));
    let read = StoreError::io("read", Path::new("/x"))(io::ErrorKind::PermissionDenied.into());
    assert!(matches!(read, StoreError::Io { .. }));
}
