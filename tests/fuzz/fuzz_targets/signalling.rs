//! Messages of a call: no bytes make a reader panic, and what a node that lies signs is within the limits once it was
//! taken.

#![no_main]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use keyferry_ice::{Candidate, Description, MAX_SIGNALLED_CANDIDATES, Mapping, OpenTurn, Signal, Stream};
use keyferry_proto::{
    identity::NodeSecret,
    signalling::{
        Answered, CallChannel, CallId, Called, Calling, Conversation, MAX_CROSSING_DELAY, MAX_SIGNALS, Received,
        Streams,
    },
};
use libfuzzer_sys::fuzz_target;

const CHANNEL: CallChannel = CallChannel { caller: [1; 32], callee: [2; 32] };
const DOMAIN: &[u8] = b"keyferry call v1\0";
const ID: CallId = CallId([3; 16]);

/// What the fuzzer makes of honest bodies: which one, and bytes of it that become others.
type Edited = (u8, Vec<(u16, u8)>);

fuzz_target!(|input: (Vec<Vec<u8>>, Vec<(u16, u8)>, Vec<Edited>)| {
    let (raw, first, later) = input;
    let (caller, callee) = (NodeSecret::from_bytes(&[5; 32]), NodeSecret::from_bytes(&[6; 32]));
    for bytes in &raw {
        drop(Called::verify(bytes, &callee.public(), CHANNEL));
    }
    let [call, answer] = first_bodies(&caller, &callee);
    let signals = signals(&caller, &callee);
    let later: Vec<Vec<u8>> = later
        .iter()
        .map(|(which, edits)| edited(&signals[usize::from(*which) % signals.len()], edits))
        .chain(raw.iter().cloned())
        .collect();
    lying_caller(&caller, &callee, &edited(&call, &first), &later);
    lying_callee(&caller, &callee, &edited(&answer, &first), &later);
    if let Some(first) = raw.first() {
        lying_caller(&caller, &callee, first, &later);
        lying_callee(&caller, &callee, first, &later);
    }
});

fn edited(body: &[u8], edits: &[(u16, u8)]) -> Vec<u8> {
    let mut body = body.to_vec();
    for (at, byte) in edits {
        let at = usize::from(*at) % body.len();
        body[at] = *byte;
    }
    body
}

/// A call and an answer as honest nodes send them, without what is around the body.
fn first_bodies(caller: &NodeSecret, callee: &NodeSecret) -> [Vec<u8>; 2] {
    let (_, call) = Calling::new(caller, callee.public(), CHANNEL, ID, both()).expect("within the limits");
    let called = Called::verify(&call, &callee.public(), CHANNEL).expect("an honest call");
    let (_, _, answer) = called.accept(callee, both()).expect("within the limits");
    [call[ID.0.len() + 2 * 32..call.len() - 64].to_vec(), answer[..answer.len() - 64].to_vec()]
}

/// One body of each kind that may follow.
fn signals(caller: &NodeSecret, callee: &NodeSecret) -> Vec<Vec<u8>> {
    let (calling, call) = Calling::new(caller, callee.public(), CHANNEL, ID, both()).expect("within the limits");
    let called = Called::verify(&call, &callee.public(), CHANNEL).expect("an honest call");
    let (_, _, answer) = called.accept(callee, both()).expect("within the limits");
    let Ok(Answered::Accepted(accepted)) = calling.on_answer(&answer) else { unreachable!("an honest answer") };
    let (_, mut conversation) = *accepted;
    let turn = OpenTurn { round: 1, sender: candidate().addr, receiver: candidate().addr, ttl: 2 };
    let signals = [
        Signal::Candidates { candidates: vec![candidate()], complete: true },
        Signal::Opened(turn),
        Signal::Cross { turn, after: Duration::from_millis(20) },
        Signal::Exhausted,
    ];
    let mut messages = vec![conversation.heard().expect("the first message")];
    messages.extend(signals.map(|signal| conversation.send(Stream::Direct, signal).expect("within the limits")));
    messages.push(conversation.describe(description()).expect("within the limits"));
    messages.push(conversation.send(Stream::Relayed, Signal::Exhausted).expect("within the limits"));
    messages.extend([Stream::Direct, Stream::Relayed].map(|stream| conversation.leave(stream).expect("not left yet")));
    messages.iter().map(|message| message[..message.len() - 64].to_vec()).collect()
}

