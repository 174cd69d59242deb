//! Numbers: sizes that people type, medians, and what a process has used.
//!
//! What it is not: a profiler.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// One MiB.
pub(crate) const MIB: f64 = 1_048_576.0;

/// How often to look at a process. The kernel keeps its peak, so only the last instant before its end is missed.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// Clock ticks a second in `/proc/PID/stat`: fixed at 100 on every Linux that user space sees.
const TICKS: f64 = 100.0;

/// Parses `1GiB`, `512 MiB`, `10KiB` or plain bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(format!("{unit:?} is no unit; use B, KiB, MiB or GiB")),
    };
    let number: u64 = number.parse().map_err(|_| "a size is a number and a unit, such as 512MiB".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// The middle one of some figures; the mean of the two middle ones when they are even in number; 0 of none.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

/// The times of some runs of one thing.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Series {
    /// Each run, in seconds.
    pub(crate) seconds: Vec<f64>,
    /// The middle one.
    pub(crate) median_seconds: f64,
    /// What that is in MiB a second.
    pub(crate) mib_per_second: f64,
}

impl Series {
    /// Adds a run that moved `bytes` bytes.
    pub(crate) fn add(&mut self, took: Duration, bytes: u64) {
        self.seconds.push(took.as_secs_f64());
        self.median_seconds = median(&self.seconds);
        self.mib_per_second = bytes as f64 / MIB / self.median_seconds;
    }
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Usage {
    /// The most that was resident at once, in bytes (VmHWM).
    pub(crate) peak_resident_bytes: u64,
    /// User and system time, in seconds.
    pub(crate) cpu_seconds: f64,
}

impl Usage {
    /// Reads what a running process has used so far.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the process is ending")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command name may hold spaces; the fields are counted from behind it.
        let (_, fields) = stat.rsplit_once(')').context("no command name")?;
        let mut times = fields.split_whitespace().skip(11);
        let (Some(user), Some(system)) = (times.next(), times.next()) else { bail!("no times in {stat:?}") };
        let ticks = user.parse::<u64>()? + system.parse::<u64>()?;
        Ok(Self { peak_resident_bytes: kib * 1024, cpu_seconds: ticks as f64 / TICKS })
    }

    /// The greater peak, and the time used since `earlier`.
    pub(crate) fn since(self, earlier: Usage) -> Self {
        Self { cpu_seconds: self.cpu_seconds - earlier.cpu_seconds, ..self }
    }
}

/// Looks at a process until it is dropped or the process ends.
pub(crate) struct Sampler {
    last: Arc<Mutex<Usage>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Starts to look.
    pub(crate) fn start(pid: u32) -> Self {
        let (last, stop) = (Arc::new(Mutex::new(Usage::default())), Arc::new(AtomicBool::new(false)));
        let (shared, ended) = (last.clone(), stop.clone());
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if let (Ok(usage), Ok(mut last)) = (Usage::of(pid), shared.lock()) {
                    *last = usage;
                }
                thread::sleep(SAMPLE_EVERY);
            }
        });
        Self { last, stop, thread: Some(thread) }
    }

    /// The last that was seen.
    pub(crate) fn usage(&self) -> Usage {
        self.last.lock().map(|usage| *usage).unwrap_or_default()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_and_nonsense_is_refused() {
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("10 KiB"), Ok(10240));
        assert_eq!(parse_size("7"), Ok(7));
        for wrong in ["", "GiB", "1GB", "-1", "1e3", "99999999999GiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn this_process_uses_something() {
        assert!(Usage::of(std::process::id()).unwrap().peak_resident_bytes > 100_000);
    }
}
