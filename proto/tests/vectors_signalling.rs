//! The vectors of `docs/vectors/signalling.json`: the messages of a call, as an independent program made them.

use std::{fmt::Debug, time::Duration};

use keyferry_proto::{
    candidate::{Candidate, CandidateKind, TcpType},
    ice::{Description, Mapping, OpenTurn, Signal, Stream},
    identity::NodeSecret,
    signalling::{Answered, CallId, Called, Calling, Channel, Conversation, Received, Refusal, Streams},
};
use serde_json::Value;

struct Vectors {
    all: Value,
    caller: NodeSecret,
    callee: NodeSecret,
    id: CallId,
    channel: Channel,
}

fn vectors() -> Vectors {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/vectors/signalling.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).expect(path)).expect(path);
    Vectors {
        caller: NodeSecret::from_bytes(&array(&all, "caller_secret")),
        callee: NodeSecret::from_bytes(&array(&all, "callee_secret")),
        id: CallId(array(&all, "id")),
        channel: Channel { caller: array(&all, "caller_rendezvous"), callee: array(&all, "callee_rendezvous") },
        all,
    }
}

/// The cases under a path of keys, of which there must be some.
fn cases<'a>(vectors: &'a Vectors, path: &str) -> &'a [Value] {
    let list = vectors.all.pointer(path).and_then(Value::as_array).expect(path);
    assert!(!list.is_empty(), "{path}");
    list
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_else(|| panic!("{field} in {case}"))
}

fn number(case: &Value, field: &str) -> u64 {
    case[field].as_u64().unwrap_or_else(|| panic!("{field} in {case}"))
}

