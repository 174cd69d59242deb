use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use clap::Parser;
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use keyferry::{Address, Audience, ContentFormat, ContentHash};
use tokio::sync::mpsc;

use super::*;
use keyferry::{Shared, Status};

use crate::{
    args::Cli,
    launch::RealLauncher,
    screen::{Kept, Style},
};

/// Starts fake nodes, and keeps what it was asked.
struct FakeLauncher {
    /// Whether another process is said to have the folder open.
    busy: AtomicBool,
    configs: Mutex<Vec<NodeConfig>>,
    node: Arc<FakeNode>,
}

/// Does at once what it is asked, and keeps what that was. A `get` waits until it is cancelled, an `ls` until
/// it is released.
#[derive(Default)]
struct FakeNode {
    commands: Mutex<Vec<Command>>,
    shut_down: AtomicBool,
    release: tokio::sync::Notify,
}

impl Launcher for FakeLauncher {
    fn open(&self, home: &Path) -> Result<Folder, Failure> {
        match self.busy.load(Ordering::SeqCst) {
            true => Ok(Folder::Busy),
            false => RealLauncher.open(home),
        }
    }

    fn start(
        &self,
        _home: Home,
        _secret: NodeSecret,
        config: NodeConfig,
    ) -> BoxFuture<'_, Result<Arc<dyn OwnNode>, Failure>> {
        self.configs.lock().unwrap().push(config);
        async { Ok(self.node.clone() as Arc<dyn OwnNode>) }.boxed()
    }
}

impl OwnNode for FakeNode {
    fn happenings(&self) -> BoxStream<'static, Event> {
        futures::stream::pending().boxed()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.shut_down.store(true, Ordering::SeqCst);
        async {}.boxed()
    }
}

impl Runner for FakeNode {
    fn run(
        &self,
        command: Command,
        events: mpsc::Sender<Event>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        self.commands.lock().unwrap().push(command.clone());
        async move {
            let event = match command {
                Command::Share { paths, .. } => {
                    for path in paths {
                        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                        events.send(Event::Shared(shared(name))).await.unwrap();
                    }
                    return Ok(());
                }
                Command::Get { .. } => {
                    cancel.cancelled().await;
                    return Err(interrupted());
                }
                Command::Status => Event::Status(Box::new(status())),
                Command::Unshare { name } => Event::Unshared { name },
                Command::StoreVerify => Event::Verified { sound: 1, damaged: 1 },
                Command::List { .. } => {
                    self.release.notified().await;
                    Event::Listed { count: 0 }
                }
                other => panic!("not asked for in these tests: {other:?}"),
            };
            events.send(event).await.unwrap();
            Ok(())
        }
        .boxed()
    }
}

fn shared(name: String) -> Shared {
    let address: Address =
        format!("keyferry:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/{name}").parse().unwrap();
    Shared {
        name: name.parse().unwrap(),
        hash: ContentHash::EMPTY,
        format: ContentFormat::Blob,
        size: 0,
        files: 1,
        audience: Audience::default(),
        address_with_hints: address.clone(),
        address,
    }
}

fn status() -> Status {
    Status {
        node: "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X".to_owned(),
        version: "0.1.0".to_owned(),
        home: "/x".into(),
        running: true,
        ..Status::default()
    }
}

/// A data folder, what starts nodes on it, and what was shown.
struct Bench {
    home: tempfile::TempDir,
    launcher: FakeLauncher,
    cancel: CancellationToken,
}

impl Bench {
    fn new(busy: bool) -> Self {
        let launcher = FakeLauncher { busy: AtomicBool::new(busy), configs: Mutex::default(), node: Arc::default() };
        Self { home: tempfile::tempdir().unwrap(), launcher, cancel: CancellationToken::new() }
    }

    /// Does a command line, and gives its end, standard output and standard error.
    async fn act(&self, line: &str) -> (Result<Completion, Failure>, String, String) {
        let (mut screen, out, err): (_, Kept, Kept) = Screen::kept(Style::default());
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let mut run = Run {
            launcher: &self.launcher,
            home: self.home.path().to_owned(),
            passphrase_file: None,
            screen: &mut screen,
            cancel: self.cancel.clone(),
        };
        let acted = tokio::time::timeout(Duration::from_secs(20), run.act(cli.action)).await.expect("it ends");
        (acted, out.text(), err.text())
    }

    fn commands(&self) -> Vec<Command> {
        self.launcher.node.commands.lock().unwrap().clone()
    }