fn lying_caller(caller: &NodeSecret, callee: &NodeSecret, first: &[u8], later: &[Vec<u8>]) {
    let sealed = seal(caller, [caller, callee], 0, 0, first);
    let message = [&ID.0[..], caller.public().as_bytes(), callee.public().as_bytes(), &sealed].concat();
    let Ok(called) = Called::verify(&message, &callee.public(), CHANNEL) else { return };
    assert_eq!(called.caller(), caller.public());
    called.remote().direct().map(check);
    let (_, conversation, _) = called.accept(callee, both()).expect("what we say is within the limits");
    listen(conversation, later, |number, body| seal(caller, [caller, callee], 0, number, body));
}

fn lying_callee(caller: &NodeSecret, callee: &NodeSecret, first: &[u8], later: &[Vec<u8>]) {
    let call = || Calling::new(caller, callee.public(), CHANNEL, ID, both()).expect("within the limits").0;
    drop(call().on_answer(first));
    if let Ok(Answered::Accepted(accepted)) = call().on_answer(&seal(callee, [caller, callee], 1, 0, first)) {
        let (remote, conversation) = *accepted;
        remote.direct().map(check);
        listen(conversation, later, |number, body| seal(callee, [caller, callee], 1, number, body));
    }
}

fn listen(mut conversation: Conversation, later: &[Vec<u8>], seal: impl Fn(u32, &[u8]) -> Vec<u8>) {
    let mut named = BTreeMap::from([(Stream::Direct, 0), (Stream::Relayed, 0)]);
    let (mut signals, mut described, mut left) = (0, false, BTreeSet::new());
    for (number, body) in (1..).zip(later) {
        match conversation.receive(&seal(number, body)) {
            Ok(Received::Heard) => assert_eq!(number, 1, "said once, first"),
            Ok(Received::Described(description)) => {
                assert!(!std::mem::replace(&mut described, true), "said once");
                check(&description);
                named.insert(Stream::Relayed, description.candidates.len());
            }
            Ok(Received::Signal(stream, signal)) => {
                assert!(conversation.is_about(stream) && !left.contains(&stream), "{stream:?}");
                assert!(stream == Stream::Direct || described, "nothing before the description");
                signals += 1;
                match signal {
                    Signal::Candidates { candidates, .. } => {
                        *named.entry(stream).or_default() += candidates.len();
                    }
                    Signal::Cross { after, .. } => assert!(after <= MAX_CROSSING_DELAY),
                    Signal::Opened(_) | Signal::Exhausted => {}
                }
            }
            Ok(Received::Left(stream)) => {
                assert!(conversation.is_about(stream) && left.insert(stream), "said once of each stream");
            }
            Err(_) => return,
        }
        assert!(signals <= MAX_SIGNALS && named.values().all(|count| *count <= MAX_SIGNALLED_CANDIDATES));
    }
}

fn check(remote: &Description) {
    assert!(remote.candidates.len() <= MAX_SIGNALLED_CANDIDATES);
    assert!((4..=32).contains(&remote.ufrag.len()) && (22..=64).contains(&remote.password.len()));
}

/// `body | signature`, as `keyferry_proto::signalling` says.
fn seal(sender: &NodeSecret, [caller, callee]: [&NodeSecret; 2], direction: u8, number: u32, body: &[u8]) -> Vec<u8> {
    let (caller, callee) = (caller.public(), callee.public());
    let signed = [
        DOMAIN,
        &ID.0,
        caller.as_bytes(),
        callee.as_bytes(),
        &CHANNEL.caller,
        &CHANNEL.callee,
        &[direction],
        &number.to_le_bytes(),
        body,
    ];
    [body, &sender.sign(&signed.concat())].concat()
}

fn both() -> Streams {
    Streams::DirectAndRelayed(description())
}

fn description() -> Description {
    Description {
        ufrag: "ufrag".to_owned(),
        password: "0123456789012345678901".to_owned(),
        candidates: vec![candidate()],
        complete: true,
        mapping: Mapping::Unknown,
        opening: true,
    }
}

fn candidate() -> Candidate {
    Candidate::host_passive(([192, 0, 2, 1], 4600).into(), 1)
}
