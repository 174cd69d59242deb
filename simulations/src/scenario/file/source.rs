//! The texts that a scenario is read from, and places in them.

use std::path::PathBuf;

use crate::scenario::model::Place;

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct At {
    /// Which text.
    pub(crate) source: usize,
    /// The first byte.
    pub(crate) start: usize,
    /// The byte after the last.
    pub(crate) end: usize,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Where it came from, as it was named.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// All texts of a scenario: its file first, then what that includes.
#[derive(Debug, Default)]
pub(crate) struct Sources(Vec<Source>);

/// What a person is shown of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excerpt {
    pub(crate) place: Place,
    /// The line, without its end.
    pub(crate) line: String,
    /// How many characters of it are meant.
    pub(crate) width: usize,
}

impl Sources {
    /// Adds a text; the number by which places name it.
    pub(crate) fn add(&mut self, source: Source) -> usize {
        self.0.push(source);
        self.0.len() - 1
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_pairs(self) -> Vec<(PathBuf, String)> {
        self.0.into_iter().map(|source| (source.path, source.text)).collect()
    }

    /// Where a place is, in lines and columns.
    pub(crate) fn place(&self, at: At) -> Place {
        self.excerpt(at).place
    }

    /// What is there.
    pub(crate) fn excerpt(&self, at: At) -> Excerpt {
        let source = &self.0[at.source];
        let start = floor(&source.text, at.start);
        let before = &source.text[..start];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let rest = &source.text[line_start..];
        let line = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let column = source.text[line_start..start].chars().count() + 1;
        let end = floor(&source.text, at.end.max(start)).min(line_start + line.len()).max(start);
        let width = source.text[start..end].trim_end().chars().count().max(1);
        let place = Place { file: source.path.clone(), line: before.matches('\n').count() + 1, column };
        Excerpt { place, line: line.to_owned(), width }
    }
}

/// The last place at or before this one at which a character begins.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(text: &str, start: usize, end: usize) -> (usize, usize, String, usize) {
        let mut sources = Sources::default();
        let source = sources.add(Source { path: "a.toml".into(), text: text.to_owned() });
        let Excerpt { place, line, width } = sources.excerpt(At { source, start, end });
        (place.line, place.column, line, width)
    }

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        assert_eq!(excerpt("a = 1\nüb = 2\r\n", 9, 10), (2, 3, "üb = 2".to_owned(), 1));
        assert_eq!(excerpt("a = 1", 0, 1), (1, 1, "a = 1".to_owned(), 1));
    }

    #[test]
    fn a_place_may_be_the_end_or_span_lines() {
        assert_eq!(excerpt("ab\n", 3, 3), (2, 1, String::new(), 1));
        assert_eq!(excerpt("ab\ncd", 1, 5), (1, 2, "ab".to_owned(), 1));
        assert_eq!(excerpt("", 7, 9), (1, 1, String::new(), 1));
    }
}
