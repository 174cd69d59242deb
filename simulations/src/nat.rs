//! `nat-matrix`: real nodes behind every two kinds of NAT and firewall, in a [`crate::network`].
//!
//! ```text
//! scenario     sites, cells and addresses
//! expectation  what theory says
//! world        the network of it
//! self_test    proves it with `probe`s, without Keyferry
//! nodes, pair  real nodes in it: one run of one cell; relays: who relays for them
//! matrix       all cells; `report` and `picture` show them
//! latency      the steps of a call; speed: what a punched path carries
//! following    a fetch that is followed; moving: one that changes its path; losing: one whose relay is killed
//! ```
//!
//! What it is not: the internet. Routers here are Linux, with what nftables can do.

mod expectation;
mod following;
mod latency;
mod losing;
mod matrix;
mod moving;
mod nodes;
mod pair;
mod picture;
mod probe;
mod relays;
mod report;
mod scenario;
mod self_test;
mod speed;
mod world;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use self::{
    matrix::{Settings, Task},
    nodes::Program,
    pair::Plan,
    relays::Relays,
    scenario::{Cell, Site},
    world::World,
};
use crate::{
    lab::keyferry_binary,
    measure::parse_size,
    network::{
        self, Engine, Image, KEYFERRY_IN_IMAGE,
        core::{Rate, Way},
    },
};

pub(crate) use probe::obey as run_probe;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Check the lab itself, without Keyferry: what each NAT maps, filters and answers, and that routers count hops.
    #[arg(long)]
    self_test: bool,
    /// A small selection, one run each at 40 ms, in a few minutes: for every change.
    #[arg(long, conflicts_with_all = ["self_test", "cells", "rtt_ms"])]
    smoke: bool,
    /// How long a call takes, step by step, to a public node and through two NATs: at 40 ms, 50 runs unless --runs is given.
    #[arg(long, conflicts_with_all = ["self_test", "smoke"])]
    latency: bool,
    /// What a punched path carries beside a plain one through the same NATs: 256 MiB, 5 runs unless --size and --runs are given.
    #[arg(long, conflicts_with_all = ["self_test", "smoke", "latency"])]
    throughput: bool,
    /// A fetch that goes from a relay to the direct path and back, as that is freed and blocked: 512 MiB at 40 ms.
    #[arg(long, conflicts_with_all = ["self_test", "smoke", "latency", "throughput", "cells"])]
    moving: bool,
    /// A fetch whose relay is killed in the middle: one found through the DHT and one of two coturns, unless --relays says which;
    /// 256 MiB, less by coturn, at 40 ms.
    #[arg(long, conflicts_with_all = ["self_test", "smoke", "latency", "throughput", "moving", "cells"])]
    losing: bool,
    /// Build one cell with public nodes, say how to enter it, and wait for Ctrl-C: to look around by hand.
    #[arg(long, value_name = "A:B", conflicts_with_all = ["self_test", "smoke", "latency", "throughput"])]
    hold: Option<Cell>,
    /// What hosts and routers are.
    #[arg(long, value_name = "ENGINE", default_value = "namespaces", conflicts_with_all = ["self_test", "losing"])]
    engine: EngineKind,
    /// Who relays in the lab.
    #[arg(long, value_name = "WHO", default_value = "none", conflicts_with_all = ["self_test", "latency", "throughput"])]
    relays: Relays,
    /// Only these cells: two sites each, the sharer's first, such as apdf-rst:cgn-rst or one-nat.
    #[arg(long, value_name = "A:B", value_delimiter = ',')]
    cells: Vec<Cell>,
    /// Only cells whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How often each cell is run [default: 1].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: Option<u32>,
    /// How often each cell is run that needs a relay [default: as the others].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    relay_runs: Option<u32>,
    /// The round trip between any two hosts, in milliseconds. May be several [default: 0,40,200].
    #[arg(long, value_name = "MS", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(0..=2000))]
    rtt_ms: Vec<u64>,
    /// The part of the packets that the core loses, from 0 to 0.5.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// How many packets in a row the core loses on average [default: each by itself].
    #[arg(long, value_name = "PACKETS", requires = "loss")]
    burst: Option<f64>,
    /// How much longer than half the round trip a packet takes at most, in milliseconds.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=2000))]
    jitter_ms: u64,
    /// The part of the packets that later ones overtake, from 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    reorder: f64,
    /// What each line into the core carries in each direction, in kbit/s [default: without a limit].
    #[arg(long, value_name = "KBIT", value_parser = clap::value_parser!(u64).range(8..=10_000_000))]
    rate_kbit: Option<u64>,
    /// How long a packet waits at most for its turn on such a line, in milliseconds.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    queue_ms: u64,
    /// How many cells run at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// The size of the file that is fetched [default: 1MiB].
    #[arg(long, value_parser = parse_size)]
    size: Option<u64>,
    /// Call only, fetch nothing.
    #[arg(long)]
    ping_only: bool,
    /// Write the matrix as a picture to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the matrix as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
    /// Keep the files and logs of nodes and routers in this folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// What hosts and routers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineKind {
    /// Network namespaces.
    Namespaces,
    /// Containers of the Docker engine of this machine, of an image that is made of the binary.
    Docker,
}

