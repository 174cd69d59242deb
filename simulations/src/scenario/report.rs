//! The page about one run, `report.html`: everything is in it, and it is bounded however long the run was.
//!
//! What it is not: how it is drawn (`page`), or what a process' events say about it over time (`tracks`).

mod tracks;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use self::tracks::Track;
use super::{
    folder,
    outcome::{Entry, Outcome},
    page,
};

/// How many events are listed.
const MAX_EVENTS: usize = 5_000;

/// How long an event may be, as JSON; of longer ones there is only a piece.
const MAX_EVENT_BYTES: usize = 2_000;

/// Samples of each line; a day of seconds would not be seen on any screen.
const MAX_SAMPLES: usize = 1_200;

/// Events that say only how far something has come.
const PROGRESS: [&str; 3] = ["fetching", "importing", "verifying"];

/// Which result.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The folder of the result; report.html in it is written anew.
    folder: PathBuf,
}

/// Writes the page of a result again.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    let outcome = folder::read_outcome(&options.folder)?;
    let entries = folder::read_entries(&options.folder)?;
    let file = folder::write_page(&options.folder, &page(&outcome, &entries))?;
    match json {
        true => println!("{}", json!({ "report": file })),
        false => println!("{}", file.display()),
    }
    Ok(())
}

/// What the page is drawn from.
#[derive(Debug, Serialize)]
struct Report {
    outcome: Outcome,
    tracks: Vec<Track>,
    events: Vec<Listed>,
    /// How many there were.
    events_in_all: usize,
}

/// An event of the list.
#[derive(Debug, Serialize)]
struct Listed {
    at_s: f64,
    process: String,
    event: Value,
}

/// The page about a run.
pub(crate) fn page(outcome: &Outcome, entries: &[Entry]) -> String {
    let mut outcome = outcome.clone();
    for line in &mut outcome.lines {
        line.samples = thinned(&line.samples, MAX_SAMPLES);
    }
    let report = Report {
        tracks: tracks::tracks(&outcome, entries),
        events: listed(entries),
        events_in_all: entries.len(),
        outcome,
    };
    page::document(page::Kind::Report, &json!(report))
}

/// The events that tell most: where there are too many, those in between that say only how far something has come are
/// left out, and then those in the middle.
fn listed(entries: &[Entry]) -> Vec<Listed> {
    let mut kept: Vec<&Entry> = entries.iter().collect();
    if kept.len() > MAX_EVENTS {
        let mut ends: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            ends.entry((&entry.process, name(entry))).or_insert((index, index)).1 = index;
        }
        let is_end = |index, entry: &Entry| {
            ends.get(&(&*entry.process, name(entry))).is_some_and(|ends| ends.0 == index || ends.1 == index)
        };
        kept = entries
            .iter()
            .enumerate()
            .filter(|(index, entry)| !PROGRESS.contains(&name(entry)) || is_end(*index, entry))
            .map(|(_, entry)| entry)
            .collect();
    }
    if kept.len() > MAX_EVENTS {
        let half = MAX_EVENTS / 2;
        kept.drain(half..kept.len() - half);
    }
    kept.into_iter()
        .map(|entry| Listed { at_s: entry.at_s, process: entry.process.clone(), event: shortened(entry) })
        .collect()
}

fn name(entry: &Entry) -> &str {
    entry.event.get("event").and_then(Value::as_str).unwrap_or_default()
}

fn shortened(entry: &Entry) -> Value {
    let text = entry.event.to_string();
    if text.len() <= MAX_EVENT_BYTES {
        return entry.event.clone();
    }
    let piece = |text: &str, len| text[..text.floor_char_boundary(len)].to_owned();
    json!({ "event": piece(name(entry), 100), "bytes": text.len(), "begins": piece(&text, MAX_EVENT_BYTES) })
}

/// Every so manieth, and the last.
fn thinned<T: Copy>(all: &[T], at_most: usize) -> Vec<T> {
    let step = all.len().div_ceil(at_most).max(1);
    let last = all.len().saturating_sub(1);
    all.iter().enumerate().filter(|(index, _)| index % step == 0 || *index == last).map(|(_, one)| *one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{outcome::Line, sample};

    fn notice(at_s: f64, message: &str) -> Entry {
        Entry { at_s, process: "getter".to_owned(), event: json!({ "event": "notice", "message": message }) }
    }

    fn fetching(at_s: f64, done_bytes: u64) -> Entry {
        let event = json!({ "event": "fetching", "done_bytes": done_bytes, "total_bytes": 1_000_000 });
        Entry { at_s, process: "getter".to_owned(), event }
    }

    #[test]
    fn what_strangers_said_cannot_end_the_data() {
        let hostile = "</script><script>alert(1)</script><!-- <script>";
        let page = page(&sample::outcome(), &[notice(1.0, hostile)]);
        assert!(!page.contains("alert(1)</script>") && !page.contains("<!-- <"));
        let data = page.split_once(r#"<script type="application/json" id="data">"#).unwrap().1;
        let data: Value = serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap();
        assert_eq!(data["events"][0]["event"]["message"], hostile);
    }

    #[test]
    fn a_list_that_is_too_long_loses_progress_first() {
        let mut entries: Vec<Entry> = (0..20_000u32).map(|at| fetching(at.into(), 1)).collect();
        entries.insert(10_000, notice(10_000.0, "in the middle"));
        let listed = listed(&entries);
        let times: Vec<f64> = listed.iter().map(|one| one.at_s).collect();
        assert_eq!(times, [0.0, 10_000.0, 19_999.0]);
    }

    #[test]
    fn a_list_of_what_cannot_be_left_out_loses_its_middle() {
        let entries: Vec<Entry> = (0..20_000u32).map(|at| notice(at.into(), "x")).collect();
        let listed = listed(&entries);
        assert_eq!((listed.len(), listed[0].at_s, listed[MAX_EVENTS - 1].at_s), (MAX_EVENTS, 0.0, 19_999.0));
    }

    #[test]
    fn a_long_event_is_there_with_its_name_and_a_piece() {
        let shown = shortened(&notice(0.0, &"ä".repeat(10_000)));
        assert_eq!((&shown["event"], &shown["bytes"]), (&json!("notice"), &json!(20_031)));
        assert!(shown.to_string().len() < MAX_EVENT_BYTES + 100);
    }

    #[test]
    fn a_run_of_days_makes_a_page_of_few_megabytes() {
        let mut outcome = sample::outcome();
        let samples = (0..200_000u32).map(|at| (f64::from(at), u64::from(at) * 1000, 0)).collect();
        outcome.lines = vec![Line { site: "home".to_owned(), samples }];
        let entries: Vec<Entry> = (0..50_000u32)
            .flat_map(|at| [notice(at.into(), &"x".repeat(500)), fetching(at.into(), at.into())])
            .collect();
        let page = page(&outcome, &entries);
        assert!(page.len() < 8 << 20, "{}", page.len());
    }

    #[test]
    fn the_last_sample_is_kept() {
        assert_eq!(thinned(&[1, 2, 3, 4, 5, 6], 2), [1, 4, 6]);
        assert_eq!(thinned(&[1, 2], 2), [1, 2]);
        assert!(thinned::<u8>(&[], 2).is_empty());
    }
}
