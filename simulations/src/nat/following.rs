//! A fetch that is followed while it runs: what it goes over, and how far it has come.
//!
//! What it is not: what is done to it meanwhile (`moving`, `losing`).

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    nodes::Node,
    pair::{self, Plan},
    world::World,
};
use crate::content;

/// The name of what is shared.
const NAME: &str = "parcel";

/// Somebody who shares a file and can be found from outside.
pub(super) struct Sharing {
    file: PathBuf,
    address: String,
    _sharer: Node,
}

/// A fetch that runs.
pub(super) struct Fetching {
    getter: Node,
    out: PathBuf,
    path: Value,
    done_bytes: u64,
}

impl Sharing {
    /// Makes a file and has the sharer's host share it.
    pub(super) fn start(world: &World, plan: &Plan) -> Result<Self> {
        let file = world.dir().join(NAME);
        content::random_file(&file, plan.bytes, plan.bytes)?;
        let file_text = file.to_str().context("the folder has no Unicode name")?;
        let mut sharer = plan.program.start(world, "a", "a", &["share", file_text])?;
        let shared = sharer.wait_shared().context("the sharer")?;
        let address = shared["address"].as_str().context("shared without an address")?.to_owned();
        pair::settle(world, plan);
        Ok(Self { file, address, _sharer: sharer })
    }

    /// Has the getter's host fetch it.
    pub(super) fn fetch(&self, world: &World, plan: &Plan) -> Result<Fetching> {
        let out = world.dir().join("out");
        std::fs::create_dir_all(&out)?;
        let out_text = out.to_str().context("the folder has no Unicode name")?;
        let getter = plan.program.start(world, "b", "b", &["get", &self.address, "-o", out_text])?;
        Ok(Fetching { getter, out, path: Value::Null, done_bytes: 0 })
    }

    /// Waits until the fetch has ended by itself, compares every bit, and gives what the getter says of it.
    pub(super) fn finish(self, mut fetching: Fetching, patience: Duration) -> Result<Value> {
        let fetched = fetching.getter.wait_for("fetched", patience)?;
        ensure!(
            content::hash_file(&self.file)? == content::hash_file(&fetching.out.join(NAME))?,
            "what arrived is not what was shared"
        );
        fs::remove_file(&self.file)?;
        Ok(fetched)
    }
}

impl Fetching {
    /// The path that it uses, as the getter told last.
    pub(super) fn path(&self) -> &Value {
        &self.path
    }

    /// How much is there, as the getter told last.
    pub(super) fn done_bytes(&self) -> u64 {
        self.done_bytes
    }

    /// Waits until it uses a path of this class.
    pub(super) fn wait_for_path(&mut self, deadline: Instant, is: impl Fn(&Value) -> bool) -> Result<()> {
        self.wait_until(deadline, |event| event["event"] == "connected" && is(event)).map(drop)
    }

    /// Waits until at least this much is there, and gives how much it is.
    pub(super) fn wait_for_bytes(&mut self, bytes: u64, deadline: Instant) -> Result<u64> {
        self.wait_until(deadline, |event| done_bytes(event).is_some_and(|done| done >= bytes))?;
        Ok(self.done_bytes)
    }

    fn wait_until(&mut self, deadline: Instant, is: impl Fn(&Value) -> bool) -> Result<Value> {
        while let Some(event) = self.getter.next(deadline)? {
            self.done_bytes = done_bytes(&event).unwrap_or(self.done_bytes);
            if event["event"] == "connected" {
                self.path = event.clone();
            }
            if is(&event) {
                return Ok(event);
            }
            if event["event"] == "failed" || event["event"] == "fetched" {
                bail!("the fetch ended before: {event}");
            }
        }
        bail!("the fetch ended without a word")
    }
}

fn done_bytes(event: &Value) -> Option<u64> {
    event["done_bytes"].as_u64().filter(|_| event["event"] == "fetching")
}
