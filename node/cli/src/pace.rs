//! How fast a transfer goes and how long it will take: a smoothed rate.
//!
//! What it is not: a clock; the time is an argument.

use std::time::{Duration, Instant};

/// How long it takes until an old rate has lost about two thirds of its weight.
const MEMORY: Duration = Duration::from_secs(3);
/// Observations closer than this are put together; single ones would jump about.
const SAMPLE: Duration = Duration::from_millis(200);
/// No time left is shown beyond this: such an estimate is worth nothing.
const LONGEST_LEFT: Duration = Duration::from_secs(100 * 3600);

/// Follows the number of bytes done, and tells the rate.
#[derive(Debug, Clone)]
pub struct Pace {
    at: Instant,
    done: u64,
    rate: Option<f64>,
}

impl Pace {
    /// Starts at a number of bytes that count for nothing, such as those of an earlier run.
    pub fn new(now: Instant, done: u64) -> Self {
        Self { at: now, done, rate: None }
    }

    /// Takes the number of bytes done by now.
    pub fn observe(&mut self, now: Instant, done: u64) {
        let elapsed = now.saturating_duration_since(self.at);
        if elapsed < SAMPLE {
            return;
        }
        let latest = done.saturating_sub(self.done) as f64 / elapsed.as_secs_f64();
        let weight = (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.rate = Some(self.rate.map_or(latest, |rate| rate * weight + latest * (1.0 - weight)));
        self.at = now;
        self.done = done;
    }

    /// Bytes a second; none before there is anything to tell it from.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// How long the rest will take at this rate; none if that cannot be said.
    pub fn left(&self, done: u64, total: u64) -> Option<Duration> {
        let rate = self.rate.filter(|rate| *rate >= 1.0)?;
        Duration::try_from_secs_f64(total.checked_sub(done)? as f64 / rate).ok().filter(|left| *left <= LONGEST_LEFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_flow_gives_its_rate_and_time_left() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 500);
        for tenth in 1..=50 {
            pace.observe(start + Duration::from_millis(tenth * 100), 500 + tenth * 100);
        }
        assert_eq!(pace.rate().map(f64::round), Some(1000.0));
        assert_eq!(pace.left(5500, 7500), Some(Duration::from_secs(2)));
    }

    #[test]
    fn resumed_bytes_do_not_count_as_speed() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 1 << 30);
        pace.observe(start + Duration::from_secs(1), (1 << 30) + 1000);
        assert_eq!(pace.rate(), Some(1000.0));
    }

    #[test]
    fn stall_fades_the_rate_and_hides_the_time_left() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 0);
        pace.observe(start + Duration::from_secs(1), 1_000_000);
        pace.observe(start + Duration::from_secs(61), 1_000_000);
        assert!(pace.rate().unwrap() < 1.0);
        assert_eq!(pace.left(1_000_000, 2_000_000), None);
    }

    #[test]
    fn nothing_is_told_before_there_is_something_to_tell() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 0);
        pace.observe(start + Duration::from_millis(1), 1000);
        assert_eq!((pace.rate(), pace.left(0, 10)), (None, None));
    }
}
