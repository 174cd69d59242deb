//! A fetch that changes its path: it begins over a relay because the direct one is blocked, goes direct when the block is lifted, and
//! back when it is there again.
//!
//! What it is not: a measurement of speed. The relay is slowed down, so that there is time for all of it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    following::Sharing,
    pair::Plan,
    scenario::{Cell, Side, Site, line_of_site},
    world::World,
};
use crate::{
    measure::MIB,
    network::{core::Way, router_of},
};

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
pub(crate) fn run(plan: &Plan, way: Way, dir: &Path, json: bool) -> Result<()> {
    let world = World::build(plan.engine.clone(), way, dir.join("moving"))?;
    let _public = plan.program.start_public(&world)?;
    world.plug(CELL)?;
    let result = fetch(&world, plan, way.delay * 2);
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
    let sharing = Sharing::start(world, plan)?;
    block(world)?;
    let mut fetching = sharing.fetch(world, plan)?;
    let deadline = Instant::now() + FETCH;
    fetching.wait_for_path(deadline, over("relay")).context("the beginning over the relay")?;
    fetching.wait_for_bytes(RELAYED_FIRST, deadline)?;

    let lifted = Instant::now();
    unblock(world)?;
    fetching.wait_for_path(deadline, over("direct")).context("the direct path")?;
    let direct_after = lifted.elapsed();
    let so_far = fetching.wait_for_bytes(0, deadline)?;
    let so_far = fetching.wait_for_bytes(so_far + DIRECT_FIRST, deadline)?;

    block(world)?;
    let blocked = Instant::now();
    fetching.wait_for_path(blocked + RELAYED_WITHIN, over("relay")).context("the way back to the relay")?;
    fetching.wait_for_bytes(so_far + 1, deadline)?;
    let relayed_after = blocked.elapsed();
    unblock(world)?;

    let fetched = sharing.finish(fetching, FETCH)?;
    Ok(Report {
        rtt_ms: round_trip.as_millis() as u64,
        bytes: plan.bytes,
        direct_after_s: direct_after.as_secs_f64(),
        relayed_after_s: relayed_after.as_secs_f64(),
        received_bytes: fetched["received_bytes"].as_u64().unwrap_or_default(),
    })
}

fn over(path: &str) -> impl Fn(&Value) -> bool + '_ {
    move |connected| connected["path"] == path
}

/// Has the sharer's router drop what goes straight from site to site. What goes to relays passes.
fn block(world: &World) -> Result<()> {
    let other = line_of_site(Side::B, Site::PortDependent).v4;
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
    let status = world.command(&router_of(Side::A.name()), "nft").arg(rules).status()?;
    ensure!(status.success(), "nft {rules}: {status}");
    Ok(())
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
