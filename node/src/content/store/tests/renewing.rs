//! What was shared before: only what has changed is read again, whoever is fetching the version before goes on, and fewer people at once.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::{
    base::stamp::BootId,
    content::store::audience::{Asker, Audience, Invited},
};

const BY_HASH: Asker = Asker::ByHash;

/// A machine on which nothing is young that is an hour old.
fn machine() -> Machine {
    Machine { boot: BootId::numbered(1), now_nanos: || clock::now_nanos() + 3_600_000_000_000 }
}

fn open(scene: &Scene) -> Store {
    Store::open_on(&scene.home(), machine()).unwrap().0
}

/// Shares the folder `d`, and says how many bytes were read for that.
fn share(store: &Store, scene: &Scene, mode: ImportMode) -> (Root, u64) {
    let read = Cell::new(0);
    let progress = |progress: ImportProgress| read.set(progress.total_bytes.max(read.get()));
    let (name, never) = ("d".parse().unwrap(), AtomicBool::new(false));
    let imported = store.import(&scene.file("d"), &name, None, mode, &progress, &never).unwrap();
    (imported.root, read.get())
}

fn renew(store: &Store, scene: &Scene) -> Result<Renewed, StoreError> {
    store.renew(&"d".parse().unwrap(), &scene.file("d"), &AtomicBool::new(false))
}

/// The hash of a folder as a store has it that has never seen it before.
fn fresh_hash(scene: &Scene) -> ContentHash {
    let home = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(home.path()).unwrap();
    import(&store, &scene.file("d"), "d", ImportMode::InPlace).unwrap().root.hash
}

fn make(scene: &Scene) {
    scene.write("d/small", &bytes(1, 1000));
    scene.write("d/sub/large", &bytes(2, 200_000));
    scene.write("d/empty", b"");
}

#[test]
fn of_what_was_shared_before_only_what_has_changed_is_read_again() {
    let scene = Scene::new();
    make(&scene);
    let store = open(&scene);
    assert_eq!(share(&store, &scene, ImportMode::InPlace).1, 201_000);
    type Act<'a> = &'a dyn Fn();
    let d = |name: &str| scene.file("d").join(name);
    let cases: [(&str, Act<'_>, u64); 8] = [
        ("nothing", &|| {}, 0),
        ("touched", &|| age(&d("small")), 1000),
        ("one file changed", &|| drop(scene.write("d/small", &bytes(3, 1001))), 1001),
        ("a file more", &|| drop(scene.write("d/more", &bytes(4, 500))), 500),
        ("its folder renamed", &|| fs::rename(d("sub"), d("other")).unwrap(), 0),
        ("renamed", &|| fs::rename(d("other/large"), d("renamed")).unwrap(), 0),
        ("made executable", &|| fs::set_permissions(d("more"), PermissionsExt::from_mode(0o755)).unwrap(), 500),
        ("removed", &|| fs::remove_file(d("more")).unwrap(), 0),
    ];
    for (what, act, expected) in cases {
        act();
        let (root, read) = share(&store, &scene, ImportMode::InPlace);
        assert_eq!(read, expected, "{what}");
        assert_eq!(root.hash, fresh_hash(&scene), "{what}");
        let manifest = store.manifest(&root.hash).unwrap().unwrap();
        for (index, entry) in manifest.files().filter(|(_, file)| file.size > 0) {
            let path = String::from_utf8(manifest.path(index)).unwrap();
            assert!(read_all(&store, &entry.hash) == fs::read(d(&path)).unwrap(), "{what}");
        }
    }
}

#[test]
fn what_changed_in_secret_under_a_new_name_is_not_served_and_read_again_once_that_is_known() {
    let scene = Scene::new();
    scene.write("d/f", &bytes(1, 200_000));
    let store = open(&scene);
    share(&store, &scene, ImportMode::InPlace);
    let path = scene.file("d/f");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, bytes(2, 200_000)).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    fs::rename(&path, scene.file("d/g")).unwrap();
    assert_eq!(share(&store, &scene, ImportMode::InPlace).1, 0);
    let result = store.blob(&ContentHash::of(&bytes(1, 200_000)));
    assert!(matches!(result, Err(StoreError::Changed { .. })), "{result:?}");
    let (root, read) = share(&store, &scene, ImportMode::InPlace);
    assert_eq!((root.hash, read), (fresh_hash(&scene), 200_000));
}

#[test]
fn a_content_that_changes_under_its_old_time_is_read_again() {
    let scene = Scene::new();
    make(&scene);
    let store = open(&scene);
    let before = share(&store, &scene, ImportMode::InPlace).0;
    let path = scene.file("d/small");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, bytes(9, 1000)).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let (after, read) = share(&store, &scene, ImportMode::InPlace);
    assert!(after.hash != before.hash && read == 1000, "{read}");
}

