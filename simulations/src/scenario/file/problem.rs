//! What is wrong with a file: all that can be found at once, each with its place and what to do.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use super::source::{At, Excerpt, Sources};

/// How many problems are told at once.
pub(crate) const MAX_PROBLEMS: usize = 20;

/// How many are looked for; those are counted.
const MAX_FOUND: usize = 500;

/// How alike a known word has to be to be suggested (Jaro–Winkler, from 0 to 1).
const ALIKE: f64 = 0.75;

/// How much of a line is shown, in characters.
const MAX_LINE: usize = 120;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    at: At,
    what: String,
    advice: String,
}

/// Problems that were found so far. Shared by all that read one file.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: RefCell<Vec<Problem>>,
    /// With which values they were found.
    with: RefCell<String>,
    /// Whether parts of the file are missing.
    has_holes: Cell<bool>,
}

impl Problems {
    /// Adds one, unless the same is known: what is wrong, and what to do.
    pub(crate) fn add(&self, at: At, what: impl Into<String>, advice: impl Into<String>) {
        let problem = Problem { at, what: what.into(), advice: advice.into() };
        let mut found = self.found.borrow_mut();
        if found.len() < MAX_FOUND && !found.contains(&problem) {
            found.push(problem);
        }
    }

    /// Adds one that leaves a part of the file unread: what is not there is not to be missed.
    pub(crate) fn add_hole(&self, at: At, what: impl Into<String>, advice: impl Into<String>) {
        self.has_holes.set(true);
        self.add(at, what, advice);
    }

    pub(crate) fn has_holes(&self) -> bool {
        self.has_holes.get()
    }

    /// Adds that a name is not known, with the names that are.
    pub(crate) fn add_unknown<'n>(&self, at: At, what: &str, name: &str, known: impl IntoIterator<Item = &'n str>) {
        self.add(at, format!("{what} {}", quoted(name)), suggestion(name, known));
    }

    /// Says with which values of `[matrix]` and `[[case]]` it is looked for them now.
    pub(crate) fn look_with(&self, values: &[(String, String)]) {
        let words: Vec<String> = values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        *self.with.borrow_mut() = words.join(", ");
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// All of them, in the order of their places; none where there are none.
    pub(crate) fn refused(&self, sources: &Sources) -> Option<Refused> {
        let mut found = self.found.borrow().clone();
        found.sort_by_key(|problem| problem.at);
        let more = found.len().saturating_sub(MAX_PROBLEMS);
        let complaints: Vec<Complaint> = found
            .into_iter()
            .take(MAX_PROBLEMS)
            .map(|problem| Complaint {
                excerpt: Some(sources.excerpt(problem.at)),
                what: problem.what,
                advice: problem.advice,
            })
            .collect();
        (!complaints.is_empty()).then_some(Refused { complaints, more, with: self.with.borrow().clone() })
    }
}

/// A file that does not hold together. Its text has several lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) complaints: Vec<Complaint>,
    /// How many more there are.
    pub(crate) more: usize,
    /// With which values it is wrong, where a file repeats over some.
    pub(crate) with: String,
}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// Where; none if there is no file at all.
    pub(crate) excerpt: Option<Excerpt>,
    pub(crate) what: String,
    /// What to do; may be empty.
    pub(crate) advice: String,
}

impl Refused {
    /// What is wrong with several files; none where nothing is.
    pub(crate) fn all(files: Vec<Self>) -> Option<Self> {
        files.into_iter().reduce(|mut all, file| {
            all.complaints.extend(file.complaints);
            all.more += file.more;
            all.with = if all.with.is_empty() { file.with } else { all.with };
            all
        })
    }

