//! The keys under which the DHT holds things, and the days for which offers are published.
//!
//! ```text
//! offer     BLAKE3 derive_key("keyferry 2026 offer record v2", A')
//! content   BLAKE3 derive_key("keyferry 2026 provider record v1", content hash)
//! relays    BLAKE3 derive_key("keyferry 2026 relay record v1", "everyone")
//! relay     BLAKE3 derive_key("keyferry 2026 relay of node record v1", A | day u32 LE)
//! ```
//! What it is not: the records themselves.

use std::{fmt, time::Duration};

use data_encoding::HEXLOWER;

use super::{MAX_CLOCK_SKEW, MAX_LIFETIME, WINDOW, blind::blinded_key};
use keyferry_net::time::{UnixTime, UtcDay};

use crate::{hash::ContentHash, identity::NodeKey};

const OFFER_CONTEXT: &str = "keyferry 2026 offer record v2";
const CONTENT_CONTEXT: &str = "keyferry 2026 provider record v1";
const RELAY_CONTEXT: &str = "keyferry 2026 relay record v1";
const RELAY_OF_CONTEXT: &str = "keyferry 2026 relay of node record v1";

/// A key of the DHT. It does not tell an observer whose offer or which content it stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey([u8; 32]);

impl RecordKey {
    /// Wraps the bytes of a key that came from the DHT.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({self})")
    }
}

/// The key under which the offer of a node is found on a day.
pub fn record_key(node: &NodeKey, day: UtcDay) -> RecordKey {
    of_blinded(&blinded_key(node, day))
}

/// The key under which the providers of content are found.
pub fn content_record_key(hash: &ContentHash) -> RecordKey {
    RecordKey(blake3::derive_key(CONTENT_CONTEXT, hash.as_bytes()))
}

/// The key under which nodes are found that relay for everyone.
pub fn relay_record_key() -> RecordKey {
    RecordKey(blake3::derive_key(RELAY_CONTEXT, b"everyone"))
}

/// The key under which, on a day, those who know a node find it as a relay. It changes daily, as that of offers does, so that
/// nobody else can tell that the relay of today is the one of yesterday.
pub fn relay_record_key_of(node: &NodeKey, day: UtcDay) -> RecordKey {
    RecordKey(blake3::derive_key(RELAY_OF_CONTEXT, &[&node.as_bytes()[..], &day.0.to_le_bytes()].concat()))
}

/// The days for which to publish an offer made at `now`: today, and tomorrow if the offer may still be valid then.
pub fn publish_days(now: UnixTime) -> Vec<UtcDay> {
    days_between(now, now.plus(MAX_LIFETIME).plus(MAX_CLOCK_SKEW))
}

/// The days under which to look for an offer at `now`, the likeliest first: today, and the neighbour day near midnight,
/// because the other side's clock may differ.
pub fn resolve_days(now: UnixTime) -> Vec<UtcDay> {
    let today = now.day();
    let mut days = days_between(back(now, MAX_CLOCK_SKEW), now.plus(MAX_CLOCK_SKEW));
    days.sort_by_key(|day| *day != today);
    days
}

/// The record key of a blinded key.
pub(super) fn of_blinded(blinded: &[u8; 32]) -> RecordKey {
    RecordKey(blake3::derive_key(OFFER_CONTEXT, blinded))
}

/// The first and the last day whose records are acceptable at `now`: a record is put up to [`MAX_LIFETIME`] before its day begins, and
/// lives for up to that after its day has ended, by a clock that may be wrong.
pub(super) fn acceptable_days(now: UnixTime) -> (UtcDay, UtcDay) {
    (back(now, WINDOW).day(), now.plus(WINDOW).day())
}

fn days_between(first: UnixTime, last: UnixTime) -> Vec<UtcDay> {
    (first.day().0..=last.day().0).map(UtcDay).collect()
}

fn back(time: UnixTime, by: Duration) -> UnixTime {
    UnixTime(time.0.saturating_sub(by.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::{super::MAX_CLOCK_ERROR, *};

    const MIDNIGHT: u64 = 20_000 * 86_400;

    #[test]
    fn tomorrow_is_published_only_near_midnight() {
        assert_eq!(publish_days(UnixTime(MIDNIGHT)), [UtcDay(20_000)]);
        assert_eq!(publish_days(UnixTime(MIDNIGHT - 3 * 3600)), [UtcDay(19_999)]);
        assert_eq!(publish_days(UnixTime(MIDNIGHT - 2 * 3600)), [UtcDay(19_999), UtcDay(20_000)]);
    }

    #[test]
    fn the_neighbour_day_is_asked_second_and_only_near_midnight() {
        assert_eq!(resolve_days(UnixTime(MIDNIGHT + 3600)), [UtcDay(20_000)]);
        assert_eq!(resolve_days(UnixTime(MIDNIGHT + 60)), [UtcDay(20_000), UtcDay(19_999)]);
        assert_eq!(resolve_days(UnixTime(MIDNIGHT - 60)), [UtcDay(19_999), UtcDay(20_000)]);
    }

    #[test]
    fn at_any_time_what_is_published_is_acceptable_and_covers_what_is_resolved_until_it_expires() {
        for made in (MIDNIGHT - 90_000..MIDNIGHT + 90_000).step_by(601).map(UnixTime) {
            let published = publish_days(made);
            let (first, last) = acceptable_days(made);
            assert!(published.iter().all(|day| (first..=last).contains(day)), "{made:?}");
            for read in (0..=MAX_LIFETIME.as_secs()).step_by(599).map(|age| UnixTime(made.0 + age)) {
                assert!(published.contains(&resolve_days(read)[0]), "made {made:?}, read {read:?}");
            }
        }
    }

    #[test]
    fn at_any_time_what_a_clock_publishes_that_is_a_day_wrong_is_acceptable() {
        for now in (MIDNIGHT - 90_000..MIDNIGHT + 90_000).step_by(601).map(UnixTime) {
            let (first, last) = acceptable_days(now);
            for wrong in [back(now, MAX_CLOCK_ERROR), now.plus(MAX_CLOCK_ERROR)] {
                assert!(publish_days(wrong).iter().all(|day| (first..=last).contains(day)), "{now:?}");
            }
            assert!(last.0 - first.0 <= 3, "{now:?}");
        }
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        for now in [UnixTime(0), UnixTime(u64::MAX)] {
            assert!(!publish_days(now).is_empty());
            assert!(resolve_days(now).contains(&now.day()));
        }
    }
}
