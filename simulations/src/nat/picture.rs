//! The matrix as a picture (SVG): a square for every two sites, in it one line for each latency.
//!
//! What it is not: a general drawing; it holds no fonts, scripts or links.

use std::fmt::Write as _;

use super::{
    expectation::PathKind,
    matrix::CellReport,
    scenario::{Cell, Site},
};

const CELL_WIDTH: usize = 104;
const LINE_HEIGHT: usize = 14;
const LABELS_WIDTH: usize = 300;
const TOP: usize = 96;

/// Draws the matrix.
pub(crate) fn svg(reports: &[CellReport]) -> String {
    let mut latencies: Vec<u64> = reports.iter().map(|report| report.rtt_ms).collect();
    latencies.sort_unstable();
    latencies.dedup();
    let cell_height = (LINE_HEIGHT * latencies.len() + 10).max(36);
    let sites: Vec<Site> = Site::PAIRED.into_iter().filter(|site| has_site(reports, *site)).collect();
    let singles: Vec<(String, String)> = single_cells(reports);
    let width = LABELS_WIDTH + sites.len().max(5) * CELL_WIDTH + 20;
    let singles_top = TOP + sites.len() * cell_height + 24;
    let legend_top = singles_top + singles.len() * cell_height + 24;
    let height = legend_top + 70;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let lines: Vec<String> = latencies.iter().map(u64::to_string).collect();
    text(
        &mut svg,
        12,
        26,
        "start",
        "#111111",
        "Who reaches whom, over which path",
        "font-size=\"18\" font-weight=\"bold\"",
    );
    let runs = reports.iter().map(|report| report.runs).max().unwrap_or(0);
    let about = format!(
        "Rows share, columns call. Lines in a square: a round trip of {} ms between all hosts. Runs that were as expected of up to {runs}, and the median time to a session.",
        lines.join(", ")
    );
    text(&mut svg, 12, 46, "start", "#444444", &about, "");
    for (column, site) in sites.iter().enumerate() {
        let x = LABELS_WIDTH + column * CELL_WIDTH + CELL_WIDTH / 2;
        text(&mut svg, x, TOP - 10, "middle", "#111111", site.id(), "font-weight=\"bold\"");
    }
    for (row, a) in sites.iter().enumerate() {
        let y = TOP + row * cell_height;
        label(&mut svg, y, cell_height, a.id(), a.words());
        for (column, b) in sites.iter().enumerate() {
            let both: Vec<&CellReport> =
                latencies.iter().filter_map(|rtt| find(reports, a.id(), b.id(), *rtt)).collect();
            square(&mut svg, LABELS_WIDTH + column * CELL_WIDTH, y, cell_height, &both);
        }
    }
    for (row, (a, b)) in singles.iter().enumerate() {
        let y = singles_top + row * cell_height;
        let words = match a.as_str() {
            "one-nat-hairpin" => "both behind one NAT, with hairpinning",
            "one-nat" => "both behind one NAT, without hairpinning",
            _ => b.as_str(),
        };
        label(&mut svg, y, cell_height, a, words);
        let both: Vec<&CellReport> = latencies.iter().filter_map(|rtt| find(reports, a, b, *rtt)).collect();
        square(&mut svg, LABELS_WIDTH, y, cell_height, &both);
    }
    legend(&mut svg, legend_top);
    svg += "</svg>\n";
    svg
}

/// How a square is filled, and what that means.
const MEANINGS: [(&str, &str); 7] = [
    ("#cfe8c6", "direct: connected to an address that lets everybody in"),
    ("#a6d8d4", "direct: opening SYN"),
    ("#f3e3a1", "direct: crossing SYNs"),
    ("#dcdcdc", "a relay is needed, as theory says"),
    ("#f2a59b", "not as theory says"),
    ("#ffffff", "not run, or in the square across"),
    ("#d3cdea", "relayed, as theory says"),
];

fn fill(reports: &[&CellReport]) -> &'static str {
    let Some(last) = reports.last() else { return MEANINGS[5].0 };
    if reports.iter().any(|report| !report.as_expected) {
        return MEANINGS[4].0;
    }
    if last.expected == PathKind::Relay {
        return MEANINGS[if last.path == "relay" { 6 } else { 3 }].0;
    }
    match last.strategy.as_deref().unwrap_or_default() {
        strategy if strategy.contains("opening") => MEANINGS[1].0,
        strategy if strategy.contains("crossing") => MEANINGS[2].0,
        _ => MEANINGS[0].0,
    }
}