fn flag(case: &Value, field: &str) -> bool {
    case[field].as_bool().unwrap_or_else(|| panic!("{field} in {case}"))
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    let digits = text(case, field);
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

fn array<const LEN: usize>(case: &Value, field: &str) -> [u8; LEN] {
    bytes(case, field).try_into().unwrap_or_else(|_| panic!("{field} of {LEN} bytes in {case}"))
}

fn candidates(case: &Value) -> Vec<Candidate> {
    let list = case["candidates"].as_array().expect("candidates");
    list.iter()
        .map(|it| Candidate {
            kind: match text(it, "kind") {
                "host" => CandidateKind::Host,
                "server_reflexive" => CandidateKind::ServerReflexive,
                "port_mapped" => CandidateKind::PortMapped,
                _ => CandidateKind::Relayed,
            },
            tcp_type: match text(it, "tcp_type") {
                "active" => TcpType::Active,
                "passive" => TcpType::Passive,
                _ => TcpType::SimultaneousOpen,
            },
            addr: text(it, "addr").parse().expect("an address"),
            priority: u32::try_from(number(it, "priority")).expect("a priority"),
        })
        .collect()
}

fn description(case: &Value) -> Description {
    let it = &case["description"];
    Description {
        ufrag: text(it, "ufrag").to_owned(),
        password: text(it, "password").to_owned(),
        candidates: candidates(it),
        complete: flag(it, "complete"),
        mapping: match text(it, "mapping") {
            "unknown" => Mapping::Unknown,
            "endpoint_independent" => Mapping::EndpointIndependent,
            _ => Mapping::EndpointDependent,
        },
        opening: flag(it, "opening"),
    }
}

fn streams(case: &Value) -> Streams {
    match text(case, "streams") {
        "direct" => Streams::Direct(description(case)),
        "direct_and_relayed" => Streams::DirectAndRelayed(description(case)),
        _ => Streams::Relayed,
    }
}

fn stream(case: &Value) -> Stream {
    if text(case, "stream") == "direct" { Stream::Direct } else { Stream::Relayed }
}

fn signal(case: &Value) -> Signal {
    let turn = || OpenTurn {
        round: number(case, "round") as u8,
        sender: text(case, "sender").parse().expect("an address"),
        receiver: text(case, "receiver").parse().expect("an address"),
        ttl: number(case, "ttl") as u8,
    };
    match text(case, "signal") {
        "candidates" => Signal::Candidates { candidates: candidates(case), complete: flag(case, "complete") },
        "opened" => Signal::Opened(turn()),
        "exhausted" => Signal::Exhausted,
        _ => {
            let after = Duration::new(number(case, "after_s"), number(case, "after_ns") as u32);
            Signal::Cross { turn: turn(), after }
        }
    }
}

/// Asserts that a result is the error whose `Debug` form begins as the case says.
#[track_caller]
fn assert_refused<T: Debug, E: Debug>(result: Result<T, E>, case: &Value) {
    let expected = text(case, "error");
    match result {
        Ok(value) => panic!("{}: accepted as {value:?}", case["why"]),
        Err(error) => {
            let got = format!("{error:?}");
            assert!(got.starts_with(expected), "{}: expected {expected}, got {got}", case["why"]);
        }
    }
}

impl Vectors {
    fn call(&self, local: Streams) -> (Calling, Vec<u8>) {
        Calling::new(&self.caller, self.callee.public(), self.channel, self.id, local).expect("a call")
    }

    fn called(&self, message: &[u8]) -> Result<Called, keyferry_proto::signalling::SignallingError> {
        Called::verify(message, &self.callee.public(), self.channel)
    }

    /// The two sides of the call that the signals belong to.
    fn answered(&self) -> (Conversation, Conversation) {
        self.answered_with(streams(&self.all["answers"]["accepted"]))
    }

    fn answered_with(&self, answer: Streams) -> (Conversation, Conversation) {
        let (calling, call) = self.call(streams(&cases(self, "/calls/valid")[0]));
        let (_, callee, answer) = self.called(&call).expect("a call").accept(&self.callee, answer).expect("an answer");
        let Ok(Answered::Accepted(accepted)) = calling.on_answer(&answer) else { panic!("not accepted") };
        (accepted.1, callee)
    }
}

#[test]
fn calls_are_made_and_read_as_the_vectors_have_them() {
    let vectors = vectors();
    for case in cases(&vectors, "/calls/valid") {
        let message = bytes(case, "message");
        assert_eq!(vectors.call(streams(case)).1, message, "{}", case["why"]);
        let called = vectors.called(&message).expect("a valid call");
        assert_eq!((called.caller(), called.id()), (vectors.caller.public(), vectors.id));
        assert_eq!(*called.remote(), streams(case));
    }
}

#[test]
fn corrupted_calls_are_refused_for_the_stated_reason() {
    let vectors = vectors();
    for case in cases(&vectors, "/calls/invalid") {
        assert_refused(vectors.called(&bytes(case, "message")), case);
    }
}

#[test]
fn answers_are_made_and_read_as_the_vectors_have_them() {
    let vectors = vectors();
    let (calling, call) = vectors.call(streams(&cases(&vectors, "/calls/valid")[0]));
    let case = &vectors.all["answers"]["accepted"];
    let message = bytes(case, "message");
    let called = vectors.called(&call).expect("a call");
    assert_eq!(called.accept(&vectors.callee, streams(case)).expect("an answer").2, message);
    let Ok(Answered::Accepted(accepted)) = calling.on_answer(&message) else { panic!("not accepted") };
    assert_eq!(accepted.0, streams(case));

    for case in cases(&vectors, "/answers/refused") {
        let refusal = match text(case, "why") {
            "policy" => Refusal::Policy,
            "busy" => Refusal::Busy,
            _ => Refusal::NoCommonStream,
        };
        let message = vectors.called(&call).expect("a call").refuse(&vectors.callee, refusal).expect("a refusal");
        assert_eq!(message, bytes(case, "message"));
        let answered = vectors.call(streams(&cases(&vectors, "/calls/valid")[0])).0.on_answer(&message);
        assert!(matches!(answered, Ok(Answered::Refused(got)) if got == refusal));
    }
}

#[test]
fn corrupted_answers_are_refused_for_the_stated_reason() {
    let vectors = vectors();
    for case in cases(&vectors, "/answers/invalid") {
        let (calling, _) = vectors.call(streams(&cases(&vectors, "/calls/valid")[0]));
        assert_refused(calling.on_answer(&bytes(case, "message")), case);
    }
}

#[test]
fn signals_of_both_sides_are_made_and_read_as_the_vectors_have_them() {
    let vectors = vectors();
    let (mut caller, mut callee) = vectors.answered();
    let heard = bytes(&vectors.all["signals"]["from_caller"], "heard");
    assert_eq!(caller.heard().expect("an acknowledgement"), heard);
    assert_eq!(callee.receive(&heard), Ok(Received::Heard));
    says_all(&mut caller, &mut callee, &vectors, "from_caller");
    says_all(&mut callee, &mut caller, &vectors, "from_callee");
}

fn says_all(speaker: &mut Conversation, hearer: &mut Conversation, vectors: &Vectors, side: &str) {
    let case = &vectors.all["signals"][side]["describe"];
    let message = bytes(case, "message");
    assert_eq!(speaker.describe(description(case)).expect("a description"), message);
    assert_eq!(hearer.receive(&message), Ok(Received::Described(Box::new(description(case)))));
    for case in cases(vectors, &format!("/signals/{side}/signals")) {
        assert_eq!(speaker.send(stream(case), signal(case)).expect("a signal"), bytes(case, "message"));
        assert_eq!(hearer.receive(&bytes(case, "message")), Ok(Received::Signal(stream(case), signal(case))));
    }
    for case in cases(vectors, &format!("/signals/{side}/left")) {
        assert_eq!(speaker.leave(stream(case)).expect("an end"), bytes(case, "message"));
        assert_eq!(hearer.receive(&bytes(case, "message")), Ok(Received::Left(stream(case))));
    }
}

#[test]
fn corrupted_signals_are_refused_for_the_stated_reason() {
    let vectors = vectors();
    for case in cases(&vectors, "/signals/invalid_after_heard") {
        let (_, mut callee) = vectors.answered();
        callee.receive(&bytes(&vectors.all["signals"]["from_caller"], "heard")).expect("the acknowledgement");
        assert_refused(callee.receive(&bytes(case, "message")), case);
    }
    for case in cases(&vectors, "/signals/invalid_without_relayed") {
        let Streams::DirectAndRelayed(direct) = streams(&vectors.all["answers"]["accepted"]) else { panic!("both") };
        let (_, mut callee) = vectors.answered_with(Streams::Direct(direct));
        callee.receive(&bytes(&vectors.all["signals"]["from_caller"], "heard")).expect("the acknowledgement");
        assert_refused(callee.receive(&bytes(case, "message")), case);
    }
}
