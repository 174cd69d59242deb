//! What each line has carried, a sample a second.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use super::lab::Lab;
use crate::scenario::{model::SiteId, outcome};

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// When, bytes out of the site so far, bytes into it so far.
pub(super) type Sample = (f64, u64, u64);

/// While it lives, samples are taken.
pub(super) struct Sampling<'a>(&'a Samples);

impl Drop for Sampling<'_> {
    fn drop(&mut self) {
        *self.0.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

/// The samples of all sites.
#[derive(Debug, Default)]
pub(super) struct Samples {
    by_site: Mutex<HashMap<SiteId, Vec<Sample>>>,
    is_over: Mutex<bool>,
    changed: Condvar,
}

impl Samples {
    /// Takes samples until [`Sampling`] is dropped, and once more then.
    pub(super) fn take(&self, lab: &Lab<'_>, sites: usize, now_s: impl Fn() -> f64) {
        let mut is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let at_s = now_s();
            let mut by_site = self.by_site.lock().unwrap_or_else(PoisonError::into_inner);
            for site in (0..sites).map(SiteId) {
                let (up, down) = lab.carried(site);
                by_site.entry(site).or_default().push((at_s, up, down));
            }
            drop(by_site);
            if *is_over {
                return;
            }
            is_over = self.changed.wait_timeout(is_over, EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has the last samples taken when the value is dropped: also by a panic, so that nobody waits for them for ever.
    pub(super) fn until_dropped(&self) -> Sampling<'_> {
        Sampling(self)
    }

    /// Those of a site.
    pub(super) fn of(&self, site: SiteId) -> Vec<Sample> {
        self.by_site.lock().unwrap_or_else(PoisonError::into_inner).get(&site).cloned().unwrap_or_default()
    }

    /// Those of all sites that carried anything.
    pub(super) fn lines(&self, names: &[&str]) -> Vec<outcome::Line> {
        let line =
            |(index, name): (usize, &&str)| outcome::Line { site: (*name).to_owned(), samples: self.of(SiteId(index)) };
        let is_used = |line: &outcome::Line| line.samples.iter().any(|(_, up, down)| up + down > 0);
        names.iter().enumerate().map(line).filter(is_used).collect()
    }
}

/// What a line carried in both directions, a minute, from one time to another.
pub(super) fn bytes_a_minute(samples: &[Sample], from_s: f64, to_s: f64) -> f64 {
    let within: Vec<&Sample> = samples.iter().filter(|(at_s, ..)| *at_s >= from_s && *at_s <= to_s).collect();
    let (Some(first), Some(last)) = (within.first(), within.last()) else { return 0.0 };
    let minutes = (last.0 - first.0) / 60.0;
    if minutes > 0.0 { (last.1 + last.2 - first.1 - first.2) as f64 / minutes } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_count_within_the_time_alone() {
        let samples = [(0.0, 0, 0), (30.0, 1000, 500), (60.0, 1100, 600), (90.0, 1200, 700), (120.0, 9000, 9000)];
        assert_eq!(bytes_a_minute(&samples, 30.0, 90.0), 400.0);
        assert_eq!(bytes_a_minute(&samples, 200.0, 300.0), 0.0);
        assert_eq!(bytes_a_minute(&samples, 30.0, 31.0), 0.0);
    }
}
