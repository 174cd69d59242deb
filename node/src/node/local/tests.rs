use super::*;
use crate::net::path::RelayMode;

const PATIENCE: Duration = Duration::from_secs(10);

/// Tells what it was asked, and ends as the command's text says.
struct Scripted;

impl Runner for Scripted {
    fn run(
        &self,
        command: Command,
        events: mpsc::Sender<Event>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let told = |message: String| Event::Notice { message };
            match command {
                Command::Unshare { name } if name == *"wait" => {
                    events.send(told("waiting".to_owned())).await.unwrap();
                    cancel.cancelled().await;
                    let failure = Failure::new(FailureKind::Interrupted, "stopped").try_to("again");
                    events.send(Event::Failed(failure.clone())).await.unwrap();
                    Err(failure)
                }
                Command::Unshare { name } if name == *"half" => {
                    events.send(told("no result follows".to_owned())).await.unwrap();
                    Ok(())
                }
                Command::Unshare { name } => {
                    for number in 0..200 {
                        events.send(told(number.to_string())).await.unwrap();
                    }
                    events.send(Event::Unshared { name }).await.unwrap();
                    Ok(())
                }
                _ => Err(Failure::new(FailureKind::Usage, "no such thing")),
            }
        }
        .boxed()
    }
}

fn serve_in(home: &Path, tenure: Tenure) -> LocalServer {
    LocalServer::start(home, Arc::new(Scripted), tenure, NodeConfig::default()).unwrap()
}

fn unshare(name: &str) -> Command {
    Command::Unshare { name: name.parse().unwrap() }
}

/// Runs a command over the socket, and gives its events and its end.
async fn run(home: &Path, command: Command, cancel: CancellationToken) -> (Vec<Event>, Result<(), Failure>) {
    let client = LocalClient::find(home).await.expect("a node that answers");
    run_by(client, command, cancel).await
}

async fn run_by(client: LocalClient, command: Command, cancel: CancellationToken) -> (Vec<Event>, Result<(), Failure>) {
    let (events, mut pending) = mpsc::channel(EVENT_QUEUE);
    let collect = async {
        let mut all = Vec::new();
        while let Some(event) = pending.recv().await {
            all.push(event);
        }
        all
    };
    let (outcome, all) = timeout(PATIENCE, async { tokio::join!(client.run(command, events, cancel), collect) })
        .await
        .expect("the command ends");
    (all, outcome)
}

