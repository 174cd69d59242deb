use std::{net::SocketAddr, time::Duration};

use proptest::prelude::*;

use super::{body::Body, *};
use keyferry_ice::{
    Candidate, CandidateKind, Description, MAX_SIGNALLED_CANDIDATES, Mapping, OpenTurn, Signal, Stream, TcpType,
};

use crate::{codec, identity::NodeSecret};

const CHANNEL: CallChannel = CallChannel { caller: [0xca; 32], callee: [0xce; 32] };

fn secret(seed: u8) -> NodeSecret {
    NodeSecret::from_bytes(&[seed; 32])
}

fn description(candidates: usize) -> Description {
    let addr = |port| SocketAddr::from(([0x20, 1, 0xd, 0xb8, 0, 0, 0, 1], port));
    Description {
        ufrag: "u".repeat(32),
        password: "p".repeat(64),
        candidates: (0..candidates).map(|port| Candidate::host_passive(addr(port as u16), 0)).collect(),
        complete: false,
        mapping: Mapping::EndpointIndependent,
        opening: true,
    }
}

/// Takes part in both streams.
fn both(candidates: usize) -> Streams {
    Streams::DirectAndRelayed(description(candidates))
}

fn trickle(candidates: usize) -> Signal {
    Signal::Candidates { candidates: description(candidates).candidates, complete: true }
}

fn opened(round: u8) -> Signal {
    let addr = "192.0.2.1:7".parse().unwrap();
    Signal::Opened(OpenTurn { round, sender: addr, receiver: addr, ttl: 2 })
}

fn calling() -> (Calling, Vec<u8>) {
    Calling::new(&secret(1), secret(2).public(), CHANNEL, CallId([7; 16]), both(2)).unwrap()
}

fn called(message: &[u8]) -> Result<Called, SignallingError> {
    Called::verify(message, &secret(2).public(), CHANNEL)
}

/// The two sides of an answered call.
fn answered() -> (Conversation, Conversation) {
    let (calling, call) = calling();
    let (_, mut callee, answer) = called(&call).unwrap().accept(&secret(2), both(3)).unwrap();
    let Answered::Accepted(accepted) = calling.on_answer(&answer).unwrap() else { panic!("not accepted") };
    let mut caller = accepted.1;
    assert_eq!(callee.receive(&caller.heard().unwrap()), Ok(Received::Heard));
    (caller, callee)
}

#[test]
fn a_call_is_answered_and_signals_go_both_ways() {
    let (calling, call) = calling();
    let called = called(&call).unwrap();
    assert_eq!((called.caller(), called.id(), called.remote()), (secret(1).public(), CallId([7; 16]), &both(2)));
    let (remote, callee, answer) = called.accept(&secret(2), both(3)).unwrap();
    let Answered::Accepted(accepted) = calling.on_answer(&answer).unwrap() else { panic!("not accepted") };
    assert_eq!((remote, accepted.0), (both(2), both(3)));
    assert_eq!((callee.peer(), accepted.1.peer()), (secret(1).public(), secret(2).public()));

    let (mut caller, mut callee) = answered();
    for signal in [trickle(1), opened(0), opened(1)] {
        assert_eq!(
            callee.receive(&caller.send(Stream::Direct, signal.clone()).unwrap()),
            Ok(Received::Signal(Stream::Direct, signal.clone()))
        );
        assert_eq!(
            caller.receive(&callee.send(Stream::Direct, signal.clone()).unwrap()),
            Ok(Received::Signal(Stream::Direct, signal))
        );
    }
}

#[test]
fn a_call_is_refused_with_a_reason_or_by_silence_about_who_is_there() {
    for refusal in [CallRefusal::Policy, CallRefusal::Busy, CallRefusal::NoCommonStream] {
        let (calling, call) = calling();
        let answer = called(&call).unwrap().refuse(&secret(2), refusal).unwrap();
        assert!(matches!(calling.on_answer(&answer), Ok(Answered::Refused(got)) if got == refusal));
    }
    assert!(matches!(calling().0.on_answer(&[]), Ok(Answered::NotThisNode)));
    let other = Called::verify(&calling().1, &secret(3).public(), CHANNEL);
    assert_eq!(other.unwrap_err(), SignallingError::OtherNode);
}

