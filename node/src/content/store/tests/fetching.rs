//! What a fetch asks of the store: outboards, what is there already, and taking over what came.

use super::*;

const LEN: usize = 37 * 1024 * 1024 + 11;

/// A sharer's blob and a getter's empty store.
fn sharer() -> (Scene, Store, Blob, ContentHash) {
    let scene = Scene::new();
    let store = scene.open();
    let path = scene.write("f", &bytes(7, LEN));
    let hash = import(&store, &path, "f", ImportMode::InPlace).unwrap().root.hash;
    let blob = store.blob(&hash).unwrap().unwrap();
    (scene, store, blob, hash)
}

fn staging(scene: &Scene) -> (PathBuf, File) {
    let path = scene.file("staging");
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&path).unwrap();
    (path, file)
}

/// Does what a fetch of `groups` does: proven parents into the outboard, proven groups into the file.
fn fetch(blob: &Blob, hash: ContentHash, groups: &UnitRanges, file: &File, outboard: &OutboardFile) {
    use keyferry_proto::transfer::groups::{Expect, GroupDecoder, Verified};
    let mut decoder = GroupDecoder::new(hash, blob.size(), groups).unwrap();
    let (mut next_parent, mut buffer) = (wanted_parents(blob.size(), groups).into_iter(), vec![0; 65_536]);
    while let Some(expect) = decoder.expects() {
        match expect {
            Expect::Parent => {
                let parent = blob.read_parent(next_parent.next().unwrap()).unwrap();
                let Verified::Parent { outboard_offset } = decoder.accept(&parent).unwrap() else { panic!() };
                outboard.write_parent(outboard_offset, &parent).unwrap();
                assert_eq!(outboard.read_parent(outboard_offset).unwrap(), Some(parent));
            }
            Expect::Mark => panic!("no marks were asked for"),
            Expect::Leaf { offset, len, .. } => {
                let data = &mut buffer[..len];
                blob.read_at(offset, data).unwrap();
                decoder.accept(data).unwrap();
                disk::write_all_at(file, data, offset).unwrap();
            }
        }
    }
}

/// Where the parents of these groups are, in the order in which they are sent.
fn wanted_parents(size: u64, groups: &UnitRanges) -> Vec<u64> {
    use keyferry_proto::transfer::groups::{GroupSteps, Step};
    GroupSteps::new(size, groups)
        .unwrap()
        .filter_map(|step| match step {
            Step::Parent { outboard_offset } => Some(outboard_offset),
            Step::Leaf { .. } => None,
        })
        .collect()
}

/// The first groups of a blob.
fn first(count: u64) -> UnitRanges {
    let mut units = UnitRanges::empty();
    units.insert(0..count);
    units
}

fn units<const N: usize>(ranges: [std::ops::Range<u64>; N]) -> UnitRanges {
    let mut units = UnitRanges::empty();
    ranges.into_iter().for_each(|range| units.insert(range));
    units
}

#[test]
fn a_fetch_goes_on_from_what_was_proven_without_a_journal() {
    let (_sharer, _store, blob, hash) = sharer();
    let scene = Scene::new();
    let wanted = units([0..3, 100..300, 591..593]);
    {
        let store = scene.open();
        let (_, file) = staging(&scene);
        let outboard = store.partial_outboard(hash, blob.size()).unwrap();
        assert!(!outboard.is_complete());
        assert_eq!(outboard.verified_groups(&file, hash, blob.size()).unwrap(), UnitRanges::empty());
        fetch(&blob, hash, &wanted, &file, &outboard);
    }
    let store = scene.open();
    let (_, file) = staging(&scene);
    let outboard = store.partial_outboard(hash, blob.size()).unwrap();
    let found = outboard.verified_groups(&file, hash, blob.size()).unwrap();
    // The last group is 592: 37 MiB and 11 bytes have 593 groups.
    assert_eq!(found, wanted);
}

#[test]
fn bytes_that_were_damaged_on_disk_are_not_believed() {
    let (_sharer, _store, blob, hash) = sharer();
    let scene = Scene::new();
    let store = scene.open();
    let (path, file) = staging(&scene);
    let outboard = store.partial_outboard(hash, blob.size()).unwrap();
    fetch(&blob, hash, &UnitRanges::all(), &file, &outboard);
    let all = first(593);
    assert_eq!(outboard.verified_groups(&file, hash, blob.size()).unwrap(), all);
    disk::write_all_at(&file, b"lie", 65_536 * 200 + 5).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(blob.size() - 1).unwrap();
    let mut expected = all.clone();
    expected.remove(200..201);
    expected.remove(592..593);
    assert_eq!(outboard.verified_groups(&file, hash, blob.size()).unwrap(), expected);
    // A lie about the size, or about the hash, proves nothing of it.
    assert!(outboard.verified_groups(&file, hash, blob.size() * 1000).unwrap().is_empty());
    assert!(outboard.verified_groups(&file, ContentHash::EMPTY, blob.size()).unwrap().is_empty());
}

