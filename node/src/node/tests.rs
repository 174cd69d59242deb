mod following;
#[cfg(all(target_os = "linux", feature = "turn-server"))]
mod hiding;
mod protocols;
mod reading;
mod switching;

use std::{fs, path::Path, sync::Arc, time::Duration};

use futures::FutureExt;
use keyferry_proto::{
    address::Address,
    message::{ProtocolName, Refusal},
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    api::{Command, Destination, Event, Failure, FailureKind, Fetched, NodeAddress, Shared, Wait},
    runner::Runner,
    *,
};
use crate::{
    connect::connector::{SearchBoard, SoughtProviders},
    net::path::RelayMode,
};

struct Peer {
    home: TempDir,
    node: std::sync::Arc<Node>,
}

impl Peer {
    async fn start(bootstrap: Vec<libp2p::Multiaddr>) -> Self {
        let home = TempDir::new().unwrap();
        let node = Self::start_in(&home, bootstrap).await;
        Self { home, node }
    }

    async fn start_in(home: &TempDir, bootstrap: Vec<libp2p::Multiaddr>) -> std::sync::Arc<Node> {
        Self::start_as(home, bootstrap, RelayMode::Both).await
    }

    async fn start_as(
        home: &TempDir,
        bootstrap: Vec<libp2p::Multiaddr>,
        relay_mode: RelayMode,
    ) -> std::sync::Arc<Node> {
        let config = NodeConfig {
            mdns: false,
            port_mapping: false,
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            bootstrap,
            announce: true,
            relay_mode,
            ..NodeConfig::default()
        };
        Node::open(home.path().to_owned(), None, config).await.unwrap()
    }

    fn addrs(&self) -> Vec<libp2p::Multiaddr> {
        self.node.local_addrs().into_iter().map(crate::reach::rendezvous::multiaddr_of).collect()
    }

    async fn connect(&self, other: &Peer) -> crate::net::session::Session {
        let finder = &self.node.online.as_ref().unwrap().finder;
        finder.connect(other.node.key(), &other.addrs(), &crate::connect::trace::Trace::Silent).await.unwrap()
    }

    fn sessions(&self) -> u64 {
        self.node.online.as_ref().unwrap().sessions.count()
    }

    async fn run(&self, command: Command) -> Result<Vec<Event>, Failure> {
        let (events, mut told) = mpsc::channel(1024);
        let collecting = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(event) = told.recv().await {
                all.push(event);
            }
            all
        });
        let ended =
            tokio::time::timeout(Duration::from_secs(60), self.node.run(command, events, CancellationToken::new()));
        ended.await.expect("the command ends in time")?;
        Ok(collecting.await.unwrap())
    }

    async fn share(&self, path: &Path) -> Shared {
        let command = Command::share(path.to_owned());
        match self.run(command).await.unwrap().pop() {
            Some(Event::Shared(shared)) => shared,
            other => panic!("{other:?}"),
        }
    }

    async fn get(&self, address: &Address, out: &Path) -> Result<Fetched, Failure> {
        self.get_waiting(address, out, Wait::default()).await
    }

    async fn get_waiting(&self, address: &Address, out: &Path, wait: Wait) -> Result<Fetched, Failure> {
        let place = Destination::in_folder(out.to_owned());
        let command = Command::Get { address: address.clone(), place, dry_run: false, wait };
        match self.run(command).await?.pop() {
            Some(Event::Fetched(fetched)) => Ok(fetched),
            other => panic!("{other:?}"),
        }
    }
}

fn make_tree(dir: &Path) {
    fs::create_dir_all(dir.join("a/b")).unwrap();
    fs::write(dir.join("a/b/large"), vec![7; 3_000_001]).unwrap();
    fs::write(dir.join("a/same"), b"the same").unwrap();
    fs::write(dir.join("same too"), b"the same").unwrap();
    fs::write(dir.join("empty"), b"").unwrap();
    for i in 0..100 {
        fs::write(dir.join(format!("small-{i}")), vec![i; usize::from(i) * 700 + 1]).unwrap();
    }
}

