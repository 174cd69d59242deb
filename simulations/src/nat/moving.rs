//! A fetch that changes its path: it begins over a relay because the direct one is blocked, goes direct when the block is lifted, and
//! back when it is there again.
//!
//! What it is not: a measurement of speed. The relay is slowed down, so that there is time for all of it.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    core::Way,
    nodes::Node,
    pair::Plan,
    scenario::{Cell, Line, Side, Site},
    world::World,
};
use crate::{content, measure::MIB};

const CELL: Cell = Cell::Apart(Site::PortDependentRst, Site::PortDependent);

/// How long after the block is lifted the fetch has to be direct.
const DIRECT_WITHIN: Duration = Duration::from_secs(5);
/// How long after the block is there again it has to go on over the relay: silence has to be noticed first.
const RELAYED_WITHIN: Duration = Duration::from_secs(20);
/// How long the whole fetch may take.
const FETCH: Duration = Duration::from_secs(240);
/// How much comes over the relay before the block is lifted.
const RELAYED_FIRST: u64 = 16 << 20;
/// How much comes directly before the block is there again.
const DIRECT_FIRST: u64 = 64 << 20;

#[derive(Debug, Serialize)]
struct Report {
    rtt_ms: u64,
    bytes: u64,
    /// From the lifting of the block until the direct path was used.
    direct_after_s: f64,
    /// From the return of the block until bytes came over the relay again.
    relayed_after_s: f64,
    /// Bytes that came over the network, those that came twice among them.
    received_bytes: u64,
}

/// Runs it, prints, and fails if it is too slow or the bytes are not right.
pub(crate) fn run(plan: &Plan, round_trip: Duration, dir: &Path, json: bool) -> Result<()> {
    let world = World::build(plan.engine.clone(), Way { delay: round_trip / 2, loss: 0.0 }, dir.join("moving"))?;
    let _public = plan.program.start_public(&world)?;
    world.plug(CELL)?;
    let result = fetch(&world, plan, round_trip);
    world.unplug();
    let report = result?;
    if json {
        println!("{}", json!({ "moving": report }));
    } else {
        report.print();
    }
    ensure!(
        report.direct_after_s <= DIRECT_WITHIN.as_secs_f64(),
        "it took {:.1} s to go direct",
        report.direct_after_s
    );
    Ok(())
}

fn fetch(world: &World, plan: &Plan, round_trip: Duration) -> Result<Report> {
    let file = world.dir().join("parcel");
    content::random_file(&file, plan.bytes, plan.bytes)?;
    let file_text = file.to_str().context("the folder has no Unicode name")?;
    let mut sharer = plan.program.start(world, "a", "a", &["share", file_text])?;
    let shared = sharer.wait_shared().context("the sharer")?;
    let address = shared["address"].as_str().context("shared without an address")?.to_owned();
    super::pair::settle(world, plan);

    block(world)?;
    let out = world.dir().join("out");
    let out_text = out.to_str().context("the folder has no Unicode name")?;
    let mut getter = plan.program.start(world, "b", "b", &["get", &address, "-o", out_text])?;
    let deadline = Instant::now() + FETCH;
    wait_for_path(&mut getter, "relay", deadline).context("the beginning over the relay")?;
    wait_for_bytes(&mut getter, RELAYED_FIRST, deadline)?;

    let lifted = Instant::now();
    unblock(world)?;
    wait_for_path(&mut getter, "direct", deadline).context("the direct path")?;
    let direct_after = lifted.elapsed();
    let so_far = wait_for_bytes(&mut getter, 0, deadline)?;
    let so_far = wait_for_bytes(&mut getter, so_far + DIRECT_FIRST, deadline)?;

    block(world)?;
    let blocked = Instant::now();
    wait_for_path(&mut getter, "relay", blocked + RELAYED_WITHIN).context("the way back to the relay")?;
    wait_for_bytes(&mut getter, so_far + 1, deadline)?;
    let relayed_after = blocked.elapsed();
    unblock(world)?;

    let fetched = getter.wait_for("fetched", FETCH)?;
    ensure!(
        content::hash_file(&file)? == content::hash_file(&out.join("parcel"))?,
        "what arrived is not what was shared"
    );
    fs::remove_file(&file)?;
    Ok(Report {
        rtt_ms: round_trip.as_millis() as u64,
        bytes: plan.bytes,
        direct_after_s: direct_after.as_secs_f64(),
        relayed_after_s: relayed_after.as_secs_f64(),
        received_bytes: fetched["received_bytes"].as_u64().unwrap_or_default(),
    })
}

/// Has the sharer's router drop what goes straight from site to site. What goes to relays passes.
fn block(world: &World) -> Result<()> {
    let other = Line::of_site(Side::B, Site::PortDependent).v4;
    nft(
        world,
        &format!(
            "add table ip block; add chain ip block straight {{ type filter hook forward priority -200; }}; \
             add rule ip block straight ip saddr {other} drop; add rule ip block straight ip daddr {other} drop"
        ),
    )
}

fn unblock(world: &World) -> Result<()> {
    nft(world, "delete table ip block")
}

fn nft(world: &World, rules: &str) -> Result<()> {
    let status = world.command("ar", "nft").arg(rules).status()?;
    ensure!(status.success(), "nft {rules}: {status}");
    Ok(())
}

/// Waits until the getter says that it uses such a path.
fn wait_for_path(getter: &mut Node, path: &str, deadline: Instant) -> Result<()> {
    wait_until(getter, deadline, |event| event["event"] == "connected" && event["path"] == path).map(drop)
}

/// Waits until so much is there, and says how much it is.
fn wait_for_bytes(getter: &mut Node, bytes: u64, deadline: Instant) -> Result<u64> {
    let done = |event: &Value| event["done_bytes"].as_u64().filter(|_| event["event"] == "fetching");
    let event = wait_until(getter, deadline, |event| done(event).is_some_and(|done| done >= bytes))?;
    Ok(done(&event).unwrap_or_default())
}

fn wait_until(getter: &mut Node, deadline: Instant, is: impl Fn(&Value) -> bool) -> Result<Value> {
    while let Some(event) = getter.next(deadline)? {
        if is(&event) {
            return Ok(event);
        }
        if event["event"] == "failed" || event["event"] == "fetched" {
            bail!("the fetch ended before: {event}");
        }
    }
    bail!("the fetch ended without a word")
}

impl Report {
    fn print(&self) {
        println!(
            "A fetch of {:.0} MiB whose direct path is blocked, freed and blocked, at {} ms:",
            self.bytes as f64 / MIB,
            self.rtt_ms
        );
        println!("  direct {:.1} s after the block was lifted", self.direct_after_s);
        println!("  over the relay again {:.1} s after it was back", self.relayed_after_s);
        println!("  {:.1} MiB came in all, bit for bit right", self.received_bytes as f64 / MIB);
    }
}