#[test]
fn what_is_followed_is_renewed_and_stays_so_when_it_is_shared_again() {
    let scene = Scene::new();
    make(&scene);
    let store = open(&scene);
    share(&store, &scene, ImportMode::InPlace);
    assert_eq!((store.followed(), renew(&store, &scene).unwrap()), (vec![], Renewed::Unfollowed));
    let first = share(&store, &scene, ImportMode::Followed).0;
    assert_eq!(renew(&store, &scene).unwrap(), Renewed::Same);
    scene.write("d/small", &bytes(3, 10));
    let Renewed::Newer(second) = renew(&store, &scene).unwrap() else { panic!("it has changed") };
    assert!(second.hash != first.hash && second.state == first.state);
    assert_eq!(store.root_named(&"d".parse().unwrap()), Some(second));
    share(&store, &scene, ImportMode::InPlace);
    drop(store);
    let store = open(&scene);
    assert_eq!(store.followed(), [("d".parse().unwrap(), scene.file("d"))]);
    store.unshare(&"d".parse().unwrap()).unwrap();
    scene.write("d/small", &bytes(4, 10));
    assert_eq!((store.followed(), renew(&store, &scene).unwrap()), (vec![], Renewed::Unfollowed));
}

#[test]
fn a_folder_that_is_empty_or_gone_all_at_once_is_no_new_version() {
    let scene = Scene::new();
    make(&scene);
    let store = open(&scene);
    let root = share(&store, &scene, ImportMode::Followed).0;
    fs::rename(scene.file("d"), scene.file("away")).unwrap();
    assert!(renew(&store, &scene).is_err());
    fs::create_dir(scene.file("d")).unwrap();
    let emptied = renew(&store, &scene);
    assert!(matches!(emptied, Err(StoreError::Emptied { .. })), "{emptied:?}");
    assert_eq!(store.root_named(&"d".parse().unwrap()).map(|now| now.hash), Some(root.hash));
    fs::remove_dir(scene.file("d")).unwrap();
    fs::rename(scene.file("away"), scene.file("d")).unwrap();
    assert_eq!(renew(&store, &scene).unwrap(), Renewed::Same);
}

#[test]
fn the_version_before_is_there_for_those_who_may_have_the_share_and_never_announced() {
    let scene = Scene::new();
    make(&scene);
    let store = open(&scene);
    let name: ShareName = "d".parse().unwrap();
    let first = share(&store, &scene, ImportMode::Followed).0;
    scene.write("d/small", &bytes(3, 10));
    let Renewed::Newer(second) = renew(&store, &scene).unwrap() else { panic!("it has changed") };
    assert!(store.offered(&first.hash, &BY_HASH).is_some() && store.offered(&second.hash, &BY_HASH).is_some());
    assert_eq!(store.announced(), [second.hash]);
    store.gc(Duration::ZERO).unwrap();
    assert!(store.manifest(&first.hash).unwrap().is_some(), "it is in use");
    assert!(read_all(&store, &ContentHash::of(&bytes(2, 200_000))) == bytes(2, 200_000));
    let only = Audience::Only(Invited::new(true, vec![]).unwrap());
    store.import(&scene.file("d"), &name, Some(&only), ImportMode::InPlace, &|_| {}, &AtomicBool::new(false)).unwrap();
    assert_eq!(store.offered(&first.hash, &BY_HASH), None);
    store.forget_superseded();
    assert!(store.manifest(&first.hash).unwrap().is_none());
    assert!(store.manifest(&second.hash).unwrap().is_some());
}

#[test]
fn what_is_unshared_is_so_in_all_its_versions() {
    let scene = Scene::new();
    make(&scene);
    let store = open(&scene);
    let first = share(&store, &scene, ImportMode::Followed).0;
    scene.write("d/small", &bytes(3, 10));
    renew(&store, &scene).unwrap();
    store.unshare(&"d".parse().unwrap()).unwrap();
    assert_eq!(store.offered(&first.hash, &BY_HASH), None);
}

#[test]
fn a_smaller_audience_is_in_force_before_anything_is_read() {
    let scene = Scene::new();
    make(&scene);
    let store = open(&scene);
    let name: ShareName = "d".parse().unwrap();
    let root = share(&store, &scene, ImportMode::InPlace).0;
    let only = Audience::Only(Invited::new(true, vec![]).unwrap());
    let at_first = Cell::new(None);
    let progress = |_: ImportProgress| {
        if at_first.get().is_none() {
            at_first.set(Some(store.offered(&root.hash, &BY_HASH).is_some()));
        }
    };
    store
        .import(&scene.file("d"), &name, Some(&only), ImportMode::InPlace, &progress, &AtomicBool::new(false))
        .unwrap();
    assert_eq!(at_first.get(), Some(false));
}
