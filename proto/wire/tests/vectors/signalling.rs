//! The vectors of `docs/vectors/signalling.json`: the messages of a call, as an independent program made them.

use std::time::Duration;

use keyferry_ice::{Candidate, CandidateKind, Description, Mapping, OpenTurn, Signal, Stream, TcpType};
use keyferry_proto::{
    identity::NodeSecret,
    signalling::{Answered, CallChannel, CallId, CallRefusal, Called, Calling, Conversation, Received, Streams},
};
use serde_json::Value;

use crate::cases::{self, array, assert_refused, bytes, cases, flag, number, text};

struct SignallingVectors {
    all: Value,
    caller: NodeSecret,
    callee: NodeSecret,
    id: CallId,
    channel: CallChannel,
}

fn vectors() -> SignallingVectors {
    let all = cases::vectors("signalling");
    SignallingVectors {
        caller: NodeSecret::from_bytes(&array(&all, "caller_secret")),
        callee: NodeSecret::from_bytes(&array(&all, "callee_secret")),
        id: CallId(array(&all, "id")),
        channel: CallChannel { caller: array(&all, "caller_rendezvous"), callee: array(&all, "callee_rendezvous") },
        all,
    }
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
            priority: u32::try_from(number(it, "priority")).expect("32 bits").try_into().expect("a priority"),
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

impl SignallingVectors {
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
        let (calling, call) = self.call(streams(&cases(&self.all, "/calls/valid")[0]));
        let (_, callee, answer) = self.called(&call).expect("a call").accept(&self.callee, answer).expect("an answer");
        let Ok(Answered::Accepted(accepted)) = calling.on_answer(&answer) else { panic!("not accepted") };
        (accepted.1, callee)
    }
}

#[test]
fn calls_are_made_and_read_as_the_vectors_have_them() {
    let vectors = vectors();
    for case in cases(&vectors.all, "/calls/valid") {
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
    for case in cases(&vectors.all, "/calls/invalid") {
        assert_refused(vectors.called(&bytes(case, "message")), case);
    }
}

#[test]
fn answers_are_made_and_read_as_the_vectors_have_them() {
    let vectors = vectors();
    let (calling, call) = vectors.call(streams(&cases(&vectors.all, "/calls/valid")[0]));
    let case = &vectors.all["answers"]["accepted"];
    let message = bytes(case, "message");
    let called = vectors.called(&call).expect("a call");
    assert_eq!(called.accept(&vectors.callee, streams(case)).expect("an answer").2, message);
    let Ok(Answered::Accepted(accepted)) = calling.on_answer(&message) else { panic!("not accepted") };
    assert_eq!(accepted.0, streams(case));

    for case in cases(&vectors.all, "/answers/refused") {
        let refusal = match text(case, "why") {
            "policy" => CallRefusal::Policy,
            "busy" => CallRefusal::Busy,
            _ => CallRefusal::NoCommonStream,
        };
        let message = vectors.called(&call).expect("a call").refuse(&vectors.callee, refusal).expect("a refusal");
        assert_eq!(message, bytes(case, "message"));
        let answered = vectors.call(streams(&cases(&vectors.all, "/calls/valid")[0])).0.on_answer(&message);
        assert!(matches!(answered, Ok(Answered::Refused(got)) if got == refusal));
    }
}

#[test]
fn corrupted_answers_are_refused_for_the_stated_reason() {
    let vectors = vectors();
    for case in cases(&vectors.all, "/answers/invalid") {
        let (calling, _) = vectors.call(streams(&cases(&vectors.all, "/calls/valid")[0]));
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

fn says_all(speaker: &mut Conversation, hearer: &mut Conversation, vectors: &SignallingVectors, side: &str) {
    let case = &vectors.all["signals"][side]["describe"];
    let message = bytes(case, "message");
    assert_eq!(speaker.describe(description(case)).expect("a description"), message);
    assert_eq!(hearer.receive(&message), Ok(Received::Described(Box::new(description(case)))));
    for case in cases(&vectors.all, &format!("/signals/{side}/signals")) {
        assert_eq!(speaker.send(stream(case), signal(case)).expect("a signal"), bytes(case, "message"));
        assert_eq!(hearer.receive(&bytes(case, "message")), Ok(Received::Signal(stream(case), signal(case))));
    }
    for case in cases(&vectors.all, &format!("/signals/{side}/left")) {
        assert_eq!(speaker.leave(stream(case)).expect("an end"), bytes(case, "message"));
        assert_eq!(hearer.receive(&bytes(case, "message")), Ok(Received::Left(stream(case))));
    }
}

#[test]
fn corrupted_signals_are_refused_for_the_stated_reason() {
    let vectors = vectors();
    for case in cases(&vectors.all, "/signals/invalid_after_heard") {
        let (_, mut callee) = vectors.answered();
        callee.receive(&bytes(&vectors.all["signals"]["from_caller"], "heard")).expect("the acknowledgement");
        assert_refused(callee.receive(&bytes(case, "message")), case);
    }
    for case in cases(&vectors.all, "/signals/invalid_without_relayed") {
        let Streams::DirectAndRelayed(direct) = streams(&vectors.all["answers"]["accepted"]) else { panic!("both") };
        let (_, mut callee) = vectors.answered_with(Streams::Direct(direct));
        callee.receive(&bytes(&vectors.all["signals"]["from_caller"], "heard")).expect("the acknowledgement");
        assert_refused(callee.receive(&bytes(case, "message")), case);
    }
}
