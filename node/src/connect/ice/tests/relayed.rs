//! Relayed negotiations, with a relay of the test's own.

use keyferry_ice::FailureReason;

use super::*;
use crate::{
    net::path::RelayWay,
    reach::turn_client::{
        RelayAllocator,
        test_relay::{no_relays, silent_relay, test_relay},
    },
};

/// Two ends of a call that is about the relayed stream.
fn relayed_dialogues() -> (RelayedDialogue, RelayedDialogue) {
    let ((to_other, from_one), (to_one, from_other)) = (mpsc::channel(32), mpsc::channel(32));
    let ((one, of_one), (other, of_other)) = (oneshot::channel(), oneshot::channel());
    let round_trip = || watch::channel(Some(Duration::from_millis(5))).1;
    let known = Vec::new;
    (
        RelayedDialogue {
            known: known(),
            remote: of_other,
            describe: one,
            round_trip: round_trip(),
            outgoing: to_other,
            incoming: from_other,
        },
        RelayedDialogue {
            known: known(),
            remote: of_one,
            describe: other,
            round_trip: round_trip(),
            outgoing: to_one,
            incoming: from_one,
        },
    )
}

async fn negotiate_by(
    [caller, callee]: [&Side; 2],
    relays: [&Arc<dyn RelayAllocator>; 2],
    hidden: [bool; 2],
) -> [Result<FoundPath, IceError>; 2] {
    let controlling = caller.ice.begin_relayed(Role::Controlling, relays[0], hidden[0]).unwrap();
    let controlled = callee.ice.begin_relayed(Role::Controlled, relays[1], hidden[1]).unwrap();
    let (to_callee, to_caller) = relayed_dialogues();
    let (caller_policy, callee_policy) = (caller.policy(), callee.policy());
    let both =
        async { tokio::join!(controlling.find(to_callee, &caller_policy), controlled.find(to_caller, &callee_policy)) };
    let (one, other) = in_time(both).await;
    [one, other]
}

fn way(found: &FoundPath) -> RelayWay {
    match found.path.report.kind {
        PathKind::Relayed { how, .. } => how,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_peer_comes_in_at_the_relay_and_the_allocation_lasts_as_long_as_the_path() {
    let (caller, callee) = (Side::on_loopback().await, Side::on_loopback().await);
    let (ours, relay) = test_relay();
    let [one, other] = negotiate_by([&caller, &callee], [&relay, &no_relays()], [false; 2]).await.map(Result::unwrap);
    assert_eq!([way(&one), way(&other)], [RelayWay::Accepted, RelayWay::ToTheirs]);
    assert!(one.path.report.kind.is_relayed());
    assert_eq!(ours.standing(), 1);
    let (mut one, mut other) = (one.path.stream, other.path.stream);
    one.write_all(b"by the relay").await.unwrap();
    let mut got = [0; 12];
    in_time(other.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"by the relay");
    drop(other);
    assert_eq!(ours.standing(), 1, "the peer's end is not this side's");
    drop(one);
    assert_eq!(ours.standing(), 0);
}

#[tokio::test]
async fn two_sides_that_hide_their_addresses_meet_through_both_relays() {
    let (caller, callee) = (Side::on_loopback().await, Side::on_loopback().await);
    let (ours, relay) = test_relay();
    let (theirs, their_relay) = test_relay();
    let found = negotiate_by([&caller, &callee], [&relay, &their_relay], [true; 2]).await.map(Result::unwrap);
    let ways = found.each_ref().map(way);
    assert!(
        ways == [RelayWay::ThroughOurs, RelayWay::Accepted] || ways == [RelayWay::Accepted, RelayWay::ThroughOurs],
        "{ways:?}"
    );
    assert_eq!(ours.standing() + theirs.standing(), 2);
    for pair in found.iter().flat_map(|found| &found.pairs) {
        assert_eq!((pair.local.kind, pair.remote.kind), (CandidateKind::Relayed, CandidateKind::Relayed));
    }
}

#[tokio::test]
async fn an_allocation_that_is_of_no_use_is_given_back() {
    let (caller, callee) = (Side::on_loopback().await, Side::on_loopback().await);
    // Nothing that is hidden connects to anything, and the other side has no relay.
    let (ours, relay) = test_relay();
    callee.gathered.send_replace(gathered(&[]));
    let [one, other] = negotiate_by([&caller, &callee], [&relay, &no_relays()], [true, true]).await;
    assert!(matches!(one.unwrap_err().reason, IceFailure::NoPath(FailureReason::NoPairs)));
    assert!(other.is_err());
    assert_eq!((ours.standing(), ours.relayed().len()), (0, 1));
}

#[tokio::test]
async fn without_a_relay_on_either_side_the_answer_is_there_at_once() {
    let (caller, callee) = (Side::on_loopback().await, Side::on_loopback().await);
    let results = negotiate_by([&caller, &callee], [&no_relays(), &no_relays()], [false; 2]).await;
    for result in results {
        assert_eq!(result.unwrap_err().reason, IceFailure::NoPath(FailureReason::NoRelay));
    }
}

#[tokio::test]
async fn a_relay_that_does_not_answer_stands_in_nobodys_way() {
    let (caller, callee) = (Side::on_loopback().await, Side::on_loopback().await);
    let (_, silent) = silent_relay();
    let (ours, relay) = test_relay();
    let [one, other] = negotiate_by([&caller, &callee], [&silent, &relay], [false; 2]).await.map(Result::unwrap);
    assert_eq!([way(&one), way(&other)], [RelayWay::ToTheirs, RelayWay::Accepted]);
    drop((one, other));
    assert_eq!(ours.standing(), 0);
}

#[tokio::test]
async fn who_reaches_the_relayed_address_without_the_password_is_not_the_peer() {
    let caller = Side::on_loopback().await;
    let (ours, relay) = test_relay();
    let negotiation = caller.ice.begin_relayed(Role::Controlling, &relay, false).unwrap();
    let (mut dialogue, peer) = relayed_dialogues();
    dialogue.known = vec!["127.0.0.1".parse().unwrap()];
    let policy = caller.policy();
    let running = tokio::spawn(async move { negotiation.find(dialogue, &policy).await });
    let remote = caller.ice.begin(Role::Controlled).unwrap().description();
    peer.describe.send(Description { candidates: Vec::new(), complete: false, ..remote }).unwrap();
    let described = in_time(peer.remote).await.unwrap();
    in_time(async {
        while ours.relayed().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let addr = ours.relayed()[0];

    for _ in 0..20 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(&forged_check(&described.ufrag)).await.unwrap();
        let mut answer = Vec::new();
        let _ = in_time(stream.read_to_end(&mut answer)).await;
    }
    drop((peer.outgoing, peer.incoming));

    let error = in_time(running).await.unwrap().unwrap_err();
    assert_eq!(error.reason, IceFailure::PeerGone);
    assert!(error.pairs.iter().all(|pair| pair.state != PairState::Succeeded), "{error:?}");
    assert_eq!(ours.standing(), 0);
}

#[tokio::test]
async fn a_node_has_only_so_many_allocations_at_once() {
    let caller = Side::on_loopback().await;
    let (ours, relay) = test_relay();
    let mut begun = Vec::new();
    for _ in 0..MAX_NEGOTIATIONS {
        begun.push(caller.ice.begin_relayed(Role::Controlling, &relay, false).unwrap());
    }
    assert!(caller.ice.begin_relayed(Role::Controlling, &relay, false).is_err());
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(ours.standing() <= super::super::relaying::MAX_ALLOCATIONS);
    drop(begun);
    in_time(async {
        while ours.standing() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
