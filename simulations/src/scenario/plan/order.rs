//! The order of steps: which comes after which, and what that makes impossible.

use std::time::Duration;

use super::{
    commands::{By, Need},
    nodes::Nodes,
    processes::{Processes, Starter},
    steps::Draft,
    words::Words,
};
use crate::scenario::{
    file::problem::{Problems, quoted},
    model::{Action, NodeId, ProcessId},
};

/// Steps by their places in the file, in an order in which each comes after those that it waits for.
#[derive(Debug)]
pub(crate) struct Order {
    /// The places, sorted.
    pub(crate) sorted: Vec<usize>,
    /// For each place, which others are always over before.
    before: Vec<Vec<bool>>,
}

impl Order {
    /// None if steps wait for each other, which is told.
    pub(crate) fn of(drafts: &[Draft], problems: &Problems) -> Option<Self> {
        let mut before = vec![vec![false; drafts.len()]; drafts.len()];
        let mut sorted: Vec<usize> = Vec::new();
        let mut left: Vec<usize> = (0..drafts.len()).collect();
        while let Some(at) = left.iter().position(|step| drafts[*step].after.iter().all(|other| sorted.contains(other)))
        {
            let step = left.remove(at);
            for other in &drafts[step].after {
                let reached: Vec<bool> = before[*other].clone();
                for (known, new) in before[step].iter_mut().zip(reached) {
                    *known |= new;
                }
                before[step][*other] = true;
            }
            sorted.push(step);
        }
        if let Some(first) = left.first() {
            tell_circle(*first, drafts, &left, problems);
            return None;
        }
        Some(Self { sorted, before })
    }

    /// Whether one step is always over when another begins.
    pub(crate) fn is_before(&self, one: usize, other: usize) -> bool {
        self.before[other][one]
    }

    /// The place in the sorted order.
    pub(crate) fn position(&self, step: usize) -> usize {
        self.sorted.iter().position(|other| *other == step).unwrap_or_default()
    }

    /// The earliest time at which the last step can be over: pauses and times, as if nothing else took any.
    pub(crate) fn lasts_at_least(&self, drafts: &[Draft]) -> Duration {
        let mut over = vec![Duration::ZERO; drafts.len()];
        for step in &self.sorted {
            let draft = &drafts[*step];
            let after = draft.after.iter().map(|other| over[*other]).max().unwrap_or_default();
            over[*step] = (after + draft.pause).max(draft.not_before);
        }
        over.into_iter().max().unwrap_or_default()
    }
}

/// Steps that are left each wait for another that is.
fn tell_circle(first: usize, drafts: &[Draft], left: &[usize], problems: &Problems) {
    let mut way = vec![first];
    let mut step = first;
    while let Some(next) = drafts[step].after.iter().copied().find(|other| left.contains(other)) {
        if let Some(begin) = way.iter().position(|other| *other == next) {
            way.drain(..begin);
            break;
        }
        way.push(next);
        step = next;
    }
    let names: Vec<String> = way.iter().chain(way.first()).map(|step| quoted(&drafts[*step].name)).collect();
    let advice = "take one `after` out; a step without one comes after the step before it in the file";
    let what = format!("steps wait for each other: {}", names.join(" after "));
    problems.add(drafts[way[0]].at, what, advice);
}

/// Tells of steps that come too early, or too late, for what they do.
pub(crate) fn check(order: &Order, drafts: &[Draft], words: &Words<'_>, needs: &[Need], problems: &Problems) {
    for need in needs {
        check_need(need, order, drafts, problems);
    }
    for (step, draft) in drafts.iter().enumerate() {
        match &draft.action {
            Some(Action::WaitFor { processes, .. }) => {
                for process in processes {
                    check_wait(step, *process, order, drafts, words, problems);
                }
            }
            Some(Action::Kill { processes, .. }) => {
                for process in processes {
                    check_wait(step, *process, order, drafts, words, problems);
                    check_kill(step, *process, order, drafts, words, problems);
                }
            }
            Some(Action::Start { nodes }) => {
                for node in nodes {
                    check_start(step, *node, order, drafts, words, problems);
                }
            }
            _ => {}
        }
    }
}

fn check_start(step: usize, node: NodeId, order: &Order, drafts: &[Draft], words: &Words<'_>, problems: &Problems) {
    let Some(main) = words.nodes.get(node).main else { return };
    let ends = |other: usize| match &drafts[other].action {
        Some(Action::Kill { processes, .. }) => processes.contains(&main),
        Some(Action::Stop { nodes }) => nodes.contains(&node),
        _ => false,
    };
    let ended = (0..drafts.len()).any(|other| order.is_before(other, step) && ends(other));
    if !ended && words.processes.goes_on(main, words.nodes) {
        let what = format!("{} runs already", quoted(&words.nodes(&[node])));
        problems.add(drafts[step].at, what, "stop or kill it in a step before");
    }
}

fn check_need(need: &Need, order: &Order, drafts: &[Draft], problems: &Problems) {
    let named = quoted(&format!("{{{}}}", need.name));
    let captures = |draft: &Draft| match &draft.action {
        Some(Action::WaitFor { captures, .. }) => captures.iter().any(|capture| capture.name == need.name),
        _ => false,
    };
    let Some(capturing) = drafts.iter().position(captures) else { return };
    match need.by {
        By::Node => {
            let advice = "run the command in a step after the one that captures it";
            problems.add(need.at, format!("{named} is not known yet when the node starts"), advice);
        }
        By::Step(step) if !order.is_before(capturing, step) => {
            let advice = format!("write after = \"{}\", or move the step down", drafts[capturing].name);
            problems.add(need.at, format!("{named} may not be known yet when this step begins"), advice);
        }
        By::Step(_) | By::Expectation => {}
    }
}

fn check_wait(
    step: usize,
    process: ProcessId,
    order: &Order,
    drafts: &[Draft],
    words: &Words<'_>,
    problems: &Problems,
) {
    let Starter::Step { at, .. } = words.processes.starter(process) else { return };
    if order.is_before(step, at) {
        let name = quoted(&words.processes(&[process]));
        let what = format!("{name} is started by {}, after this step", quoted(&drafts[at].name));
        problems.add(drafts[step].at, what, format!("write after = \"{}\", or move the step down", drafts[at].name));
    }
}

fn check_kill(
    step: usize,
    process: ProcessId,
    order: &Order,
    drafts: &[Draft],
    words: &Words<'_>,
    problems: &Problems,
) {
    if let Starter::Step { at, waits: true } = words.processes.starter(process)
        && order.is_before(at, step)
    {
        let what = format!("{} has ended before this step begins", quoted(&words.processes(&[process])));
        problems.add(
            drafts[step].at,
            what,
            "write wait = false where it runs, or let both steps come after another one",
        );
    }
}

/// Tells of commands that are waited for, and end only when they are stopped.
pub(crate) fn check_runs(drafts: &[Draft], processes: &Processes, nodes: &Nodes, problems: &Problems) {
    for draft in drafts {
        let Some(Action::Run { processes: run, wait: Some(_) }) = &draft.action else { continue };
        // A step beside it may end it.
        let killed = |process: &ProcessId| {
            drafts.iter().any(
                |other| matches!(&other.action, Some(Action::Kill { processes, .. }) if processes.contains(process)),
            )
        };
        if let Some(process) = run.iter().find(|process| processes.goes_on(**process, nodes) && !killed(process)) {
            let what = format!("{} never ends by itself", quoted(&processes.get(*process).name));
            problems.add(draft.at, what, "write wait = false, and wait for its event `shared` in the next step");
        }
    }
}
