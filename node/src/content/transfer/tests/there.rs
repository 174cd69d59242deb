//! Getting again what is there already, and room for what is not.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::content::transfer::staging::StagingError;

fn exists(fetched: &Result<FetchOutcome, FetchError>) -> bool {
    matches!(fetched, Err(FetchError::Target(StagingError::Exists { .. })))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_there_is_neither_fetched_nor_written_and_another_one_is_not_touched() {
    let source = Source::file(3 * GROUP);
    let getter = Getter::new();
    fs::write(getter.got(), bytes(3 * GROUP)).unwrap();
    let before = fs::metadata(getter.got()).unwrap();

    // Nobody is there to ask.
    let outcome = getter.fetch_from(source.root, Vec::new()).await.unwrap();

    assert!(outcome.was_there && outcome.path == getter.got());
    assert_eq!((outcome.received_bytes, outcome.resumed_bytes, outcome.size), (0, 3 * GROUP, 3 * GROUP));
    let after = fs::metadata(getter.got()).unwrap();
    assert_eq!((before.ino(), before.mtime_nsec(), getter.leftovers()), (after.ino(), after.mtime_nsec(), 0));
    assert!(getter.store.root(&source.root).is_none(), "it is the user's own");

    let mut other = bytes(3 * GROUP);
    other[70_000] ^= 1;
    fs::write(getter.got(), &other).unwrap();
    let provider = source.provider(1, Behaviour::Serve).await;
    let refused = getter.fetch_from(source.root, vec![provider.session().await]).await;
    assert!(exists(&refused), "{refused:?}");
    assert_eq!(fs::read(getter.got()).unwrap(), other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_there_is_not_fetched_whatever_else_is_in_it() {
    let source = Source::new(make_tree);
    let getter = Getter { format: Some(ContentFormat::Collection), ..Getter::new() };
    make_tree(&getter.got());
    fs::write(getter.got().join("a/mine"), b"mine").unwrap();
    let provider = source.provider(1, Behaviour::Serve).await;
    let get = async || getter.fetch_from(source.root, vec![provider.session().await]).await;

    // Its list of files has to come; after that, nobody is asked.
    assert!(get().await.unwrap().was_there);
    let outcome = getter.fetch_from(source.root, Vec::new()).await.unwrap();
    assert!(outcome.was_there && outcome.received_bytes == 0, "{outcome:?}");
    assert_is_tree(&getter.got());
    assert_eq!((fs::read(getter.got().join("a/mine")).unwrap(), getter.leftovers()), (b"mine".to_vec(), 0));

    let spoil: [fn(&Path); 4] = [
        |dir| fs::write(dir.join("same"), b"THE SAME").unwrap(),
        |dir| fs::remove_file(dir.join("a/empty")).unwrap(),
        |dir| fs::set_permissions(dir.join("same"), fs::Permissions::from_mode(0o755)).unwrap(),
        |dir| {
            fs::rename(dir.join("a/b/large"), dir.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink("../../elsewhere", dir.join("a/b/large")).unwrap();
        },
    ];
    for (index, spoil) in spoil.into_iter().enumerate() {
        fs::remove_dir_all(getter.got()).unwrap();
        make_tree(&getter.got());
        spoil(&getter.got());
        let refused = get().await;
        assert!(exists(&refused), "{index}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_is_refused_with_both_figures_before_its_first_byte() {
    let source = Source::file(GROUP);
    let getter = Getter::new();
    let provider = source.provider(1, Behaviour::Serve).await;
    // A publisher says, signed, that it is larger than any disk.
    const LARGEST: u64 = 1 << 50;
    let mut job = getter.job(source.root);
    (job.format, job.root_size) = (Some(ContentFormat::Blob), Some(LARGEST));
    let (found, sessions) = mpsc::channel(1);
    found.send(provider.session().await).await.unwrap();
    let found_sources = FoundSources { sessions, untried: getter.untried.subscribe() };

    let refused = fetch_with(job, &getter.patience, found_sources, |_| {}, getter.cancel.clone()).await;

    match refused {
        Err(FetchError::Target(StagingError::NoRoom { needed, free, .. })) => {
            assert!(needed == LARGEST && free < needed)
        }
        // The file system takes no file of that size at all.
        Err(FetchError::Disk { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::FileTooLarge),
        other => panic!("{other:?}"),
    }
}
