//! What stays over a restart, what goes when it is removed, and what a garbage collection leaves.

use super::*;

const NO_GRACE: Duration = Duration::ZERO;

fn files_below(path: &Path) -> usize {
    walkdir::WalkDir::new(path).into_iter().flatten().filter(|entry| entry.file_type().is_file()).count()
}

#[test]
fn everything_is_there_after_a_restart() {
    let scene = Scene::new();
    let content = bytes(1, 300_000);
    let path = scene.write("f", &content);
    let root = import(&scene.open(), &path, "f", ImportMode::InPlace).unwrap().root;
    let store = scene.open();
    assert_eq!(store.roots(), std::slice::from_ref(&root));
    assert_eq!(store.root(&root.hash), Some(root.clone()));
    assert!(read_all(&store, &root.hash) == content);
}

#[test]
fn an_unshared_name_leaves_content_that_is_offered_to_nobody() {
    let scene = Scene::new();
    let store = scene.open();
    let root = import(&store, &scene.write("f", b"f"), "f", ImportMode::InPlace).unwrap().root;
    let name: ShareName = "f".parse().unwrap();
    assert_eq!(store.announced(), [root.hash]);
    let mut changes = store.watch_roots();
    assert_eq!(store.unshare(&name).unwrap(), Some(root.clone()));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(store.unshare(&name).unwrap(), None);
    assert!(!changes.has_changed().unwrap());
    assert_eq!(store.root_named(&name), None);
    assert_eq!((store.announced(), store.offered(&root.hash, &Asker::ByHash)), (vec![], None));
    assert_eq!(read_all(&store, &root.hash), b"f");
}

#[test]
fn a_copy_that_is_shared_anew_takes_the_place_of_the_one_before() {
    let scene = Scene::new();
    let store = scene.open();
    let path = scene.write("f", &bytes(1, 100_000));
    import(&store, &path, "f", ImportMode::Copy).unwrap();
    scene.write("f", &bytes(2, 100_000));
    let after = import(&store, &path, "f", ImportMode::Copy).unwrap().root;
    assert_eq!(store.roots(), std::slice::from_ref(&after));
    store.gc(NO_GRACE).unwrap();
    assert!(store.blob(&ContentHash::of(&bytes(1, 100_000))).unwrap().is_none());
    assert_eq!((files_below(&scene.home().join("blobs")), files_below(&scene.home().join("outboards"))), (1, 1));
    assert!(read_all(&store, &after.hash) == bytes(2, 100_000));
}

#[test]
fn what_is_shared_again_stays_with_the_same_people_unless_others_are_named() {
    let scene = Scene::new();
    let path = scene.write("f", b"one");
    let share = |audience: Option<&Audience>| {
        let store = scene.open();
        let import =
            store.import(&path, &"f".parse().unwrap(), audience, ImportMode::InPlace, &|_| {}, &AtomicBool::new(false));
        match import.unwrap().root.state {
            RootState::Shared { audience, .. } => audience,
            other => panic!("{other:?}"),
        }
    };
    let contacts = Audience::Only(Invited::new(true, vec![]).unwrap());
    assert_eq!(share(None), Audience::default());
    assert_eq!(share(Some(&contacts)), contacts);
    scene.write("f", b"two");
    assert_eq!(share(None), contacts);
    assert_eq!(share(Some(&Audience::default())), Audience::default());
}

#[test]
fn a_list_without_states_is_migrated_once_and_its_unnamed_roots_are_offered_no_more() {
    let scene = Scene::new();
    let store = scene.open();
    let shared = import(&store, &scene.write("f", b"f"), "f", ImportMode::InPlace).unwrap().root;
    let kept = import(&store, &scene.write("g", b"g"), "g", ImportMode::InPlace).unwrap().root;
    drop(store);
    let list = scene.home().join("roots.json");
    let mut file: serde_json::Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
    file["version"] = 1.into();
    for root in file["roots"].as_array_mut().unwrap() {
        let root = root.as_object_mut().unwrap();
        root.retain(|key, _| key != "state" && key != "audience");
        if root["name"] == "g" {
            root["name"] = serde_json::Value::Null;
        }
    }
    fs::write(&list, file.to_string()).unwrap();

    let (store, report) = Store::open(&scene.home()).unwrap();

    assert_eq!(report.migrated, Some(Migrated { shared: 1, kept: 1, relisted: 0 }));
    let [shared, kept] = [shared, kept].map(|root| Root { attributes: None, ..root });
    assert_eq!(store.roots(), [shared.clone(), Root { state: RootState::Kept, ..kept }]);
    assert_eq!(store.announced(), [shared.hash]);
    drop(store);
    scene.open();
}

