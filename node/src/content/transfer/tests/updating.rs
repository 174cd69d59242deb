//! Getting a newer version of what was fetched before: what moves, what is replaced, and what is kept.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;
use crate::content::transfer::{
    KeptFiles,
    comparing::compare,
    describing::{ContentDescription, describe},
    staging::StagingError,
};

/// A sharer and a getter of a folder.
struct Pair {
    source: Source,
    provider: Provider,
    getter: Getter,
}

impl Pair {
    async fn new(make: impl FnOnce(&Path)) -> Self {
        let source = Source::new(make);
        let getter = Getter { format: Some(ContentFormat::Collection), ..Getter::new() };
        Self { provider: source.provider(1, Behaviour::Serve).await, source, getter }
    }

    async fn get(&self) -> Result<FetchOutcome, FetchError> {
        self.getter.fetch_from(self.source.root, vec![self.provider.session().await]).await
    }

    /// Changes what is shared, and shares it again.
    fn change(&mut self, change: impl FnOnce(&Path)) {
        change(&self.source.path());
        self.source.root = import(&self.source.store, &self.source.path());
    }

    fn got(&self, path: &str) -> std::path::PathBuf {
        self.getter.got().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.got(path)).unwrap()
    }

    fn is_there(&self, path: &str) -> bool {
        self.got(path).symlink_metadata().is_ok()
    }
}

