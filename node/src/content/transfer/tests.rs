//! A fetch against providers of every kind, over real sessions on 127.0.0.1.

mod changing;
mod durability;
mod holes;
mod moving;
mod offering;
mod parts;
mod provider;
mod there;
mod updating;

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use keyferry_proto::{
    hash::{ContentFormat, ContentHash},
    message::Refusal,
    transfer::schedule::MAX_EMPTY_REQUESTS,
};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::provider::{Behaviour, Provider};
use super::{
    FetchError,
    fetch::{FetchOutcome, FetchProgress, FoundSources, Job, fetch_with},
    patience::Patience,
    reading::{FilePiece, PIECES_AHEAD, Reading, WantedFile},
    staging::FetchTarget,
};
use crate::{
    content::store::{ImportMode, Store},
    net::session::{Session, SessionEnd},
};

const GROUP: u64 = 64 * 1024;
/// As many groups as two writes take: they are counted when the next one is due, even if it never comes.
const WRITTEN: u64 = 16;

/// A shared file or folder.
struct Source {
    store: Store,
    root: ContentHash,
    content: TempDir,
    home: TempDir,
}

impl Source {
    fn new(make: impl FnOnce(&Path)) -> Self {
        let (home, content) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        make(&content.path().join("it"));
        let (store, _) = Store::open(home.path()).unwrap();
        let root = import(&store, &content.path().join("it"));
        Self { store, root, content, home }
    }

    fn file(len: u64) -> Self {
        Self::new(|path| fs::write(path, bytes(len)).unwrap())
    }

    fn path(&self) -> std::path::PathBuf {
        self.content.path().join("it")
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    async fn provider(&self, key: u8, behaviour: Behaviour) -> Provider {
        Provider::start(key, self.store.clone(), behaviour).await
    }
}

fn import(store: &Store, path: &Path) -> ContentHash {
    let name = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    store.import(path, &name, None, ImportMode::InPlace, &|_| {}, &AtomicBool::new(false)).unwrap().root.hash
}

/// Bytes of which no two groups are alike.
fn bytes(len: u64) -> Vec<u8> {
    (0..len).map(|at| (at / GROUP * 7 + at % 251) as u8).collect()
}

/// Less than the time after which a provider that sends nothing is given up (30 s), and more than a busy machine needs if it waits
/// for nothing.
const SOON: Duration = Duration::from_secs(25);

/// Who fetches.
struct Getter {
    store: Store,
    home: TempDir,
    out: TempDir,
    sync: bool,
    overwrite: bool,
    mirror: bool,
    format: Option<ContentFormat>,
    patience: Patience,
    progress: Mutex<FetchProgress>,
    cancel: CancellationToken,
    untried: watch::Sender<usize>,
}

impl Getter {
    fn new() -> Self {
        let (home, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (store, _) = Store::open(home.path()).unwrap();
        let patience = Patience { when_refused: Duration::from_secs(1), when_silent: Duration::from_secs(5) };
        let (progress, cancel) = (Mutex::default(), CancellationToken::new());
        let untried = watch::Sender::default();
        Self {
            store,
            home,
            out,
            sync: false,
            overwrite: false,
            mirror: false,
            format: None,
            patience,
            progress,
            cancel,
            untried,
        }
    }

    fn job(&self, root: ContentHash) -> Job {
        let target = FetchTarget {
            out_dir: self.out.path().to_owned(),
            name: "got".to_owned(),
            source: None,
            umask: None,
            overwrite: self.overwrite,
            mirror: self.mirror,
            sync: self.sync,
        };
        Job {
            store: self.store.clone(),
            root,
            format: self.format,
            root_size: None,
            attributes: None,
            part: None,
            target,
            seed: false,
        }
    }

    fn got(&self) -> std::path::PathBuf {
        self.out.path().join("got")
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.out.path()).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "got").count()
    }

    async fn fetch_from(&self, root: ContentHash, sessions: Vec<Session>) -> Result<FetchOutcome, FetchError> {
        let (found, providers) = mpsc::channel(16);
        for session in sessions {
            found.send(session).await.unwrap();
        }
        self.fetch(root, providers, found).await
    }

    /// `_found` keeps the channel open: more providers might come.
    async fn fetch(
        &self,
        root: ContentHash,
        providers: mpsc::Receiver<Session>,
        _found: mpsc::Sender<Session>,
    ) -> Result<FetchOutcome, FetchError> {
        let tell = |progress| *self.progress.lock().unwrap() = progress;
        let found = FoundSources { sessions: providers, untried: self.untried.subscribe() };
        let fetching = fetch_with(self.job(root), &self.patience, found, tell, self.cancel.clone());
        tokio::time::timeout(Duration::from_secs(60), fetching).await.expect("the fetch ends in time")
    }