/// Runs the lab and prints what came of it.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    if options.engine == EngineKind::Namespaces {
        network::become_root()?;
    }
    network::ensure_possible(&options.programs())?;
    network::end_tidily_on_signals(|| ())?;
    let left = network::sweep_dead();
    if left > 0 {
        eprintln!("removed {left} namespaces that an earlier run has left");
    }
    let temporary = tempfile::Builder::new().prefix("keyferry-nat-").tempdir()?;
    let dir = options.keep.as_deref().unwrap_or(temporary.path());
    if options.self_test {
        return self_test::report(&self_test::run(dir)?, json);
    }
    options.way(0).ensure_possible()?;
    let keyferry = keyferry_binary()?;
    // Removed after the containers: whoever has a world is done with it when this function returns.
    let image = (options.engine == EngineKind::Docker).then(|| Image::temporary(&keyferry)).transpose()?;
    let plan = Plan {
        engine: match &image {
            Some(image) => Engine::docker(image.name(), &fs::canonicalize(dir)?),
            None => Engine::Namespaces,
        },
        program: Program {
            keyferry: if image.is_some() { KEYFERRY_IN_IMAGE.into() } else { keyferry },
            logs: options.keep.is_some(),
            relays: if options.moving { Relays::Slow } else { options.relays },
        },
        bytes: options.size.unwrap_or(match () {
            () if options.moving => 512 << 20,
            () if options.throughput => 256 << 20,
            () => 1 << 20,
        }),
        fetch: !options.ping_only && !options.latency,
    };
    if let Some(cell) = options.hold {
        return hold(cell, options.way(0), &plan, dir);
    }
    if options.moving {
        return moving::run(&plan, options.way(latency::ROUND_TRIP_MS), dir, json);
    }
    if options.losing {
        let settings = losing::Settings {
            plan,
            relays: options.relays,
            bytes: options.size,
            runs: options.runs.unwrap_or(1),
            way: options.way(latency::ROUND_TRIP_MS),
        };
        return losing::run(&settings, dir, json);
    }
    if options.throughput {
        return speed::run(&plan, options.runs.unwrap_or(5), options.way(0), dir, json);
    }
    let settings = Settings {
        plan,
        runs: options.runs.unwrap_or(if options.latency { 50 } else { 1 }),
        relay_runs: options.relay_runs,
        way: options.way(0),
        parallel: usize::from(options.parallel),
    };
    let reports = matrix::run(&options.tasks()?, &settings, dir)?;
    if let Some(file) = &options.svg {
        fs::write(file, picture::svg(&reports)).with_context(|| file.display().to_string())?;
    }
    if let Some(file) = &options.json_file {
        fs::write(file, serde_json::to_vec(&serde_json::json!({ "cells": reports }))?)?;
    }
    if options.latency { latency::print(&reports, json) } else { report::print(&reports, json) }
}

fn hold(cell: Cell, way: Way, plan: &Plan, dir: &Path) -> Result<()> {
    let world = World::build(plan.engine.clone(), way, dir.join("hold"))?;
    let _public = plan.program.start_public(&world)?;
    world.plug(cell)?;
    println!(
        "{cell} is up. The sharer's host is a, the caller's b, their routers a.router, a.carrier, b.router, b.carrier; public nodes are p0, p1, p2."
    );
    println!("  export KEYFERRY_NO_MDNS=1 KEYFERRY_BOOTSTRAP={}", nodes::bootstrap());
    if let Some(relays) = plan.program.relays.configured() {
        println!("  export KEYFERRY_TURN={relays}");
    }
    println!("  {}", format!("{:?}", world.command("a", "sh")).replace('"', ""));
    loop {
        thread::park();
    }
}

