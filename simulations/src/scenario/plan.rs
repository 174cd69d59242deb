//! From the text of a file to what can be run: names become what they stand for, counts are spelled out, and what cannot be is told.
//!
//! What it is not: how TOML is read (`file`).

mod actions;
pub(super) mod commands;
mod contents;
pub(super) mod events;
pub(super) mod expectations;
mod layers;
mod limits;
mod links;
mod names;
mod nodes;
mod order;
mod processes;
mod sites;
mod steps;
mod words;

use std::{cell::RefCell, collections::BTreeSet, ops::RangeInclusive, time::Duration};

use self::{
    actions::Actions,
    commands::{Need, Places},
    contents::MAX_CONTENTS,
    expectations::{Expecting, MAX_EXPECTATIONS},
    layers::layered,
    limits::Limits,
    links::MAX_LINKS,
    nodes::{MAX_NODES, Nodes},
    order::Order,
    processes::Processes,
    sites::MAX_SITES,
    steps::{Draft, MAX_STEPS, StepNames},
    words::Words,
};
use super::{
    file::{
        form::{Fields, tables},
        keys,
        problem::{Problems, quoted},
        source::Sources,
        tree::{Kind, Table},
        values::Choice,
    },
    model::{Action, Expectation, Program, Rendezvous, Scenario, SiteId, Step, StepId},
};

/// How long all steps may take together, unless a file says otherwise.
const DURATION: Duration = Duration::from_secs(120);
const DURATIONS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7_200);
const SEEDS: RangeInclusive<i64> = 0..=i64::MAX;
/// The public nodes, unless a file says otherwise, and at most.
const RENDEZVOUS: usize = 3;
const MAX_RENDEZVOUS: usize = 100;

/// The run that a file stands for with one choice of values. What is wrong is added to the problems; none if too much is.
pub(crate) fn plan(
    name: &str,
    file: &Table,
    choice: &Choice,
    sources: &Sources,
    problems: &Problems,
) -> Option<Scenario> {
    let top = Fields::of(file, &keys::TOP, problems);
    let question = top.required("question", "\"…?\"").and(top.text("question"));
    let limits = Limits { duration: top.duration("duration", DURATIONS).unwrap_or(DURATION) };
    let seed = top.integer("seed", SEEDS).unwrap_or(1) as u64;

    let sites = sites::read(&layered(file, "site", MAX_SITES, problems), problems);
    let node_tables = layered(file, "node", MAX_NODES, problems);
    let mut nodes = Nodes::read(&node_tables, &sites, problems);
    let (contents, content_names) = contents::read(&tables(file, "content", MAX_CONTENTS, problems), problems);
    let links = links::read(&tables(file, "link", MAX_LINKS, problems), &sites.names, problems);
    let resolved_links = links.resolved();
    let step_tables = tables(file, "step", MAX_STEPS, problems);
    let step_names = StepNames::read(&step_tables, problems);

    // The names of nodes, apart from the nodes: they are named while what runs on them is read.
    let node_names = nodes.names.clone();
    let places = Places {
        problems,
        sites: &sites.names,
        nodes: &node_names,
        contents: &content_names,
        captured: captured(&step_tables, problems),
        needs: RefCell::default(),
    };
    let mut processes = Processes::new();
    processes.read_mains(&node_tables, &mut nodes, &places, &sites);
    processes.name_groups(&nodes);
    let mut actions = Actions {
        places: &places,
        sites: &sites,
        nodes: &nodes,
        processes: &mut processes,
        links,
        properties: sites.list.iter().map(|site| site.properties.clone()).collect(),
    };
    let drafts = steps::read(&step_tables, &step_names, &limits, &mut actions);
    nodes.check_sites(&sites, &visited(&drafts), problems);
    let words = || Words { sites: &sites, nodes: &nodes, processes: &processes };
    let order = Order::of(&drafts, problems)?;
    let expecting = Expecting {
        places: &places,
        words: words(),
        steps: &step_names.names,
        drafts: &drafts,
        order: &order,
        limits: &limits,
    };
    let expectations = tables(file, "expect", MAX_EXPECTATIONS, problems).into_iter().filter_map(|table| {
        let (kind, words) = expecting.read(table)?;
        Some(Expectation { place: sources.place(table.at), words, kind })
    });
    let expectations: Vec<Expectation> = expectations.collect();
    let needs: Vec<Need> = places.needs.take();
    order::check(&order, &drafts, &words(), &needs, problems);
    order::check_runs(&drafts, &processes, &nodes, problems);
    let rendezvous = rendezvous(file, &processes, problems);
    check_whole(file, &drafts, &limits, &nodes, &order, problems);

    let steps = ordered(drafts, &order, sources);
    Some(Scenario {
        name: name.to_owned(),
        question: question?.to_owned(),
        values: choice.shown.clone(),
        seed,
        limit: limits.duration,
        rendezvous,
        sites: sites.list,
        links: resolved_links,
        contents,
        nodes: nodes.list,
        processes: processes.list,
        steps: steps?,
        expectations,
    })
}

