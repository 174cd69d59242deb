//! `kill -9` of the getter or of the sharer at random points, again and again: what is kept, and whether it is right.
//!
//! What it is not: a power failure; what was written stays written.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use keyferry::node::api::{Event, Fetched};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;

use crate::{
    content,
    lab::{Lab, Process},
    measure::parse_size,
};

/// The part that has to be kept of what had been verified.
const REQUIRED: f64 = 0.95;

/// What to kill, and how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Who is killed.
    #[arg(long, value_enum, default_value = "both")]
    side: Side,
    /// How often, for each side.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// The size of the file.
    #[arg(long, default_value = "512MiB", value_parser = parse_size)]
    size: u64,
    /// Repeats an earlier run.
    #[arg(long)]
    seed: Option<u64>,
    /// Work in this folder instead of the system's one for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Side {
    Getter,
    Sharer,
    Both,
}

/// One kill.
#[derive(Debug, Serialize)]
struct Round {
    side: Side,
    /// Bytes that the getter had reported as verified.
    verified: u64,
    /// Bytes of these that did not have to come again.
    kept: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    seed: u64,
    size_bytes: u64,
    /// The smallest part that was kept.
    worst_kept: f64,
    rounds: Vec<Round>,
}

/// Kills, checks and prints. A result that is wrong, or too little that was kept, is an error.
pub(crate) fn run(options: &Options, json: bool) -> Result<()> {
    let seed = options.seed.unwrap_or_else(rand::random);
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut lab = Lab::new(options.dir.as_deref())?;
    let (_bootstrap, status) = lab.node("bootstrap")?;
    lab.bootstrap_from(&status.hints);
    content::random_file(&lab.path("big"), seed, options.size)?;
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        for side in [Side::Getter, Side::Sharer] {
            if options.side == side || options.side == Side::Both {
                let point = random.random_range(options.size / 20..options.size * 9 / 10);
                rounds.push(round(&lab, side, point)?);
            }
        }
    }
    let part = |round: &Round| if round.verified == 0 { 1.0 } else { round.kept as f64 / round.verified as f64 };
    let worst_kept = rounds.iter().map(part).fold(1.0, f64::min);
    let report = Report { seed, size_bytes: options.size, worst_kept, rounds };
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        for Round { side, verified, kept } in &report.rounds {
            println!("  {side:?} killed at {verified:>12} bytes, {kept:>12} kept");
        }
        println!("  at least {:.1} % kept of what had been verified", report.worst_kept * 100.0);
    }
    ensure!(report.worst_kept >= REQUIRED, "less than {REQUIRED} was kept; seed {seed}");
    Ok(())
}

fn round(lab: &Lab, side: Side, point: u64) -> Result<Round> {
    let (sharer, shared) = lab.share("sharer", &lab.path("big"))?;
    let out = lab.folder("out")?;
    let mut getter = lab.start_get("getter", &shared.address_with_hints, &out)?;
    let reached = getter.wait_for(|event| match event {
        Event::Fetching { done_bytes, .. } if *done_bytes >= point => Some(*done_bytes),
        Event::Fetched(fetched) => Some(fetched.size),
        _ => None,
    })?;
    let (verified, fetched, sharer) = match side {
        Side::Getter => {
            let killed = getter.kill()?;
            (killed.last_progress(), lab.get("getter", &shared.address_with_hints, &out)?.0, sharer)
        }
        _ => kill_sharer(lab, sharer, getter, &shared.address.to_string(), reached)?,
    };
    ensure!(content::hash_file(&fetched.path)? == blake3::Hash::from(shared.hash), "what arrived is wrong");
    let verify = lab.start("getter", ["store", "verify"])?.finish()?;
    let Some(Event::Verified { damaged: 0, .. }) = verify.events().last() else {
        bail!("the store is not sound: {:?}", verify.events());
    };
    sharer.stop()?;
    lab.forget("getter")?;
    let kept = if fetched.resumed_bytes > 0 { fetched.resumed_bytes } else { kept_without_a_stop(&fetched, verified) };
    Ok(Round { side, verified, kept: kept.min(verified) })
}

/// What was kept by a getter that never stopped: all but what came twice. Hash trees are 0.1 % of the content.
fn kept_without_a_stop(fetched: &Fetched, verified: u64) -> u64 {
    verified.saturating_sub(fetched.received_bytes.saturating_sub(fetched.size + fetched.size / 500))
}

/// Kills the sharer when `reached` bytes are verified, and starts a node on its folder. The getter goes on by itself.
fn kill_sharer(
    lab: &Lab,
    sharer: Process,
    getter: Process,
    address: &str,
    reached: u64,
) -> Result<(u64, Fetched, Process)> {
    sharer.kill()?;
    let (sharer, _) = lab.node("sharer")?;
    let first = getter.finish()?;
    if let Ok(fetched) = first.fetched() {
        return Ok((reached, fetched.clone(), sharer));
    }
    let verified = first.last_progress();
    // It gave up while the sharer was away; a person starts it again. The new offer takes a moment to be found.
    let out = lab.path("out");
    let again = (0..5).find_map(|_| lab.get("getter", address, &out).ok());
    Ok((verified, again.context("the getter cannot go on")?.0, sharer))
}
