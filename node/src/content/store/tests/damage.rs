//! A damaged index, a lost one, and kills at bad moments: nothing that can be derived is lost.

use proptest::prelude::*;

use super::*;

/// A store with a folder in place, a copy, and a large file; returns what it must still have afterwards.
fn filled(scene: &Scene) -> Vec<Root> {
    let store = scene.open();
    for number in 0..300 {
        scene.write(&format!("d/{number}"), &bytes(number, 100));
    }
    scene.write("c/copied", &bytes(1000, 70_000));
    let large = scene.write("large", &bytes(1001, 3 * 1024 * 1024));
    age(&large);
    import(&store, &scene.file("d"), "d", ImportMode::InPlace).unwrap();
    import(&store, &scene.file("c"), "c", ImportMode::Copy).unwrap();
    import(&store, &large, "large", ImportMode::InPlace).unwrap();
    store.roots()
}

fn assert_whole(scene: &Scene, expected: &[Root]) -> OpenReport {
    let (store, report) = Store::open(&scene.home()).unwrap();
    assert_eq!(store.roots(), expected);
    assert_eq!(report.lost, [] as [PathBuf; 0]);
    for root in expected {
        for blob in store.blobs_of(root).unwrap() {
            assert_eq!(ContentHash::of(&read_all(&store, &blob)), blob);
        }
    }
    let (report_of_verify, damage) = verify(&store);
    assert_eq!(damage, []);
    assert_eq!(report_of_verify.repaired, 0);
    drop(store);
    assert!(Store::open(&scene.home()).unwrap().1.is_clean(), "the second start finds nothing amiss");
    report
}

fn index_file(scene: &Scene) -> PathBuf {
    scene.home().join("index").join("db")
}

#[test]
fn a_lost_index_is_made_again() {
    let scene = Scene::new();
    let roots = filled(&scene);
    fs::remove_dir_all(scene.home().join("index")).unwrap();
    let report = assert_whole(&scene, &roots);
    assert_eq!((report.set_aside, report.index_was_lost, report.reindexed_roots), (None, true, 3));
}

#[test]
fn an_index_of_garbage_is_set_aside_and_made_again() {
    let scene = Scene::new();
    let roots = filled(&scene);
    let len = fs::metadata(index_file(&scene)).unwrap().len() as usize;
    fs::write(index_file(&scene), bytes(5, len)).unwrap();
    fs::write(scene.home().join("index").join("conf"), bytes(6, 40)).unwrap();
    let report = assert_whole(&scene, &roots);
    assert_eq!(report.set_aside, Some(scene.home().canonicalize().unwrap().join("index.damaged-1")));
    assert!(report.problem.is_some());
    assert_eq!(report.reindexed_roots, 3);
}

#[test]
fn an_index_that_took_the_process_down_is_not_tried_again() {
    let scene = Scene::new();
    let roots = filled(&scene);
    fs::write(scene.home().join("index.opening"), b"").unwrap();
    let report = assert_whole(&scene, &roots);
    assert!(report.set_aside.is_some());
}

#[test]
fn only_the_last_few_damaged_indexes_are_kept() {
    let scene = Scene::new();
    let roots = filled(&scene);
    for _ in 0..5 {
        fs::write(scene.home().join("index.opening"), b"").unwrap();
        assert_whole(&scene, &roots);
    }
    let kept = fs::read_dir(scene.home()).unwrap().flatten();
    let mut kept: Vec<_> = kept.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    kept.retain(|name| name.starts_with("index.damaged"));
    kept.sort();
    assert_eq!(kept, ["index.damaged-3", "index.damaged-4", "index.damaged-5"]);
}

#[test]
fn an_index_that_is_older_than_the_roots_is_filled_up() {
    let scene = Scene::new();
    drop(scene.open());
    let old = scene.dir.path().join("old index");
    copy_folder(&scene.home().join("index"), &old);
    let roots = filled(&scene);
    fs::remove_dir_all(scene.home().join("index")).unwrap();
    fs::rename(&old, scene.home().join("index")).unwrap();
    let report = assert_whole(&scene, &roots);
    assert_eq!((report.set_aside, report.reindexed_roots), (None, 3));
}

