//! Files with holes: what is in a hole is not sent, and takes no space anywhere.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use keyferry_proto::transfer::groups::GROUP_LEN;

use super::*;
use crate::content::transfer::reading::{FilePiece, Reading, WantedFile};

/// Groups in all.
const LEN: u64 = 500 * GROUP + 17;
/// What proves the groups of such a file.
const PARENTS: u64 = 500 * 64;

/// A file with bytes in its groups 3, 4 and 400, and holes elsewhere.
fn make_holed(path: &Path) {
    let file = fs::File::create(path).unwrap();
    file.set_len(LEN).unwrap();
    for group in [3, 4, 400] {
        file.write_all_at(&[group as u8; GROUP_LEN], group * GROUP).unwrap();
    }
}

/// The bytes of the disk that a file takes.
fn space(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

fn is_same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_is_a_hole_at_the_other_side_and_nothing_of_it_is_sent() {
    for in_folder in [false, true] {
        let source = Source::new(|path| {
            if in_folder {
                fs::create_dir(path).unwrap();
            }
            make_holed(&if in_folder { path.join("holed") } else { path.to_owned() });
        });
        let (getter, provider) = (Getter::new(), source.provider(1, Behaviour::Serve).await);

        let outcome = getter.fetch_from(source.root, vec![provider.session().await]).await.unwrap();

        let at = |path: std::path::PathBuf| if in_folder { path.join("holed") } else { path };
        assert!(is_same(&at(getter.got()), &at(source.path())));
        assert!(outcome.received_bytes < 4 * GROUP + PARENTS, "{}", outcome.received_bytes);
        assert!(space(&at(getter.got())) <= 4 * GROUP, "{}", space(&at(getter.got())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_where_a_newer_version_has_a_hole_is_gone() {
    let mut source = Source::file(LEN);
    let getter = Getter::new();
    let provider = source.provider(1, Behaviour::Serve).await;
    getter.fetch_from(source.root, vec![provider.session().await]).await.unwrap();
    make_holed(&source.path());
    source.root = import(&source.store, &source.path());

    let outcome = getter.fetch_from(source.root, vec![provider.session().await]).await.unwrap();

    assert!(is_same(&getter.got(), &source.path()));
    assert!(outcome.received_bytes < 4 * GROUP + 2 * PARENTS, "{}", outcome.received_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_files_and_what_is_here_already_are_copied_with_their_holes() {
    let source = Source::new(|path| {
        fs::create_dir(path).unwrap();
        make_holed(&path.join("one"));
        make_holed(&path.join("two"));
    });
    let (mut getter, provider) = (Getter::new(), source.provider(1, Behaviour::Serve).await);
    getter.fetch_from(source.root, vec![provider.session().await]).await.unwrap();
    let first = std::mem::replace(&mut getter.out, TempDir::new().unwrap());

    let outcome = getter.fetch_from(source.root, vec![provider.session().await]).await.unwrap();

    assert!(outcome.received_bytes < GROUP, "{}", outcome.received_bytes);
    for got in [first.path().join("got"), getter.got()] {
        for file in ["one", "two"] {
            assert!(is_same(&got.join(file), &source.path().join(file)));
            assert!(space(&got.join(file)) <= 4 * GROUP, "{file}: {}", space(&got.join(file)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_kept_has_the_holes_and_is_sent_like_its_file() {
    let source = Source::new(make_holed);
    let (name, not_stopped) = ("copy".parse().unwrap(), AtomicBool::new(false));
    source.store.import(&source.path(), &name, None, ImportMode::Copy, &|_| {}, &not_stopped).unwrap();
    let before = fs::read(source.path()).unwrap();
    fs::remove_file(source.path()).unwrap();
    let blob = source.store.blob(&source.root).unwrap().unwrap();
    assert!(space(blob.path()) <= 4 * GROUP, "{}", space(blob.path()));
    let (getter, provider) = (Getter::new(), source.provider(1, Behaviour::Serve).await);

    let outcome = getter.fetch_from(source.root, vec![provider.session().await]).await.unwrap();

    assert!(fs::read(getter.got()).unwrap() == before);
    assert!(outcome.received_bytes < 4 * GROUP + PARENTS, "{}", outcome.received_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_in_order_gets_the_zeros() {
    let source = Source::new(make_holed);
    let provider = source.provider(1, Behaviour::Serve).await;
    let (found, sessions) = mpsc::channel(1);
    found.send(provider.session().await).await.unwrap();
    let (pieces, mut read) = mpsc::channel(4);
    let untried = watch::Sender::new(0);
    let providers = FoundSources { sessions, untried: untried.subscribe() };
    let reading = Reading::new(WantedFile::Root { hash: source.root, format: None }, pieces, watch::Sender::default())
        .read_from_all(providers);
    let collecting = async {
        let mut bytes = Vec::new();
        while let Some(piece) = read.recv().await {
            match piece {
                FilePiece::Size(size) => assert_eq!(size, LEN),
                FilePiece::Bytes(more) => bytes.extend_from_slice(&more),
            }
        }
        bytes
    };

    let (ended, bytes) = tokio::join!(reading, collecting);

    ended.unwrap();
    assert!(bytes == fs::read(source.path()).unwrap());
}