#[test]
fn a_call_that_is_moved_to_another_connection_or_changed_anywhere_is_refused() {
    let (_, call) = calling();
    let swapped = CallChannel { caller: CHANNEL.callee, callee: CHANNEL.caller };
    for channel in [swapped, CallChannel { caller: [0; 32], ..CHANNEL }, CallChannel { callee: [0; 32], ..CHANNEL }] {
        let moved = Called::verify(&call, &secret(2).public(), channel);
        assert_eq!(moved.unwrap_err(), SignallingError::BadSignature);
    }
    for at in 0..call.len() {
        let mut changed = call.clone();
        changed[at] ^= 1;
        assert!(called(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn answers_of_other_calls_and_nodes_are_refused() {
    let (_, call) = calling();
    let answer = called(&call).unwrap().accept(&secret(2), both(0)).unwrap().2;
    let again = Calling::new(&secret(1), secret(2).public(), CHANNEL, CallId([8; 16]), both(0)).unwrap().0;
    assert_eq!(again.on_answer(&answer).unwrap_err(), SignallingError::BadSignature);
    let (calling, _) = calling();
    // The caller's own first message, sent back.
    assert_eq!(calling.on_answer(&call[80..]).unwrap_err(), SignallingError::BadSignature);
}

#[test]
fn signals_that_are_replayed_reordered_reflected_or_dropped_are_refused() {
    let (mut caller, mut callee) = answered();
    let (first, second) =
        (caller.send(Stream::Direct, opened(0)).unwrap(), caller.send(Stream::Direct, opened(1)).unwrap());
    assert_eq!(caller.receive(&first), Err(SignallingError::BadSignature), "reflected");
    assert_eq!(callee.receive(&second), Err(SignallingError::BadSignature), "one before it is missing");
    assert!(callee.receive(&first).is_ok());
    assert_eq!(callee.receive(&first), Err(SignallingError::BadSignature), "replayed");
}

#[test]
fn the_acknowledgement_comes_once_and_first() {
    let (calling, call) = calling();
    let (_, mut callee, answer) = called(&call).unwrap().accept(&secret(2), both(0)).unwrap();
    let Answered::Accepted(accepted) = calling.on_answer(&answer).unwrap() else { panic!("not accepted") };
    let mut caller = accepted.1;
    let unexpected = callee.receive(&caller.send(Stream::Direct, opened(0)).unwrap());
    assert!(matches!(unexpected, Err(SignallingError::Unexpected { got: "a signal", .. })), "{unexpected:?}");
    let (mut caller, mut callee) = answered();
    let unexpected = callee.receive(&caller.heard().unwrap());
    assert!(matches!(unexpected, Err(SignallingError::Unexpected { got: "an acknowledgement", .. })), "{unexpected:?}");
}

#[test]
fn a_side_sends_so_many_signals_and_candidates_and_no_more() {
    let (mut caller, mut callee) = answered();
    for _ in 0..MAX_SIGNALS {
        let message = caller.send(Stream::Direct, opened(0)).unwrap();
        callee.receive(&message).unwrap();
    }
    assert_eq!(caller.send(Stream::Direct, opened(0)), Err(SignallingError::Signals));

    let (mut caller, mut callee) = answered();
    let all = caller.send(Stream::Direct, trickle(MAX_SIGNALLED_CANDIDATES - 2)).unwrap();
    callee.receive(&all).unwrap();
    assert_eq!(caller.send(Stream::Direct, trickle(1)), Err(SignallingError::Candidates { got: 33 }));
    assert!(caller.send(Stream::Direct, opened(0)).is_ok(), "the conversation goes on without it");
}

#[test]
fn the_greatest_call_is_as_long_as_a_message_may_be() {
    let most = description(MAX_SIGNALLED_CANDIDATES);
    let longest =
        Calling::new(&secret(1), secret(2).public(), CHANNEL, CallId([7; 16]), Streams::DirectAndRelayed(most))
            .unwrap()
            .1;
    assert_eq!(longest.len(), MAX_MESSAGE_LEN);
    let refused = called(&[longest, vec![0]].concat());
    assert_eq!(refused.unwrap_err(), SignallingError::TooLong { got: MAX_MESSAGE_LEN + 1 });
}

#[test]
fn what_is_beyond_the_limits_is_not_sent() {
    let call = |change: fn(&mut Description)| {
        let mut local = description(0);
        change(&mut local);
        Calling::new(&secret(1), secret(2).public(), CHANNEL, CallId([7; 16]), Streams::Direct(local)).map(|_| ())
    };
    assert_eq!(call(|_| {}), Ok(()));
    assert_eq!(call(|it| it.ufrag = "abc".into()), Err(SignallingError::Credential { field: "username fragment" }));
    assert_eq!(call(|it| it.password = "a b".repeat(10)), Err(SignallingError::Credential { field: "password" }));
    assert_eq!(call(|it| it.candidates = description(33).candidates), Err(SignallingError::Candidates { got: 33 }));
    let (mut caller, _) = answered();
    let Signal::Opened(turn) = opened(0) else { panic!("not opened") };
    let late = Signal::Cross { turn, after: Duration::from_secs(11) };
    assert_eq!(caller.send(Stream::Direct, late), Err(SignallingError::Delay { got_ms: 11_000 }));
}

#[test]
fn two_nodes_with_one_key_prove_themselves_to_each_other_and_go_no_further() {
    let key = secret(1).public();
    let call = || Calling::new(&secret(1), key, CHANNEL, CallId([7; 16]), both(0)).unwrap();
    let called = |message: &[u8]| Called::verify(message, &key, CHANNEL).unwrap();

    let (calling, message) = call();
    assert_eq!(called(&message).caller(), key);
    let refusal = called(&message).refuse(&secret(1), CallRefusal::Policy).unwrap();
    assert!(matches!(calling.on_answer(&refusal), Ok(Answered::Refused(CallRefusal::Policy))));

    assert_eq!(called(&message).accept(&secret(1), both(0)).unwrap_err(), SignallingError::CallerKey);
    let (calling, message) = call();
    let answer = called(&message).reply(&secret(1), &Body::Answer(both(0))).unwrap();
    assert!(matches!(calling.on_answer(&answer), Err(SignallingError::Unexpected { .. })));
}

#[test]
fn each_stream_is_described_once_and_has_its_own_candidates() {
    let (caller, callee) = answered();
    let most = description(MAX_SIGNALLED_CANDIDATES);
    let mut sides = [caller, callee];
    for sender in [0, 1] {
        let [caller, callee] = &mut sides;
        let (sender, receiver) = if sender == 0 { (caller, callee) } else { (callee, caller) };
        let early = sender.send(Stream::Relayed, trickle(1));
        assert_eq!(early, Err(SignallingError::NotUnderWay { got: "a signal", stream: Stream::Relayed }));
        let message = sender.describe(most.clone()).unwrap();
        assert_eq!(receiver.receive(&message), Ok(Received::Described(Box::new(most.clone()))));
        let again = sender.describe(description(0));
        assert_eq!(again, Err(SignallingError::NotUnderWay { got: "a description", stream: Stream::Relayed }));
        assert_eq!(sender.send(Stream::Relayed, trickle(1)), Err(SignallingError::Candidates { got: 33 }));
        for stream in [Stream::Relayed, Stream::Direct] {
            let message = sender.send(stream, Signal::Exhausted).unwrap();
            assert_eq!(receiver.receive(&message), Ok(Received::Signal(stream, Signal::Exhausted)));
        }
    }
}

#[test]
fn a_stream_is_left_once_and_nothing_is_said_of_it_afterwards() {
    let (mut caller, mut callee) = answered();
    let message = caller.leave(Stream::Direct).unwrap();
    assert_eq!(callee.receive(&message), Ok(Received::Left(Stream::Direct)));
    let ended = |got| Err(SignallingError::NotUnderWay { got, stream: Stream::Direct });
    assert_eq!(caller.send(Stream::Direct, trickle(0)), ended("a signal"));
    assert_eq!(caller.leave(Stream::Direct), ended("the end of a stream"));
    // The other stream, and the other side, go on.
    callee.receive(&caller.leave(Stream::Relayed).unwrap()).unwrap();
    caller.receive(&callee.send(Stream::Direct, trickle(1)).unwrap()).unwrap();
}

#[test]
fn a_call_is_about_the_streams_in_which_both_sides_take_part() {
    let of = |local: Streams, remote: Streams| {
        let (calling, call) = Calling::new(&secret(1), secret(2).public(), CHANNEL, CallId([7; 16]), local).unwrap();
        let (_, callee, answer) = called(&call).unwrap().accept(&secret(2), remote)?;
        let Answered::Accepted(accepted) = calling.on_answer(&answer)? else { panic!("not accepted") };
        let about =
            |conversation: &Conversation| [Stream::Direct, Stream::Relayed].map(|stream| conversation.is_about(stream));
        assert_eq!(about(&callee), about(&accepted.1));
        Ok(about(&callee))
    };
    let direct = || Streams::Direct(description(1));
    assert_eq!(of(both(1), both(1)), Ok([true, true]));
    assert_eq!(of(both(1), direct()), Ok([true, false]));
    assert_eq!(of(direct(), both(1)), Ok([true, false]));
    assert_eq!(of(Streams::Relayed, both(1)), Ok([false, true]));
    assert_eq!(of(both(1), Streams::Relayed), Ok([false, true]));
    assert_eq!(of(Streams::Relayed, direct()), Err(SignallingError::NoCommonStream));
    assert_eq!(of(direct(), Streams::Relayed), Err(SignallingError::NoCommonStream));
}

#[test]
fn an_answer_that_shares_no_stream_with_the_call_is_an_error() {
    let (calling, call) =
        Calling::new(&secret(1), secret(2).public(), CHANNEL, CallId([7; 16]), Streams::Relayed).unwrap();
    let lying = called(&call).unwrap().reply(&secret(2), &Body::Answer(Streams::Direct(description(0)))).unwrap();
    assert_eq!(calling.on_answer(&lying).unwrap_err(), SignallingError::NoCommonStream);
}

fn any_signal() -> impl Strategy<Value = Signal> {
    let addr = || {
        (any::<[u8; 16]>(), any::<bool>(), any::<u16>()).prop_map(|(ip, v6, port)| match v6 {
            true => SocketAddr::from((ip, port)),
            false => SocketAddr::from(([ip[0], ip[1], ip[2], ip[3]], port)),
        })
    };
    let turn = (any::<u8>(), addr(), addr(), any::<u8>()).prop_map(|(round, sender, receiver, ttl)| OpenTurn {
        round,
        sender,
        receiver,
        ttl,
    });
    let candidate = (addr(), any::<u16>())
        .prop_map(|(addr, other)| Candidate::new(CandidateKind::PortMapped, TcpType::Passive, addr, other));
    prop_oneof![
        turn.clone().prop_map(Signal::Opened),
        (turn, 0..10_000_u64).prop_map(|(turn, ms)| Signal::Cross { turn, after: Duration::from_millis(ms) }),
        (prop::collection::vec(candidate, 0..30), any::<bool>())
            .prop_map(|(candidates, complete)| Signal::Candidates { candidates, complete }),
    ]
}

proptest! {
    #[test]
    fn every_signal_arrives_as_it_was_sent(signal in any_signal()) {
        let (mut caller, mut callee) = answered();
        let message = callee.send(Stream::Direct, signal.clone()).unwrap();
        prop_assert!(message.len() <= MAX_MESSAGE_LEN);
        prop_assert_eq!(caller.receive(&message), Ok(Received::Signal(Stream::Direct, signal.clone())));
        prop_assert_eq!(callee.receive(&caller.send(Stream::Direct, signal.clone()).unwrap()), Ok(Received::Signal(Stream::Direct, signal)));
    }

    #[test]
    fn decoding_any_body_never_panics_and_is_the_inverse_of_encoding(
        kind in 0_u8..8,
        rest in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(32), any::<u8>()], 0..160),
    ) {
        let bytes = [&[kind, 0, 0, 0], &rest[..]].concat();
        if let Ok(body) = Body::decode(&bytes) {
            prop_assert_eq!(codec::encode(&body), bytes);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        let node = secret(2).public();
        prop_assert!(called(&bytes).is_err());
        prop_assert!(called(&[&[7; 16], &secret(1).public().as_bytes()[..], node.as_bytes(), &bytes].concat()).is_err());
        prop_assert!(calling().0.on_answer(&bytes).is_err());
        prop_assert!(answered().0.receive(&bytes).is_err());
    }
}
