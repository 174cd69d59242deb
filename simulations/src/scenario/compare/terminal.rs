//! Two results as a text for people.
//!
//! What it is not: the page of the same (`page`).

use std::time::Duration;

use keyferry_cli::text::{safe, size, span};

use super::comparison::{Comparison, Judged, Measured, Row, Side, Used};
use crate::scenario::outcome::Verdict;

/// A column is not wider than that, but for what does not fit.
const MAX_COLUMN: usize = 44;

const NOTHING: &str = "–";

/// Rows of cells; the first cell is the name.
type Table = Vec<[String; 4]>;

/// All of it.
pub(super) fn text(comparison: &Comparison) -> String {
    let mut text = table("", &sides(&comparison.a, &comparison.b));
    text += &expectations(&comparison.expectations);
    let steps = comparison.steps.iter().map(|row| cells(row, |it| seconds(*it), |it| *it)).collect();
    text += &table("Steps", &steps);
    text += &table("Processes: how long", &processes(comparison, |it| seconds(it.took_seconds), |it| it.took_seconds));
    text += &table("Processes: CPU", &processes(comparison, |it| seconds(it.cpu_seconds), |it| it.cpu_seconds));
    let memory = processes(comparison, |it| size(it.peak_resident_bytes), |it| it.peak_resident_bytes as f64);
    text += &table("Processes: memory, at most", &memory);
    text += &table("Processes: the end", &processes(comparison, |it| it.end.clone(), |_| f64::NAN));
    text += &table("Figures", &comparison.figures.iter().map(figure).collect());
    let lines = comparison.lines.iter().chain([&comparison.all_lines]);
    let lines = lines.map(|row| cells(row, |it| size(it.total()), |it| it.total() as f64)).collect();
    text + &table("Lines, both directions", &lines)
}

fn sides(a: &Side, b: &Side) -> Table {
    let row = |name: &str, of: &dyn Fn(&Side) -> String| [name.to_owned(), of(a), of(b), String::new()];
    vec![
        ["".to_owned(), "A".to_owned(), "B".to_owned(), String::new()],
        row("folder", &|side| side.folder.clone()),
        row("scenario", &|side| side.scenario.clone()),
        row("values", &|side| if side.values.is_empty() { NOTHING.to_owned() } else { side.values.join(", ") }),
        row("seed", &|side| side.seed.to_string()),
        row("engine", &|side| side.engine.clone()),
        row("began", &|side| side.began.clone()),
        [
            "took".to_owned(),
            seconds(a.took_seconds),
            seconds(b.took_seconds),
            ratio(Some(a.took_seconds), Some(b.took_seconds)),
        ],
        row("verdict", &|side| verdict(side.verdict).to_owned()),
    ]
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Held => "held",
        Verdict::Failed => "FAILED",
        Verdict::Broken => "BROKEN",
    }
}

fn expectations(rows: &[Row<Judged>]) -> String {
    let mut text = heading("Expectations", rows.is_empty());
    for row in rows {
        let (a, b) = (held(row.a.as_ref()), held(row.b.as_ref()));
        text += &format!("  A {a:<8} B {b:<8} {}\n", safe(&row.name));
        for (side, judged) in [("A", &row.a), ("B", &row.b)] {
            if let Some(judged) = judged {
                text += &format!("    {side} saw {}\n", safe(&judged.seen));
            }
        }
    }
    text
}

fn held(judged: Option<&Judged>) -> &'static str {
    match judged {
        None => NOTHING,
        Some(Judged { held: None, .. }) => "unknown",
        Some(Judged { held: Some(true), .. }) => "held",
        Some(Judged { held: Some(false), .. }) => "FAILED",
    }
}

fn processes(comparison: &Comparison, shown: fn(&Used) -> String, number: fn(&Used) -> f64) -> Table {
    comparison.processes.iter().map(|row| cells(row, shown, number)).collect()
}

fn figure(row: &Row<Measured>) -> [String; 4] {
    let unit = |side: &Option<Measured>| side.as_ref().map(|it| it.unit.clone());
    let is_same = unit(&row.a) == unit(&row.b);
    // Numbers of different units have no ratio.
    cells(row, |it| format!("{} {}", it.value, it.unit), |it| if is_same { it.value } else { f64::NAN })
}

fn cells<T>(row: &Row<T>, shown: impl Fn(&T) -> String, number: impl Fn(&T) -> f64) -> [String; 4] {
    let shown = |side: &Option<T>| side.as_ref().map_or_else(|| NOTHING.to_owned(), &shown);
    let ratio = ratio(row.a.as_ref().map(&number), row.b.as_ref().map(&number));
    [row.name.clone(), shown(&row.a), shown(&row.b), ratio]
}

/// How many times the first the second is.
fn ratio(a: Option<f64>, b: Option<f64>) -> String {
    match (a, b) {
        (Some(a), Some(b)) if a > 0.0 && b.is_finite() => format!("× {:.2}", b / a),
        _ => String::new(),
    }
}

fn seconds(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| format!("{seconds} s"), span)
}

fn heading(title: &str, is_empty: bool) -> String {
    if is_empty || title.is_empty() { String::new() } else { format!("\n{title}\n") }
}

fn table(title: &str, rows: &Table) -> String {
    let rows: Vec<[String; 4]> = rows.iter().map(|row| row.each_ref().map(|cell| safe(cell))).collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0).min(MAX_COLUMN)
    };
    let (first, second, third) = (width(0).max(10), width(1).max(17), width(2).max(17));
    let line = |[name, a, b, ratio]: &[String; 4]| {
        let line = format!("  {name:<first$}  {a:<second$}  {b:<third$}  {ratio}");
        format!("{}\n", line.trim_end())
    };
    heading(title, rows.is_empty()) + &rows.iter().map(line).collect::<String>()
}
