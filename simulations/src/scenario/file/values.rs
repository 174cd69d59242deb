//! The values that a file repeats over: `[matrix]`, and `[[case]]` for those that belong together.

use std::collections::BTreeSet;

use super::{
    problem::{Problems, quoted},
    source::At,
    tree::{Key, Kind, Table, Value},
};

/// How many runs one file stands for, at most.
pub(crate) const MAX_RUNS: usize = 1_000;

/// What a place may be called that is always filled in otherwise.
const TAKEN: [&str; 3] = ["seed", "home", "case"];

/// One choice of values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// By name, with all that a case has.
    pub(crate) values: Vec<(String, String)>,
    /// What it is called: the case, and the values of the matrix.
    pub(crate) shown: Vec<(String, String)>,
}

/// All choices of a file. One without any value, if it repeats over nothing.
pub(crate) fn choices(file: &Table, problems: &Problems) -> Vec<Choice> {
    let mut all = cases(file, problems);
    for (name, values) in matrix(file, problems) {
        if all.len().saturating_mul(values.len()) > MAX_RUNS {
            problems.add(
                name.at,
                format!("this makes more than {MAX_RUNS} runs"),
                "take values out, or make two files",
            );
            break;
        }
        let with = |choice: &Choice, value: &String| {
            let mut choice = choice.clone();
            choice.values.push((name.name.clone(), value.clone()));
            choice.shown.push((name.name.clone(), value.clone()));
            choice
        };
        all = all.iter().flat_map(|choice| values.iter().map(|value| with(choice, value))).collect();
    }
    if let Some(choice) = all.first() {
        tell_twice(file, choice, problems);
    }
    all
}

/// A copy with the values filled in.
pub(crate) fn fill(file: &Table, choice: &Choice) -> Table {
    let entries = file.entries.iter().map(|(key, value)| match key.name.as_str() {
        "matrix" | "case" => (key.clone(), value.clone()),
        _ => (key.clone(), filled(value, choice)),
    });
    Table { at: file.at, entries: entries.collect() }
}

fn filled(value: &Value, choice: &Choice) -> Value {
    let kind = match &value.kind {
        Kind::Text(text) => Kind::Text(filled_text(text, &choice.values)),
        Kind::List(list) => Kind::List(list.iter().map(|value| filled(value, choice)).collect()),
        Kind::Table(table) => Kind::Table(Table {
            at: table.at,
            entries: table.entries.iter().map(|(key, value)| (key.clone(), filled(value, choice))).collect(),
        }),
        other => other.clone(),
    };
    Value { at: value.at, kind }
}

fn filled_text(text: &str, values: &[(String, String)]) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        done.push_str(&rest[..at]);
        rest = &rest[at..];
        // `{{` stands for a brace, and stays for those that read what is filled in otherwise.
        let known = rest[1..]
            .split_once('}')
            .filter(|_| !rest.starts_with("{{"))
            .and_then(|(name, after)| values.iter().find(|(other, _)| other == name).map(|(_, value)| (value, after)));
        match known {
            Some((value, after)) => {
                done.push_str(value);
                rest = after;
            }
            None => {
                let kept = if rest.starts_with("{{") { 2 } else { 1 };
                done.push_str(&rest[..kept]);
                rest = &rest[kept..];
            }
        }
    }
    done + rest
}

fn matrix(file: &Table, problems: &Problems) -> Vec<(Key, Vec<String>)> {
    let Some(value) = file.get("matrix") else { return Vec::new() };
    let Kind::Table(table) = &value.kind else {
        problems.add(value.at, "[matrix] is a table", "write rtt = [\"40ms\", \"200ms\"] below [matrix]");
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, value) in &table.entries {
        check_name(&key.name, key.at, problems);
        match &value.kind {
            Kind::List(list) if !list.is_empty() => {
                found.push((key.clone(), list.iter().filter_map(|value| scalar(value, problems)).collect()));
            }
            _ => problems.add(
                value.at,
                format!("{} is no list of values", quoted(&key.name)),
                format!("write {} = [\"…\", \"…\"]", key.name),
            ),
        }
    }
    found
}

fn cases(file: &Table, problems: &Problems) -> Vec<Choice> {
    let Some(value) = file.get("case") else { return vec![Choice::default()] };
    let Kind::List(list) = &value.kind else {
        problems.add(value.at, "`case` is a list of tables", "write [[case]]");
        return vec![Choice::default()];
    };
    let mut found: Vec<Choice> = Vec::new();
    let mut keys: Option<BTreeSet<&str>> = None;
    for value in list {
        let Kind::Table(table) = &value.kind else {
            problems.add(value.at, "`case` is a list of tables", "write [[case]]");
            continue;
        };
        let own: BTreeSet<&str> = table.entries.iter().map(|(key, _)| key.name.as_str()).collect();
        let first = keys.get_or_insert_with(|| own.clone());
        if let Some(other) = first.symmetric_difference(&own).next() {
            let what = format!("{} is in one [[case]] and not in another", quoted(other));
            problems.add(table.at, what, "give all cases the same keys");
        }
        found.extend(case(table, &found, problems));
    }
    if found.is_empty() { vec![Choice::default()] } else { found }
}

fn case(table: &Table, others: &[Choice], problems: &Problems) -> Option<Choice> {
    let Some(name) = table.get("name").and_then(Value::as_text) else {
        problems.add(table.at, "[[case]] lacks `name`", "write name = \"…\"");
        return None;
    };
    let shown = vec![("case".to_owned(), name.to_owned())];
    if others.iter().any(|other| other.shown == shown) {
        problems.add(table.at, format!("two cases are called {}", quoted(name)), "give one another name");
    }
    let mut values = shown.clone();
    for (key, value) in table.entries.iter().filter(|(key, _)| key.name != "name") {
        check_name(&key.name, key.at, problems);
        values.extend(scalar(value, problems).map(|value| (key.name.clone(), value)));
    }
    Some(Choice { values, shown })
}

fn scalar(value: &Value, problems: &Problems) -> Option<String> {
    match &value.kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Integer(number) => Some(number.to_string()),
        Kind::Float(number) => Some(number.to_string()),
        Kind::Truth(truth) => Some(truth.to_string()),
        Kind::List(_) | Kind::Table(_) => {
            problems.add(value.at, format!("a value is a text or a number, and this is {}", value.words()), "");
            None
        }
    }
}

fn check_name(name: &str, at: At, problems: &Problems) {
    if TAKEN.contains(&name) {
        problems.add(at, format!("{{{name}}} has a meaning of its own"), "give the value another name");
    }
}

fn tell_twice(file: &Table, choice: &Choice, problems: &Problems) {
    for (at, (name, _)) in choice.values.iter().enumerate() {
        if choice.values[..at].iter().any(|(other, _)| other == name) {
            let what = format!("{} is in [matrix] and in [[case]]", quoted(name));
            problems.add(file.get("matrix").map_or(file.at, |value| value.at), what, "give one another name");
        }
    }
}