fn write(dir: &Path, path: &str, content: &str) {
    let file = dir.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

/// A hundred small files, and some of several groups.
fn make_many(dir: &Path) {
    for number in 0..100 {
        write(dir, &format!("small/{number}"), &format!("{number} as it was"));
    }
    for name in ["large", "sub/large"] {
        write(dir, name, "");
        fs::write(dir.join(name), [&bytes(5 * GROUP)[..], name.as_bytes()].concat()).unwrap();
    }
}

fn kept(ended: Result<FetchOutcome, FetchError>) -> KeptFiles {
    match ended {
        Err(FetchError::Kept(kept)) => *kept,
        other => panic!("{other:?}"),
    }
}

fn paths(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_newer_version_only_what_changed_moves_and_the_rest_stays_as_it_is() {
    let mut pair = Pair::new(make_many).await;
    pair.get().await.unwrap();
    let before: Vec<u64> = ["large", "small/3"].map(|path| fs::metadata(pair.got(path)).unwrap().ino()).into();
    write(&pair.getter.got(), "mine", "my own");
    pair.change(|dir| {
        write(dir, "small/7", "7 as it is now");
        write(dir, "new/file", "new");
    });

    let outcome = pair.get().await.unwrap();

    assert_eq!(
        (outcome.was_there, outcome.changes.added.listed, outcome.changes.replaced.listed),
        (false, paths(&["new/file"]), paths(&["small/7"]))
    );
    assert!(outcome.received_bytes < GROUP, "{}", outcome.received_bytes);
    assert_eq!(
        (pair.read("small/7"), pair.read("new/file"), pair.read("mine")),
        ("7 as it is now".into(), "new".into(), "my own".into())
    );
    let after: Vec<u64> = ["large", "small/3"].map(|path| fs::metadata(pair.got(path)).unwrap().ino()).into();
    assert_eq!((before, pair.getter.leftovers()), (after, 0));
    // What was there before is no root any more, and what is there now is found by the next one.
    assert_eq!(pair.getter.store.roots().iter().map(|root| root.hash).collect::<Vec<_>>(), [pair.source.root]);
    assert!(pair.get().await.unwrap().was_there);
    // And all of it can be given to others, hash trees of what did not change included.
    let mut damaged = Vec::new();
    let not_stopped = AtomicBool::new(false);
    pair.getter.store.verify(&|_| {}, &mut |damage| damaged.push(damage), &not_stopped).unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    let large = ContentHash::of(&fs::read(pair.got("large")).unwrap());
    assert_eq!(pair.getter.store.blob(&large).unwrap().unwrap().size(), 5 * GROUP + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_owner_changed_is_kept_and_named_and_everything_else_arrives() {
    let mut pair = Pair::new(make_many).await;
    pair.get().await.unwrap();
    write(&pair.getter.got(), "small/7", "7 as I want it");
    pair.change(|dir| {
        write(dir, "small/7", "7 as it is now");
        write(dir, "small/8", "8 as it is now");
        write(dir, "mine", "theirs");
    });
    write(&pair.getter.got(), "mine", "my own");

    let got = kept(pair.get().await);

    assert_eq!((got.path, got.kept_count, got.kept), (pair.getter.got(), 2, paths(&["mine", "small/7"])));
    assert_eq!(
        (pair.read("small/7"), pair.read("small/8"), pair.read("mine")),
        ("7 as I want it".into(), "8 as it is now".into(), "my own".into())
    );
    // The same again, until its owner says otherwise.
    assert_eq!(kept(pair.get().await).kept_count, 2);
    pair.getter.overwrite = true;
    let outcome = pair.get().await.unwrap();
    assert_eq!((outcome.changes.replaced.count, outcome.changes.added.count), (2, 0));
    assert_eq!(
        (pair.read("small/7"), pair.read("mine"), pair.getter.leftovers()),
        ("7 as it is now".into(), "theirs".into(), 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_told_and_removed_only_from_a_mirror_and_only_as_it_was_written() {
    let mut pair = Pair::new(|dir| {
        make_many(dir);
        write(dir, "old/deep/file", "old");
        write(dir, "old/edited", "old");
        symlink("large", dir.join("old/link")).unwrap();
    })
    .await;
    pair.get().await.unwrap();
    write(&pair.getter.got(), "old/edited", "mine");
    write(&pair.getter.got(), "small/mine", "mine");
    pair.change(|dir| {
        fs::remove_dir_all(dir.join("old")).unwrap();
        fs::remove_file(dir.join("small/5")).unwrap();
    });

    for _ in 0..2 {
        let outcome = pair.get().await.unwrap();
        assert_eq!(outcome.changes.gone.listed, paths(&["old/deep/file", "old/link", "small/5"]));
        assert!(outcome.was_there && pair.is_there("old/deep/file") && pair.is_there("old/link"));
    }
    pair.getter.mirror = true;
    let outcome = pair.get().await.unwrap();

    assert_eq!(outcome.changes.removed.listed, paths(&["old/deep/file", "old/link", "small/5"]));
    assert!(!outcome.was_there && !pair.is_there("old/deep") && !pair.is_there("small/5"));
    assert_eq!((pair.read("old/edited"), pair.read("small/mine")), ("mine".into(), "mine".into()));
    assert!(pair.get().await.unwrap().changes.are_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_a_folder_a_folder_a_file_and_a_link_another_where_nobody_changed_them() {
    let mut pair = Pair::new(|dir| {
        write(dir, "file", "file");
        write(dir, "folder/in/it", "it");
        write(dir, "edited/in/it", "it");
        symlink("file", dir.join("link")).unwrap();
        symlink("file", dir.join("link to file")).unwrap();
    })
    .await;
    pair.get().await.unwrap();
    write(&pair.getter.got(), "edited/in/mine", "mine");
    pair.change(|dir| {
        fs::remove_file(dir.join("file")).unwrap();
        write(dir, "file/now", "folder");
        for folder in ["folder", "edited"] {
            fs::remove_dir_all(dir.join(folder)).unwrap();
            write(dir, folder, "file now");
        }
        for link in ["link", "link to file"] {
            fs::remove_file(dir.join(link)).unwrap();
        }
        symlink("folder", dir.join("link")).unwrap();
        write(dir, "link to file", "file now");
    });

    let got = kept(pair.get().await);

    assert_eq!(got.kept, paths(&["edited"]));
    assert_eq!(
        (pair.read("file/now"), pair.read("folder"), pair.read("link to file")),
        ("folder".into(), "file now".into(), "file now".into())
    );
    assert_eq!(fs::read_link(pair.got("link")).unwrap(), Path::new("folder"));
    assert_eq!((pair.read("edited/in/it"), pair.read("edited/in/mine")), ("it".into(), "mine".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn times_and_rights_follow_without_a_byte() {
    let mut pair = Pair::new(make_many).await;
    pair.get().await.unwrap();
    let number = fs::metadata(pair.got("large")).unwrap().ino();
    pair.change(|dir| {
        let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::File::open(dir.join("large")).unwrap().set_modified(long_ago).unwrap();
        fs::set_permissions(dir.join("small/1"), fs::Permissions::from_mode(0o700)).unwrap();
    });

    let outcome = pair.get().await.unwrap();

    let (large, small) = (fs::metadata(pair.got("large")).unwrap(), fs::metadata(pair.got("small/1")).unwrap());
    assert_eq!((large.mtime(), large.ino(), small.mode() & 0o777), (1_000_000_000, number, 0o700));
    // Nothing but the list of files.
    assert!(outcome.was_there && outcome.received_bytes < GROUP, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_version_put_there_that_went_without_some_files_gives_way_to_the_next() {
    let mut pair = Pair::new(make_many).await;
    pair.getter.patience.when_refused = Duration::from_millis(300);
    pair.get().await.unwrap();
    pair.change(|dir| {
        write(dir, "small/1", "1 in the second version");
        write(dir, "small/2", "2 in the second version");
    });
    // One of them is not to be had.
    fs::write(pair.source.path().join("small/2"), "changed in secret, not ").unwrap();
    let ended = pair.get().await;
    assert!(matches!(&ended, Err(FetchError::Incomplete(missing)) if missing.missing_count == 1), "{ended:?}");
    assert_eq!((pair.read("small/1"), pair.read("small/2")), ("1 in the second version".into(), "2 as it was".into()));
    pair.change(|dir| {
        write(dir, "small/1", "1 in the third version");
        write(dir, "small/2", "2 in the third version");
    });

    let outcome = pair.get().await.unwrap();

    assert_eq!(outcome.changes.replaced.count, 2);
    assert_eq!(
        (pair.read("small/1"), pair.read("small/2")),
        ("1 in the third version".into(), "2 in the third version".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_no_fetch_made_is_not_mixed_with_another_unless_it_is_empty() {
    let pair = Pair::new(make_many).await;
    write(&pair.getter.got(), "small/7", "mine");
    let refused = pair.get().await;
    assert!(matches!(refused, Err(FetchError::Target(StagingError::Exists { .. }))), "{refused:?}");
    assert_eq!((pair.getter.leftovers(), pair.is_there("large")), (0, false));
    fs::remove_dir_all(pair.getter.got()).unwrap();
    fs::create_dir(pair.getter.got()).unwrap();

    let outcome = pair.get().await.unwrap();

    assert_eq!((outcome.changes.added.count, pair.getter.leftovers()), (102, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_file_replaces_one_as_it_was_written_and_no_other() {
    let mut source = Source::file(3 * GROUP);
    let (getter, provider) = (Getter::new(), source.provider(1, Behaviour::Serve).await);
    let get = async |root| getter.fetch_from(root, vec![provider.session().await]).await;
    get(source.root).await.unwrap();
    for len in [4 * GROUP, 100, 5 * GROUP] {
        fs::write(source.path(), bytes(len)).unwrap();
        source.root = import(&source.store, &source.path());
        get(source.root).await.unwrap();
        assert_eq!(fs::read(getter.got()).unwrap(), bytes(len));
    }
    fs::write(getter.got(), b"mine").unwrap();
    fs::write(source.path(), bytes(100)).unwrap();
    source.root = import(&source.store, &source.path());
    let refused = get(source.root).await;
    assert!(matches!(refused, Err(FetchError::Target(StagingError::Exists { .. }))), "{refused:?}");
    assert_eq!((fs::read(getter.got()).unwrap(), getter.leftovers()), (b"mine".to_vec(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let mut pair = Pair::new(make_many).await;
    pair.get().await.unwrap();
    write(&pair.getter.got(), "small/8", "mine");
    pair.change(|dir| {
        write(dir, "small/7", "7 as it is now");
        write(dir, "small/8", "8 as it is now");
        write(dir, "new", "new");
        fs::remove_file(dir.join("small/9")).unwrap();
    });
    let (found, sessions) = mpsc::channel(1);
    found.send(pair.provider.session().await).await.unwrap();
    let found_sources = FoundSources { sessions, untried: pair.getter.untried.subscribe() };
    let description = describe(pair.source.root, None, found_sources).await.unwrap();
    assert!(matches!(description, ContentDescription::Folder(..)));
    let job = pair.getter.job(pair.source.root);

    let compared = compare(&job, Some(description), &CancellationToken::new()).unwrap();

    let changes = compared.changes;
    assert_eq!((changes.added.listed, changes.replaced.listed), (paths(&["new"]), paths(&["small/7"])));
    assert_eq!((changes.kept.listed, changes.gone.listed), (paths(&["small/8"]), paths(&["small/9"])));
    assert_eq!((compared.missing_bytes, compared.files), (Some(17), 102));
    assert_eq!((pair.read("small/7"), pair.is_there("new"), pair.getter.leftovers()), ("7 as it was".into(), false, 0));
}

/// Less than this is "next to nothing": the list of files, hash trees, and the groups at the edges of what changed.
const LITTLE: u64 = 4 * GROUP;

#[tokio::test(flavor = "multi_thread")]
async fn of_a_large_file_only_the_groups_that_changed_move() {
    let mut source = Source::file(300 * GROUP);
    let (getter, provider) = (Getter::new(), source.provider(1, Behaviour::Serve).await);
    let get = async |root, root_size| {
        let (found, sessions) = mpsc::channel(1);
        found.send(provider.session().await).await.unwrap();
        let sources = FoundSources { sessions, untried: getter.untried.subscribe() };
        let job = Job { format: Some(ContentFormat::Blob), root_size: Some(root_size), ..getter.job(root) };
        fetch_with(job, &getter.patience, sources, |_| {}, getter.cancel.clone()).await
    };
    get(source.root, 300 * GROUP).await.unwrap();
    let mut content = bytes(300 * GROUP);
    // Within, and at the end: it grows.
    content[150 * GROUP as usize..][..100].fill(0xaa);
    content.extend([0xbb; 1000]);
    fs::write(source.path(), &content).unwrap();
    source.root = import(&source.store, &source.path());

    let outcome = get(source.root, content.len() as u64).await.unwrap();

    assert_eq!(fs::read(getter.got()).unwrap(), content);
    assert!(outcome.received_bytes < LITTLE, "{}", outcome.received_bytes);
    assert_eq!(outcome.resumed_bytes, 299 * GROUP);
    // And what became shorter.
    content.truncate(200 * GROUP as usize + 1);
    fs::write(source.path(), &content).unwrap();
    source.root = import(&source.store, &source.path());
    let outcome = get(source.root, content.len() as u64).await.unwrap();
    assert_eq!(fs::read(getter.got()).unwrap(), content);
    assert!(outcome.received_bytes < LITTLE && getter.leftovers() == 0, "{}", outcome.received_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_large_file_in_a_folder_only_the_groups_that_changed_move() {
    let mut pair = Pair::new(|dir| {
        make_many(dir);
        fs::write(dir.join("large"), bytes(100 * GROUP)).unwrap();
    })
    .await;
    pair.get().await.unwrap();
    pair.change(|dir| {
        let file = fs::File::options().write(true).open(dir.join("large")).unwrap();
        file.write_all_at(b"changed", 70 * GROUP + 5).unwrap();
    });

    let outcome = pair.get().await.unwrap();

    assert_eq!(fs::read(pair.got("large")).unwrap(), fs::read(pair.source.path().join("large")).unwrap());
    assert_eq!(outcome.changes.replaced.listed, paths(&["large"]));
    assert!(outcome.received_bytes < LITTLE, "{}", outcome.received_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_of_an_older_version_is_taken_over_by_its_content() {
    let mut pair = Pair::new(|dir| {
        make_many(dir);
        fs::write(dir.join("a large"), bytes(60 * GROUP)).unwrap();
        fs::write(dir.join("b last"), vec![7; 100 * GROUP as usize]).unwrap();
    })
    .await;
    // It is interrupted in the midst of a file.
    let stopping = pair.source.provider(2, Behaviour::HangAfter { groups: 80 }).await;
    let session = stopping.session().await;
    let interrupted = async {
        pair.getter.has(61 * GROUP).await;
        pair.getter.cancel.cancel();
    };
    let (ended, ()) = tokio::join!(pair.getter.fetch_from(pair.source.root, vec![session]), interrupted);
    assert!(matches!(ended, Err(FetchError::Interrupted)), "{ended:?}");
    assert_eq!(pair.getter.leftovers(), 1);
    pair.getter.cancel = CancellationToken::new();
    pair.change(|dir| {
        fs::create_dir(dir.join("moved")).unwrap();
        fs::rename(dir.join("a large"), dir.join("moved/large")).unwrap();
        fs::remove_file(dir.join("b last")).unwrap();
        write(dir, "a large/is a folder now", "");
    });

    let outcome = pair.get().await.unwrap();

    assert!(outcome.resumed_bytes >= 60 * GROUP && outcome.received_bytes < 20 * GROUP, "{outcome:?}");
    assert_eq!(fs::read(pair.got("moved/large")).unwrap(), bytes(60 * GROUP));
    assert!(pair.is_there("a large/is a folder now") && !pair.is_there("b last"));
    assert_eq!((pair.getter.leftovers(), fs::read_dir(pair.getter.got()).unwrap().count()), (0, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_record_of_targets_is_lost_or_of_another_form_the_roots_say_what_was_fetched() {
    let mut pair = Pair::new(|dir| write(dir, "one", "first")).await;
    pair.get().await.unwrap();
    fs::write(pair.getter.home.path().join("fetched.json"), r#"{"version": 1, "fetched": []}"#).unwrap();
    pair.change(|dir| {
        fs::remove_file(dir.join("one")).unwrap();
        write(dir, "two", "second");
    });

    let outcome = pair.get().await.unwrap();

    assert_eq!((outcome.changes.added.listed, outcome.changes.gone.listed), (paths(&["two"]), paths(&["one"])));
    // What was there stands in the record that was begun anew.
    assert_eq!(pair.getter.store.versions_at(&pair.getter.got()).len(), 2);
}