    /// Waits until so much is verified.
    async fn has(&self, bytes: u64) {
        until(|| self.progress.lock().unwrap().done_bytes >= bytes).await;
    }
}

async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("in time");
}

fn givers(outcome: &FetchOutcome) -> Vec<keyferry_proto::identity::NodeKey> {
    outcome.from.iter().map(|given| given.by.node().unwrap()).collect()
}

fn make_tree(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(dir.join("a/b")).unwrap();
    fs::write(dir.join("a/b/large"), bytes(10 * GROUP + 1)).unwrap();
    fs::write(dir.join("a/large too"), bytes(10 * GROUP + 1)).unwrap();
    fs::write(dir.join("same"), b"the same").unwrap();
    fs::write(dir.join("same, to be run"), b"the same").unwrap();
    fs::set_permissions(dir.join("same, to be run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("empty"), b"").unwrap();
    fs::write(dir.join("a/empty"), b"").unwrap();
}

fn assert_is_tree(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let is_executable = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o100 != 0;
    assert_eq!(fs::read(dir.join("a/b/large")).unwrap(), bytes(10 * GROUP + 1));
    assert_eq!(fs::read(dir.join("a/large too")).unwrap(), bytes(10 * GROUP + 1));
    assert_eq!(fs::read(dir.join("same")).unwrap(), b"the same");
    assert_eq!(fs::read(dir.join("same, to be run")).unwrap(), b"the same");
    assert_eq!((is_executable("same"), is_executable("same, to be run")), (false, true));
    assert_eq!(fs::metadata(dir.join("empty")).unwrap().len(), 0);
    assert_eq!(fs::metadata(dir.join("a/empty")).unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_left_out_and_an_honest_provider_gives_all() {
    let source = Source::file(20 * GROUP);
    let lies = [
        Behaviour::Garbage,
        Behaviour::Claim(ContentFormat::Blob, 40 * GROUP),
        Behaviour::Claim(ContentFormat::Blob, u64::MAX),
        Behaviour::Claim(ContentFormat::Blob, 0),
        Behaviour::Claim(ContentFormat::Collection, 20 * GROUP),
        Behaviour::Claim(ContentFormat::Collection, 1),
    ];
    for lie in lies {
        for honest_first in [false, true] {
            let getter = Getter::new();
            let liar = source.provider(1, lie).await;
            let honest = source.provider(2, Behaviour::Honest).await;
            let mut sessions = vec![liar.session().await, honest.session().await];
            if honest_first {
                sessions.reverse();
            }

            let outcome = getter.fetch_from(source.root, sessions).await.unwrap();

            assert_eq!(fs::read(&outcome.path).unwrap(), bytes(20 * GROUP), "{lie:?}");
            assert_eq!(givers(&outcome), [honest.node()]);
            assert_eq!((outcome.resumed_bytes, getter.leftovers()), (0, 0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_said_to_be_a_file_arrives_as_a_folder() {
    let source = Source::new(make_tree);
    let getter = Getter::new();
    let provider = source.provider(1, Behaviour::CollectionAsBlob).await;
    let honest = source.provider(2, Behaviour::Honest).await;

    let sessions = vec![provider.session().await, honest.session().await];
    let outcome = getter.fetch_from(source.root, sessions).await.unwrap();

    assert_eq!(outcome.format, ContentFormat::Collection);
    assert_is_tree(&outcome.path);
    assert_eq!(getter.leftovers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_slow_providers_share_the_work() {
    let source = Source::file(400 * GROUP);
    let getter = Getter::new();
    let one = source.provider(1, Behaviour::Slow { groups: 10 }).await;
    let two = source.provider(2, Behaviour::Slow { groups: 10 }).await;

    let sessions = vec![one.session().await, two.session().await];
    let outcome = getter.fetch_from(source.root, sessions).await.unwrap();

    assert_eq!(fs::read(&outcome.path).unwrap(), bytes(400 * GROUP));
    assert_eq!(outcome.from.len(), 2);
    assert!(outcome.from.iter().all(|given| given.bytes >= 100 * GROUP), "{:?}", outcome.from);
    assert_eq!(outcome.from.iter().map(|given| given.bytes).sum::<u64>(), 400 * GROUP);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_lost_goes_on_when_it_is_back() {
    let source = Source::file(40 * GROUP);
    let getter = Getter::new();
    let (found, providers) = mpsc::channel(4);
    let breaks = source.provider(1, Behaviour::HangAfter { groups: WRITTEN as usize }).await;
    let breaking = breaks.session().await;
    let lost = breaking.closed();
    found.send(breaking).await.unwrap();
    let back = source.provider(1, Behaviour::Honest).await;
    let later = async {
        getter.has(WRITTEN * GROUP).await;
        breaks.cut();
        lost.await;
        found.send(back.session().await).await.unwrap();
    };

    let (outcome, ()) = tokio::join!(getter.fetch(source.root, providers, found.clone()), later);

    let outcome = outcome.unwrap();
    assert_eq!(fs::read(&outcome.path).unwrap(), bytes(40 * GROUP));
    // One node, at two addresses.
    assert_eq!((outcome.resumed_bytes, givers(&outcome)), (0, vec![back.node(); 2]));
    assert_eq!(outcome.from.iter().map(|given| given.bytes).collect::<Vec<_>>(), [24 * GROUP, WRITTEN * GROUP]);
    let received = outcome.received_bytes;
    assert!(received < 42 * GROUP, "what came before the loss was fetched again: {received}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_was_away_for_longer_than_one_may_be_silent_is_asked_when_it_is_back() {
    let source = Source::file(40 * GROUP);
    let mut getter = Getter::new();
    getter.patience.when_silent = Duration::from_secs(2);
    let away = getter.patience.when_silent + Duration::from_millis(100);
    let (found, providers) = mpsc::channel(4);
    let breaks = source.provider(1, Behaviour::HangAfter { groups: WRITTEN as usize }).await;
    found.send(breaks.session().await).await.unwrap();
    let back = source.provider(1, Behaviour::Honest).await;
    let later = async {
        getter.has(WRITTEN * GROUP).await;
        breaks.cut();
        tokio::time::sleep(away).await;
        found.send(back.session().await).await.unwrap();
    };

    let (outcome, ()) = tokio::join!(getter.fetch(source.root, providers, found.clone()), later);

    assert_eq!(fs::read(&outcome.unwrap().path).unwrap(), bytes(40 * GROUP));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_verified_when_the_user_stops_it_is_kept() {
    let source = Source::file(40 * GROUP);
    let mut getter = Getter::new();
    let stuck = source.provider(1, Behaviour::HangAfter { groups: WRITTEN as usize }).await;
    let stop = async {
        getter.has(WRITTEN * GROUP).await;
        getter.cancel.cancel();
    };
    let begin = Instant::now();

    let (stopped, ()) = tokio::join!(getter.fetch_from(source.root, vec![stuck.session().await]), stop);

    assert!(matches!(stopped, Err(FetchError::Interrupted)), "{stopped:?}");
    assert!(begin.elapsed() < SOON);
    getter.cancel = CancellationToken::new();
    let honest = source.provider(2, Behaviour::Honest).await;
    let outcome = getter.fetch_from(source.root, vec![honest.session().await]).await.unwrap();
    assert_eq!(outcome.resumed_bytes, WRITTEN * GROUP);
    assert_eq!(outcome.from[0].bytes, 24 * GROUP);
    assert_eq!(fs::read(&outcome.path).unwrap(), bytes(40 * GROUP));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_provider_brings_counts_soon() {
    let source = Source::file(40 * GROUP);
    let getter = Getter::new();
    // Far less than what is gathered for one write.
    let slow = source.provider(1, Behaviour::Drip { groups: 1, pause: Duration::from_millis(600) }).await;
    let watched = async {
        // All of it takes 24 s.
        let _ = tokio::time::timeout(Duration::from_secs(12), getter.has(1)).await;
        getter.cancel.cancel();
        getter.progress.lock().unwrap().done_bytes
    };

    let (stopped, done_bytes) = tokio::join!(getter.fetch_from(source.root, vec![slow.session().await]), watched);

    assert!(matches!(stopped, Err(FetchError::Interrupted)), "{stopped:?}");
    assert!(done_bytes > 0, "nothing is counted before it is written with more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_copies_and_empty_files_counts_right_at_first_and_resumed() {
    let source = Source::new(make_tree);
    let mut getter = Getter::new();
    let all = FetchProgress {
        done_bytes: 20 * GROUP + 2 + 16,
        total_bytes: 20 * GROUP + 2 + 16,
        done_files: 6,
        total_files: 6,
        is_stuck: false,
    };
    // Slow enough to be counted while it comes.
    let slow = source.provider(1, Behaviour::Drip { groups: 1, pause: Duration::from_millis(300) }).await;
    let stop = async {
        getter.has(4 * GROUP).await;
        getter.cancel.cancel();
    };
    let (stopped, ()) = tokio::join!(getter.fetch_from(source.root, vec![slow.session().await]), stop);
    stopped.unwrap_err();
    getter.cancel = CancellationToken::new();
    let honest = source.provider(2, Behaviour::Honest).await;

    let outcome = getter.fetch_from(source.root, vec![honest.session().await]).await.unwrap();

    assert_is_tree(&outcome.path);
    assert_eq!(*getter.progress.lock().unwrap(), all);
    assert!(outcome.resumed_bytes >= 4 * GROUP, "{}", outcome.resumed_bytes);
    assert_eq!((outcome.size, outcome.files), (all.total_bytes, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leftover_that_is_longer_or_damaged_does_no_harm() {
    for len in [GROUP / 2, 20 * GROUP] {
        let source = Source::file(len);
        let getter = Getter::new();
        let part = format!(".got.{}.keyferry-part", source.root.short());
        let mut leftover = bytes(len);
        leftover[0] ^= 1;
        leftover.extend([9; 100_000]);
        fs::write(getter.out.path().join(part), leftover).unwrap();
        let honest = source.provider(2, Behaviour::Honest).await;

        let outcome = getter.fetch_from(source.root, vec![honest.session().await]).await.unwrap();

        assert_eq!(fs::read(&outcome.path).unwrap(), bytes(len));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_files_and_folders_arrive() {
    let file = Source::new(|path| fs::write(path, b"").unwrap());
    let getter = Getter::new();
    let provider = file.provider(1, Behaviour::Honest).await;
    let outcome = getter.fetch_from(file.root, vec![provider.session().await]).await.unwrap();
    assert_eq!(fs::read(outcome.path).unwrap(), b"");

    let folder = Source::new(|path| fs::create_dir(path).unwrap());
    let getter = Getter::new();
    let provider = folder.provider(1, Behaviour::Honest).await;
    let outcome = getter.fetch_from(folder.root, vec![provider.session().await]).await.unwrap();
    assert!(outcome.path.is_dir());
    assert_eq!((outcome.files, outcome.size), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_waits_until_nobody_comes_any_more_and_one_that_is_refused_by_all_ends_soon() {
    let source = Source::file(GROUP);
    let getter = Getter::new();
    let (found, providers) = mpsc::channel(1);
    let told = &getter.progress;
    let (open, _) = mpsc::channel(1);
    let (alone, ()) = tokio::join!(getter.fetch(source.root, providers, open), async move {
        until(|| told.lock().unwrap().is_stuck).await;
        drop(found);
    });
    assert!(matches!(alone, Err(FetchError::NotFound { .. })), "{alone:?}");
    let begin = Instant::now();

    let refuses = source.provider(1, Behaviour::Refuse(Refusal::Changed)).await;
    let refused = getter.fetch_from(source.root, vec![refuses.session().await]).await;
    assert!(matches!(refused, Err(FetchError::Unavailable { why: Refusal::Changed, .. })), "{refused:?}");

    let liar = source.provider(1, Behaviour::Garbage).await;
    let lied = getter.fetch_from(source.root, vec![liar.session().await]).await;
    assert!(matches!(lied, Err(FetchError::NoProvider { .. })), "{lied:?}");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_dropped_stops_reading() {
    let source = Source::file(400 * GROUP);
    let getter = Getter::new();
    let slow = source.provider(1, Behaviour::Slow { groups: 1 }).await;
    let session = slow.session().await;
    let closed = session.closed();

    tokio::select! {
        ended = getter.fetch_from(source.root, vec![session]) => panic!("{ended:?}"),
        () = getter.has(1) => {}
    }

    tokio::time::timeout(Duration::from_secs(5), closed).await.expect("nothing holds the session any more");
    // Far less than the 40 s that all of it would take.
    let stops = until(|| slow.open_answers() == 0);
    tokio::time::timeout(Duration::from_secs(5), stops).await.expect("the provider still answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_sent_ends_the_fetch_soon_and_says_why() {
    let source = Source::file(400 * GROUP);
    let getter = Getter::new();
    let provider = source.provider(1, Behaviour::Serve).await;
    let changed = AtomicBool::new(false);
    let path = source.path();
    let (found, providers) = mpsc::channel(1);
    found.send(provider.session().await).await.unwrap();
    // The header is there at the first tick or the next; the file is changed before most of it is sent.
    let tell = |_| {
        if !changed.swap(true, Ordering::Relaxed) {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&vec![0; 300 * GROUP as usize], 100 * GROUP).unwrap();
        }
    };
    let begin = Instant::now();

    let providers = FoundSources { sessions: providers, untried: getter.untried.subscribe() };
    let ended = fetch_with(getter.job(source.root), &Patience::default(), providers, tell, getter.cancel.clone()).await;

    assert!(matches!(ended, Err(FetchError::Unavailable { why: Refusal::Changed, .. })), "{ended:?}");
    assert!(begin.elapsed() < SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_the_store_has_as_a_copy_needs_no_provider() {
    let source = Source::file(3 * GROUP);
    let mut getter = Getter::new();
    let progress = |_: crate::content::store::ImportProgress| {};
    let name = "copy".parse().unwrap();
    getter.store.import(&source.path(), &name, None, ImportMode::Copy, &progress, &AtomicBool::new(false)).unwrap();
    for format in [None, Some(ContentFormat::Blob)] {
        getter.format = format;

        let outcome = getter.fetch_from(source.root, Vec::new()).await.unwrap();

        assert_eq!(fs::read(&outcome.path).unwrap(), bytes(3 * GROUP));
        assert_eq!((outcome.received_bytes, outcome.resumed_bytes), (0, 3 * GROUP));
        fs::remove_file(getter.got()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cannot_take_all_places_of_a_server() {
    let source = Source::file(200 * GROUP);
    let provider = source.provider(1, Behaviour::Serve).await;
    let greedy = Arc::new(provider.session_of(98, crate::net::path::PathKind::Dialled).await);
    let mut unread = Vec::new();
    for _ in 0..16 {
        unread.push(provider::ask_for_all(&greedy, source.root).await);
    }
    until(|| provider.open_answers() == 16 && provider.places_taken() > 0).await;
    let getter = Getter::new();

    let outcome = getter.fetch_from(source.root, vec![provider.session().await]).await.unwrap();

    assert_eq!(outcome.size, 200 * GROUP);
    assert!(provider.places_taken() <= 8, "{}", provider.places_taken());
}

#[tokio::test]
async fn a_provider_that_has_no_place_is_asked_again_also_for_a_file_that_is_read_without_a_disk() {
    let source = Source::file(3 * GROUP);
    for (requests, is_given) in [(MAX_EMPTY_REQUESTS as usize - 1, true), (MAX_EMPTY_REQUESTS as usize, false)] {
        let provider = source.provider(1, Behaviour::BusyAtFirst { requests }).await;
        let (found, sessions) = mpsc::channel(1);
        found.send(provider.session().await).await.unwrap();
        drop(found);
        let (pieces, mut read) = mpsc::channel(PIECES_AHEAD);
        let file = WantedFile::Root { hash: source.root, format: None };
        let reading = Reading::new(file, pieces, watch::Sender::default());

        let ended = reading.read_from_all(FoundSources { sessions, untried: watch::channel(0).1 }).await;

        let mut got = Vec::new();
        while let Some(piece) = read.recv().await {
            if let FilePiece::Bytes(bytes) = piece {
                got.extend(bytes);
            }
        }
        if is_given {
            assert!(ended.is_ok(), "{ended:?}");
            assert_eq!(got, bytes(3 * GROUP));
        } else {
            assert!(matches!(ended, Err(FetchError::Unavailable { why: Refusal::Busy, .. })), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn a_provider_of_no_use_gives_its_session_back_and_nobody_gives_up_before_the_last_one_is_tried() {
    let source = Source::file(3 * GROUP);
    let useless = source.provider(1, Behaviour::Refuse(Refusal::NotFound)).await;
    let honest = source.provider(2, Behaviour::Serve).await;
    let mut getter = Getter::new();
    getter.patience.when_refused = Duration::from_millis(10);
    getter.untried.send_replace(1);
    let (found, providers) = mpsc::channel(16);
    let session = useless.session().await;
    let ended = session.closed();
    found.send(session).await.unwrap();
    let later = async {
        assert!(matches!(ended.await, SessionEnd::ClosedHere));
        // Far beyond the patience with those who refuse.
        tokio::time::sleep(getter.patience.when_refused * 50).await;
        found.send(honest.session().await).await.unwrap();
        getter.untried.send_replace(0);
    };

    let (outcome, ()) = tokio::join!(getter.fetch(source.root, providers, found.clone()), later);

    assert_eq!(outcome.unwrap().size, 3 * GROUP);
}
