//! Files that change, names that cannot travel, disks that refuse.

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
fn names_that_cannot_travel_are_refused_by_name_before_anything_is_hashed() {
    let scene = Scene::new();
    let store = scene.open();
    for (number, name) in ["COM1.txt", "a:b", "tab\there", "trailing ", "back\\slash"].iter().enumerate() {
        scene.write(&format!("{number}/deep/{name}"), b"x");
        let error = import(&store, &scene.file(&number.to_string()), "d", ImportMode::InPlace).unwrap_err();
        assert!(matches!(&error, StoreError::Name { path, .. } if path.ends_with(name)), "{error}");
    }
    scene.write("clash/Read.me", b"x");
    scene.write("clash/README.ME", b"x");
    scene.write("clash/read.me", b"y");
    let error = import(&store, &scene.file("clash"), "d", ImportMode::InPlace).unwrap_err();
    assert!(matches!(error, StoreError::Folder { .. }), "{error}");
    assert_eq!(store.roots(), []);
}

#[cfg(unix)]
#[test]
fn names_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let scene = Scene::new();
    let store = scene.open();
    let folder = scene.file("d");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), b"x").unwrap();
    let error = import(&store, &folder, "d", ImportMode::InPlace).unwrap_err();
    assert!(matches!(error, StoreError::NotUtf8 { .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn links_and_special_files_are_skipped_and_reported() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("outside", b"secret");
    scene.write("d/kept", b"kept");
    std::os::unix::fs::symlink(scene.file("outside"), scene.file("d/link")).unwrap();
    std::os::unix::fs::symlink(scene.file("d"), scene.file("d/loop")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(scene.file("d/socket")).unwrap();
    let mut imported = import(&store, &scene.file("d"), "d", ImportMode::InPlace).unwrap();
    imported.skipped.sort();
    assert_eq!(imported.root.files, 1);
    assert_eq!(imported.skipped_count, 3);
    assert_eq!(imported.skipped[0], (scene.file("d/link"), SkipReason::SymbolicLink));
    assert_eq!(imported.skipped[2], (scene.file("d/socket"), SkipReason::SpecialFile));
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
