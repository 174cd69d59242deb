//! What hides an offer's sequence and expiry in its record: another amount for each day.
//!
//! ```text
//! stream    BLAKE3 derive_key("keyferry 2026 offer veil v2", A | day u32 LE), 16 bytes: two u64 LE
//! sequence  in the record: that of the offer, plus the first number divided by 2
//! expires   in the record: that of the offer, less the second number modulo 1200 s
//! ```
//! Records of one day keep the order of their offers. Those of two days have no number in common, not even how far the
//! node's clock is wrong, for whoever does not know `A`.
//!
//! What it is not: enough by itself. Offers for two days must also be signed at times of their own, or what they add from one
//! record to the next is the same.

use std::time::Duration;

use super::MAX_SEQUENCE;
use keyferry_net::time::{UnixTime, UtcDay};

use crate::identity::NodeKey;

const CONTEXT: &str = "keyferry 2026 offer veil v2";

/// The most by which a record expires earlier than the offer in it.
pub const MAX_EARLY: Duration = Duration::from_secs(20 * 60);

/// What hides the sequence and the expiry of a node's offers on one day.
pub(super) struct Veil {
    sequence: u64,
    early: u64,
}

impl Veil {
    pub(super) fn new(node: &NodeKey, day: UtcDay) -> Self {
        let mut stream =
            blake3::Hasher::new_derive_key(CONTEXT).update(node.as_bytes()).update(&day.0.to_le_bytes()).finalize_xof();
        let mut next = || {
            let mut bytes = [0; 8];
            stream.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        Self { sequence: next() / 2, early: next() % MAX_EARLY.as_secs() }
    }

    /// The sequence in a record of that in its offer, which is at most [`MAX_SEQUENCE`].
    pub(super) fn sequence(&self, of_offer: u64) -> u64 {
        self.sequence + of_offer.min(MAX_SEQUENCE)
    }

    /// The expiry of a record by that of its offer.
    pub(super) fn expires(&self, of_offer: UnixTime) -> UnixTime {
        UnixTime(of_offer.0.saturating_sub(self.early))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::identity::NodeSecret;

    fn node(seed: [u8; 32]) -> NodeKey {
        NodeSecret::from_bytes(&seed).public()
    }

    #[test]
    fn every_day_and_node_has_a_veil_of_its_own() {
        let veils: Vec<_> = (0..1000)
            .flat_map(|day| [[1; 32], [2; 32]].map(|seed| Veil::new(&node(seed), UtcDay(day))))
            .map(|veil| (veil.sequence, veil.early))
            .collect();
        let sequences: BTreeSet<_> = veils.iter().map(|veil| veil.0).collect();
        assert_eq!(sequences.len(), veils.len());
        let early: BTreeSet<_> = veils.iter().map(|veil| veil.1).collect();
        assert!(early.len() > 900, "{} of 1200 values in 2000 veils", early.len());
    }

    proptest! {
        #[test]
        fn the_records_of_a_day_keep_the_order_of_their_offers(
            seed in any::<[u8; 32]>(),
            day in any::<u32>(),
            mut sequences in prop::collection::vec(0..=MAX_SEQUENCE, 2),
        ) {
            let veil = Veil::new(&node(seed), UtcDay(day));
            sequences.sort_unstable();
            let veiled: Vec<_> = sequences.iter().map(|sequence| veil.sequence(*sequence)).collect();
            prop_assert_eq!(veiled[1] - veiled[0], sequences[1] - sequences[0]);
        }
    }
}
