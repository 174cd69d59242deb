//! The scenarios that come with the program.

use clap::Parser as _;
use keyferry_cli::args::Cli;

use crate::scenario::{
    load::load,
    model::{Part, Program, Scenario, Template},
    plan::{commands::COMMANDS, events::EVENTS, expectations::STRATEGIES},
    shipped,
};

fn each(mut look: impl FnMut(&str, &Scenario)) {
    for shipped in shipped::scenarios() {
        let loaded = load(shipped.name).unwrap_or_else(|refused| panic!("{refused}"));
        assert!(!loaded.runs.is_empty());
        for run in &loaded.runs {
            look(shipped.name, run);
        }
    }
}

#[test]
fn all_hold_together_and_ask_a_question() {
    let mut runs = 0;
    each(|name, run| {
        runs += 1;
        assert!(run.question.ends_with('?'), "{name}: {}", run.question);
        assert!(!run.expectations.is_empty(), "{name}");
    });
    assert!(runs > 16);
}

#[test]
fn each_begins_with_what_it_shows() {
    for shipped in shipped::ALL {
        assert!(shipped.text.starts_with("# "), "{}", shipped.name);
        assert!(shipped.is_part || shipped.text.contains("\n# It shows "), "{}", shipped.name);
    }
}

#[test]
fn all_files_of_the_folder_are_in_the_program() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut known: Vec<&str> = shipped::ALL.iter().map(|shipped| shipped.name).collect();
    known.sort_unstable();
    assert_eq!(names, known);
}

#[test]
fn keyferry_understands_every_command() {
    each(|name, run| {
        for process in run.processes.iter().filter(|process| process.command.program == Program::Keyferry) {
            let words: Vec<String> = process.command.arguments.iter().map(filled).collect();
            let line = ["keyferry".to_owned()].into_iter().chain(words.clone());
            if let Err(error) = Cli::try_parse_from(line) {
                panic!("{name}: keyferry {}: {error}", words.join(" "));
            }
        }
    });
}

/// A command's word with something in each place.
fn filled(word: &Template) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        _ => "keyferry:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/film".to_owned(),
    };
    word.0.iter().map(part).collect()
}

#[test]
fn the_starter_holds_together() {
    let loaded = super::read(include_str!("../starter.toml")).unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(loaded.runs.len(), 1);
}

/// serde says all names that it knows when it does not know one.
fn known_to_serde<T: serde::de::DeserializeOwned>(nonsense: &str) -> Vec<String> {
    let error = serde_json::from_str::<T>(nonsense).map(drop).unwrap_err().to_string();
    let (_, known) = error.split_once("expected one of ").expect("a list of names");
    let mut known: Vec<String> = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    known.sort_unstable();
    known
}

#[test]
fn the_names_of_events_are_those_of_the_node() {
    let mut ours = EVENTS.to_vec();
    ours.sort_unstable();
    assert_eq!(known_to_serde::<keyferry::control::Event>("{\"event\":\"nonsense\"}"), ours);
}

#[test]
fn the_names_of_strategies_are_those_of_the_node() {
    let mut ours = STRATEGIES.to_vec();
    ours.sort_unstable();
    assert_eq!(known_to_serde::<keyferry::PathStrategy>("\"nonsense\""), ours);
}

#[test]
fn the_commands_of_keyferry_are_those_of_the_program() {
    use clap::CommandFactory as _;

    let command = Cli::command();
    let mut known: Vec<&str> = command.get_subcommands().map(|sub| sub.get_name()).collect();
    let mut ours = COMMANDS.to_vec();
    known.sort_unstable();
    ours.sort_unstable();
    assert_eq!(ours, known);
}
