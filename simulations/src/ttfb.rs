//! The time from `get` to the first verified byte: over a node that is known already, and by public key and name alone
//! through a DHT of real nodes. And how long `get` and `ls` take when there is next to nothing to move, and to end when all is told.
//!
//! What it is not: a simulation of distance; loopback has no delay.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::{
    content,
    lab::{CommandTimes, Lab},
    measure::median,
};

const FILE_LEN: u64 = 300_000;
const SMALL_FILE_LEN: u64 = 1024;

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
    /// `get` of 1 KiB from a known node.
    small_get: WholeCommands,
    /// `ls` of a known node.
    ls: WholeCommands,
}

/// The times of whole commands, in milliseconds.
#[derive(Debug, Default, Serialize)]
struct WholeCommands {
    /// From the start of the process until its end.
    whole_ms: Vec<f64>,
    median_whole_ms: f64,
    /// From the last line until the end of the process.
    leaving_ms: Vec<f64>,
    longest_leaving_ms: f64,
}

impl WholeCommands {
    fn add(&mut self, times: CommandTimes) {
        self.whole_ms.push(ms(times.whole));
        self.leaving_ms.push(ms(times.leaving));
        self.median_whole_ms = median(&self.whole_ms);
        self.longest_leaving_ms = self.leaving_ms.iter().copied().fold(0.0, f64::max);
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
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
    let (small_get, ls) = whole_commands(options)?;
    let (known_node, dht) = (known_node(options)?, through_dht(options)?);
    let report = Report { known_node, dht_nodes: options.nodes, dht, small_get, ls };
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
    println!("\nWhole commands over a known node, median; and from the last line to the end, the longest:\n");
    for (name, commands) in [("get of 1 KiB", &report.small_get), ("ls", &report.ls)] {
        println!("  {name:<20} {:>7.1} ms   {:>7.1} ms", commands.median_whole_ms, commands.longest_leaving_ms);
    }
    Ok(())
}

/// `get` and `ls` of a known node, in turns.
fn whole_commands(options: &Options) -> Result<(WholeCommands, WholeCommands)> {
    let lab = Lab::new(options.dir.as_deref())?;
    content::random_file(&lab.path("a"), 3, SMALL_FILE_LEN)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    let address = shared.address_with_hints.to_string();
    let node = address.replace("/a?", "?");
    let (mut gets, mut lists) = (WholeCommands::default(), WholeCommands::default());
    // The first of each finds nothing in the machine's caches.
    for run in 0..=options.runs {
        let out = lab.folder(format!("out-{run}"))?;
        let words = [OsStr::new("get"), OsStr::new(&address), OsStr::new("-o"), out.as_os_str()];
        let (get, ls) = (lab.timed(&format!("getter-{run}"), words)?, lab.timed("lister", ["ls", &node])?);
        if run > 0 {
            gets.add(get);
            lists.add(ls);
        }
    }
    Ok((gets, lists))
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
