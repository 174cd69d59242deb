//! A fetch that loses its relay: the one that carries it is killed in the middle, and it goes on over another one.
//!
//! The getter says which relay that is. A relay that was found is a public node, so killing it also takes away a node through which
//! the others find and call each other.
//!
//! What it is not: a measurement of speed, or of a relay that falls silent: its host is still there, and says that nobody listens.

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    following::Sharing,
    nodes::{Program, PublicHosts},
    pair::Plan,
    relays::Relays,
    scenario::{Cell, Site},
    world::World,
};
use crate::{measure::MIB, network::core::Way};

/// No direct path is possible there.
const CELL: Cell = Cell::Apart(Site::Symmetric, Site::SymmetricRst);

/// How soon after the kill bytes have to come over another relay.
const RESUMED_WITHIN: Duration = Duration::from_secs(30);
/// How long the whole fetch may take.
const FETCH: Duration = Duration::from_secs(240);
/// The relay is killed when one part in this many of the content has come.
const BEFORE: u64 = 8;
/// The size of the file: its fetch has to last longer than it takes to notice that this part is there.
const BYTES: u64 = 256 << 20;
/// What coturn carries in a round trip: its receive buffers are no larger.
const COTURN_WINDOW: u64 = 64 << 10;
/// How long a fetch by coturn lasts, unless a file of the usual size takes longer.
const LASTS_BY_COTURN: Duration = Duration::from_secs(20);
/// The part of the content, with its proofs, that may come a second time.
const MAX_AGAIN: f64 = 0.05;

/// How one fetch went.
#[derive(Debug, Serialize)]
struct Report {
    relays: &'static str,
    rtt_ms: u64,
    bytes: u64,
    /// The relay that was killed.
    killed: IpAddr,
    /// How much was there by then.
    bytes_before: u64,
    /// The relay that it went on over.
    then: IpAddr,
    /// From the kill until there was a session over that one.
    connected_after_s: f64,
    /// From the kill until bytes had come over it. The getter tells of progress five times a second.
    resumed_after_s: f64,
    /// Bytes that came over the network, repeated ones included.
    received_bytes: u64,
}

/// What to run.
pub(crate) struct Settings {
    /// The nodes.
    pub(crate) plan: Plan,
    /// Who relays; without any, each kind of which there is more than one.
    pub(crate) relays: Relays,
    /// The size of the file, if not the usual one.
    pub(crate) bytes: Option<u64>,
    /// How often it is run with each kind of relays.
    pub(crate) runs: u32,
    /// From any host to any other.
    pub(crate) way: Way,
}

/// Runs it with each kind of relays, prints, and fails if a fetch did not go on in time or the bytes are not right.
pub(crate) fn run(settings: &Settings, dir: &Path, json: bool) -> Result<()> {
    let mut reports = Vec::new();
    for relays in settings.relays.to_lose() {
        let plan = settings.plan_with(relays);
        for run in 0..settings.runs {
            let dir = dir.join(format!("losing-{}-{run}", relays.id()));
            let report = run_once(&plan, settings.way, &dir);
            let report = report.with_context(|| format!("relays {}, run {run}", relays.id()))?;
            eprintln!("{}", report.line());
            reports.push(report);
        }
    }
    if json {
        println!("{}", json!({ "losing": reports }));
    } else {
        print(&reports);
    }
    let late = reports.iter().find(|report| report.resumed_after_s > RESUMED_WITHIN.as_secs_f64());
    let again = reports.iter().find(|report| report.again() > MAX_AGAIN);
    ensure!(late.is_none(), "{}: it took too long to go on", late.map(Report::line).unwrap_or_default());
    ensure!(again.is_none(), "{}: too much came twice", again.map(Report::line).unwrap_or_default());
    Ok(())
}

fn run_once(plan: &Plan, way: Way, dir: &Path) -> Result<Report> {
    let world = World::build(plan.engine.clone(), way, dir.to_owned())?;
    let mut public = plan.program.start_public(&world)?;
    world.plug(CELL)?;
    let result = fetch(&world, &mut public, plan);
    world.unplug();
    result
}

