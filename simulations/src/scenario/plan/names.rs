//! Names of a scenario, of single things and of groups, and what they stand for.

use std::collections::HashMap;

use crate::scenario::file::{
    problem::{Problems, quoted},
    source::At,
};

/// The other side of a link or a cut: all sites, and the public nodes.
pub(crate) const EVERYBODY: &str = "everybody";

/// The longest name, in characters.
pub(crate) const MAX_NAME: usize = 40;

/// Names that have a meaning of their own in results.
const TAKEN: [&str; 3] = [EVERYBODY, "rendezvous", "runner"];

/// Names of one kind of thing.
#[derive(Debug, Clone)]
pub(crate) struct Names<Id> {
    what: &'static str,
    known: Vec<(String, Vec<Id>)>,
    index: HashMap<String, usize>,
}

impl<Id: Copy + PartialEq> Names<Id> {
    /// `what` is what one of them is called: `a site`.
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what, known: Vec::new(), index: HashMap::new() }
    }

    /// Gives a name to a thing, or to a group. Each name once.
    pub(crate) fn add(&mut self, name: &str, ids: Vec<Id>, at: At, problems: &Problems) {
        if self.get(name).is_some() {
            problems.add(at, format!("{} is the name of {} already", quoted(name), self.what), "take another name");
        } else {
            self.add_alias(name, ids);
        }
    }

    /// Gives a name that is known to be free.
    pub(crate) fn add_alias(&mut self, name: &str, ids: Vec<Id>) {
        self.index.insert(name.to_owned(), self.known.len());
        self.known.push((name.to_owned(), ids));
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[Id]> {
        self.index.get(name).map(|at| self.known[*at].1.as_slice())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(|(name, _)| name.as_str())
    }

    /// Groups, and things that have a name of their own.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &[Id])> {
        self.known.iter().map(|(name, ids)| (name.as_str(), ids.as_slice()))
    }

    /// All that a name stands for; none if it is not known, which is told.
    pub(crate) fn find(&self, name: &str, at: At, problems: &Problems) -> Vec<Id> {
        match self.get(name) {
            Some(ids) => ids.to_vec(),
            None => {
                problems.add_unknown(at, &format!("there is no {} called", self.noun()), name, self.names());
                Vec::new()
            }
        }
    }

    /// All that some names stand for, each once.
    pub(crate) fn find_all(&self, names: &[(&str, At)], problems: &Problems) -> Vec<Id> {
        let mut found = Vec::new();
        for id in names.iter().flat_map(|(name, at)| self.find(name, *at, problems)) {
            if !found.contains(&id) {
                found.push(id);
            }
        }
        found
    }

    /// The one that a name stands for.
    pub(crate) fn one(&self, name: &str, at: At, problems: &Problems) -> Option<Id> {
        match self.find(name, at, problems).as_slice() {
            [] => None,
            [one] => Some(*one),
            several => {
                let what = format!("{} stands for {} of them", quoted(name), several.len());
                problems.add(at, what, format!("name one, such as {}", quoted(&format!("{name}-1"))));
                None
            }
        }
    }

    fn noun(&self) -> &'static str {
        self.what.split_once(' ').map_or(self.what, |(_, noun)| noun)
    }
}

/// The name of each of a group: with a count `name-1`, `name-2`, …
pub(crate) fn members(name: &str, count: Option<usize>) -> Vec<String> {
    match count {
        None => vec![name.to_owned()],
        Some(count) => (1..=count).map(|number| format!("{name}-{number}")).collect(),
    }
}

/// Tells of a name that cannot be one.
pub(crate) fn check(name: &str, at: At, problems: &Problems) {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if !begins || !name.chars().all(fits) || name.len() > MAX_NAME {
        let advice =
            format!("a name has letters, digits, - and _, begins with a letter or digit, and is of {MAX_NAME} at most");
        problems.add(at, format!("{} cannot be a name", quoted(name)), advice);
    } else if TAKEN.contains(&name) {
        problems.add(at, format!("{} has a meaning of its own", quoted(name)), "take another name");
    }
}
