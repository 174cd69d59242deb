//! A fetch whose provider is reached by another path while it runs: from a relay to a direct path, and back.

use super::*;
use crate::net::{
    path::{PathKind, RelayWay},
    session::SessionEnd,
};

const LEN: u64 = 400 * GROUP;
/// More than a fetch reads of the content itself: what proves it, and the group that it was at.
const SLACK: u64 = 2 * GROUP;

fn relayed() -> PathKind {
    PathKind::Relayed { by: "127.0.0.1".parse().unwrap(), how: RelayWay::ToTheirs, why: None }
}

/// Waits until the fetch has come this far, then gives it a further session.
async fn give_at(getter: &Getter, done: u64, session: Session, found: &mpsc::Sender<Session>) {
    getter.has(done).await;
    found.send(session).await.unwrap();
}

fn kept_by(outcome: &FetchOutcome, is_relayed: bool) -> u64 {
    outcome.from.iter().filter(|given| given.path.kind.is_relayed() == is_relayed).map(|given| given.bytes).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_moves_from_a_relay_to_a_direct_path_and_lets_the_relay_go() {
    let source = Source::file(LEN);
    let getter = Getter::new();
    // 400 groups would take 10 s, and those of the direct path take none.
    let (by_relay, direct) =
        (source.provider(1, Behaviour::Slow { groups: 4 }).await, source.provider(1, Behaviour::Honest).await);
    let slow = by_relay.session_by(relayed()).await;
    let ended = slow.closed();
    let (found, providers) = mpsc::channel(4);
    found.send(slow).await.unwrap();
    let later = give_at(&getter, 50 * GROUP, direct.session().await, &found);

    let (outcome, ()) = tokio::join!(getter.fetch(source.root, providers, found.clone()), later);

    let outcome = outcome.unwrap();
    assert_eq!(fs::read(&outcome.path).unwrap(), bytes(LEN));
    assert!(outcome.received_bytes < LEN + SLACK, "fetched twice: {} {:?}", outcome.received_bytes, outcome.from);
    assert_eq!(kept_by(&outcome, true) + kept_by(&outcome, false), LEN);
    assert!(kept_by(&outcome, true) >= 50 * GROUP && kept_by(&outcome, false) > LEN / 2, "{:?}", outcome.from);
    let end = tokio::time::timeout(Duration::from_secs(5), ended).await.expect("nobody uses it");
    assert!(matches!(end, SessionEnd::ClosedHere), "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_brings_nothing_more_does_not_hold_up_the_direct_path() {
    let source = Source::file(LEN);
    let getter = Getter::new();
    let (by_relay, direct) = (
        source.provider(1, Behaviour::HangAfter { groups: 2 * WRITTEN as usize }).await,
        source.provider(1, Behaviour::Honest).await,
    );
    let (found, providers) = mpsc::channel(4);
    found.send(by_relay.session_by(relayed()).await).await.unwrap();
    let (later, begin) = (give_at(&getter, 2 * WRITTEN * GROUP, direct.session().await, &found), Instant::now());

    let (outcome, ()) = tokio::join!(getter.fetch(source.root, providers, found.clone()), later);

    let outcome = outcome.unwrap();
    assert_eq!(fs::read(&outcome.path).unwrap(), bytes(LEN));
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    assert!(outcome.received_bytes < LEN + SLACK, "fetched twice: {}", outcome.received_bytes);
    assert_eq!((kept_by(&outcome, true), kept_by(&outcome, false)), (2 * WRITTEN * GROUP, LEN - 2 * WRITTEN * GROUP));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_by_a_relay_when_the_direct_path_dies() {
    let source = Source::file(LEN);
    let getter = Getter::new();
    let (direct, by_relay) = (
        source.provider(1, Behaviour::HangAfter { groups: 4 * WRITTEN as usize }).await,
        source.provider(1, Behaviour::Serve).await,
    );
    let (found, providers) = mpsc::channel(4);
    let dying = direct.session().await;
    let dead = dying.closed();
    found.send(dying).await.unwrap();
    let later = async {
        getter.has(4 * WRITTEN * GROUP).await;
        direct.cut();
        dead.await;
        found.send(by_relay.session_by(relayed()).await).await.unwrap();
    };

    let (outcome, ()) = tokio::join!(getter.fetch(source.root, providers, found.clone()), later);

    let outcome = outcome.unwrap();
    assert_eq!(fs::read(&outcome.path).unwrap(), bytes(LEN));
    assert!(outcome.received_bytes < LEN + SLACK, "fetched twice: {}", outcome.received_bytes);
    assert_eq!((kept_by(&outcome, false), kept_by(&outcome, true)), (4 * WRITTEN * GROUP, LEN - 4 * WRITTEN * GROUP));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_stays_where_it_is_when_another_path_is_no_better() {
    let source = Source::file(40 * GROUP);
    let getter = Getter::new();
    let (direct, by_relay) =
        (source.provider(1, Behaviour::Slow { groups: 10 }).await, source.provider(1, Behaviour::Serve).await);
    let (found, providers) = mpsc::channel(4);
    found.send(direct.session().await).await.unwrap();
    let later = give_at(&getter, GROUP, by_relay.session_by(relayed()).await, &found);

    let (outcome, ()) = tokio::join!(getter.fetch(source.root, providers, found.clone()), later);

    let outcome = outcome.unwrap();
    assert_eq!((kept_by(&outcome, false), kept_by(&outcome, true)), (40 * GROUP, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_moves_between_its_files() {
    let source = Source::new(make_tree);
    let getter = Getter::new();
    let (by_relay, direct) =
        (source.provider(1, Behaviour::Slow { groups: 1 }).await, source.provider(1, Behaviour::Serve).await);
    let (found, providers) = mpsc::channel(4);
    found.send(by_relay.session_by(relayed()).await).await.unwrap();
    let later = give_at(&getter, 3 * GROUP, direct.session().await, &found);

    let (outcome, ()) = tokio::join!(getter.fetch(source.root, providers, found.clone()), later);

    let outcome = outcome.unwrap();
    assert_is_tree(&outcome.path);
    assert!(kept_by(&outcome, true) > 0 && kept_by(&outcome, false) > 0, "{:?}", outcome.from);
    assert!(outcome.received_bytes < outcome.size + SLACK, "fetched twice: {}", outcome.received_bytes);
}
