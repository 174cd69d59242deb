//! Shares that follow their folders, from the change of a file to the one who fetches it.

use futures::StreamExt;

use super::*;
use crate::node::api::RenewedInfo;

/// A change counts as settled after half a second; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(20);

async fn share_watched(peer: &Peer, path: &Path) -> Shared {
    let command = Command::Share {
        paths: vec![path.to_owned()],
        name: None,
        copy: false,
        taken: false,
        strict: false,
        exclude: Default::default(),
        watch: true,
        audience: None,
    };
    match peer.run(command).await.unwrap().pop() {
        Some(Event::Shared(shared)) => shared,
        other => panic!("{other:?}"),
    }
}

async fn renewed(happenings: &mut futures::stream::BoxStream<'static, Event>) -> RenewedInfo {
    let next = async {
        loop {
            if let Event::Renewed(renewed) = happenings.next().await.expect("the node is up") {
                return renewed;
            }
        }
    };
    tokio::time::timeout(SOON, next).await.expect("a new version in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_makes_a_new_version_of_the_name_also_after_a_restart() {
    let files = TempDir::new().unwrap();
    let tree = files.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), "first").unwrap();
    let (mut sharer, getter) = (Peer::start(vec![]).await, Peer::start(vec![]).await);
    let mut happenings = sharer.node.happenings();
    let shared = share_watched(&sharer, &tree).await;

    fs::write(tree.join("a"), "second").unwrap();
    fs::write(tree.join("b"), "new").unwrap();
    let newer = renewed(&mut happenings).await;

    assert!((newer.name, newer.files) == (shared.name, 2) && newer.hash != shared.hash);
    let out = TempDir::new().unwrap();
    let fetched = getter.get(&shared.address_with_hints, out.path()).await.unwrap();
    assert_eq!(
        (fetched.hash, fs::read_to_string(out.path().join("tree/a")).unwrap()),
        (newer.hash, "second".to_owned())
    );

    // While it is down nobody tells it; it looks when it comes up.
    drop(happenings);
    sharer.node.shutdown().await;
    while Arc::strong_count(&sharer.node) > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(sharer.node);
    fs::remove_file(tree.join("b")).unwrap();
    sharer.node = Peer::start_in(&sharer.home, vec![]).await;
    let mut happenings = sharer.node.happenings();
    assert_eq!(renewed(&mut happenings).await.files, 1);

    sharer.node.unshare(&"tree".parse().unwrap()).await.unwrap();
    fs::write(tree.join("c"), "nobody follows").unwrap();
    let quiet = tokio::time::timeout(Duration::from_secs(2), happenings.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}