#[test]
fn a_lie_about_size_costs_no_space() {
    let scene = Scene::new();
    let store = scene.open();
    let hash = ContentHash::of(b"x");
    let outboard = store.partial_outboard(hash, 1 << 50).unwrap();
    assert_eq!(fs::metadata(store.0.folders.partial_outboard(&hash)).unwrap().len(), 0);
    assert!(outboard.write_parent(1 << 50, &[0; 64]).is_err());
    assert!(matches!(outboard.finish(), Err(StoreError::Damaged { .. })));
}

#[test]
fn small_blobs_need_no_outboard_and_are_found_again_too() {
    let scene = Scene::new();
    let store = scene.open();
    let (_, file) = staging(&scene);
    disk::write_all_at(&file, b"small", 0).unwrap();
    let hash = ContentHash::of(b"small");
    let outboard = store.partial_outboard(hash, 5).unwrap();
    assert!(outboard.is_complete());
    outboard.finish().unwrap();
    assert_eq!(outboard.verified_groups(&file, hash, 5).unwrap(), first(1));
    assert!(outboard.verified_groups(&file, hash, 4).unwrap().is_empty());
    assert!(outboard.verified_groups(&file, ContentHash::EMPTY, 0).unwrap().is_empty());
    assert_eq!(fs::read_dir(scene.home().join("outboards")).unwrap().count(), 0);
}

#[test]
fn what_was_fetched_is_kept_where_it_was_put() {
    let (_sharer, _store, blob, hash) = sharer();
    let scene = Scene::new();
    let store = scene.open();
    let (path, file) = staging(&scene);
    let outboard = store.partial_outboard(hash, blob.size()).unwrap();
    fetch(&blob, hash, &UnitRanges::all(), &file, &outboard);
    outboard.finish().unwrap();
    outboard.finish().unwrap();
    let place = scene.file("in its place");
    fs::rename(path, &place).unwrap();
    let root = Root {
        hash,
        format: ContentFormat::Blob,
        size: LEN as u64,
        files: 1,
        attributes: None,
        state: RootState::Kept,
        origin: RootOrigin::Fetched { path: place.clone() },
        added: clock::now(),
    };
    let placed = |size| PlacedFile { hash, size, path: place.clone(), modified: None };
    let wrong = store.add_fetched(root.clone(), vec![placed(5)]);
    assert!(matches!(wrong, Err(StoreError::Changed { .. })));
    assert!(store.blob(&hash).unwrap().is_none());
    store.add_fetched(root.clone(), vec![placed(LEN as u64)]).unwrap();
    drop((store, outboard));
    let store = scene.open();
    assert_eq!(store.roots(), [root]);
    assert!(read_all(&store, &hash) == bytes(7, LEN));
    assert_eq!(verify(&store).0, VerifyReport { sound: 1, damaged: 0, repaired: 0 });
    assert!(store.partial_outboard(hash, LEN as u64).unwrap().is_complete());
}

#[test]
fn bytes_are_kept_only_under_their_own_hash() {
    let scene = Scene::new();
    let store = scene.open();
    let content = bytes(1, 200_000);
    let wrong = store.put_blob_bytes(ContentHash::EMPTY, &content);
    assert!(matches!(wrong, Err(StoreError::HashMismatch { .. })));
    store.put_blob_bytes(ContentHash::of(&content), &content).unwrap();
    store.put_blob_bytes(ContentHash::EMPTY, b"").unwrap();
    let blob = store.blob(&ContentHash::of(&content)).unwrap().unwrap();
    assert_eq!(blob.read_parent(0).unwrap().len(), 64);
    assert!(read_all(&store, &ContentHash::of(&content)) == content);
    assert_eq!(store.blob(&ContentHash::EMPTY).unwrap().unwrap().size(), 0);
}

#[test]
fn parents_of_a_greater_size_that_was_a_lie_do_not_spoil_the_outboard() {
    let (_sharer, _store, blob, hash) = sharer();
    let scene = Scene::new();
    let store = scene.open();
    let (_, file) = staging(&scene);
    let lie = store.partial_outboard(hash, blob.size() * 4).unwrap();
    lie.write_parent(tree::outboard_len(blob.size()) + 64 * 100, &[1; 64]).unwrap();
    drop(lie);
    let outboard = store.partial_outboard(hash, blob.size()).unwrap();
    fetch(&blob, hash, &UnitRanges::all(), &file, &outboard);

    outboard.finish().unwrap();

    assert!(store.partial_outboard(hash, blob.size()).unwrap().is_complete());
}