#[test]
fn files_that_changed_before_the_index_was_lost_are_reported_or_refused() {
    let scene = Scene::new();
    let roots = filled(&scene);
    fs::write(scene.file("d/6"), bytes(8000, 101)).unwrap();
    fs::write(scene.file("d/7"), bytes(8000, 100)).unwrap();
    fs::remove_file(scene.file("d/8")).unwrap();
    fs::write(scene.file("large"), bytes(8001, 3 * 1024 * 1024)).unwrap();
    age(&scene.file("large"));
    fs::remove_dir_all(scene.home().join("index")).unwrap();
    let (store, mut report) = Store::open(&scene.home()).unwrap();
    report.lost.sort();
    assert_eq!(report.lost, [scene.file("d/6"), scene.file("d/8")]);
    assert_eq!(report.lost_count, 2);
    for changed in [ContentHash::of(&bytes(7, 100)), roots[2].hash] {
        assert!(matches!(store.blob(&changed), Err(StoreError::Changed { .. })));
    }
    assert!(read_all(&store, &ContentHash::of(&bytes(9, 100))) == bytes(9, 100));
}

#[test]
fn an_index_of_the_former_form_is_made_again_without_being_called_damaged() {
    let scene = Scene::new();
    let roots = filled(&scene);
    fs::remove_dir_all(scene.home().join("index")).unwrap();
    let database = sled::open(scene.home().join("index")).unwrap();
    database.open_tree("entries").unwrap().insert(b"b of another form", b"whatever").unwrap();
    database.flush().unwrap();
    drop(database);
    let report = assert_whole(&scene, &roots);
    assert_eq!((report.set_aside, report.reindexed_roots), (None, 3));
}

#[test]
fn a_lost_outboard_is_made_again_with_the_index() {
    let scene = Scene::new();
    let roots = filled(&scene);
    fs::remove_dir_all(scene.home().join("index")).unwrap();
    fs::remove_dir_all(scene.home().join("outboards")).unwrap();
    let (store, report) = Store::open(&scene.home()).unwrap();
    assert_eq!(report.lost, [] as [PathBuf; 0]);
    assert!(read_all(&store, &roots[2].hash) == bytes(1001, 3 * 1024 * 1024));
}

#[test]
fn what_a_killed_process_left_half_written_does_no_harm() {
    let scene = Scene::new();
    let roots = filled(&scene);
    fs::write(scene.home().join("tmp").join("half"), b"half").unwrap();
    let part = scene.home().join("outboards").join("ab").join(format!("{}.part", ContentHash::of(b"?")));
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(part, b"half").unwrap();
    let report = assert_whole(&scene, &roots);
    assert!(report.is_clean());
    assert_eq!(fs::read_dir(scene.home().join("tmp")).unwrap().count(), 0);
}

#[test]
fn an_entry_that_goes_bad_while_the_store_is_open_is_healed() {
    let scene = Scene::new();
    let roots = filled(&scene);
    let store = scene.open();
    store.0.index.spoil();
    assert!(read_all(&store, &roots[2].hash) == bytes(1001, 3 * 1024 * 1024));
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from).into_iter().flatten() {
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(target).unwrap()
        } else {
            drop(fs::copy(entry.path(), target))
        }
    }
}

#[derive(Debug, Clone)]
enum Harm {
    Truncate { keep: f64 },
    Overwrite { at: f64, len: usize, seed: u64 },
    Zero { at: f64, len: usize },
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        (0.0..1.0).prop_map(|keep| Harm::Truncate { keep }),
        (0.0..1.0, 1_usize..100_000, any::<u64>()).prop_map(|(at, len, seed)| Harm::Overwrite { at, len, seed }),
        (0.0..1.0, 1_usize..100_000).prop_map(|(at, len)| Harm::Zero { at, len }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, max_shrink_iters: 8, ..ProptestConfig::default() })]

    #[test]
    fn no_harm_to_the_index_loses_anything(harms in prop::collection::vec(harm(), 1..4)) {
        let scene = Scene::new();
        let roots = filled(&scene);
        let path = index_file(&scene);
        let mut content = fs::read(&path).unwrap();
        let used = content.iter().rposition(|byte| *byte != 0).unwrap_or(0) as f64;
        for harm in harms {
            match harm {
                Harm::Truncate { keep } => content.truncate((used * keep) as usize),
                Harm::Overwrite { at, len, seed } => overwrite(&mut content, (used * at) as usize, &bytes(seed, len)),
                Harm::Zero { at, len } => overwrite(&mut content, (used * at) as usize, &vec![0; len]),
            }
        }
        fs::write(&path, content).unwrap();
        let report = assert_whole(&scene, &roots);
        // sled may also take a damaged file for an older state.
        prop_assert!(report.reindexed_roots == 3 || report.set_aside.is_none());
    }
}

fn overwrite(content: &mut [u8], at: usize, with: &[u8]) {
    let end = content.len().min(at + with.len());
    if at < end {
        content[at..end].copy_from_slice(&with[..end - at]);
    }
}
