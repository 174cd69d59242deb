//! Many relayed connections at once: whether each gets its part, and what one costs the relay.
//!
//! What it is not: a search for the limit.

use std::{
    ffi::OsStr,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{client::Carried, programs::KeyferryRelay};
use crate::{
    measure::{MIB, median},
    plain::Server,
};

/// How long all are read from.
const SECONDS: u64 = 6;

/// How often to look at the relay's memory.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Many {
    connections: u32,
    /// What all have carried together.
    mib_per_second: f64,
    /// What single ones have carried, in bytes.
    least: u64,
    median: f64,
    most: u64,
    /// Jain's index: 1 if all got the same, 1/n if one got all.
    fairness: f64,
    /// What the relay grew by, in bytes a connection.
    resident_bytes_each: f64,
}

/// Measures.
pub(super) fn measure(relay: &KeyferryRelay, connections: u32) -> Result<Many> {
    // More than can be carried in the time, and a port for each: a relay makes one connection from an allocation to an address.
    let zeros = u64::MAX.to_string();
    let source = Server::start(&["--zeros", &zeros, "--ports", &connections.to_string()].map(OsStr::new))?;
    let before = relay.resident_bytes()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["relay-client", relay.uri()]).args(source.ports().iter().map(u16::to_string));
    command.args(["--seconds", &SECONDS.to_string()]).stdin(Stdio::null());
    let (peak, done) = (AtomicU64::new(before), Arc::new(AtomicBool::new(false)));
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok(now) = relay.resident_bytes() {
                    peak.fetch_max(now, Ordering::Relaxed);
                }
                thread::sleep(SAMPLE_EVERY);
            }
        });
        let output = command.output();
        done.store(true, Ordering::Relaxed);
        output
    })?;
    ensure!(output.status.success(), "the client of many failed: {}", String::from_utf8_lossy(&output.stderr));
    let Carried { bytes } = serde_json::from_slice(&output.stdout)?;
    ensure!(bytes.len() == connections as usize, "{} of {connections} connections came about", bytes.len());
    Ok(Many::of(&bytes, peak.into_inner() - before))
}

impl Many {
    fn of(bytes: &[u64], grown: u64) -> Self {
        let each: Vec<f64> = bytes.iter().map(|bytes| *bytes as f64).collect();
        let (sum, squares) = (each.iter().sum::<f64>(), each.iter().map(|bytes| bytes * bytes).sum::<f64>());
        Self {
            connections: bytes.len() as u32,
            mib_per_second: sum / MIB / SECONDS as f64,
            least: bytes.iter().copied().min().unwrap_or(0),
            median: median(&each),
            most: bytes.iter().copied().max().unwrap_or(0),
            fairness: if squares > 0.0 { sum * sum / (each.len() as f64 * squares) } else { 0.0 },
            resident_bytes_each: grown as f64 / each.len() as f64,
        }
    }

    /// Prints it as a table.
    pub(super) fn print(&self) {
        println!("\n{} relayed connections at once, for {SECONDS} s:\n", self.connections);
        println!("  all together             {:>7.0} MiB/s", self.mib_per_second);
        let mib = |bytes: f64| bytes / MIB;
        println!(
            "  each                     {:.1} to {:.1} MiB, {:.1} in the middle; fairness {:.3}",
            mib(self.least as f64),
            mib(self.most as f64),
            mib(self.median),
            self.fairness
        );
        println!("  memory of the relay      {:.1} KiB a connection", self.resident_bytes_each / 1024.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairness_is_one_for_equals_and_small_for_one_that_gets_all() {
        assert_eq!(Many::of(&[7, 7, 7], 0).fairness, 1.0);
        assert_eq!(Many::of(&[9, 0, 0], 300).fairness, 1.0 / 3.0);
        assert_eq!(Many::of(&[9, 0, 0], 300).resident_bytes_each, 100.0);
        assert_eq!(Many::of(&[0], 0).fairness, 0.0);
    }
}
