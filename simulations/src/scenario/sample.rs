//! A small result for tests.

use super::outcome::{Expectation, FORMAT, Figure, Line, Node, Outcome, Process, ProcessRun, Site, Step, Verdict};

pub(crate) fn outcome() -> Outcome {
    let site = |name: &str| Site {
        name: name.to_owned(),
        preset: "home".to_owned(),
        words: "a home router".to_owned(),
        routers: 1,
        addresses: vec!["192.0.2.1".to_owned()],
    };
    let node =
        |name: &str| Node { name: name.to_owned(), site: name.to_owned(), addresses: vec!["10.0.0.2".to_owned()] };
    let run = ProcessRun {
        began_s: 0.5,
        ended_s: Some(9.5),
        code: Some(0),
        signal: None,
        peak_resident_bytes: 40 << 20,
        cpu_seconds: 1.25,
    };
    let step = Step {
        name: "fetch".to_owned(),
        words: "run get on getter".to_owned(),
        place: "two-homes.toml:20".to_owned(),
        began_s: Some(0.5),
        ended_s: Some(9.5),
        error: None,
    };
    let expectation = Expectation {
        words: "getter.get ends with 0".to_owned(),
        place: "two-homes.toml:30".to_owned(),
        held: Some(true),
        seen: "0".to_owned(),
    };
    Outcome {
        format: FORMAT,
        scenario: "two-homes".to_owned(),
        question: "Do two homes reach each other?".to_owned(),
        values: [("rtt".to_owned(), "40 ms".to_owned())].into(),
        seed: 7,
        engine: "namespaces".to_owned(),
        began: "2026-11-27T12:00:00Z".to_owned(),
        took_seconds: 10.0,
        verdict: Verdict::Held,
        summary: "all 1 expectations held".to_owned(),
        sites: vec![site("sharer"), site("getter")],
        links: Vec::new(),
        nodes: vec![node("sharer"), node("getter")],
        processes: vec![Process {
            name: "getter.get".to_owned(),
            node: "getter".to_owned(),
            command: "keyferry get".to_owned(),
            runs: vec![run],
        }],
        steps: vec![step],
        expectations: vec![expectation],
        lines: vec![Line { site: "getter".to_owned(), samples: vec![(0.0, 0, 0), (1.0, 1_000, 9_000)] }],
        figures: vec![Figure { name: "first byte".to_owned(), value: 0.8, unit: "s".to_owned() }],
    }
}
