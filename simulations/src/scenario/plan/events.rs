//! Events of `--json`, and what has to be in them.

use serde_json::Value as Json;

use crate::scenario::{
    file::{
        form::{Fields, Form},
        keys,
        problem::{Problems, quoted},
        source::At,
        tree::{Kind, Table, Value},
    },
    model::{Capture, Condition, EventMatch, FieldPath, Test},
};

/// What `keyferry --json` tells.
pub(crate) const EVENTS: [&str; 41] = [
    "identity",
    "notice",
    "importing",
    "shared",
    "unshared",
    "withdrawn",
    "share",
    "shares",
    "stage",
    "connected",
    "disconnected",
    "fetching",
    "change",
    "compared",
    "fetched",
    "streamed",
    "missing",
    "unserved",
    "renewed",
    "same_key",
    "entry",
    "folder_entry",
    "listed",
    "ping_stage",
    "ping_reply",
    "pinged",
    "diagnosed",
    "status",
    "root",
    "roots",
    "removed",
    "verifying",
    "waiting",
    "damaged",
    "verified",
    "collected",
    "contact",
    "contacts",
    "contact_added",
    "contact_removed",
    "failed",
];

/// The longest way to a field, in steps.
const MAX_DEPTH: usize = 8;

/// The keys of which one with these tests and no other is a test.
const TESTS: &Form = &keys::TEST;

/// `event` and `where`; one of them has to be there.
pub(crate) fn event(fields: &Fields<'_>) -> Option<EventMatch> {
    let problems = fields.problems();
    let event = fields.text("event");
    if let Some(name) = event.filter(|name| !EVENTS.contains(name)) {
        problems.add_unknown(fields.at_of("event"), "keyferry tells no event", name, EVENTS);
    }
    let mut conditions = Vec::new();
    match fields.value("where").map(|value| (&value.kind, value)) {
        None => {}
        Some((Kind::Table(table), _)) => read_conditions(table, &[], &mut conditions, problems),
        Some((_, value)) => {
            let what = format!("`where` is a table, and this is {}", value.words());
            problems.add(value.at, what, "write where = { FIELD = \"value\" }");
        }
    }
    if !fields.has("event") && !fields.has("where") {
        fields.lacks("event", "\"…\"");
        return None;
    }
    Some(EventMatch { event: event.map(str::to_owned), conditions })
}

fn read_conditions(table: &Table, above: &[String], conditions: &mut Vec<Condition>, problems: &Problems) {
    for (key, value) in &table.entries {
        let mut steps = above.to_vec();
        steps.extend(path(&key.name, key.at, problems).into_iter().flat_map(|path| path.0));
        let field = FieldPath(steps.clone());
        match &value.kind {
            Kind::Table(inner) if is_test(inner) => {
                let tests = tests(&Fields::of(inner, TESTS, problems));
                conditions.extend(tests.into_iter().map(|test| Condition { field: field.clone(), test }));
            }
            Kind::Table(inner) => read_conditions(inner, &steps, conditions, problems),
            _ => conditions.extend(json(value, problems).map(|is| Condition { field, test: Test::Is(is) })),
        }
    }
}

/// Whether a table is a test of a field, rather than fields of it: one of its keys is that of a test, or was meant to be. No field of
/// `keyferry` has a hyphen in its name.
fn is_test(table: &Table) -> bool {
    const ALIKE: f64 = 0.9;
    let is_meant =
        |name: &str| name.contains('-') || TESTS.keys.iter().any(|key| strsim::jaro_winkler(name, key) > ALIKE);
    table.entries.is_empty() || table.entries.iter().any(|(key, _)| is_meant(&key.name))
}

fn tests(fields: &Fields<'_>) -> Vec<Test> {
    const ANY: std::ops::RangeInclusive<f64> = -1e15..=1e15;
    let tests = [
        fields.number("at-least", ANY).map(Test::AtLeast),
        fields.number("at-most", ANY).map(Test::AtMost),
        fields.text("contains").map(|text| Test::Contains(text.to_owned())),
        fields.truth("exists").map(Test::Exists),
    ];
    if !TESTS.keys.iter().any(|key| fields.has(key)) {
        fields.problems().add(
            fields.at(),
            "this condition tests nothing",
            "write { at-least = 1 } or { contains = \"…\" }",
        );
    }
    tests.into_iter().flatten().collect()
}

fn json(value: &Value, problems: &Problems) -> Option<Json> {
    match &value.kind {
        Kind::Text(text) => Some(Json::from(text.as_str())),
        Kind::Integer(number) => Some(Json::from(*number)),
        Kind::Float(number) => Some(Json::from(*number)),
        Kind::Truth(truth) => Some(Json::from(*truth)),
        Kind::List(list) => list.iter().map(|value| json(value, problems)).collect::<Option<Vec<_>>>().map(Json::from),
        Kind::Table(table) => {
            problems.add(table.at, "no field is compared with a table", "name the fields in it");
            None
        }
    }
}

/// A way to a field: `path.strategy`, `from.0.bytes`.
fn path(text: &str, at: At, problems: &Problems) -> Option<FieldPath> {
    let steps: Vec<String> = text.split('.').map(str::to_owned).collect();
    if steps.iter().any(String::is_empty) || steps.len() > MAX_DEPTH {
        let advice = format!("write names with dots between them, at most {MAX_DEPTH}: path.strategy");
        problems.add(at, format!("{} is no field", quoted(text)), advice);
        return None;
    }
    Some(FieldPath(steps))
}

/// `capture = { NAME = "FIELD" }`.
pub(crate) fn captures(fields: &Fields<'_>) -> Vec<Capture> {
    let mut captures = Vec::new();
    for (name, value) in fields.texts_by_name("capture") {
        super::names::check(name, value.at, fields.problems());
        let text = crate::scenario::file::form::text_of(value, fields.problems());
        let field = text.and_then(|text| path(text, value.at, fields.problems()));
        captures.extend(field.map(|field| Capture { name: name.to_owned(), field }));
    }
    captures
}
