//! What the documentation says can be typed is what the program takes.

use clap::{CommandFactory, Parser};
use keyferry_cli::args::Cli;
use keyferry_tests::documentation::{document, documented_commands};

#[test]
fn every_command_that_is_shown_is_understood() {
    let shown = documented_commands("keyferry");
    assert!(shown.len() >= 6, "{shown:?}");
    for command in shown {
        let words = ["keyferry".to_owned()].into_iter().chain(command.arguments.clone());
        if let Err(error) = Cli::try_parse_from(words) {
            panic!("{}: {}\n{error}", command.place, command.arguments.join(" "));
        }
    }
}

#[test]
fn every_command_and_option_is_shown() {
    let readme = document("README.md");
    let pages = readme.clone() + &document("docs/relay.md");
    let cli = Cli::command();
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_name();
        assert!(readme.contains(&format!("`keyferry {name}")), "README.md does not show `keyferry {name}`");
        for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
            let Some(long) = option.get_long() else { continue };
            let short = option.get_short().map(|short| format!("[-{short} "));
            let is_shown = pages.contains(&format!("--{long}")) || short.is_some_and(|short| pages.contains(&short));
            assert!(is_shown, "nothing shows `keyferry {name} --{long}`");
            // Where two are shown together, the second is cut: `KEYFERRY_A_B`, `_C`.
            let variable = option.get_env().and_then(|variable| variable.to_str()).unwrap_or_default();
            let end = variable.rfind('_').map_or("", |at| &variable[at..]);
            assert!(pages.contains(end), "nothing shows {variable}");
        }
    }
}

/// The library's page compiles its code; the README shows the same.
#[test]
fn the_code_in_the_readme_is_the_code_of_the_library_page() {
    let readme = document("README.md");
    let shown = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of Rust");
    let page: String = document("node/src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    assert!(page.contains(shown), "{shown}");
}
