//! The index by itself.

use super::*;
use crate::base::stamp::FileId;

impl Index {
    fn entries(&self) -> &sled::Tree {
        &self.opened.as_ref().unwrap().entries
    }

    /// Makes the entry of a blob unreadable, as a bad disk would.
    pub(in crate::content::store) fn spoil(&self, hash: &ContentHash) {
        self.entries().insert(blob_key(hash), b"garbage garbage".to_vec()).unwrap();
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

#[test]
fn the_number_of_entries_is_right_however_they_come_and_go() {
    let (_dir, index) = opened();
    let hash = |number: u64| ContentHash::of(&number.to_le_bytes());
    index.add((0..5000).map(|number| (hash(number % 3000), location(number)))).unwrap();
    assert_eq!(index.count().unwrap(), 3000);
    index.remove(&(0..2000).map(hash).collect::<Vec<_>>()).unwrap();
    index.remove(&(1000..2500).map(hash).collect::<Vec<_>>()).unwrap();
    assert_eq!(index.count().unwrap(), 500);
    index.check().unwrap();
}

#[test]
fn an_entry_that_was_changed_or_lost_is_noticed() {
    let (_dir, index) = opened();
    let (a, b) = (ContentHash::of(b"a"), ContentHash::of(b"b"));
    index.add([(a, location(1)), (b, location(2))]).unwrap();
    // A whole, valid value under another key is as wrong as garbage.
    let value = index.entries().get(blob_key(&a)).unwrap().unwrap();
    index.entries().insert(blob_key(&b), value).unwrap();
    assert!(matches!(index.locations(&b), Err(IndexError::Damaged(_))));
    assert!(matches!(index.check(), Err(IndexError::Damaged(_))));
    index.entries().remove(blob_key(&b)).unwrap();
    assert!(matches!(index.check(), Err(IndexError::Damaged(_))));
}

#[test]
fn a_panic_in_sled_is_damage() {
    let result: Result<(), _> = guarded(std::path::Path::new("/i"), || panic!("boom"));
    assert!(matches!(result, Err(IndexError::Damaged(problem)) if problem.contains("boom")));
}