/// All that steps capture, before they are read.
fn captured(steps: &[&Table], problems: &Problems) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for table in steps {
        let Some(Kind::Table(wait)) = table.get("wait-for").map(|value| &value.kind) else { continue };
        let Some(Kind::Table(capture)) = wait.get("capture").map(|value| &value.kind) else { continue };
        for (key, _) in &capture.entries {
            if names.contains(&key.name) {
                problems.add(key.at, format!("{} is captured twice", quoted(&key.name)), "take another name");
            } else if ["seed", "home"].contains(&key.name.as_str()) {
                problems.add(key.at, format!("{{{}}} has a meaning of its own", key.name), "take another name");
            } else {
                names.push(key.name.clone());
            }
        }
    }
    names
}

/// Sites that a host moves to.
fn visited(drafts: &[Draft]) -> Vec<SiteId> {
    let to = drafts.iter().filter_map(|draft| match draft.action {
        Some(Action::Replug { to, .. }) => to,
        _ => None,
    });
    to.collect()
}

fn rendezvous(file: &Table, processes: &Processes, problems: &Problems) -> Rendezvous {
    let has_keyferry = processes.list.iter().any(|process| process.command.program == Program::Keyferry);
    let usual = Rendezvous { nodes: if has_keyferry { RENDEZVOUS } else { 0 }, relaying: false };
    let Some(value) = file.get("rendezvous") else { return usual };
    let Some(fields) = Fields::of_value(value, &keys::RENDEZVOUS, problems) else { return usual };
    let nodes = fields.count("nodes", 0..=MAX_RENDEZVOUS).unwrap_or(usual.nodes);
    let relaying = fields.truth("relaying").unwrap_or_default();
    if relaying && nodes == 0 {
        problems.add(fields.at_of("relaying"), "there are no public nodes that could relay", "write nodes = 3");
    }
    Rendezvous { nodes, relaying }
}

fn check_whole(file: &Table, drafts: &[Draft], limits: &Limits, nodes: &Nodes, order: &Order, problems: &Problems) {
    for (key, such_as) in [("site", "[[site]]"), ("node", "[[node]]"), ("step", "[[step]]"), ("expect", "[[expect]]")] {
        if file.get(key).is_none() {
            problems.add(file.at, format!("there is no {such_as}"), "`keyferry-sim new FILE` writes an example");
        }
    }
    if order.lasts_at_least(drafts) > limits.duration {
        let advice = format!("write a longer `duration` than {:?}, or shorter pauses", limits.duration);
        problems.add(file.at, "the pauses of the steps last longer than all steps may", advice);
    }
    let known: BTreeSet<&str> = nodes.list.iter().map(|node| node.name.as_str()).collect();
    debug_assert!(known.len() == nodes.list.len() || !problems.is_empty(), "names of nodes are told apart");
}

fn ordered(drafts: Vec<Draft>, order: &Order, sources: &Sources) -> Option<Vec<Step>> {
    let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
    let steps = order.sorted.iter().map(|at| {
        let draft = drafts[*at].take()?;
        Some(Step {
            name: draft.name,
            place: sources.place(draft.at),
            words: draft.words,
            after: draft.after.iter().map(|other| StepId(order.position(*other))).collect(),
            pause: draft.pause,
            at: draft.not_before,
            action: draft.action?,
        })
    });
    steps.collect()
}
