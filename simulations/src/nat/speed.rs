//! How much a punched path carries, beside a session that was simply connected, through the same two NATs.
//!
//! The plain one goes to a port that the router has mapped; the punched one is an opening SYN through routers that answer with RST.
//! Both cross as many routers, and they are measured in turns.
//!
//! What it is not: the speed of a network; the core has no rate.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use serde_json::json;

use super::{
    pair::{self, Plan, Run},
    scenario::{Cell, Site},
    world::World,
};
use crate::{measure::median, network::core::Way};

/// The least part of the plain path's speed that the punched one has to reach.
const REQUIRED: f64 = 0.95;

const PLAIN: Cell = Cell::Apart(Site::PortMapping, Site::PortDependentRst);
const PUNCHED: Cell = Cell::Apart(Site::PortDependentRst, Site::PortDependentRst);

#[derive(Debug, Serialize)]
struct Report {
    /// The speed of the punched path divided by that of the plain one; medians.
    ratio: f64,
    rtt_ms: u64,
    bytes: u64,
    plain: PathSpeed,
    punched: PathSpeed,
}

#[derive(Debug, Default, Serialize)]
struct PathSpeed {
    strategies: Vec<String>,
    mib_per_second: Vec<f64>,
    median_mib_per_second: f64,
}

/// Measures in turns, prints, and fails if the punched path carries too little.
pub(crate) fn run(plan: &Plan, runs: u32, way: Way, dir: &Path, json: bool) -> Result<()> {
    let world = World::build(plan.engine.clone(), way, dir.join("throughput"))?;
    let _public = plan.program.start_public(&world)?;
    let (mut plain, mut punched) = (PathSpeed::default(), PathSpeed::default());
    for turn in 0..runs {
        for (cell, series) in [(PLAIN, &mut plain), (PUNCHED, &mut punched)] {
            let run = pair::run(&world, cell, plan);
            eprintln!("[{}/{runs}] {cell}: {:.0} MiB/s", turn + 1, run.mib_per_second.unwrap_or_default());
            series.add(cell, run)?;
        }
    }
    let report = Report {
        ratio: punched.median_mib_per_second / plain.median_mib_per_second,
        rtt_ms: (way.delay * 2).as_millis() as u64,
        bytes: plan.bytes,
        plain,
        punched,
    };
    if json {
        println!("{}", json!({ "throughput": report }));
    } else {
        report.print();
    }
    ensure!(report.ratio >= REQUIRED, "the punched path carries {:.2} of the plain one, not {REQUIRED}", report.ratio);
    Ok(())
}

impl PathSpeed {
    fn add(&mut self, cell: Cell, run: Run) -> Result<()> {
        let Some(speed) = run.mib_per_second else {
            bail!("{cell}: {}", run.reason.unwrap_or_else(|| "no speed was told".to_owned()));
        };
        self.strategies.push(run.strategy.unwrap_or_default());
        self.mib_per_second.push(speed);
        self.median_mib_per_second = median(&self.mib_per_second);
        Ok(())
    }
}

impl Report {
    fn print(&self) {
        println!(
            "{} bytes through two NATs, {} ms between hosts, median of {}:",
            self.bytes,
            self.rtt_ms,
            self.plain.mib_per_second.len()
        );
        for (name, cell, series) in [("plain", PLAIN, &self.plain), ("punched", PUNCHED, &self.punched)] {
            let how = series.strategies.first().map_or("", String::as_str);
            println!("  {name:<8} {:<22} {how:<12} {:>6.0} MiB/s", cell.to_string(), series.median_mib_per_second);
        }
        println!("  ratio {:.2}", self.ratio);
    }
}