fn fetch(world: &World, public: &mut PublicHosts, plan: &Plan) -> Result<Report> {
    let sharing = Sharing::start(world, plan)?;
    let mut fetching = sharing.fetch(world, plan)?;
    let deadline = Instant::now() + FETCH;
    fetching.wait_for_path(deadline, |_| true).context("the first path")?;
    fetching.wait_for_bytes(plan.bytes / BEFORE, deadline)?;

    let killed = relay_of(fetching.path())?;
    let killed_at = Instant::now();
    public.kill_at(killed)?;
    let bytes_before = fetching.done_bytes();
    let limit = killed_at + RESUMED_WITHIN;
    let over_another = |path: &Value| relay_of(path).is_ok_and(|relay| relay != killed);
    fetching.wait_for_path(limit, over_another).context("a session over another relay")?;
    let connected_after = killed_at.elapsed();
    let then = relay_of(fetching.path())?;
    // What had come over the first one may be told only now.
    let so_far = fetching.wait_for_bytes(0, limit)?;
    fetching.wait_for_bytes(so_far + 1, limit).context("bytes over another relay")?;
    let resumed_after = killed_at.elapsed();

    let fetched = sharing.finish(fetching, FETCH)?;
    ensure_given_by_both(&fetched, killed)?;
    Ok(Report {
        relays: plan.program.relays.id(),
        rtt_ms: world.round_trip().as_millis() as u64,
        bytes: plan.bytes,
        killed,
        bytes_before,
        then,
        connected_after_s: connected_after.as_secs_f64(),
        resumed_after_s: resumed_after.as_secs_f64(),
        received_bytes: fetched["received_bytes"].as_u64().unwrap_or_default(),
    })
}

/// The size of a file that coturn carries for a while.
fn bytes_by_coturn(round_trip: Duration) -> u64 {
    let windows = LASTS_BY_COTURN.as_millis().checked_div(round_trip.as_millis()).unwrap_or(u128::MAX);
    u64::try_from(windows).unwrap_or(u64::MAX).saturating_mul(COTURN_WINDOW).min(BYTES)
}

/// The relay of a path, as the getter tells of it.
fn relay_of(path: &Value) -> Result<IpAddr> {
    let relay = path["relay"].as_str().filter(|_| path["path"] == "relay");
    relay.and_then(|relay| relay.parse().ok()).with_context(|| format!("no relay is in between: {path}"))
}

/// Fails unless the getter says that it kept bytes from the killed relay and from others.
fn ensure_given_by_both(fetched: &Value, killed: IpAddr) -> Result<()> {
    let (mut by_killed, mut by_others) = (0, 0);
    for source in fetched["from"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let bytes = source["bytes"].as_u64().unwrap_or_default();
        if relay_of(source)? == killed { by_killed += bytes } else { by_others += bytes }
    }
    if by_killed == 0 || by_others == 0 {
        bail!("{by_killed} bytes came over the relay that was killed, {by_others} over others");
    }
    Ok(())
}

fn print(reports: &[Report]) {
    println!("A fetch in {CELL} whose relay is killed with SIGKILL:");
    for report in reports {
        println!("  {}", report.line());
    }
}

impl Settings {
    fn plan_with(&self, relays: Relays) -> Plan {
        let usual = if relays.coturns() > 0 { bytes_by_coturn(self.way.delay * 2) } else { BYTES };
        let program = Program { relays, ..self.plan.program.clone() };
        Plan { program, bytes: self.bytes.unwrap_or(usual), ..self.plan.clone() }
    }
}

impl Report {
    /// How much came more than there is, as a part of it.
    fn again(&self) -> f64 {
        self.received_bytes.saturating_sub(self.bytes) as f64 / self.bytes as f64
    }

    fn line(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / MIB;
        format!(
            "relays {} at {} ms: {} killed after {:.0} of {:.0} MiB; connected over {} {:.2} s later, bytes by {:.2} s; \
             {:.1} MiB came in all, bit for bit right",
            self.relays,
            self.rtt_ms,
            self.killed,
            mib(self.bytes_before),
            mib(self.bytes),
            self.then,
            self.connected_after_s,
            self.resumed_after_s,
            mib(self.received_bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_is_what_the_getter_tells() {
        let path = json!({ "event": "connected", "path": "relay", "relay": "192.0.2.18" });
        assert_eq!(relay_of(&path).unwrap(), IpAddr::from([192, 0, 2, 18]));
        let direct = json!({ "event": "connected", "path": "direct", "relay": null });
        assert!(relay_of(&direct).is_err());
    }

    #[test]
    fn what_coturn_carries_depends_on_the_round_trip() {
        let of = |ms| bytes_by_coturn(Duration::from_millis(ms));
        assert_eq!([of(0), of(1), of(40), of(200)], [BYTES, BYTES, 500 * COTURN_WINDOW, 100 * COTURN_WINDOW]);
    }

    #[test]
    fn both_relays_have_to_have_given_something() {
        let killed = IpAddr::from([192, 0, 2, 18]);
        let source = |relay: &str, bytes: u64| json!({ "path": "relay", "relay": relay, "bytes": bytes });
        let both = json!({ "from": [source("192.0.2.34", 9), source("192.0.2.18", 1)] });
        let one = json!({ "from": [source("192.0.2.34", 9)] });
        assert!(ensure_given_by_both(&both, killed).is_ok());
        assert!(ensure_given_by_both(&one, killed).is_err());
        assert!(ensure_given_by_both(&json!({}), killed).is_err());
    }
}
