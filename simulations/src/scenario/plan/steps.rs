//! Steps: what is done, when, and what it waits for.

use std::time::Duration;

use super::{actions::Actions, limits::Limits, names::Names};
use crate::scenario::{
    file::{form::Fields, keys, problem::Problems, source::At, tree::Table},
    model::Action,
};

/// How many steps there are at most.
pub(crate) const MAX_STEPS: usize = 256;

/// What a step can do; it does one of them, or only lets time pass.
const ACTIONS: [&str; 11] =
    ["run", "kill", "stop", "start", "cut", "heal", "replug", "restart-router", "set", "fill-disk", "wait-for"];

/// A step by its place in the file; those that it comes after are, too.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) at: At,
    pub(crate) words: String,
    pub(crate) after: Vec<usize>,
    pub(crate) pause: Duration,
    /// Not before this time.
    pub(crate) not_before: Duration,
    /// None where it could not be read.
    pub(crate) action: Option<Action>,
}

/// The names of steps, known before any step is read.
#[derive(Debug)]
pub(crate) struct StepNames {
    pub(crate) names: Names<usize>,
    of_steps: Vec<String>,
}

impl StepNames {
    pub(crate) fn read(tables: &[&Table], problems: &Problems) -> Self {
        let mut found = Self { names: Names::of("a step"), of_steps: Vec::new() };
        for (number, table) in tables.iter().enumerate() {
            let fields = Fields::of(table, &keys::STEP, problems);
            let name = fields.text("name");
            if let Some(name) = name {
                super::names::check(name, fields.at_of("name"), problems);
                found.names.add(name, vec![number], fields.at_of("name"), problems);
            }
            found.of_steps.push(name.map_or_else(|| format!("step {}", number + 1), str::to_owned));
        }
        found
    }
}

/// Reads all steps, in the order of the file.
pub(crate) fn read(tables: &[&Table], names: &StepNames, limits: &Limits, actions: &mut Actions<'_>) -> Vec<Draft> {
    let all: Vec<Fields<'_>> = tables.iter().map(|table| Fields::of(table, &keys::STEP, actions.problems())).collect();
    // What runs is known before others name it: a step may wait for what one beside it starts.
    let mut found: Vec<Option<Action>> = all.iter().map(|_| None).collect();
    for run in [true, false] {
        for (number, fields) in all.iter().enumerate().filter(|(_, fields)| fields.has("run") == run) {
            found[number] = action(fields, number, limits, actions);
        }
        actions.name_groups();
    }
    let drafts = all.iter().zip(found).enumerate();
    let drafts = drafts.map(|(number, (fields, action))| Draft {
        name: names.of_steps[number].clone(),
        at: fields.at(),
        words: action.as_ref().map_or_else(String::new, |action| actions.words(action)),
        after: after(fields, number, &names.names),
        pause: fields.duration("pause", limits.any()).unwrap_or_default(),
        not_before: fields.duration("at", limits.any()).unwrap_or_default(),
        action,
    });
    drafts.collect()
}

fn after(fields: &Fields<'_>, number: usize, names: &Names<usize>) -> Vec<usize> {
    match fields.texts("after") {
        Some(wanted) => names.find_all(&wanted, fields.problems()),
        None => number.checked_sub(1).into_iter().collect(),
    }
}

fn action(fields: &Fields<'_>, number: usize, limits: &Limits, actions: &mut Actions<'_>) -> Option<Action> {
    let said: Vec<&str> = ACTIONS.into_iter().filter(|key| fields.has(key)).collect();
    let problems = fields.problems();
    match said.as_slice() {
        [] if fields.has("pause") || fields.has("at") => Some(Action::Pause),
        [] => {
            problems.add(
                fields.at(),
                "this step does nothing",
                "write what: run, kill, wait-for, …, or pause = \"3s\"",
            );
            None
        }
        [one] => actions.read(one, fields, number, limits),
        [first, second, ..] => {
            let what = format!("this step does two things: `{first}` and `{second}`");
            problems.add(fields.at_of(second), what, "make two steps of it");
            None
        }
    }
}