/// Sends raw bytes as a client and reads all that comes back.
async fn raw(home: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(home.join(SOCKET_NAME)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn events_of_a_command_arrive_in_order_and_to_the_last() {
    let home = tempfile::tempdir().unwrap();
    let _server = serve_in(home.path(), Tenure::Lasting);
    let (events, outcome) = run(home.path(), unshare("x"), CancellationToken::new()).await;
    outcome.unwrap();
    assert_eq!(events.len(), 201);
    for (number, event) in events[..200].iter().enumerate() {
        assert!(matches!(event, Event::Notice { message } if *message == number.to_string()));
    }
    assert!(matches!(&events[200], Event::Unshared { name } if *name == *"x"));
}

#[tokio::test]
async fn failure_comes_through_with_kind_and_advice_and_only_once() {
    let home = tempfile::tempdir().unwrap();
    let _server = serve_in(home.path(), Tenure::Lasting);
    let (events, outcome) = run(home.path(), Command::Status, CancellationToken::new()).await;
    assert_eq!(outcome.unwrap_err().kind, FailureKind::Usage);
    assert!(matches!(&events[..], [Event::Failed(failure)] if failure.message == "no such thing"));
}

#[tokio::test]
async fn cancelling_ends_the_command_and_still_tells_how() {
    let home = tempfile::tempdir().unwrap();
    let _server = serve_in(home.path(), Tenure::Lasting);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let (_, outcome) = run(home.path(), unshare("wait"), cancel).await;
    let failure = outcome.unwrap_err();
    assert_eq!((failure.kind, failure.advice.as_deref()), (FailureKind::Interrupted, Some("again")));
}

#[tokio::test]
async fn closing_the_connection_cancels_the_command() {
    let home = tempfile::tempdir().unwrap();
    let server = serve_in(home.path(), Tenure::Lasting);
    let mut stream = UnixStream::connect(home.path().join(SOCKET_NAME)).await.unwrap();
    stream.write_all(command_line(unshare("wait"), &NetworkTerms::default()).unwrap().as_bytes()).await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    assert_eq!(server.active(), 1);
    drop(stream);
    timeout(PATIENCE, server.idle()).await.unwrap();
}

#[tokio::test]
async fn stopping_the_server_cancels_its_commands_and_removes_the_socket() {
    let home = tempfile::tempdir().unwrap();
    let server = serve_in(home.path(), Tenure::Lasting);
    let mut stream = UnixStream::connect(home.path().join(SOCKET_NAME)).await.unwrap();
    stream.write_all(command_line(unshare("wait"), &NetworkTerms::default()).unwrap().as_bytes()).await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    timeout(PATIENCE, server.stop()).await.unwrap();
    assert!(!home.path().join(SOCKET_NAME).exists());
    assert!(LocalClient::find(home.path()).await.is_none());
}

#[tokio::test]
async fn stream_that_ends_without_a_result_is_a_failure() {
    let home = tempfile::tempdir().unwrap();
    let _server = serve_in(home.path(), Tenure::Lasting);
    let (_, outcome) = run(home.path(), unshare("half"), CancellationToken::new()).await;
    let failure = outcome.unwrap_err();
    assert!(failure.message.contains("went away"), "{failure:?}");
}

#[tokio::test]
async fn passing_process_refuses_to_share() {
    let home = tempfile::tempdir().unwrap();
    let _server = serve_in(home.path(), Tenure::Passing);
    let share = Command::Share {
        paths: vec!["/x".into()],
        name: None,
        copy: false,
        taken: false,
        strict: false,
        exclude: Default::default(),
        watch: false,
        audience: None,
    };
    let (_, outcome) = run(home.path(), share, CancellationToken::new()).await;
    assert!(outcome.unwrap_err().message.contains("would not serve this"));
    run(home.path(), unshare("x"), CancellationToken::new()).await.1.unwrap();
}

#[tokio::test]
async fn nonsense_and_endless_lines_are_answered_or_dropped() {
    let home = tempfile::tempdir().unwrap();
    let server = serve_in(home.path(), Tenure::Lasting);
    assert!(raw(home.path(), b"{\"command\":\"format_disk\"}\n").await.contains("does not understand"));
    assert!(raw(home.path(), b"\xff\xfe\n").await.is_empty());
    let mut stream = UnixStream::connect(home.path().join(SOCKET_NAME)).await.unwrap();
    let block = vec![b'x'; MAX_LINE];
    let mut sent = 0;
    // The server closes after a little more than MAX_LINE; the rest is in the socket's buffers.
    while timeout(PATIENCE, stream.write_all(&block)).await.expect("the server does not stop reading").is_ok() {
        sent += block.len();
        assert!(sent < 8 * MAX_LINE, "the server reads on");
    }
    timeout(PATIENCE, server.idle()).await.unwrap();
}

#[tokio::test]
async fn surplus_connections_are_closed_and_others_go_on() {
    let home = tempfile::tempdir().unwrap();
    let server = serve_in(home.path(), Tenure::Lasting);
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = UnixStream::connect(home.path().join(SOCKET_NAME)).await.unwrap();
        stream.write_all(command_line(unshare("wait"), &NetworkTerms::default()).unwrap().as_bytes()).await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        held.push(stream);
    }
    let mut surplus = UnixStream::connect(home.path().join(SOCKET_NAME)).await.unwrap();
    assert_eq!(timeout(PATIENCE, surplus.read(&mut [0])).await.unwrap().unwrap(), 0);
    drop(held);
    timeout(PATIENCE, server.idle()).await.unwrap();
    run(home.path(), unshare("x"), CancellationToken::new()).await.1.unwrap();
}

#[tokio::test]
async fn socket_is_for_this_user_alone_and_a_stale_one_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(home.path().join(SOCKET_NAME)).unwrap());
    assert!(LocalClient::find(home.path()).await.is_none());
    let _server = serve_in(home.path(), Tenure::Lasting);
    let mode = std::fs::metadata(home.path().join(SOCKET_NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(LocalClient::find(home.path()).await.is_some());
}

#[tokio::test]
async fn folder_with_a_very_long_path_is_refused_with_the_reason() {
    let home = PathBuf::from(format!("/{}", "x".repeat(200)));
    let refused = LocalServer::start(&home, Arc::new(Scripted), Tenure::Lasting, NodeConfig::default());
    assert!(matches!(refused, Err(LocalError::PathTooLong { got }) if got > 200));
    assert!(LocalClient::find(&home).await.is_none());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nobody_else_can_open_the_socket_at_any_time() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join(SOCKET_NAME);
    let _listener = listen(&socket).unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_command_under_terms_is_carried_out_by_a_node_that_meets_them_alone() {
    let home = tempfile::tempdir().unwrap();
    let hidden = NetworkTerms { relay_only: true, ..NetworkTerms::default() };
    for (relay_mode, done) in [(RelayMode::RelayOnly, true), (RelayMode::Both, false), (RelayMode::NoRelay, false)] {
        let config = NodeConfig { relay_mode, ..NodeConfig::default() };
        let _server = LocalServer::start(home.path(), Arc::new(Scripted), Tenure::Lasting, config).unwrap();
        let client = LocalClient::find(home.path()).await.unwrap().under(hidden.clone());

        let (events, outcome) = run_by(client, unshare("x"), CancellationToken::new()).await;

        assert_eq!(outcome.is_ok(), done, "{relay_mode:?}: {outcome:?}");
        if let Err(failure) = outcome {
            assert!(failure.kind == FailureKind::Usage && failure.message.contains("--relay-only"), "{failure:?}");
            assert!(matches!(&events[..], [Event::Failed(_)]), "nothing was done: {events:?}");
        }
    }
}

#[tokio::test]
async fn terms_that_a_node_does_not_know_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let _server = serve_in(home.path(), Tenure::Lasting);
    let known = command_line(unshare("x"), &NetworkTerms { public: true, ..NetworkTerms::default() }).unwrap();
    let unknown = known.replace("\"public\":true", "\"by_owl\":true");
    assert_ne!(known, unknown);

    assert!(raw(home.path(), unknown.as_bytes()).await.contains("does not understand"));
    // To a node of before there were any, this is an unknown command.
    assert!(serde_json::from_str::<Command>(&known).unwrap_err().to_string().contains("`under`"));
}