fn square(svg: &mut String, x: usize, y: usize, height: usize, reports: &[&CellReport]) {
    let (width, fill) = (CELL_WIDTH - 2, fill(reports));
    let height = height - 2;
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\" stroke=\"#bbbbbb\" stroke-width=\"0.5\"/>"
    );
    for (line, report) in reports.iter().enumerate() {
        let at = y + 14 + line * LINE_HEIGHT;
        let colour = if report.as_expected { "#111111" } else { "#9c1006" };
        text(svg, x + 4, at, "start", colour, short(report), "font-size=\"10\"");
        let numbers = format!("{}/{} {}", report.good, report.runs, time(report.ms));
        text(svg, x + CELL_WIDTH - 6, at, "end", colour, &numbers, "font-size=\"10\"");
    }
}

/// One word about how the path was found.
fn short(report: &CellReport) -> &'static str {
    match report.strategy.as_deref() {
        _ if report.path == "none" => "none",
        _ if report.path == "relay" => "relay",
        Some(strategy) if strategy.contains("opening") => "open",
        Some(strategy) if strategy.contains("crossing") => "cross",
        Some("accepted") => "acc.",
        Some("dialled") => "dial",
        Some("connected") => "conn.",
        _ => "direct",
    }
}

fn time(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.0}ms") } else { format!("{:.1}s", ms / 1000.0) }
}

fn label(svg: &mut String, y: usize, height: usize, id: &str, words: &str) {
    let middle = y + height / 2;
    text(svg, LABELS_WIDTH - 10, middle - 3, "end", "#111111", id, "font-weight=\"bold\"");
    text(svg, LABELS_WIDTH - 10, middle + 11, "end", "#444444", words, "");
}

fn legend(svg: &mut String, top: usize) {
    for (index, (colour, meaning)) in MEANINGS.iter().enumerate() {
        let (x, y) = (12 + index % 3 * 380, top + index / 3 * 22);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"16\" height=\"14\" fill=\"{colour}\" stroke=\"#bbbbbb\"/>"
        );
        text(svg, x + 24, y + 11, "start", "#111111", meaning, "");
    }
}

fn text(svg: &mut String, x: usize, y: usize, anchor: &str, colour: &str, text: &str, more: &str) {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ =
        writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" fill=\"{colour}\" {more}>{escaped}</text>");
}

fn find<'a>(reports: &'a [CellReport], a: &str, b: &str, rtt_ms: u64) -> Option<&'a CellReport> {
    reports.iter().find(|report| report.a == a && report.b == b && report.rtt_ms == rtt_ms)
}

fn has_site(reports: &[CellReport], site: Site) -> bool {
    reports.iter().any(|report| in_square(report) && (report.a == site.id() || report.b == site.id()))
}

fn in_square(report: &CellReport) -> bool {
    let paired = |id: &str| Site::PAIRED.iter().any(|site| site.id() == id);
    paired(&report.a) && paired(&report.b)
}

/// Cells that have no place in the square, once each.
fn single_cells(reports: &[CellReport]) -> Vec<(String, String)> {
    let ids = |cell: &Cell| (cell.a().to_owned(), cell.b().to_owned());
    let all = Cell::all();
    let ran = |ids: &(String, String)| {
        reports.iter().any(|report| !in_square(report) && report.a == ids.0 && report.b == ids.1)
    };
    all.iter().map(ids).filter(ran).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::nat::matrix::Task;

    fn report(a: &str, b: &str, rtt: u64) -> CellReport {
        let cell = format!("{a}:{b}").parse().unwrap_or_else(|_| a.parse().unwrap());
        CellReport::of(Task { cell, round_trip: Duration::from_millis(rtt), relays: false }, Vec::new())
    }

    #[test]
    fn every_cell_that_ran_is_drawn() {
        let reports = [
            report("public", "sym", 0),
            report("public", "sym", 40),
            report("one-nat", "", 40),
            report("public-443", "only-443", 0),
        ];
        let svg = svg(&reports);
        assert_eq!(svg.matches("0/0").count(), 4, "{svg}");
        assert!(svg.contains("both behind one NAT, without hairpinning") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn texts_are_escaped() {
        let mut svg = String::new();
        text(&mut svg, 0, 0, "start", "#000", "a < b & c", "");
        assert!(svg.contains("a &lt; b &amp; c"));
    }
}
