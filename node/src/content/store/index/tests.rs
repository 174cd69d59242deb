//! The index by itself.

use super::*;
use crate::base::stamp::{FileId, Stamp, StampTrust};

impl Index {
    fn entries(&self) -> &sled::Tree {
        &self.opened.as_ref().unwrap().entries
    }

    /// Makes all chunks unreadable, as a bad disk would.
    pub(in crate::content::store) fn spoil(&self) {
        for number in self.lock_places().chunks() {
            self.entries().insert(chunk_key(number), b"garbage garbage".to_vec()).unwrap();
        }
    }

    fn check(&self) -> Result<(), IndexError> {
        let before = self.lock_places().count();
        self.read_all()?;
        assert_eq!(self.lock_places().count(), before);
        Ok(())
    }

    fn chunks(&self) -> Vec<ChunkNumber> {
        self.lock_places().chunks()
    }

    fn count(&self) -> u64 {
        self.lock_places().count()
    }
}

fn location(number: u64) -> Location {
    let file = FileId::numbered(number);
    Location {
        path: format!("/f/{number}").into(),
        stamp: Stamp { size: 1, modified: -5, changed: 5, file },
        trust: StampTrust::Never,
    }
}

fn opened() -> (tempfile::TempDir, Index) {
    let dir = tempfile::tempdir().unwrap();
    let (index, set_aside) = open(&dir.path().join("index")).unwrap();
    assert_eq!(set_aside, None);
    (dir, index)
}

#[test]
fn the_most_recent_places_of_a_blob_are_kept() {
    let (_dir, index) = opened();
    let hash = ContentHash::of(b"x");
    index.add((0..6).map(|number| (hash, location(number)))).unwrap();
    index.add([(hash, location(4))]).unwrap();
    let paths: Vec<_> = index.locations(&hash).unwrap().into_iter().map(|location| location.path).collect();
    assert_eq!(paths, ["/f/4", "/f/5", "/f/3", "/f/2"].map(PathBuf::from));
    index.check().unwrap();
}

fn hash(number: u64) -> ContentHash {
    ContentHash::of(&number.to_le_bytes())
}

#[test]
fn what_is_there_is_right_however_places_come_and_go() {
    let (_dir, index) = opened();
    index.add((0..5000).map(|number| (hash(number % 3000), location(number)))).unwrap();
    assert_eq!(index.count(), 5000);
    index.remove(&(0..2000).map(hash).collect::<Vec<_>>()).unwrap();
    index.remove(&(1000..2500).map(hash).collect::<Vec<_>>()).unwrap();
    let is_right = |index: &Index| {
        for number in 0..3000 {
            let found: Vec<_> = index.locations(&hash(number)).unwrap();
            assert_eq!(found, if number < 2500 { vec![] } else { vec![location(number)] }, "{number}");
        }
        let mut hashes = index.hashes().unwrap();
        hashes.sort_unstable();
        let mut expected: Vec<_> = (2500..3000).map(hash).collect();
        expected.sort_unstable();
        assert_eq!(hashes, expected);
    };
    is_right(&index);
    index.check().unwrap();
    is_right(&index);
}

#[test]
fn chunks_of_few_places_are_joined() {
    let (_dir, index) = opened();
    index.add((0..10_000).map(|number| (hash(number), location(number)))).unwrap();
    let rare = |number: &u64| !number.is_multiple_of(100);
    index.remove(&(0..10_000).filter(rare).map(hash).collect::<Vec<_>>()).unwrap();
    assert_eq!(index.count(), 100);
    assert!(index.chunks().len() < 20, "{:?}", index.chunks());
    assert!((0..10_000).step_by(100).all(|number| index.locations(&hash(number)).unwrap() == [location(number)]));
    index.check().unwrap();
}

#[test]
fn what_is_put_in_again_as_it_was_changes_nothing() {
    let (_dir, index) = opened();
    let places = || (0..1000).map(|number| (hash(number), location(number)));
    index.add(places()).unwrap();
    let before = index.chunks();
    index.add(places()).unwrap();
    assert_eq!((index.chunks(), index.count()), (before, 1000));
}

#[test]
fn an_entry_that_was_changed_or_lost_is_noticed() {
    let (_dir, index) = opened();
    index.add((0..300).map(|number| (hash(number), location(number)))).unwrap();
    let [one, other] = [0, 1].map(|number| chunk_key(ChunkNumber(number)));
    // A whole, valid value under another key is as wrong as garbage.
    let (value, before) = (index.entries().get(one).unwrap().unwrap(), index.entries().get(other).unwrap().unwrap());
    index.entries().insert(other, value).unwrap();
    assert!(matches!(index.locations(&hash(200)), Err(IndexError::Damaged(_))));
    assert!(matches!(index.check(), Err(IndexError::Damaged(_))));
    index.entries().remove(other).unwrap();
    assert!(matches!(index.locations(&hash(200)), Err(IndexError::Damaged(_))));
    assert!(matches!(index.check(), Err(IndexError::Damaged(_))));
    index.entries().insert(other, before).unwrap();
    index.check().unwrap();
}

#[test]
fn damaged_chunks_are_removed_and_the_others_stay() {
    let (_dir, index) = opened();
    index.add((0..300).map(|number| (hash(number), location(number)))).unwrap();
    index.entries().insert(chunk_key(ChunkNumber(1)), b"garbage garbage".to_vec()).unwrap();
    index.remove_damaged().unwrap();
    index.check().unwrap();
    let there = (0..300).filter(|number| !index.locations(&hash(*number)).unwrap().is_empty()).count();
    assert_eq!((there as u64, there), (index.count(), 300 - chunk::MAX_PLACES));
}

#[test]
fn what_an_index_of_the_former_version_knows_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let database = sled::open(&path).unwrap();
    let former = database.open_tree(FORMER_PLACES).unwrap();
    let mut batch = Batch::default();
    put(&mut batch, &key(b'b', &hash(1)), &vec![location(11), location(10)]);
    put(&mut batch, &key(b'b', &hash(2)), &vec![location(2)]);
    put(&mut batch, &key(b'r', &hash(1)), &2u64);
    put(&mut batch, &key(b'p', &hash(3)), &5u64);
    put(&mut batch, COUNT_KEY, &2u64);
    former.apply_batch(batch).unwrap();
    drop((former, database));
    for _ in 0..2 {
        let (index, set_aside) = open(&path).unwrap();
        assert_eq!(set_aside, None);
        assert_eq!(index.locations(&hash(1)).unwrap(), [location(11), location(10)]);
        assert_eq!(index.locations(&hash(2)).unwrap(), [location(2)]);
        assert!(index.has_root(&hash(1)).unwrap());
        assert_eq!(index.pending_since(&hash(3)).unwrap(), Some(UnixTime(5)));
        index.close();
    }
}

#[test]
fn a_panic_in_sled_is_damage() {
    let result: Result<(), _> = guarded(std::path::Path::new("/i"), || panic!("boom"));
    assert!(matches!(result, Err(IndexError::Damaged(problem)) if problem.contains("boom")));
}
