//! The matrix as text and as JSON.
//!
//! What it is not: the picture (`picture`).

use anyhow::{Result, ensure};
use serde_json::json;

use super::{expectation::PathKind, matrix::CellReport};

/// Prints all cells, and fails if one is not as theory says.
pub(crate) fn print(reports: &[CellReport], json: bool) -> Result<()> {
    if json {
        println!("{}", json!({ "cells": reports }));
    } else {
        table(reports);
    }
    let wrong: Vec<String> = reports
        .iter()
        .filter(|report| !report.as_expected)
        .map(|report| format!("{}:{} at {} ms", report.a, report.b, report.rtt_ms))
        .collect();
    ensure!(wrong.is_empty(), "{} of {} cells are not as expected: {}", wrong.len(), reports.len(), wrong.join(", "));
    Ok(())
}

fn table(reports: &[CellReport]) {
    println!("| sharer | caller | round trip | path | how | runs | time | at most |");
    println!("| --- | --- | ---: | --- | --- | ---: | ---: | ---: |");
    for report in reports {
        println!(
            "| {} | {} | {} ms | {} | {} | {}/{} | {:.0} ms | {:.0} ms |",
            report.a,
            report.b,
            report.rtt_ms,
            path(report),
            how(report),
            report.good,
            report.runs,
            report.ms,
            report.ms_max
        );
    }
    let direct = reports.iter().filter(|report| report.expected == PathKind::Direct);
    let (cells, good) =
        direct.fold((0, 0), |(cells, good), report| (cells + 1, good + usize::from(report.as_expected)));
    let relay = reports.len() - cells;
    let of_relay = || reports.iter().filter(|report| report.expected == PathKind::Relay && report.as_expected);
    let in_time = of_relay().filter(|report| report.in_time == Some(true)).count();
    let relayed = of_relay().filter(|report| report.path == "relay").count();
    println!("\nA direct path is possible in {cells} cells and was made in {good}, at every run.");
    match relayed {
        0 => {
            println!("A relay is needed in {relay} cells; {in_time} said so with the reason within 3 s, at every run.")
        }
        _ => println!(
            "A relay is needed in {relay} cells and was used in {relayed}; in {in_time} the first byte came within 3 s, at every run."
        ),
    }
}

fn path(report: &CellReport) -> &'static str {
    match (report.path, report.as_expected) {
        ("none", true) => "relay needed",
        ("direct", true) => "direct",
        ("relay", true) => "relay",
        ("none", false) => "NONE",
        ("direct", false) => "DIRECT",
        ("relay", false) => "RELAY",
        _ => "MIXED",
    }
}

/// How the path was found, or why there is none.
fn how(report: &CellReport) -> String {
    match (&report.strategy, &report.reason) {
        (Some(strategy), None) if report.ttls.is_empty() => strategy.clone(),
        (Some(strategy), None) => {
            let ttls: Vec<String> = report.ttls.iter().map(u64::to_string).collect();
            format!("{strategy}, TTL {}", ttls.join(" "))
        }
        (Some(strategy), Some(reason)) => format!("{strategy}; {reason}"),
        (None, reason) => reason.clone().unwrap_or_default(),
    }
}
