//! `template = "NAME"`: a table that others take what they do not say themselves from.

use crate::scenario::file::{
    form::{tables, text_of},
    problem::{Problems, quoted},
    source::At,
    tree::{Kind, Table, Value},
};

/// The tables of a list, each with what its template adds.
pub(crate) fn layered(file: &Table, key: &str, most: usize, problems: &Problems) -> Vec<Table> {
    let templates = templates(file, problems);
    tables(file, key, most, problems).into_iter().map(|table| with_template(table, &templates, problems)).collect()
}

fn templates<'a>(file: &'a Table, problems: &Problems) -> Vec<(&'a str, &'a Table)> {
    let Some(value) = file.get("template") else { return Vec::new() };
    let Kind::Table(all) = &value.kind else {
        problems.add(
            value.at,
            format!("`template` is a table, and this is {}", value.words()),
            "write [template.NAME]",
        );
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, value) in &all.entries {
        match &value.kind {
            Kind::Table(table) => found.push((key.name.as_str(), table)),
            _ => problems.add(
                value.at,
                format!("a template is a table, and this is {}", value.words()),
                format!("write [template.{}]", key.name),
            ),
        }
    }
    found
}

fn with_template(table: &Table, templates: &[(&str, &Table)], problems: &Problems) -> Table {
    let mut whole = table.clone();
    let Some(named) = table.get("template") else { return whole };
    let Some(name) = text_of(named, problems) else { return whole };
    let Some((_, template)) = templates.iter().find(|(other, _)| *other == name) else {
        let known = templates.iter().map(|(name, _)| *name);
        problems.add_unknown(named.at, "there is no template called", name, known);
        return whole;
    };
    for (key, value) in &template.entries {
        if ["template", "name"].contains(&key.name.as_str()) {
            problems.add(
                key.at,
                format!("a template has no {}", quoted(&key.name)),
                "write it where the template is used",
            );
            continue;
        }
        match whole.entries.iter_mut().find(|(other, _)| other.name == key.name) {
            None => whole.entries.push((key.clone(), value.clone())),
            Some((_, own)) => lay_under(own, value),
        }
    }
    whole
}

/// What a table such as `environment` says itself stays.
fn lay_under(own: &mut Value, below: &Value) {
    let (Kind::Table(own), Kind::Table(below)) = (&mut own.kind, &below.kind) else { return };
    for (key, value) in &below.entries {
        if own.get(&key.name).is_none() {
            own.entries.push((key.clone(), value.clone()));
        }
    }
}

/// The name of a table that has to have one.
pub(crate) fn name<'a>(fields: &crate::scenario::file::form::Fields<'a>) -> Option<(&'a str, At)> {
    let value = fields.required("name", "\"…\"")?;
    let name = text_of(value, fields.problems())?;
    super::names::check(name, value.at, fields.problems());
    Some((name, value.at))
}
