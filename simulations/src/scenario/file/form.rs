//! Which keys the tables of a scenario have, and how their values are read: each with its bound, each mistake with its place.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use super::{
    problem::{Problems, is_like, quoted, suggestion},
    scalar,
    source::At,
    tree::{Key, Kind, Table, Value},
};

/// What a kind of table is called, and which keys it has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) name: &'static str,
    pub(crate) keys: &'static [&'static str],
}

/// A table of a file that is read by its form.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    table: &'a Table,
    form: &'static Form,
    problems: &'a Problems,
}

impl<'a> Fields<'a> {
    /// Tells of keys that the form does not have.
    pub(crate) fn of(table: &'a Table, form: &'static Form, problems: &'a Problems) -> Self {
        let fields = Self { table, form, problems };
        for key in fields.unknown() {
            let keys: BTreeSet<&str> = form.keys.iter().copied().collect();
            problems.add_unknown(key.at, &format!("{} has no key", form.name), &key.name, keys);
        }
        fields
    }

    /// Keys that the form does not have.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = &'a Key> + use<'a> {
        let known = self.form.keys;
        self.table.entries.iter().map(|(key, _)| key).filter(move |key| !known.contains(&key.name.as_str()))
    }

    /// The same for a value that has to be a table.
    pub(crate) fn of_value(value: &'a Value, form: &'static Form, problems: &'a Problems) -> Option<Self> {
        match &value.kind {
            Kind::Table(table) => Some(Self::of(table, form, problems)),
            _ => {
                problems.add(
                    value.at,
                    format!("{} is a table, and this is {}", form.name, value.words()),
                    format!("write {{ {} = … }}", form.keys.first().copied().unwrap_or("key")),
                );
                None
            }
        }
    }

    pub(crate) fn at(&self) -> At {
        self.table.at
    }

    /// Whether it has this form.
    pub(crate) fn is_of(&self, form: &Form) -> bool {
        self.form == form
    }

    pub(crate) fn problems(&self) -> &'a Problems {
        self.problems
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        debug_assert!(self.form.keys.contains(&key), "{} is not in the form {}", key, self.form.name);
        self.table.get(key)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Where the value is, or else the table.
    pub(crate) fn at_of(&self, key: &str) -> At {
        self.value(key).map_or(self.at(), |value| value.at)
    }

    /// Tells that a key is missing, unless another one is there that was meant for it.
    pub(crate) fn lacks(&self, key: &str, such_as: &str) {
        if self.unknown().any(|other| is_like(&other.name, key)) {
            return;
        }
        self.problems.add(self.at(), format!("{} lacks `{key}`", self.form.name), format!("write {key} = {such_as}"));
    }

    /// A value that has to be there; `such_as` shows one.
    pub(crate) fn required(&self, key: &str, such_as: &str) -> Option<&'a Value> {
        let value = self.value(key);
        if value.is_none() {
            self.lacks(key, such_as);
        }
        value
    }

    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        let value = self.value(key)?;
        text_of(value, self.problems)
    }

    pub(crate) fn truth(&self, key: &str) -> Option<bool> {
        self.scalar(key, scalar::truth)
    }

    pub(crate) fn integer(&self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        self.scalar(key, |value| scalar::integer(value, &range))
    }

    pub(crate) fn count(&self, key: &str, range: RangeInclusive<usize>) -> Option<usize> {
        let range = *range.start() as i64..=*range.end() as i64;
        self.integer(key, range).map(|count| count as usize)
    }

    /// A part of a whole, or another number.
    pub(crate) fn number(&self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        self.scalar(key, |value| scalar::number(value, &range))
    }

    pub(crate) fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.scalar(key, |value| scalar::duration(value, &range))
    }

    /// Seconds ahead (or behind, below 0).
    pub(crate) fn offset(&self, key: &str, most: Duration) -> Option<i64> {
        self.scalar(key, |value| scalar::offset(value, most))
    }

    pub(crate) fn bytes(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.scalar(key, |value| scalar::bytes(value, &range))
    }

    /// Bytes a second, written in bits.
    pub(crate) fn rate(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.scalar(key, |value| scalar::rate(value, &range))
    }

    /// One of some words.
    pub(crate) fn choice<T: Copy>(&self, key: &str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let what = format!("`{key}` cannot be {}", quoted(text));
            self.problems.add(self.at_of(key), what, suggestion(text, words.iter().map(|(word, _)| *word)));
        }
        found.map(|(_, value)| *value)
    }

    /// A text, or a list of texts; none if there is no such key.
    pub(crate) fn texts(&self, key: &str) -> Option<Vec<(&'a str, At)>> {
        let value = self.value(key)?;
        Some(texts_of(value, self.problems))
    }

    /// The entries of a table of texts.
    pub(crate) fn texts_by_name(&self, key: &str) -> Vec<(&'a str, &'a Value)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Kind::Table(table) = &value.kind else {
            self.problems.add(
                value.at,
                format!("`{key}` is a table, and this is {}", value.words()),
                format!("write {key} = {{ NAME = \"text\" }}"),
            );
            return Vec::new();
        };
        table.entries.iter().map(|(key, value)| (key.name.as_str(), value)).collect()
    }

    fn scalar<T>(&self, key: &str, read: impl FnOnce(&Value) -> Result<T, scalar::Wrong>) -> Option<T> {
        let value = self.value(key)?;
        match read(value) {
            Ok(read) => Some(read),
            Err(wrong) => {
                self.problems.add(value.at, format!("`{key}`: {}", wrong.what), wrong.advice);
                None
            }
        }
    }
}

/// What has to be a text.
pub(crate) fn text_of<'a>(value: &'a Value, problems: &Problems) -> Option<&'a str> {
    let text = value.as_text();
    if text.is_none() {
        problems.add(value.at, format!("this is {}, not a text", value.words()), "put it into quotes");
    }
    text
}

/// What has to be a text or a list of texts.
pub(crate) fn texts_of<'a>(value: &'a Value, problems: &Problems) -> Vec<(&'a str, At)> {
    match &value.kind {
        Kind::List(list) => list.iter().filter_map(|value| Some((text_of(value, problems)?, value.at))).collect(),
        _ => text_of(value, problems).map(|text| (text, value.at)).into_iter().collect(),
    }
}

/// The tables of a list such as `[[node]]`.
pub(crate) fn tables<'a>(file: &'a Table, key: &str, most: usize, problems: &Problems) -> Vec<&'a Table> {
    let Some(value) = file.get(key) else { return Vec::new() };
    let wanted = |at: At, what: &Value| {
        problems.add(
            at,
            format!("`{key}` is a list of tables, and this is {}", what.words()),
            format!("write [[{key}]]"),
        );
    };
    let Kind::List(list) = &value.kind else {
        wanted(value.at, value);
        return Vec::new();
    };
    if let Some(beyond) = list.get(most) {
        problems.add(beyond.at, format!("there are {} of [[{key}]]", list.len()), format!("there can be {most}"));
    }
    let mut found = Vec::new();
    for value in list.iter().take(most) {
        match &value.kind {
            Kind::Table(table) => found.push(table),
            _ => wanted(value.at, value),
        }
    }
    found
}
