//! How many packets went from line to line, and when.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::line_id::LineId;

/// Packets are counted for each of these.
pub(crate) const GRAIN: Duration = Duration::from_millis(100);

/// How many such times are told apart for two lines. What comes later is counted with the last.
const MOST_GRAINS: usize = 3 * 60 * 60 * 10;

/// Packets by sender and receiver, and by when.
#[derive(Debug, Default)]
pub(super) struct Crossings(HashMap<(LineId, LineId), BTreeMap<u32, u64>>);

impl Crossings {
    pub(super) fn count(&mut self, from: LineId, to: LineId, at: Duration) {
        let grain = (at.as_millis() / GRAIN.as_millis()).min(MOST_GRAINS as u128) as u32;
        *self.0.entry((from, to)).or_default().entry(grain).or_default() += 1;
    }

    /// How many packets there were of which it is certain that they were sent in this time.
    pub(super) fn between(&self, from: LineId, to: LineId, begin: Duration, end: Duration) -> u64 {
        let Some(grains) = self.0.get(&(from, to)) else { return 0 };
        let first = begin.as_millis().div_ceil(GRAIN.as_millis()) as u32;
        let after = (end.as_millis() / GRAIN.as_millis()) as u32;
        if first >= after { 0 } else { grains.range(first..after).map(|(_, packets)| packets).sum() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packets_within_the_time_count() {
        let ms = Duration::from_millis;
        let (a, b, mut crossings) = (LineId(1), LineId(2), Crossings::default());
        for at in [0, 950, 1050, 1150, 5000] {
            crossings.count(a, b, ms(at));
        }
        assert_eq!(crossings.between(a, b, Duration::ZERO, ms(60_000)), 5);
        assert_eq!(crossings.between(a, b, ms(1000), ms(2000)), 2);
        assert_eq!(crossings.between(a, b, ms(1001), ms(2000)), 1, "a grain that has begun before is not certain");
        assert_eq!(crossings.between(a, b, ms(2000), ms(1000)), 0);
        assert_eq!(crossings.between(b, a, Duration::ZERO, ms(60_000)), 0);
    }
}