/// What `--smoke` runs: each strategy, each reason for a relay, and what needs care of its own.
const SMOKE: [Cell; 10] = [
    Cell::Apart(Site::Public, Site::PortDependent),
    Cell::Apart(Site::EndpointIndependent, Site::Symmetric),
    Cell::Apart(Site::AddressDependent, Site::SymmetricRst),
    Cell::Apart(Site::PortDependentRst, Site::PortDependentRst),
    Cell::Apart(Site::PortDependent, Site::CarrierGradeRst),
    Cell::Apart(Site::PortMapping, Site::Symmetric),
    Cell::Apart(Site::V6Rst, Site::V6Rst),
    Cell::Apart(Site::Public443, Site::Only443),
    Cell::Apart(Site::Symmetric, Site::SymmetricRst),
    Cell::OneNat { hairpin: false },
];

impl Options {
    /// How the way between two hosts is; unless told, a round trip takes as long as is said here.
    fn way(&self, round_trip_ms: u64) -> Way {
        let round_trip = Duration::from_millis(self.rtt_ms.first().copied().unwrap_or(round_trip_ms));
        let queue = Duration::from_millis(self.queue_ms);
        Way {
            jitter: Duration::from_millis(self.jitter_ms),
            loss: self.loss,
            burst: self.burst,
            reorder: self.reorder,
            rate: self.rate_kbit.map(|kbit| Rate { bytes_per_second: kbit * 125, queue }),
            ..Way::taking(round_trip / 2)
        }
    }

    /// Programs besides those of all labs.
    fn programs(&self) -> Vec<&'static str> {
        let maps_ports = self.self_test
            || match (self.hold, self.moving || self.losing) {
                (Some(cell), _) => cell.has(Site::PortMapping),
                (None, true) => false,
                (None, false) => self.throughput || self.chosen_cells().iter().any(|cell| cell.has(Site::PortMapping)),
            };
        let relays = if self.losing { self.relays.to_lose() } else { vec![self.relays] };
        let has_coturn = relays.into_iter().any(|relays| relays.coturns() > 0);
        let wanted = [(maps_ports, &["miniupnpd"][..]), (has_coturn, &["turnserver", "bash"])];
        wanted.into_iter().filter(|(is_wanted, _)| *is_wanted).flat_map(|(_, programs)| programs).copied().collect()
    }

    fn chosen_cells(&self) -> Vec<Cell> {
        let cells = match () {
            () if !self.cells.is_empty() => self.cells.clone(),
            () if self.smoke => SMOKE.to_vec(),
            () if self.latency => latency::TARGETS.map(|(cell, _)| cell).to_vec(),
            () => Cell::all(),
        };
        let chosen = |cell: &Cell| self.only.as_ref().is_none_or(|only| cell.to_string().contains(only.as_str()));
        cells.into_iter().filter(chosen).collect()
    }

    fn tasks(&self) -> Result<Vec<Task>> {
        let cells = self.chosen_cells();
        ensure!(!cells.is_empty(), "no cell has {:?} in its name", self.only.as_deref().unwrap_or_default());
        let round_trips = match &self.rtt_ms[..] {
            [] if self.smoke || self.latency => &[latency::ROUND_TRIP_MS][..],
            [] => &[0, 40, 200],
            given => given,
        };
        let relays = self.relays != Relays::None;
        let at = |rtt: &u64| {
            let round_trip = Duration::from_millis(*rtt);
            cells.iter().map(move |cell| Task { cell: *cell, round_trip, relays }).collect::<Vec<_>>()
        };
        Ok(round_trips.iter().flat_map(at).collect())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn programs(line: &str) -> Vec<&'static str> {
        Cli::try_parse_from(["nat-matrix"].into_iter().chain(line.split_whitespace())).unwrap().options.programs()
    }

    #[test]
    fn the_lab_needs_what_its_cells_and_relays_run() {
        let (mapping, coturn) = (["miniupnpd"], ["turnserver", "bash"]);
        for line in ["", "--self-test", "--smoke", "--throughput", "--cells sym:upnp", "--hold upnp:apdf"] {
            assert_eq!(programs(line), mapping, "{line}");
        }
        for line in ["--cells apdf:sym", "--only cgn:cgn", "--moving", "--losing --relays found", "--hold sym:sym"] {
            assert!(programs(line).is_empty(), "{line}");
        }
        for line in ["--losing", "--losing --relays coturn", "--relays coturn --cells apdf:sym"] {
            assert_eq!(programs(line), coturn, "{line}");
        }
    }
}
