//! One run of a cell: somebody shares, somebody else calls and fetches, and what came of it is told.
//!
//! What it is not: a verdict over many runs (`matrix`).

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::{
    expectation::PathKind,
    nodes::{Program, forget},
    scenario::{Cell, PUBLIC_PORT, Site},
    world::World,
};
use crate::{measure::MIB, network::Engine};

/// How long a `ping` may take until it has a session or says why not.
const PING: Duration = Duration::from_secs(60);

/// How long a `get` of a small file may take.
const GET: Duration = Duration::from_secs(90);

/// How long the sharer may take to know its way in from outside. Without one it is called all the same, and cannot be found.
const SETTLE: Duration = Duration::from_secs(10);

/// How long a node takes to publish what has changed, beyond some round trips.
const PUBLISH: Duration = Duration::from_millis(300);

/// The name of what is shared.
const NAME: &str = "parcel";

/// What came of one run.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Run {
    /// What the session went over, if there was one.
    pub(crate) path: Option<PathKind>,
    /// How it was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) strategy: Option<String>,
    /// The hop limit of the opening SYN, if that was it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<u64>,
    /// From the call until the session, or until it was said that there is none.
    pub(crate) ms: f64,
    /// From the start of the fetch until its first verified byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_byte_ms: Option<f64>,
    /// Bytes that were fetched and are the same as what was shared.
    pub(crate) bytes: u64,
    /// How fast they came, from the first verified byte to the last, in MiB a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mib_per_second: Option<f64>,
    /// Why there was no session, or no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// The steps of the call with their times.
    pub(crate) stages: Vec<Stage>,
}

/// One step of a call.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Stage {
    /// Which.
    pub(crate) stage: String,
    /// How long it took.
    pub(crate) ms: f64,
    /// What came of it.
    pub(crate) detail: String,
}

/// How a run goes.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What hosts and routers are.
    pub(crate) engine: Engine,
    /// The nodes.
    pub(crate) program: Program,
    /// The size of what is shared.
    pub(crate) bytes: u64,
    /// Whether it is fetched too.
    pub(crate) fetch: bool,
}

/// Plugs a cell in, has its two nodes meet, and unplugs it.
pub(crate) fn run(world: &World, cell: Cell, plan: &Plan) -> Run {
    for home in ["a", "b"] {
        let _ = forget(world, home);
    }
    let met = world.plug(cell).and_then(|()| meet(world, cell, plan));
    world.unplug();
    met.unwrap_or_else(|error| Run { reason: Some(format!("{error:#}")), ..Run::default() })
}

fn meet(world: &World, cell: Cell, plan: &Plan) -> Result<Run> {
    let content = world.dir().join(NAME);
    write_content(&content, plan.bytes)?;
    let (listen_a, listen_b) = ports(cell);
    let content_text = content.to_str().context("the folder has no Unicode name")?;
    let mut share = vec!["share", content_text];
    share.extend(&listen_a);
    let mut sharer = plan.program.start(world, "a", "a", &share)?;
    let shared = sharer.wait_shared().context("the sharer")?;
    let address = shared["address"].as_str().context("shared without an address")?.to_owned();
    let node = address.strip_prefix("keyferry:").and_then(|rest| rest.split('/').next()).context("no node key")?;

    settle(world, plan);

    let mut run = ping(world, plan, node, &listen_b)?;
    if run.path.is_some() && plan.fetch {
        match get(world, plan, &address, &listen_b, &content) {
            Ok(fetched) => {
                run.bytes = fetched.bytes;
                run.first_byte_ms = fetched.first_byte_ms;
                run.mib_per_second = fetched.mib_per_second;
            }
            Err(error) => run.reason = Some(format!("the fetch after it: {error:#}")),
        }
    }
    Ok(run)
}

