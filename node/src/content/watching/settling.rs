//! When files that change have come to rest: half a second after the last change, and five seconds after the first one if they never do.
//!
//! What it is not: a clock; `now` is given.

use std::time::{Duration, Instant};

/// So long without a change, and files are at rest.
pub const QUIET: Duration = Duration::from_millis(500);
/// So long after the first change they are read, though they go on changing.
pub const LONGEST_UNREST: Duration = Duration::from_secs(5);
/// After a reading, the next one waits for so many times as long as that took: folders that always change take a fifth of the time at most.
const REST_FACTOR: u32 = 4;
/// But never for longer than this.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The state of some files.
#[derive(Debug, Clone, Default)]
pub struct Settling {
    unrest: Option<Unrest>,
    not_before: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Unrest {
    first: Instant,
    last: Instant,
}

impl Settling {
    /// Takes in that something has changed.
    pub fn changed(&mut self, now: Instant) {
        match &mut self.unrest {
            Some(unrest) => unrest.last = now,
            None => self.unrest = Some(Unrest { first: now, last: now }),
        }
    }

    /// When they are to be read; none if nothing has changed.
    pub fn due(&self) -> Option<Instant> {
        let unrest = self.unrest.as_ref()?;
        let settled = (unrest.last + QUIET).min(unrest.first + LONGEST_UNREST);
        Some(self.not_before.map_or(settled, |earliest| settled.max(earliest)))
    }

    /// Takes in that a reading begins: what changes from now on is news.
    pub fn begin(&mut self) {
        self.unrest = None;
    }

    /// Takes in that a reading has ended. It `failed` if they have to be read again for the same changes.
    pub fn ended(&mut self, began: Instant, now: Instant, failed: bool) {
        let took = now.saturating_duration_since(began);
        self.not_before = Some(now + (took * REST_FACTOR).min(LONGEST_REST));
        if failed {
            self.changed(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    #[test]
    fn nothing_is_due_unless_something_has_changed() {
        let mut settling = Settling::default();
        assert_eq!(settling.due(), None);
        let now = Instant::now();
        settling.changed(now);
        assert_eq!(settling.due(), Some(now + QUIET));
        settling.begin();
        assert_eq!(settling.due(), None);
    }

    #[test]
    fn each_change_puts_it_off_until_it_has_taken_too_long() {
        let (start, mut settling) = (Instant::now(), Settling::default());
        for step in 0..100 {
            let now = start + STEP * step;
            settling.changed(now);
            assert_eq!(settling.due(), Some((now + QUIET).min(start + LONGEST_UNREST)), "step {step}");
        }
    }

    #[test]
    fn what_changes_while_it_is_read_is_read_after_a_rest() {
        let (start, mut settling) = (Instant::now(), Settling::default());
        settling.changed(start);
        settling.begin();
        let took = Duration::from_secs(2);
        settling.changed(start + STEP);
        settling.ended(start, start + took, false);
        assert_eq!(settling.due(), Some(start + took + took * REST_FACTOR));
        settling.begin();
        settling.ended(start, start + Duration::from_secs(3600), false);
        settling.changed(start + Duration::from_secs(3600));
        assert_eq!(settling.due(), Some(start + Duration::from_secs(3600) + LONGEST_REST));
    }

    #[test]
    fn what_could_not_be_read_is_tried_again() {
        let (start, mut settling) = (Instant::now(), Settling::default());
        settling.changed(start);
        settling.begin();
        settling.ended(start, start, true);
        assert_eq!(settling.due(), Some(start + QUIET));
    }
}