    /// What concerns no place in a file.
    pub(crate) fn without_place(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            complaints: vec![Complaint { excerpt: None, what: what.into(), advice: advice.into() }],
            more: 0,
            with: String::new(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, complaint) in self.complaints.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            complaint.fmt(f)?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        if self.with.is_empty() { Ok(()) } else { write!(f, "\nthis is with {}", self.with) }
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self.advice.as_str() {
            "" => String::new(),
            advice => format!("; {advice}"),
        };
        let Some(Excerpt { place, line, width }) = &self.excerpt else {
            return write!(f, "{}{advice}", self.what);
        };
        let number = place.line.to_string();
        // Of a long line, the part around what is meant; control characters would move the caret.
        let skipped = if place.column + MAX_LINE / 4 > MAX_LINE { place.column - MAX_LINE / 2 } else { 0 };
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let shown: String = line.chars().skip(skipped).take(MAX_LINE).map(printable).collect();
        let before = place.column - 1 - skipped;
        let width = (*width).min(MAX_LINE - before).max(1);
        writeln!(f, "{}:{}:{}: {}{advice}", place.file.display(), place.line, place.column, self.what)?;
        writeln!(f, " {number} | {}", shown.trim_end())?;
        write!(f, " {:pad$} | {:before$}{}", "", "", "^".repeat(width), pad = number.len())
    }
}

/// Whether one word may be meant for another.
pub(crate) fn is_like(name: &str, other: &str) -> bool {
    likeness(name, other) >= ALIKE
}

/// How alike two words are, from 0 to 1. Names of strangers may be long, and this takes time with the square of it.
fn likeness(name: &str, other: &str) -> f64 {
    if name.len() > 100 { 0.0 } else { strsim::jaro_winkler(name, other) }
}

/// A name from a file, for a message: short, on one line.
pub(crate) fn quoted(name: &str) -> String {
    const SHOWN: usize = 60;
    let cut: String = name.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if cut.len() < name.len() { format!("`{cut}…`") } else { format!("`{cut}`") }
}

/// Which of the known names was meant, or which there are.
pub(crate) fn suggestion<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    const LISTED: usize = 16;
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = known.iter().map(|other| (likeness(name, other), *other)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        None => "there are none".to_owned(),
        Some((alike, nearest)) if alike >= ALIKE => format!("did you mean {}?", quoted(nearest)),
        Some(_) => {
            let more = if known.len() > LISTED { ", …" } else { "" };
            let listed: Vec<String> = known.iter().take(LISTED).map(|name| quoted(name)).collect();
            format!("there are {}{more}", listed.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::file::source::Source;

    fn refused(text: &str, add: impl FnOnce(&Problems)) -> String {
        let mut sources = Sources::default();
        sources.add(Source { path: "x.toml".into(), text: text.to_owned() });
        let problems = Problems::default();
        add(&problems);
        problems.refused(&sources).expect("a problem").to_string()
    }

    #[test]
    fn a_problem_shows_its_line_with_a_caret_below() {
        let shown = refused("a = 1\nsiet = 2\n", |problems| {
            problems.add_unknown(At { source: 0, start: 6, end: 10 }, "[[node]] has no key", "siet", ["site", "count"]);
        });
        assert_eq!(shown, "x.toml:2:1: [[node]] has no key `siet`; did you mean `site`?\n 2 | siet = 2\n   | ^^^^");
    }

    #[test]
    fn the_same_is_told_once_and_no_more_than_the_most() {
        let shown = refused("abc", |problems| {
            for at in 0..MAX_PROBLEMS + 5 {
                for _ in 0..2 {
                    problems.add(At { source: 0, start: 0, end: 1 }, format!("wrong {at}"), "");
                }
            }
        });
        assert_eq!(shown.matches("wrong").count(), MAX_PROBLEMS);
        assert!(shown.ends_with("and 5 more"), "{shown}");
    }

    #[test]
    fn long_lines_are_cut_around_what_is_meant() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let shown = refused(&text, |problems| problems.add(At { source: 0, start: 500, end: 501 }, "here", ""));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].len() < MAX_LINE + 10, "{shown}");
        assert_eq!(lines[1].find('X'), lines[2].find('^'), "{shown}");
    }

    #[test]
    fn names_are_suggested_where_they_are_alike_and_listed_otherwise() {
        assert_eq!(suggestion("hom", ["home", "hotel"]), "did you mean `home`?");
        assert_eq!(suggestion("zzz", ["home", "hotel"]), "there are `home`, `hotel`");
        assert_eq!(suggestion("zzz", []), "there are none");
    }
}
