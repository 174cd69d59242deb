//! Fetching what is at a path in a folder, and nothing else of it.

use std::os::unix::fs::symlink;

use keyferry_proto::collection::EntryPath;

use super::*;
use crate::content::{
    store::Asker,
    transfer::{listing::list, staging::StagingError},
};

fn make_deep(dir: &Path) {
    for (path, content) in [("a/b/one", "one"), ("a/b/c/two", "two"), ("a/z", "z"), ("else", "else"), ("empty", "")] {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), content).unwrap();
    }
    fs::write(dir.join("a/b/large"), bytes(9 * GROUP + 1)).unwrap();
    fs::write(dir.join("large too"), bytes(20 * GROUP)).unwrap();
    symlink("one", dir.join("a/b/in")).unwrap();
    symlink("../z", dir.join("a/b/out")).unwrap();
}

async fn get(getter: &Getter, source: &Source, path: &str, sessions: Vec<Session>) -> Result<FetchOutcome, FetchError> {
    let (found, providers) = mpsc::channel(16);
    for session in sessions {
        found.send(session).await.unwrap();
    }
    let found_sources = FoundSources { sessions: providers, untried: getter.untried.subscribe() };
    let part = Some(EntryPath::new(path).unwrap());
    let job = Job { part, format: Some(ContentFormat::Collection), ..getter.job(source.root) };
    let tell = |progress| *getter.progress.lock().unwrap() = progress;
    let fetching = fetch_with(job, &getter.patience, found_sources, tell, getter.cancel.clone());
    tokio::time::timeout(Duration::from_secs(60), fetching).await.expect("the fetch ends in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_a_folder_arrives_alone_and_follows_its_next_version() {
    let mut source = Source::new(make_deep);
    let (getter, provider) = (Getter::new(), source.provider(1, Behaviour::Serve).await);

    let outcome = get(&getter, &source, "a/b", vec![provider.session().await]).await.unwrap();

    assert_eq!((outcome.format, outcome.files, outcome.size), (ContentFormat::Collection, 3, 9 * GROUP + 7));
    assert_eq!((outcome.not_as_sent.links_out, getter.leftovers()), (1, 0));
    let progress = *getter.progress.lock().unwrap();
    assert_eq!((progress.done_bytes, progress.total_bytes), (outcome.size, outcome.size));
    assert!(outcome.received_bytes < 12 * GROUP, "{}", outcome.received_bytes);
    let read = |path: &str| fs::read(getter.got().join(path)).unwrap();
    assert_eq!((read("one"), read("c/two"), read("large")), (b"one".into(), b"two".into(), bytes(9 * GROUP + 1)));
    assert_eq!(fs::read_dir(getter.got()).unwrap().count(), 4, "one, c, large, in");
    // It is no root of this node, by whatever hash.
    assert!(getter.store.roots().is_empty() && getter.store.offered(&source.root, &Asker::ByHash).is_none());
    // Nobody is asked for what is there.
    let again = get(&getter, &source, "a/b", Vec::new()).await.unwrap();
    assert!(again.was_there && again.received_bytes == 0, "{again:?}");

    fs::write(source.path().join("a/b/c/two"), "2").unwrap();
    source.root = import(&source.store, &source.path());
    let outcome = get(&getter, &source, "a/b", vec![provider.session().await]).await.unwrap();
    assert_eq!((outcome.changes.replaced.count, outcome.changes.added.count), (1, 0));
    assert_eq!((read("c/two"), outcome.received_bytes < GROUP), (b"2".into(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_a_folder_arrives_alone() {
    for (path, content) in [("a/b/large", bytes(9 * GROUP + 1)), ("else", b"else".to_vec()), ("empty", Vec::new())] {
        let source = Source::new(make_deep);
        let (getter, provider) = (Getter::new(), source.provider(1, Behaviour::Serve).await);

        let outcome = get(&getter, &source, path, vec![provider.session().await]).await.unwrap();

        assert_eq!((outcome.format, outcome.files), (ContentFormat::Blob, 1), "{path}");
        assert_eq!((outcome.size, fs::read(getter.got()).unwrap()), (content.len() as u64, content), "{path}");
        assert!(outcome.received_bytes < 12 * GROUP && getter.leftovers() == 0, "{path}");
        assert!(get(&getter, &source, path, Vec::new()).await.unwrap().was_there, "{path}");
        fs::write(getter.got(), "mine").unwrap();
        let refused = get(&getter, &source, path, vec![provider.session().await]).await;
        assert!(matches!(refused, Err(FetchError::Target(StagingError::Exists { .. }))), "{path}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_the_folder_is_told_and_leaves_nothing() {
    let source = Source::new(make_deep);
    let (getter, provider) = (Getter::new(), source.provider(1, Behaviour::Serve).await);
    for path in ["b", "a/b/c/two/three", "a/b/c/two2", "A"] {
        let refused = get(&getter, &source, path, vec![provider.session().await]).await;
        assert!(matches!(&refused, Err(FetchError::NotInFolder { path: told }) if told == path), "{refused:?}");
    }
    let refused = get(&getter, &source, "a/b/out", vec![provider.session().await]).await;
    assert!(matches!(&refused, Err(FetchError::IsALink { target, .. }) if target == "../z"), "{refused:?}");
    assert_eq!(fs::read_dir(getter.out.path()).unwrap().count(), 0);
}

#[test]
fn one_level_of_a_folder_is_listed_with_what_is_below_each_entry() {
    let source = Source::new(make_deep);
    let manifest = || source.store.manifest(&source.root).unwrap().unwrap();
    let names = |path: Option<&str>| -> Vec<(String, u64, u64)> {
        let path = path.map(|path| EntryPath::new(path).unwrap());
        let listed = list(&manifest(), path.as_ref()).unwrap();
        listed.into_iter().map(|entry| (entry.name, entry.files, entry.size)).collect()
    };
    let expected = [("a", 4, 9 * GROUP + 8), ("else", 1, 4), ("empty", 1, 0), ("large too", 1, 20 * GROUP)];
    let expected = expected.map(|(name, files, size)| (name.to_owned(), files, size));
    assert_eq!(names(None), expected);
    let below: Vec<String> = names(Some("a/b")).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(below, ["c", "in", "large", "one", "out"]);
    assert_eq!(names(Some("a/b/one")), [("one".to_owned(), 1, 3)]);
}