#[test]
fn a_removed_root_is_not_served_any_more_and_its_copies_go() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("d/own", &bytes(1, 100_000));
    scene.write("d/shared", &bytes(2, 100_000));
    scene.write("e/shared", &bytes(2, 100_000));
    let d = import(&store, &scene.file("d"), "d", ImportMode::Copy).unwrap().root;
    import(&store, &scene.file("e"), "e", ImportMode::Copy).unwrap();
    assert!(store.remove_root(&d.hash).unwrap());
    assert!(!store.remove_root(&d.hash).unwrap());
    assert!(store.blob(&d.hash).unwrap().is_none());
    assert!(store.blob(&ContentHash::of(&bytes(1, 100_000))).unwrap().is_none());
    assert!(read_all(&store, &ContentHash::of(&bytes(2, 100_000))) == bytes(2, 100_000));
    // The blob that the other root has, and that root's manifest.
    assert_eq!(files_below(&scene.home().join("blobs")), 2);
    assert_eq!(files_below(&scene.home().join("outboards")), 1);
    assert!(scene.file("d/own").exists());
}

#[test]
fn a_collection_removes_what_nobody_refers_to_and_nothing_else() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("d/a", &bytes(1, 100_000));
    let root = import(&store, &scene.file("d"), "d", ImportMode::Copy).unwrap().root;
    let orphan = bytes(9, 5000);
    let orphan_path = scene.home().join("blobs").join("ab").join(ContentHash::of(&orphan).to_string());
    fs::create_dir_all(orphan_path.parent().unwrap()).unwrap();
    fs::write(&orphan_path, &orphan).unwrap();
    fs::write(scene.home().join("blobs").join("ab").join("not ours"), b"x").unwrap();
    assert_eq!(store.gc(NO_GRACE).unwrap(), Collected { files: 1, bytes: 5000 });
    assert_eq!(store.gc(NO_GRACE).unwrap(), Collected::default());
    assert!(!orphan_path.exists());
    assert!(scene.home().join("blobs").join("ab").join("not ours").exists());
    assert_eq!(verify(&store).0, VerifyReport { sound: 2, damaged: 0, repaired: 0 });
    assert!(store.root(&root.hash).is_some());
}

#[test]
fn what_an_unfinished_fetch_needs_is_kept_for_a_while() {
    let scene = Scene::new();
    let store = scene.open();
    let (manifest, blob) = (bytes(1, 1000), ContentHash::of(b"blob"));
    store.put_blob_bytes(ContentHash::of(&manifest), &manifest).unwrap();
    let outboard = store.partial_outboard(blob, 1_000_000).unwrap();
    outboard.write_parent(0, &[1; 64]).unwrap();
    assert_eq!(store.gc(UNFINISHED_GRACE).unwrap(), Collected::default());
    // Even with no grace: one that is open is in use.
    assert_eq!(store.gc(NO_GRACE).unwrap(), Collected { files: 1, bytes: 1000 });
    drop(outboard);
    assert_eq!(store.gc(NO_GRACE).unwrap(), Collected { files: 1, bytes: 64 });
}

#[test]
fn a_file_that_was_moved_back_is_whole_again_after_a_verification() {
    let scene = Scene::new();
    let store = scene.open();
    let path = scene.write("f", b"content");
    let root = import(&store, &path, "f", ImportMode::InPlace).unwrap().root;
    store.on_index(|index| index.remove(&[root.hash])).unwrap();
    assert!(store.blob(&root.hash).unwrap().is_none());
    assert_eq!(verify(&store).0, VerifyReport { sound: 1, damaged: 0, repaired: 1 });
    assert_eq!(read_all(&store, &root.hash), b"content");
}

