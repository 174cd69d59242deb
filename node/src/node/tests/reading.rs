//! Files that are read without a disk.

use tokio::io::AsyncReadExt;

use super::*;

/// More than what fits between a provider and a reader that does not read.
const LEN: usize = 40_000_001;

fn file(dir: &TempDir, len: usize) -> (std::path::PathBuf, Vec<u8>) {
    let bytes: Vec<u8> = (0..len).map(|at| (at / 7 % 251) as u8).collect();
    let path = dir.path().join("film");
    fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_by_others_and_by_the_node_that_has_it() {
    let dir = TempDir::new().unwrap();
    let (sharer, getter) = (Peer::start(Vec::new()).await, Peer::start(Vec::new()).await);
    for len in [0, 1, 65_536, 65_537, 3_000_001] {
        let (path, bytes) = file(&dir, len);
        let shared = sharer.share(&path).await;

        assert_eq!(getter.node.get(&shared.address_with_hints).bytes().await.unwrap(), bytes);
        assert_eq!(sharer.node.get(&shared.address).bytes().await.unwrap(), bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_and_what_nobody_shares_are_errors_to_match_on() {
    let dir = TempDir::new().unwrap();
    make_tree(dir.path());
    let (sharer, getter) = (Peer::start(Vec::new()).await, Peer::start(Vec::new()).await);
    let shared = sharer.share(dir.path()).await;
    let nothing = Address::named(sharer.node.key(), "nothing".parse().unwrap()).with_hints(sharer.addrs()).unwrap();
    let by_hash = Address::content(None, shared.hash).with_hints(sharer.addrs()).unwrap();

    for folder in [&shared.address_with_hints, &by_hash] {
        let refused = getter.node.get(folder).bytes().await.unwrap_err();
        assert!(matches!(refused, Error::IsAFolder { .. }), "{refused:?}");
    }
    let missing = getter.node.get(&nothing).bytes().await.unwrap_err();
    assert!(matches!(missing, Error::NotSharedThere { .. }), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_with_another_provider_where_the_first_has_stopped() {
    let dir = TempDir::new().unwrap();
    let (path, bytes) = file(&dir, LEN);
    let meeting = Peer::start(Vec::new()).await;
    let (first, second) = (Peer::start(meeting.addrs()).await, Peer::start(meeting.addrs()).await);
    let getter = Peer::start(meeting.addrs()).await;
    let hash = first.share(&path).await.hash;
    second.share(&path).await;
    let hints = [first.addrs(), second.addrs()].concat();
    let by_hash = Address::content(None, hash).with_hints(hints).unwrap();
    let mut reader = getter.node.get(&by_hash).reader().await.unwrap();
    let mut read = vec![0; 1_000_000];
    reader.read_exact(&mut read).await.unwrap();

    assert!(first.sessions() + second.sessions() > 0, "it comes from one of the two");
    // Which of the two it comes from is for the connector to choose: each ends once, and is back.
    for peer in [&first, &second] {
        peer.node.online.as_ref().unwrap().sessions.break_off_from(&["127.0.0.1".parse().unwrap()]);
    }
    reader.read_to_end(&mut read).await.unwrap();

    assert_eq!(reader.size(), LEN as u64);
    assert!(read == bytes, "it is the same file");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_useless_providers_as_a_fetch_keeps_do_not_hide_the_one_that_gives() {
    let dir = TempDir::new().unwrap();
    let (path, bytes) = file(&dir, 300_000);
    let meeting = Peer::start(Vec::new()).await;
    let honest = Peer::start(meeting.addrs()).await;
    let hash = honest.share(&path).await.hash;
    let (mut useless, mut hints) = (Vec::new(), Vec::new());
    for number in 0..8 {
        let peer = Peer::start(meeting.addrs()).await;
        let copy = dir.path().join(format!("copy {number}"));
        fs::copy(&path, &copy).unwrap();
        assert_eq!(peer.share(&copy).await.hash, hash);
        fs::write(&copy, b"something else").unwrap();
        hints.extend(peer.addrs());
        useless.push(peer);
    }
    let by_hash = Address::content(None, hash).with_hints(hints).unwrap();
    let (to_disk, to_memory) = (Peer::start(meeting.addrs()).await, Peer::start(meeting.addrs()).await);

    let fetched = to_disk.get(&by_hash, &dir.path().join("out")).await.unwrap();
    let read = to_memory.node.get(&by_hash).bytes().await.unwrap();

    assert_eq!(fs::read(fetched.path).unwrap(), bytes);
    assert_eq!(read, bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_memory_is_refused_before_it_is_fetched() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("large");
    fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
    let (sharer, getter) = (Peer::start(Vec::new()).await, Peer::start(Vec::new()).await);
    let shared = sharer.share(&path).await;

    let refused = getter.node.get(&shared.address_with_hints).bytes().await.unwrap_err();

    assert!(matches!(refused, Error::TooLarge { got, .. } if got == MAX_BYTES + 1), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_its_own_node_reads_it_is_an_error() {
    let dir = TempDir::new().unwrap();
    let (path, _) = file(&dir, LEN);
    let sharer = Peer::start(Vec::new()).await;
    let shared = sharer.share(&path).await;
    let mut reader = sharer.node.get(&shared.address).reader().await.unwrap();
    let mut read = vec![0; 1_000_000];
    reader.read_exact(&mut read).await.unwrap();

    fs::write(&path, vec![1; LEN]).unwrap();
    let failed = reader.read_to_end(&mut read).await.unwrap_err();

    let why = failed.downcast::<crate::content::transfer::FetchError>().unwrap();
    assert!(matches!(why, crate::content::transfer::FetchError::Source(_)), "{why:?}");
}
