//! How many addresses of this node are put to the test. Whoever it connects to says what it likes about them, as often as it
//! likes, and AutoNAT's client keeps each new one for ever.
//!
//! What it is not: a judgement of an address; that is what the test is for.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use libp2p::Multiaddr;

/// New addresses that may be proposed at once.
const BURST: u32 = 64;
/// How often one more may be. What liars make AutoNAT keep in a day is less than a MiB.
const PAUSE: Duration = Duration::from_secs(30);
/// Addresses that are known to have been proposed: honest peers all say the same few, again and again.
const MAX_RECENT: usize = 16;

/// The proposals that may still be made.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    recent: VecDeque<Multiaddr>,
    /// When the whole burst may be made again.
    full_at: Option<Instant>,
}

impl Proposals {
    /// Whether an address may be proposed: one that has been lately, or a new one unless there were too many.
    pub(super) fn admit(&mut self, addr: &Multiaddr, now: Instant) -> bool {
        if self.recent.contains(addr) {
            return true;
        }
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + PAUSE;
        if full_at > now + PAUSE * BURST {
            return false;
        }
        self.full_at = Some(full_at);
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(addr.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn a_liar_has_few_new_addresses_put_to_the_test_and_honest_peers_one_as_often_as_they_like() {
        let (mut proposals, now) = (Proposals::default(), Instant::now());
        assert!((0..1000).all(|_| proposals.admit(&addr(9), now)));
        assert_eq!((1000..2000).filter(|port| proposals.admit(&addr(*port), now)).count(), BURST as usize - 1);
        assert!(proposals.recent.len() <= MAX_RECENT);
        let later = now + PAUSE;
        assert_eq!((2000..3000).filter(|port| proposals.admit(&addr(*port), later)).count(), 1);
    }
}