/// Waits until the sharer can be found from outside, as one can that has been up for a while; not for ever.
pub(super) fn settle(world: &World, plan: &Plan) {
    let deadline = Instant::now() + SETTLE;
    while Instant::now() < deadline {
        let status = plan.program.start(world, "a", "a", &["status"]);
        let status = status.and_then(|mut process| process.wait_for("status", SETTLE));
        let listed = |status: &Value, name: &str| status[name].as_array().is_some_and(|list| !list.is_empty());
        if status.is_ok_and(|status| status["public"] == true || listed(&status, "circuits")) {
            // What it knows of itself has to reach the DHT.
            thread::sleep(PUBLISH + 4 * world.round_trip());
            return;
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Calls, and reads what is told.
fn ping(world: &World, plan: &Plan, node: &str, listen: &[&str]) -> Result<Run> {
    let mut args = vec!["ping", node, "--count", "1"];
    args.extend(listen);
    let mut caller = plan.program.start(world, "b", "b", &args)?;
    let (deadline, mut began, mut run) = (Instant::now() + PING, Instant::now(), Run::default());
    while let Some(event) = caller.next(deadline).context("ping")? {
        match event["event"].as_str().unwrap_or_default() {
            // The node is up, and begins to look.
            "stage" if run.stages.is_empty() => began = Instant::now(),
            "ping_stage" => run.stages.push(Stage::read(&event)),
            "pinged" => {
                let path = &event["path"];
                run.path = match path["path"].as_str() {
                    Some("direct") => Some(PathKind::Direct),
                    Some("relay") => Some(PathKind::Relay),
                    _ => None,
                };
                run.strategy = path["strategy"].as_str().map(str::to_owned);
                run.ttl = path["ttl"].as_u64();
                run.ms = seconds(&event["total"]).unwrap_or_else(|| began.elapsed().as_secs_f64()) * 1000.0;
                // It ends by itself, as it does for a person.
                while caller.next(deadline)?.is_some() {}
                return Ok(run);
            }
            "failed" => {
                run.ms = began.elapsed().as_secs_f64() * 1000.0;
                run.reason = Some(event["message"].as_str().unwrap_or("no reason was told").to_owned());
                return Ok(run);
            }
            _ => {}
        }
    }
    run.reason = Some(format!("ping ended without a word: {}", plan.program.last_words(world, "b")));
    Ok(run)
}

/// What was fetched, and is right.
struct Fetched {
    bytes: u64,
    first_byte_ms: Option<f64>,
    mib_per_second: Option<f64>,
}

/// Fetches, and compares.
fn get(world: &World, plan: &Plan, address: &str, listen: &[&str], content: &Path) -> Result<Fetched> {
    let out = world.dir().join("out");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::create_dir_all(&out)?;
    let out_text = out.to_str().context("the folder has no Unicode name")?;
    let mut args = vec!["get", address, "-o", out_text];
    args.extend(listen);
    let mut getter = plan.program.start(world, "b", "b", &args)?;
    let fetched = getter.wait_for("fetched", GET)?;
    let (sent, arrived) = (fs::read(content)?, fs::read(out.join(NAME))?);
    ensure!(sent == arrived, "what arrived is not what was shared");
    let bytes = arrived.len() as u64;
    let first_byte = seconds(&fetched["first_byte_seconds"]);
    let transfer = seconds(&fetched["took_seconds"]).zip(first_byte);
    let flowing = transfer.map(|(whole, first_byte)| whole - first_byte).filter(|seconds| *seconds > 0.0);
    let mib_per_second = flowing.map(|seconds| bytes as f64 / MIB / seconds);
    Ok(Fetched { bytes, first_byte_ms: first_byte.map(|seconds| seconds * 1000.0), mib_per_second })
}

/// Where nodes listen: by default, unless the cell says otherwise.
fn ports(cell: Cell) -> (Vec<&'static str>, Vec<&'static str>) {
    let of = |site: Site| if site == Site::Public443 { vec!["--listen", "443"] } else { Vec::new() };
    debug_assert_eq!(PUBLIC_PORT, 443);
    match cell {
        Cell::Apart(a, b) => (of(a), of(b)),
        // One NAT cannot keep one port for two hosts.
        Cell::OneNat { .. } => (Vec::new(), vec!["--listen", "4601"]),
    }
}

fn write_content(path: &Path, bytes: u64) -> Result<()> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() == bytes) {
        return Ok(());
    }
    crate::content::random_file(path, bytes, bytes)
}

fn seconds(value: &Value) -> Option<f64> {
    value.as_f64()
}

impl Stage {
    fn read(event: &Value) -> Self {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let ms = seconds(&event["took"]).unwrap_or_default() * 1000.0;
        Self { stage: text("stage"), ms, detail: text("detail") }
    }
}