fn assert_same_tree(a: &Path, b: &Path) {
    let list = |dir: &Path| {
        let mut all: Vec<_> = walkdir::WalkDir::new(dir)
            .into_iter()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| (entry.path().strip_prefix(dir).unwrap().to_owned(), fs::read(entry.path()).unwrap()))
            .collect();
        all.sort();
        all
    };
    assert_eq!(list(a), list(b));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_arrives_by_key_and_hint_and_by_key_alone() {
    let sharer = Peer::start(Vec::new()).await;
    let getter = Peer::start(sharer.addrs()).await;
    let tree = TempDir::new().unwrap();
    make_tree(tree.path());
    let shared = sharer.share(tree.path()).await;
    let out = TempDir::new().unwrap();

    let hinted = getter.get(&shared.address_with_hints, &out.path().join("1")).await.unwrap();
    let by_key = getter.get(&shared.address, &out.path().join("2")).await.unwrap();

    assert_same_tree(tree.path(), &hinted.path);
    assert_same_tree(tree.path(), &by_key.path);
    assert_eq!((hinted.files, hinted.hash), (104, shared.hash));
    assert!(hinted.received_bytes > 3_000_000);
    assert!(by_key.received_bytes < 100_000, "what is here already is not fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_provider_gives_content_by_hash_when_the_first_is_gone() {
    let meeting = Peer::start(Vec::new()).await;
    let first = Peer::start(meeting.addrs()).await;
    let second = Peer::start(meeting.addrs()).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, vec![3; 1_000_000]).unwrap();
    let shared = first.share(file.path()).await;
    let out = TempDir::new().unwrap();
    second.node.get(&shared.address).to(out.path()).seed().await.unwrap();
    first.node.shutdown().await;
    drop(first);

    let third = Peer::start(meeting.addrs()).await;
    let fetched = third.get(&Address::content(None, shared.hash), &out.path().join("3")).await.unwrap();

    assert_eq!(fs::read(fetched.path).unwrap(), vec![3; 1_000_000]);
    let from = &fetched.from[0].path;
    assert_eq!(
        (from.remote, from.node.as_deref()),
        (second.node.local_addrs()[0], None),
        "who it is, it does not show"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_target_is_not_replaced_unasked() {
    let sharer = Peer::start(Vec::new()).await;
    let getter = Peer::start(Vec::new()).await;
    let file = sharer.home.path().parent().unwrap().join(format!("{}-thing", sharer.node.key()));
    fs::write(&file, b"theirs").unwrap();
    let shared = sharer.share(&file).await;
    let out = TempDir::new().unwrap();
    fs::write(out.path().join(shared.name.as_str()), b"mine").unwrap();

    let failed = getter.get(&shared.address_with_hints, out.path()).await.unwrap_err();
    let command = Command::Get {
        address: shared.address_with_hints.clone(),
        place: Destination { overwrite: true, ..Destination::in_folder(out.path().to_owned()) },
        dry_run: false,
        wait: Wait::default(),
    };
    fs::remove_file(&file).unwrap();

    assert_eq!(failed.kind, FailureKind::Usage);
    assert!(failed.advice.unwrap().contains("--overwrite"));
    let vanished = getter.run(command).await.unwrap_err();
    assert!(vanished.message.contains("is gone"), "{vanished:?}");
    assert_eq!(fs::read(out.path().join(shared.name.as_str())).unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_at_the_hinted_address_is_refused() {
    let sharer = Peer::start(Vec::new()).await;
    let impostor = Peer::start(Vec::new()).await;
    let getter = Peer::start(Vec::new()).await;
    let address = format!("keyferry:{}/x?via={}", sharer.node.key(), impostor.addrs()[0]);

    let failed = getter.get(&address.parse().unwrap(), getter.home.path()).await.unwrap_err();

    assert_eq!(failed.kind, FailureKind::Network);
    assert!(failed.message.contains("does not know what is sought"), "{failed:?}");
    assert!(!failed.message.contains(&impostor.node.key().to_string()), "it does not say who it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_is_a_clear_failure_and_leaves_no_session() {
    let sharer = Peer::start(Vec::new()).await;
    let getter = Peer::start(Vec::new()).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, b"content").unwrap();
    let shared = sharer.share(file.path()).await;
    let out = TempDir::new().unwrap();
    getter.get(&shared.address_with_hints, out.path()).await.unwrap();
    let begin = std::time::Instant::now();
    while getter.sessions() + sharer.sessions() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(25), "a session outlives the command that made it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::timeout(Duration::from_secs(5), sharer.node.shutdown()).await.expect("the node stops in time");
    drop(sharer);

    let failed = getter.get_waiting(&shared.address_with_hints, &out.path().join("2"), Wait::None).await.unwrap_err();

    assert_eq!(failed.kind, FailureKind::Network);
    assert!(failed.message.contains("was not reached"), "{failed:?}");
    assert!(failed.advice.unwrap().contains("--wait"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_comes_back_elsewhere_is_found_again() {
    let meeting = Peer::start(Vec::new()).await;
    let sharer = Peer::start(meeting.addrs()).await;
    let getter = Peer::start(meeting.addrs()).await;
    let key = sharer.node.key();
    let root = keyferry_proto::hash::ContentHash::of(b"whatever");
    let finder = getter.node.online.as_ref().unwrap().finder.clone();
    let (found, mut providers) = mpsc::channel(4);
    let sought =
        SoughtProviders { root, node: Some(key), hints: sharer.addrs(), first: None, untried: Default::default() };
    let paths = Arc::new(|_| async {}.boxed());
    tokio::spawn(finder.find_providers(sought, found, paths, SearchBoard::default()));
    let first = providers.recv().await.unwrap();
    let before = first.path().remote;
    sharer.node.shutdown().await;
    drop(first);
    let Peer { home, node } = sharer;
    drop(node);

    let again = Peer::start_in(&home, meeting.addrs()).await;
    let came_back = async {
        loop {
            let session = providers.recv().await.unwrap();
            if session.path().remote != before {
                return session;
            }
        }
    };
    let second = tokio::time::timeout(Duration::from_secs(45), came_back).await.expect("it is found in time");

    assert_eq!((second.peer(), second.path().remote), (key, again.local_addrs()[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_stands_is_used_again_by_either_side() {
    let (one, other) = (Peer::start(Vec::new()).await, Peer::start(Vec::new()).await);
    let first = one.connect(&other).await;

    let again = one.connect(&other).await;
    let back = other.connect(&one).await;

    assert_eq!((first.peer(), back.peer()), (other.node.key(), one.node.key()));
    assert!(first.downgrade().is(&again));
    assert_eq!((one.sessions(), other.sessions()), (1, 1));
    assert!(back.ping().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_connect_to_each_other_at_once_both_get_there() {
    let (one, other) = (Peer::start(Vec::new()).await, Peer::start(Vec::new()).await);

    let (there, back) = tokio::join!(one.connect(&other), other.connect(&one));

    let (sent, returned) = tokio::join!(there.ping(), back.ping());
    assert!(sent.is_ok() && returned.is_ok(), "{sent:?}, {returned:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_connected_to_again_when_the_address_of_its_session_goes_away() {
    let (sharer, getter) = (Peer::start(Vec::new()).await, Peer::start(Vec::new()).await);
    let root = keyferry_proto::hash::ContentHash::of(b"whatever");
    let online = getter.node.online.as_ref().unwrap();
    let (found, mut providers) = mpsc::channel(4);
    let sought = SoughtProviders {
        root,
        node: Some(sharer.node.key()),
        hints: sharer.addrs(),
        first: None,
        untried: Default::default(),
    };
    let paths = Arc::new(|_| async {}.boxed());
    tokio::spawn(online.finder.clone().find_providers(sought, found, paths, SearchBoard::default()));
    let first = providers.recv().await.unwrap();

    online.sessions.break_off_from(&["192.0.2.1".parse().unwrap()]);
    assert!(first.ping().await.is_ok(), "it leaves from another address");
    online.sessions.break_off_from(&["127.0.0.1".parse().unwrap()]);

    let second = tokio::time::timeout(Duration::from_secs(20), providers.recv()).await.expect("in time").unwrap();
    assert!(matches!(first.end(), Some(crate::net::session::SessionEnd::Broken(_))), "{:?}", first.end());
    assert!(second.ping().await.is_ok());
}

#[test]
fn what_a_node_does_can_be_awaited_on_any_thread() {
    fn any_thread<T: Send>(_: impl FnOnce(&'static Node, Address, ProtocolName) -> T) {}
    any_thread(|_, _, _| Node::builder("x").spawn());
    any_thread(|node, _, _| node.share("x").into_future());
    any_thread(|node, address, _| node.get(&address).to("x").into_future());
    any_thread(|node, address, _| node.get(&address).bytes());
    any_thread(|node, address, _| node.get(&address).reader());
    any_thread(|node, _, _| node.list(node.address()));
    any_thread(|node, _, protocol| async move { node.connect(node.address(), &protocol).await });
    any_thread(|node, _, _| node.shutdown());
}

#[test]
fn what_makes_no_sense_is_refused_before_a_node_is_started_for_it() {
    let get = |address: &str| Command::get(address.parse().unwrap(), "/".into());
    let key = keyferry_proto::identity::NodeSecret::from_bytes(&[1; 32]).public();

    assert!(get(&format!("keyferry:{key}")).check().unwrap_err().message.contains("nothing that it shares"));
    assert!(get(&format!("keyferry:{key}/name")).check().is_ok());
}

#[tokio::test]
async fn a_node_that_hides_its_address_tells_it_nowhere_and_takes_no_session_at_it() {
    let home = TempDir::new().unwrap();
    let node = Peer::start_as(&home, Vec::new(), RelayMode::RelayOnly).await;
    let hidden = Peer { home, node };
    let other = Peer::start(Vec::new()).await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("shared");
    fs::write(&file, b"something").unwrap();

    let shared = hidden.run(Command::share(file)).await.unwrap();
    let status = hidden.run(Command::Status).await.unwrap();
    let finder = &other.node.online.as_ref().unwrap().finder;
    let trace = crate::connect::trace::Trace::Silent;
    let hints = hidden.addrs();
    let dialled = finder.connect(hidden.node.key(), &hints, &trace);
    let dialled = tokio::time::timeout(Duration::from_secs(1), dialled).await;

    let Some(Event::Shared(Shared { address, address_with_hints, .. })) = shared.last() else { panic!("{shared:?}") };
    assert_eq!(address, address_with_hints);
    let Some(Event::Status(status)) = status.last() else { panic!("{status:?}") };
    assert!(status.hints.is_empty() && status.candidates.is_empty(), "{status:?}");
    assert!(!matches!(dialled, Ok(Ok(_))), "{dialled:?}");
    assert_eq!((hidden.sessions(), other.sessions()), (0, 0));
}

#[tokio::test]
async fn a_node_that_hides_its_address_connects_to_nobody_by_itself() {
    let home = TempDir::new().unwrap();
    let node = Peer::start_as(&home, Vec::new(), RelayMode::RelayOnly).await;
    let hidden = Peer { home, node };
    let other = Peer::start(Vec::new()).await;

    let finder = &hidden.node.online.as_ref().unwrap().finder;
    let hints = other.addrs();
    let reached = finder.connect(other.node.key(), &hints, &crate::connect::trace::Trace::Silent);
    let reached = tokio::time::timeout(Duration::from_secs(1), reached).await;

    assert!(!matches!(reached, Ok(Ok(_))), "{reached:?}");
    assert_eq!(other.node.online.as_ref().unwrap().port.counters().sessions.get(), 0);
}
