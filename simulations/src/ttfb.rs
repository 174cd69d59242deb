//! The time from `get` to the first verified byte: over a node that is known already, and by public key and name alone
//! through a DHT of real nodes.
//!
//! What it is not: a simulation of distance; loopback has no delay.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::{content, lab::Lab, measure::median};

const FILE_LEN: u64 = 300_000;

/// How long the DHT is given to settle, and a record to be published, before it is measured.
const SETTLE: Duration = Duration::from_secs(5);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many nodes the DHT has.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    nodes: u32,
    /// How often; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Work in this folder instead of the system's one for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// The figures.
#[derive(Debug, Serialize)]
struct Report {
    known_node: Delays,
    dht_nodes: u32,
    dht: Delays,
}

/// The delays of some runs, in milliseconds.
#[derive(Debug, Default, Serialize)]
struct Delays {
    /// From the start of the command until the first verified byte, as it tells itself.
    first_byte_ms: Vec<f64>,
    median_first_byte_ms: f64,
    /// From the start of the process until its end, with the whole file.
    whole_command_ms: Vec<f64>,
    median_whole_command_ms: f64,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    let report = Report { known_node: known_node(options)?, dht_nodes: options.nodes, dht: through_dht(options)? };
    if json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    println!("From `get` to the first verified byte, median of {}:\n", options.runs);
    for (name, delays) in
        [("known node".to_owned(), &report.known_node), (format!("DHT of {} nodes", options.nodes), &report.dht)]
    {
        println!(
            "  {name:<20} {:>7.1} ms   whole command {:>7.1} ms",
            delays.median_first_byte_ms, delays.median_whole_command_ms
        );
    }
    Ok(())
}

fn known_node(options: &Options) -> Result<Delays> {
    let lab = Lab::new(options.dir.as_deref())?;
    content::random_file(&lab.path("a"), 1, FILE_LEN)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    fetch(&lab, &shared.address_with_hints.to_string(), options.runs)
}

fn through_dht(options: &Options) -> Result<Delays> {
    let mut lab = Lab::new(options.dir.as_deref())?;
    let (first, status) = lab.node("node-0")?;
    lab.bootstrap_from(&status.hints);
    let (mut nodes, mut hints) = (vec![first], status.hints);
    for index in 1..options.nodes {
        let (node, status) = lab.node(&format!("node-{index}"))?;
        nodes.push(node);
        hints = status.hints;
    }
    content::random_file(&lab.path("a"), 2, FILE_LEN)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    std::thread::sleep(SETTLE);
    // The getter enters through another node than the sharer did.
    lab.bootstrap_from(&hints);
    fetch(&lab, &shared.address.to_string(), options.runs)
}

/// Fetches again and again, each time as a new node.
fn fetch(lab: &Lab, address: &str, runs: u32) -> Result<Delays> {
    let mut delays = Delays::default();
    for run in 0..runs {
        let node = format!("getter-{run}");
        let out = lab.folder(format!("out-{run}"))?;
        let (fetched, took, _) = lab.get(&node, address, &out)?;
        let first_byte = fetched.first_byte.context("a fetch of something new has a first byte")?;
        delays.first_byte_ms.push(first_byte.as_secs_f64() * 1000.0);
        delays.whole_command_ms.push(took.as_secs_f64() * 1000.0);
    }
    delays.median_first_byte_ms = median(&delays.first_byte_ms);
    delays.median_whole_command_ms = median(&delays.whole_command_ms);
    Ok(delays)
}
