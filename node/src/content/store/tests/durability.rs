//! What is on the disk before a list refers to it.

use super::*;
use crate::base::{durable::recorded, stamp::FileId};

/// The files that were waited for before the list of roots had this root, by their paths in the data folder.
fn synced_before(scene: &Scene, root: &Root) -> Vec<PathBuf> {
    let home = scene.home().canonicalize().unwrap();
    let mut synced: Vec<PathBuf> = recorded::below(&home)
        .into_iter()
        .filter(|synced| !synced.list.contains(&root.hash.to_string()))
        .map(|synced| synced.file)
        .collect();
    synced.sort();
    synced.dedup();
    synced
}

fn sorted<const N: usize>(mut paths: [PathBuf; N]) -> Vec<PathBuf> {
    paths.sort();
    paths.to_vec()
}

#[test]
fn copies_outboards_and_lists_of_files_are_on_the_disk_before_the_list_of_roots_has_them() {
    let scene = Scene::new();
    let store = scene.open();
    let (small, large) = (b"small".to_vec(), bytes(1, 100_000));
    scene.write("d/small", &small);
    scene.write("d/large", &large);
    scene.write("d/again", &large);
    let root = import(&store, &scene.file("d"), "d", ImportMode::Copy).unwrap().root;
    let folders = &store.0.folders;
    let expected = sorted([
        folders.blob(&root.hash),
        folders.blob(&ContentHash::of(&small)),
        folders.blob(&ContentHash::of(&large)),
        folders.outboard(&ContentHash::of(&large)),
    ]);
    assert_eq!(synced_before(&scene, &root), expected);
}

#[test]
fn of_what_is_shared_in_place_the_stores_own_files_are_waited_for() {
    let scene = Scene::new();
    let store = scene.open();
    let path = scene.write("f", &bytes(1, 100_000));
    let root = import(&store, &path, "f", ImportMode::InPlace).unwrap().root;
    assert_eq!(synced_before(&scene, &root), [store.0.folders.outboard(&root.hash)]);
}

#[test]
fn many_files_are_waited_for_at_once() {
    let scene = Scene::new();
    let store = scene.open();
    for number in 0..100 {
        scene.write(&format!("d/{number}"), &bytes(number, 10));
    }
    let root = import(&store, &scene.file("d"), "d", ImportMode::Copy).unwrap().root;
    assert_eq!(synced_before(&scene, &root).len(), 101);
}

/// Which files the copy of a blob and its outboard are.
fn files_of_blob(store: &Store, hash: &ContentHash) -> [FileId; 2] {
    let folders = &store.0.folders;
    [folders.blob(hash), folders.outboard(hash)].map(|path| FileId::of(&fs::metadata(path).unwrap()))
}

#[test]
fn what_is_on_the_disk_is_not_replaced_by_the_same_which_may_not_be() {
    let scene = Scene::new();
    let store = scene.open();
    let content = bytes(1, 3 * 65_536);
    let path = scene.write("f", &content);
    let hash = import(&store, &path, "f", ImportMode::Copy).unwrap().root.hash;
    let before = files_of_blob(&store, &hash);
    import(&store, &path, "again", ImportMode::Copy).unwrap();
    store.verify(&|_| {}, &mut |damage| panic!("{damage:?}"), &AtomicBool::new(false)).unwrap();
    assert_eq!(files_of_blob(&store, &hash), before);

    // But what is damaged is.
    let outboard = store.0.folders.outboard(&hash);
    let right = fs::read(&outboard).unwrap();
    fs::write(&outboard, vec![0; right.len()]).unwrap();
    fs::write(store.0.folders.blob(&hash), b"").unwrap();
    import(&store, &path, "once more", ImportMode::Copy).unwrap();
    assert_eq!(fs::read(&outboard).unwrap(), right);
    assert_eq!(read_all(&store, &hash), content);
}
