//! What a relay carries: the relay of a node and coturn beside a plain TCP proxy (`socat`), in turns; and many relayed connections
//! at once.
//!
//! ```text
//! plain-serve ◀── TCP ── socat / keyferry relay / coturn ◀── TCP, or TURN Connect ── a client that drops what it reads
//! ```
//! All are processes of their own, over loopback, memory to memory: no disk, no encryption, so that the relay is what is measured.
//!
//! What it is not: a fetch. `keyferry get` over a relay is limited by its own two ends as well.

pub(crate) mod client;
mod many;
mod programs;

use std::path::Path;

use anyhow::{Error, Result, ensure};
use clap::Args;
use serde::Serialize;

use self::{
    many::Many,
    programs::{Coturn, KeyferryRelay, Socat},
};
use crate::{
    measure::{MIB, Series, parse_size},
    plain::Server,
};

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How much goes through in each run.
    #[arg(long, default_value = "2GiB", value_parser = parse_size)]
    size: u64,
    /// How often; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// How many connections there are at once in the second table; 0 leaves it out.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=250))]
    connections: u32,
}

/// The figures.
#[derive(Debug, Serialize)]
struct Report {
    /// Speed through the relay of a node by that through socat, medians.
    ratio: f64,
    /// The same for coturn; none where it is not installed.
    coturn_ratio: Option<f64>,
    size_bytes: u64,
    runs: u32,
    /// From process to process, with nothing in between.
    direct: Series,
    socat: Series,
    keyferry: Series,
    #[serde(skip_serializing_if = "Option::is_none")]
    coturn: Option<Series>,
    #[serde(skip_serializing_if = "Option::is_none")]
    many: Option<Many>,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    keyferry_needs::ensure(&["socat"]).map_err(Error::msg)?;
    let dir = tempfile::Builder::new().prefix("keyferry-relay-").tempdir()?;
    let relay = KeyferryRelay::start(dir.path())?;
    // More than can be carried in the time.
    let endless = Server::start(&["--zeros".as_ref(), u64::MAX.to_string().as_ref()])?;
    let mut report = in_turns(options, &relay, &endless, dir.path())?;
    if options.connections > 0 {
        report.many = Some(many::measure(&relay, options.connections)?);
    }
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn in_turns(options: &Options, relay: &KeyferryRelay, endless: &Server, dir: &Path) -> Result<Report> {
    let size = options.size;
    let source = Server::start(&["--zeros".as_ref(), size.to_string().as_ref()])?;
    let socat = Socat::start(source.port())?;
    let coturn = if keyferry_needs::lacks(&["turnserver"]) { None } else { Some(Coturn::start(dir)?) };
    let mut report = Report {
        ratio: 0.0,
        coturn_ratio: None,
        size_bytes: size,
        runs: options.runs,
        direct: Series::default(),
        socat: Series::default(),
        keyferry: Series::default(),
        coturn: coturn.is_some().then(Series::default),
        many: None,
    };
    for run in 0..options.runs {
        eprintln!("run {} of {}", run + 1, options.runs);
        report.direct.add(source.fetch(&[])?, size);
        report.socat.add(socat.fetch()?, size);
        report.keyferry.add(client::fetch_through(relay.uri(), endless.port(), size)?, size);
        if let (Some(coturn), Some(series)) = (&coturn, &mut report.coturn) {
            series.add(client::fetch_through(coturn.uri(), endless.port(), size)?, size);
        }
    }
    ensure!(report.keyferry.median_seconds > 0.0, "nothing was measured");
    report.ratio = report.socat.median_seconds / report.keyferry.median_seconds;
    report.coturn_ratio = report.coturn.as_ref().map(|series| report.socat.median_seconds / series.median_seconds);
    Ok(report)
}

fn print(report: &Report) {
    println!("{:.0} MiB through a relay over loopback, median of {}:\n", report.size_bytes as f64 / MIB, report.runs);
    let row = |name: &str, series: &Series| {
        let share = report.socat.median_seconds / series.median_seconds;
        let all: Vec<String> = series.seconds.iter().map(|seconds| format!("{seconds:.2}")).collect();
        println!(
            "  {name:<24} {:>7.3} s  {:>7.0} MiB/s  {share:>5.2}   ({})",
            series.median_seconds,
            series.mib_per_second,
            all.join(" ")
        );
    };
    row("TCP, no relay", &report.direct);
    row("socat", &report.socat);
    row("keyferry relay", &report.keyferry);
    match &report.coturn {
        Some(series) => row("coturn", series),
        None => println!("  coturn                   not installed"),
    }
    println!("\n  ratio of the relay of a node to socat: {:.2}", report.ratio);
    if let Some(many) = &report.many {
        many.print();
    }
}