    fn configs(&self) -> Vec<NodeConfig> {
        self.launcher.configs.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn share_serves_until_it_is_told_to_stop_and_then_leaves_in_order() {
    let bench = Bench::new(false);
    let file = bench.home.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let line = format!("keyferry share {}", file.display());
    let stop = async {
        while !bench.home.path().join("control.sock").exists() || bench.commands().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!bench.launcher.node.shut_down.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_millis(50)).await;
        bench.cancel.cancel();
    };
    let ((acted, out, err), ()) = tokio::join!(bench.act(&line), stop);
    assert_eq!(acted.unwrap(), Completion::Done);
    assert!(out.contains("keyferry get keyferry:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/file\n"), "{out}");
    assert_eq!(err, "serving until Ctrl-C\n");
    assert!(bench.launcher.node.shut_down.load(Ordering::SeqCst));
    assert!(!bench.home.path().join("control.sock").exists());
    assert!(bench.configs()[0].announce && !bench.configs()[0].offline);
}

#[tokio::test]
async fn share_hands_over_to_a_node_that_runs_and_returns() {
    let bench = Bench::new(true);
    let running = Arc::new(FakeNode::default());
    let _server =
        LocalServer::start(bench.home.path(), running.clone(), Tenure::Lasting, NodeConfig::default()).unwrap();
    let file = bench.home.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let (acted, out, err) = bench.act(&format!("keyferry share {}", file.display())).await;
    acted.unwrap();
    assert!(out.contains("Shared file"), "{out}");
    assert!(err.contains("serves it from now on"), "{err}");
    assert!(matches!(&running.commands.lock().unwrap()[..], [Command::Share { paths, .. }] if *paths == [file]));
    assert!(bench.configs().is_empty());
}

#[tokio::test]
async fn network_options_that_a_running_node_was_not_started_with_are_refused_by_name() {
    let bench = Bench::new(true);
    let running = Arc::new(FakeNode::default());
    let hidden = NodeConfig { relay_mode: RelayMode::RelayOnly, ..NodeConfig::default() };
    let _server = LocalServer::start(bench.home.path(), running.clone(), Tenure::Lasting, hidden).unwrap();
    let file = bench.home.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let key = keyferry::NodeSecret::from_bytes(&[1; 32]).public();
    let share = format!("keyferry share {}", file.display());
    for command in [&share, &format!("keyferry get keyferry:{key}/x"), &format!("keyferry ls {key}"), "keyferry doctor"]
    {
        for option in ["--no-relay", "--listen 4600", "--calls nobody", "--turn turn:a:b@192.0.2.1"] {
            let (acted, out, _) = bench.act(&format!("{command} {option}")).await;
            let failure = acted.unwrap_err();
            assert_eq!((failure.kind.exit_code(), out.as_str()), (2, ""), "{command} {option}");
            assert!(failure.message.contains(option.split(' ').next().unwrap()), "{failure:?}");
        }
    }
    assert!(running.commands.lock().unwrap().is_empty(), "what is refused is not done");

    bench.act(&format!("{share} --relay-only")).await.0.unwrap();
    assert_eq!(running.commands.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn folder_that_is_busy_without_an_answer_is_a_clear_failure() {
    let bench = Bench::new(true);
    let (acted, _, _) = bench.act("keyferry status").await;
    let failure = acted.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Local);
    assert!(failure.message.contains("does not answer"), "{failure:?}");
    let (acted, _, _) = bench.act("keyferry id --new").await;
    assert!(acted.is_err());
}

#[tokio::test]
async fn what_cannot_go_to_standard_output_is_refused_before_anything_is_started() {
    let bench = Bench::new(false);
    let (content, node) =
        (format!("keyferry:{}", "ab".repeat(32)), "keyferry:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X");
    for command in
        [format!("get {content} --overwrite -o -"), format!("get {content} --seed -o -"), format!("get {node} -o -")]
    {
        let (acted, _, _) = bench.act(&format!("keyferry {command}")).await;
        let failure = acted.unwrap_err();
        assert!(failure.kind == FailureKind::Usage && failure.advice.is_some(), "{command}: {failure:?}");
    }
    assert!(bench.configs().is_empty());
}

#[tokio::test]
async fn folder_that_becomes_free_while_waiting_is_used() {
    let bench = Bench::new(true);
    let free = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        bench.launcher.busy.store(false, Ordering::SeqCst);
    };
    let ((acted, out, _), ()) = tokio::join!(bench.act("keyferry unshare x"), free);
    acted.unwrap();
    assert_eq!(out, "x is no longer shared\n");
    assert!(bench.configs()[0].offline);
}

#[tokio::test]
async fn interrupted_get_says_how_to_go_on() {
    let bench = Bench::new(false);
    let stop = async {
        while bench.commands().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bench.cancel.cancel();
    };
    let line = format!("keyferry get keyferry:{} -o sub/ --bootstrap /ip4/127.0.0.1/tcp/1 --no-mdns", "ab".repeat(32));
    let ((acted, _, _), ()) = tokio::join!(bench.act(&line), stop);
    let failure = acted.unwrap_err();
    assert_eq!(failure.kind.exit_code(), 130);
    assert!(failure.advice.unwrap().contains("goes on where this one stopped"));
    assert!(bench.launcher.node.shut_down.load(Ordering::SeqCst));
    let config = &bench.configs()[0];
    assert_eq!((config.bootstrap.len(), config.mdns, config.announce, config.offline), (1, false, false, false));
    let sub = std::path::absolute("sub/").unwrap();
    assert!(
        matches!(&bench.commands()[..], [Command::Get { place, .. }] if (&place.folder, &place.name) == (&sub, &None))
    );
}

#[tokio::test]
async fn process_waits_for_the_command_of_another_terminal_that_uses_it() {
    let bench = Bench::new(false);
    let (node, others_cancel) = (&bench.launcher.node, CancellationToken::new());
    let other = async {
        let client = loop {
            match LocalClient::find(bench.home.path()).await {
                Some(client) => break client,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let (events, _pending) = mpsc::channel(8);
        let get = Command::get(Address::content(None, ContentHash::EMPTY), "/".into());
        client.run(get, events, others_cancel.clone()).await.unwrap_err()
    };
    let order = async {
        while bench.commands().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        node.release.notify_one();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!node.shut_down.load(Ordering::SeqCst), "it left the other command alone");
        others_cancel.cancel();
    };
    let key = keyferry::NodeSecret::from_bytes(&[1; 32]).public();
    let line = format!("keyferry ls {key}");
    let ((acted, _, _), failure, ()) = tokio::join!(bench.act(&line), other, order);
    acted.unwrap();
    assert_eq!(failure.kind, FailureKind::Interrupted);
    assert!(node.shut_down.load(Ordering::SeqCst));
}

#[tokio::test]
async fn node_shows_who_it_is_and_a_second_one_is_refused() {
    let bench = Bench::new(false);
    let second = async {
        while LocalClient::find(bench.home.path()).await.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (acted, _, _) = bench.act("keyferry node").await;
        bench.cancel.cancel();
        acted.unwrap_err()
    };
    let ((acted, out, _), refused) = tokio::join!(bench.act("keyferry node --public"), second);
    acted.unwrap();
    assert_eq!(out, "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X\n");
    assert!(refused.message.contains("is running on"), "{refused:?}");
    assert_eq!(bench.configs().len(), 1);
    assert!(bench.configs()[0].public);
}

#[tokio::test]
async fn damage_found_by_verify_is_an_outcome_of_its_own() {
    let bench = Bench::new(false);
    let (acted, out, _) = bench.act("keyferry store verify").await;
    assert_eq!(acted.unwrap(), Completion::DamageFound);
    assert_eq!(out, "1 blob sound, 1 damaged\n");
}

#[tokio::test]
async fn id_makes_a_key_once_and_shows_it_again() {
    let bench = Bench::new(false);
    let (made, first, _) = bench.act("keyferry id").await;
    made.unwrap();
    assert!(first.starts_with("12D3KooW") && first.ends_with('\n'), "{first}");
    assert_eq!(bench.act("keyferry id").await.1, first);
    let (again, _, _) = bench.act("keyferry id --new").await;
    assert!(again.unwrap_err().message.contains("already"));
    assert_eq!(bench.act("keyferry id").await.1, first);
}

#[tokio::test]
async fn what_cannot_be_shared_is_refused_before_a_node_is_started() {
    let bench = Bench::new(false);
    let (acted, _, _) = bench.act("keyferry share /nowhere/at/all").await;
    let failure = acted.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Usage);
    assert!(failure.message.starts_with("cannot share /nowhere/at/all: "), "{failure:?}");
    let (acted, _, _) = bench.act("keyferry share a b --name c").await;
    assert_eq!(acted.unwrap_err().kind, FailureKind::Usage);
    assert!(bench.configs().is_empty());
}

#[test]
fn dots_are_shared_under_the_name_of_their_folder() {
    let here = std::env::current_dir().unwrap().canonicalize().unwrap();
    assert_eq!(existing(Path::new(".")).unwrap(), here);
    assert_eq!(existing(Path::new("..")).unwrap(), here.parent().unwrap());
    assert_eq!(existing(Path::new("src/..")).unwrap(), here);
    assert_eq!(existing(Path::new("src/")).unwrap().file_name().unwrap(), "src");
}

#[tokio::test]
async fn no_node_is_started_for_an_address_that_is_none() {
    for line in ["keyferry get nonsense", "keyferry ls nonsense"] {
        let bench = Bench::new(false);

        let (acted, _, _) = bench.act(line).await;

        assert_eq!(acted.unwrap_err().kind.exit_code(), 2);
        assert!(bench.configs().is_empty() && bench.commands().is_empty());
    }
}
