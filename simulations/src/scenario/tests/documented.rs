//! docs/scenarios.md says what the parser knows.

use std::collections::BTreeSet;

use crate::scenario::{file::keys, presets::PRESETS, shipped};

const PAGE: &str = include_str!("../../../../docs/scenarios.md");

/// The lines of a section, by its heading.
fn section(heading: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n## ").next().unwrap_or_default().split("\n### ").next().unwrap_or_default()
}

/// What stands in the first column of a section's tables, between backquotes.
fn first_column(section: &str) -> BTreeSet<&str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).collect()
}

#[test]
fn every_key_is_described_and_no_other() {
    for form in keys::ALL {
        let described = first_column(section(&form.name.trim_matches(['[', ']']).replace("a scenario", "The file")));
        let known: BTreeSet<&str> = form.keys.iter().copied().collect();
        let same_elsewhere = match form.name {
            // What a site or a link has is described once.
            "set" => keys::SITE.keys.iter().chain(keys::LINK.keys).copied().collect(),
            "no-event" => keys::EVENT.keys.iter().copied().collect(),
            _ => BTreeSet::new(),
        };
        let missing: Vec<&&str> = known.difference(&described).filter(|key| !same_elsewhere.contains(**key)).collect();
        assert!(missing.is_empty(), "{}: not described: {missing:?}", form.name);
        let unknown: Vec<&&str> = described.difference(&known).collect();
        assert!(unknown.is_empty(), "{}: not known: {unknown:?}", form.name);
    }
}

#[test]
fn every_preset_is_described() {
    assert_eq!(first_column(section("Presets")), PRESETS.iter().map(|(name, _)| *name).collect());
}

#[test]
fn every_shipped_scenario_is_described() {
    assert_eq!(first_column(section("Shipped scenarios")), shipped::scenarios().map(|shipped| shipped.name).collect());
}

/// Whole examples in the page hold together.
#[test]
fn examples_hold_together() {
    let examples: Vec<&str> = PAGE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let whole: Vec<&&str> = examples.iter().filter(|example| example.contains("question = ")).collect();
    assert!(!whole.is_empty());
    for example in whole {
        super::read(example).unwrap_or_else(|refused| panic!("{refused}"));
    }
}
