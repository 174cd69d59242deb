//! Files that change, vanish or cannot be read while they are shared: what the one who fetches gets, and what both are told.

use super::*;
use crate::content::transfer::{Incomplete, MissingFile, serve::SourceFault};

/// A folder of two files of several groups, one small file and one that no test touches.
fn make_folder(dir: &Path) {
    fs::create_dir(dir).unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(dir.join("a large"), bytes(40 * GROUP)).unwrap();
    fs::write(dir.join("b proofless"), bytes(3 * GROUP)).unwrap();
    fs::write(dir.join("sub/c small"), b"as it was shared").unwrap();
    fs::write(dir.join("untouched"), b"untouched").unwrap();
}

async fn incomplete(getter: &Getter, source: &Source, provider: &Provider) -> Incomplete {
    match getter.fetch_from(source.root, vec![provider.session().await]).await {
        Err(FetchError::Incomplete(incomplete)) => *incomplete,
        other => panic!("{other:?}"),
    }
}

fn missing(path: &str, why: Refusal) -> MissingFile {
    MissingFile { path: path.to_owned(), why }
}

/// The files below a folder, by their names in it.
fn files_in(dir: &Path) -> Vec<String> {
    let files = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    let mut names: Vec<String> =
        files.map(|entry| entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_named_to_both_sides_and_the_rest_of_the_folder_arrives() {
    let source = Source::new(make_folder);
    let getter = Getter::new();
    let provider = source.provider(1, Behaviour::Serve).await;
    let mut troubles = provider.troubles();
    let (large, small) = (source.path().join("a large"), source.path().join("sub/c small"));
    fs::write(&small, b"as it was edited").unwrap();
    fs::remove_file(&large).unwrap();
    let proofs = ContentHash::of(&bytes(3 * GROUP)).to_string();
    fs::remove_file(source.home().join("outboards").join(&proofs[..2]).join(format!("{proofs}.obao"))).unwrap();

    let got = incomplete(&getter, &source, &provider).await;

    assert_eq!((got.path.clone(), got.files, got.missing_count), (getter.got(), 4, 3));
    let expected = [
        missing("a large", Refusal::Gone),
        missing("b proofless", Refusal::Unreadable),
        missing("sub/c small", Refusal::Changed),
    ];
    assert_eq!(got.missing, expected);
    assert_eq!((files_in(&getter.got()), getter.leftovers()), (vec!["untouched".to_owned()], 0));
    // Whoever asks again gets the same answer, and the owner is not told twice.
    fs::remove_dir_all(getter.got()).unwrap();
    assert_eq!(incomplete(&getter, &source, &provider).await.missing_count, 3);
    let told: Vec<_> = std::iter::from_fn(|| troubles.try_recv().ok()).collect();
    assert!(told.iter().all(|trouble| trouble.root == source.root), "{told:?}");
    let faults: Vec<_> = told.into_iter().map(|trouble| (trouble.path, trouble.fault)).collect();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert_eq!((&faults[0], &faults[2]), (&(large, SourceFault::Gone), &(small, SourceFault::Changed)));
    assert!(matches!(&faults[1].1, SourceFault::Unreadable(_)), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_the_midst_of_a_file_costs_that_file_and_not_the_ones_after_it() {
    let source = Source::new(make_folder);
    let mut getter = Getter::new();
    getter.patience.when_refused = Duration::from_millis(300);
    let provider = source.provider(1, Behaviour::Serve).await;
    // A secret change behind the groups that are looked at first.
    let path = source.path().join("a large");
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xaa; 100], 30 * GROUP).unwrap();

    let got = incomplete(&getter, &source, &provider).await;

    assert_eq!(got.missing, [missing("a large", Refusal::Changed)]);
    assert_eq!(files_in(&getter.got()), ["b proofless", "sub/c small", "untouched"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_of_a_folder_is_not_sent_again_with_its_next_version() {
    let mut source = Source::new(make_folder);
    let mut getter = Getter::new();
    getter.patience.when_refused = Duration::from_millis(300);
    let provider = source.provider(1, Behaviour::Serve).await;
    fs::write(source.path().join("sub/c small"), b"as it was edited").unwrap();
    incomplete(&getter, &source, &provider).await;
    source.root = import(&source.store, &source.path());
    getter.overwrite = true;

    let outcome = getter.fetch_from(source.root, vec![provider.session().await]).await.unwrap();

    assert_eq!(fs::read(getter.got().join("sub/c small")).unwrap(), b"as it was edited");
    assert_eq!(files_in(&getter.got()).len(), 4);
    assert!(outcome.received_bytes < GROUP, "{}", outcome.received_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_which_nothing_is_to_be_had_leaves_nothing() {
    let source = Source::new(make_folder);
    let mut getter = Getter::new();
    getter.patience.when_refused = Duration::from_millis(300);
    let provider = source.provider(1, Behaviour::Serve).await;
    fs::remove_dir_all(source.path()).unwrap();

    let ended = getter.fetch_from(source.root, vec![provider.session().await]).await;

    assert!(matches!(ended, Err(FetchError::Unavailable { why: Refusal::Gone, .. })), "{ended:?}");
    assert!(!getter.got().exists());
}