#[test]
fn a_verification_names_what_is_damaged_and_mends_outboards() {
    let scene = Scene::new();
    let store = scene.open();
    let large = scene.write("d/large", &bytes(1, 200_000));
    let changed = scene.write("d/changed", b"before");
    let gone = scene.write("d/gone", b"gone");
    import(&store, &scene.file("d"), "d", ImportMode::InPlace).unwrap();
    fs::write(&changed, b"after!").unwrap();
    fs::remove_file(&gone).unwrap();
    let hash = ContentHash::of(&bytes(1, 200_000));
    fs::write(store.0.folders.outboard(&hash), b"short").unwrap();
    assert!(matches!(store.blob(&hash), Err(StoreError::Damaged { .. })));
    let (report, mut damages) = verify(&store);
    damages.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!((report.sound, report.damaged), (2, 2));
    assert_eq!(damages[0].path, changed);
    assert!(damages[0].problem.contains(&ContentHash::of(b"after!").to_string()), "{damages:?}");
    assert_eq!((damages[1].path.clone(), damages[1].problem.as_str()), (gone, "it is not there"));
    assert!(read_all(&store, &hash) == fs::read(large).unwrap());
}

#[test]
fn a_damaged_manifest_is_reported_and_keeps_what_it_may_refer_to() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("d/a", &bytes(1, 100_000));
    let root = import(&store, &scene.file("d"), "d", ImportMode::Copy).unwrap().root;
    fs::write(store.0.folders.blob(&root.hash), b"nonsense").unwrap();
    assert!(matches!(store.manifest(&root.hash), Err(StoreError::Damaged { .. })));
    assert_eq!(store.gc(NO_GRACE).unwrap(), Collected::default());
    assert!(read_all(&store, &ContentHash::of(&bytes(1, 100_000))) == bytes(1, 100_000));
    assert_eq!(verify(&store).1.len(), 1);
}

#[test]
fn a_damaged_manifest_harms_no_other_share() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("one/a", b"one");
    scene.write("two/b", b"before");
    scene.write("copied/c", &bytes(1, 100_000));
    let one = import(&store, &scene.file("one"), "one", ImportMode::InPlace).unwrap().root;
    import(&store, &scene.file("two"), "two", ImportMode::InPlace).unwrap();
    let copied = import(&store, &scene.file("copied"), "copied", ImportMode::Copy).unwrap().root;
    // What a power cut leaves of a file that was not synced.
    fs::write(store.0.folders.blob(&one.hash), b"").unwrap();
    scene.write("two/b", b"after!");
    let two = import(&store, &scene.file("two"), "two", ImportMode::InPlace).unwrap().root;
    assert_eq!(read_all(&store, &ContentHash::of(b"after!")), b"after!");
    assert_eq!(store.root_named(&"two".parse().unwrap()), Some(two));
    // Its own files are elsewhere, so that copies are removed all the same.
    assert!(store.remove_root(&copied.hash).unwrap());
    assert!(!store.0.folders.blob(&ContentHash::of(&bytes(1, 100_000))).exists());
    store.gc(NO_GRACE).unwrap();
}

#[test]
fn the_manifest_of_a_folder_in_its_place_is_made_again_by_a_verification() {
    let scene = Scene::new();
    let store = scene.open();
    scene.write("d/a", b"a");
    scene.write("d/sub/b", &bytes(1, 100_000));
    let root = import(&store, &scene.file("d"), "d", ImportMode::InPlace).unwrap().root;
    let manifest = store.manifest(&root.hash).unwrap();
    for damage in [&b""[..], b"nonsense"] {
        fs::write(store.0.folders.blob(&root.hash), damage).unwrap();
        assert_eq!(verify(&store), (VerifyReport { sound: 3, damaged: 0, repaired: 1 }, Vec::new()));
        assert_eq!(store.manifest(&root.hash).unwrap(), manifest);
    }
    // Not from another folder than the one that was shared.
    fs::remove_file(store.0.folders.blob(&root.hash)).unwrap();
    scene.write("d/more", b"more");
    assert_eq!(verify(&store).0.damaged, 1);
}
