//! The TOML of a scenario as values that know where they stand.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{problem::Problems, source::At};

/// Tables and lists within each other, at most. TOML's parser has a bound of its own for brackets, and none for dotted keys.
const MAX_DEPTH: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value {
    pub(crate) at: At,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Text(String),
    Integer(i64),
    Float(f64),
    Truth(bool),
    List(Vec<Value>),
    Table(Table),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    pub(crate) at: At,
    /// In the order of the file.
    pub(crate) entries: Vec<(Key, Value)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) at: At,
}

impl Table {
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }
}

impl Value {
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for a person.
    pub(crate) fn words(&self) -> &'static str {
        match self.kind {
            Kind::Text(_) => "a text",
            Kind::Integer(_) | Kind::Float(_) => "a number",
            Kind::Truth(_) => "true or false",
            Kind::List(_) => "a list",
            Kind::Table(_) => "a table",
        }
    }
}

/// Parses a text; what is not TOML is told, and left out.
pub(crate) fn parse(text: &str, source: usize, problems: &Problems) -> Table {
    let empty = Table { at: At { source, start: 0, end: 0 }, entries: Vec::new() };
    let at = |range: Range<usize>| At { source, start: range.start, end: range.end };
    if let Some(range) = too_deep(text) {
        problems.add_hole(
            at(range),
            "this key has too many parts",
            format!("at most {MAX_DEPTH} are told apart by dots"),
        );
        return empty;
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let range = error.span().unwrap_or_default();
        problems.add_hole(at(range), format!("this is not TOML: {}", error.message().trim_end()), "");
    }
    let span = at(document.span());
    Reader { source, problems }.table(document.into_inner(), span, 0)
}

/// A line with more dots outside of any text than keys can have, if there is one. Strings are not told from the rest, so the bound is
/// far above what a path or an address has.
fn too_deep(text: &str) -> Option<Range<usize>> {
    const MAX_DOTS: usize = 500;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if line.matches('.').count() > MAX_DOTS && !line.trim_start().starts_with('#') {
            return Some(start..start + line.len());
        }
        start += line.len();
    }
    None
}

struct Reader<'p> {
    source: usize,
    problems: &'p Problems,
}

impl Reader<'_> {
    fn at(&self, range: Range<usize>) -> At {
        At { source: self.source, start: range.start, end: range.end }
    }

    fn table(&self, table: DeTable<'_>, at: At, depth: usize) -> Table {
        let mut entries = Vec::new();
        for (key, value) in table {
            let key = Key { at: self.at(key.span()), name: key.into_inner().into_owned() };
            if let Some(value) = self.value(value, depth + 1) {
                entries.push((key, value));
            }
        }
        Table { at, entries }
    }

    fn value(&self, value: Spanned<DeValue<'_>>, depth: usize) -> Option<Value> {
        let at = self.at(value.span());
        if depth > MAX_DEPTH {
            self.problems.add_hole(at, "tables and lists are nested too deep", format!("at most {MAX_DEPTH}"));
            return None;
        }
        let kind = match value.into_inner() {
            DeValue::String(text) => Kind::Text(text.into_owned()),
            DeValue::Boolean(truth) => Kind::Truth(truth),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Kind::Integer(number),
                Err(_) => {
                    self.problems.add_hole(at, "this number is too large", "");
                    return None;
                }
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Kind::Float(number),
                _ => {
                    self.problems.add_hole(at, "this is no finite number", "");
                    return None;
                }
            },
            DeValue::Datetime(_) => {
                self.problems.add_hole(at, "no key takes a date", "put a text into quotes");
                return None;
            }
            DeValue::Array(list) => {
                Kind::List(list.into_iter().filter_map(|value| self.value(value, depth + 1)).collect())
            }
            DeValue::Table(table) => Kind::Table(self.table(table, at, depth)),
        };
        Some(Value { at, kind })
    }
}
