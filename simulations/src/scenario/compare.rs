//! `compare`: two results side by side.
//!
//! What it is not: a judgement; it says what differs and by how much.

mod comparison;
mod terminal;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use self::comparison::Comparison;
use super::{folder::read_outcome, page};

/// What to compare.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The folder of a result.
    a: PathBuf,
    /// The folder of another.
    b: PathBuf,
    /// Write them as a page to this file, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Reads both, and shows them.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    let [a, b] = [&options.a, &options.b].map(|folder| read_outcome(folder).map(|outcome| (folder.clone(), outcome)));
    let comparison = Comparison::new(a?, b?);
    if let Some(file) = &options.html {
        let page = page::document(page::Kind::Comparison, &json!(comparison));
        fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let text = if json { format!("{}\n", json!(comparison)) } else { terminal::text(&comparison) };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{
        outcome::{Line, Outcome, Verdict},
        sample,
    };

    fn comparison(change: impl FnOnce(&mut Outcome)) -> Comparison {
        let (a, mut b) = (sample::outcome(), sample::outcome());
        change(&mut b);
        Comparison::new((PathBuf::from("a"), a), (PathBuf::from("b"), b))
    }

    #[test]
    fn each_expectation_stands_beside_what_was_seen() {
        let text = terminal::text(&comparison(|b| {
            b.verdict = Verdict::Failed;
            b.expectations[0].held = Some(false);
            b.expectations[0].seen = "3\u{1b}[2J".to_owned();
        }));
        let verdict = text.lines().find(|line| line.trim_start().starts_with("verdict")).unwrap();
        assert_eq!(verdict.split_whitespace().collect::<Vec<_>>(), ["verdict", "held", "FAILED"]);
        assert!(text.contains("A held     B FAILED   getter.get ends with 0"), "{text}");
        assert!(text.contains("A saw 0\n") && text.contains("B saw 3\\u{1b}[2J\n"), "{text}");
    }

    #[test]
    fn lines_have_a_sum_and_a_ratio() {
        let comparison = comparison(|b| {
            b.lines.push(Line { site: "sharer".to_owned(), samples: vec![(0.0, 5_000, 0), (9.0, 15_000, 10_000)] });
        });
        assert_eq!(comparison.all_lines.b, Some(comparison::Carried { out_bytes: 11_000, in_bytes: 19_000 }));
        let text = terminal::text(&comparison);
        let row = text.lines().find(|line| line.trim_start().starts_with("all lines")).unwrap();
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["all", "lines", "9.77", "KiB", "29.3", "KiB", "×", "3.00"]
        );
    }
}
