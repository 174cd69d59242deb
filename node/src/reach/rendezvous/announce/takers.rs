//! Who took an offer, so that it can be put again without looking for them: while the network is quiet, they are the closest still.
//!
//! What it is not: the peers to ask for an offer of another node; those are always looked for.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use keyferry_proto::offer::RecordKey;
use libp2p::PeerId;

use crate::reach::rendezvous::scope::AddressScope;

/// How long after they were found takers are believed to be the closest, if nothing speaks against it.
const HOLD: Duration = Duration::from_secs(60 * 60);

/// The takers of this node's offers.
#[derive(Default)]
pub(super) struct Takers(HashMap<(RecordKey, AddressScope), Found>);

struct Found {
    peers: Vec<PeerId>,
    at: Instant,
}

impl Takers {
    /// Notes the closest peers to an offer's key, as they have just been found.
    pub(super) fn found(&mut self, key: RecordKey, scope: AddressScope, peers: &[PeerId], now: Instant) {
        self.0.insert((key, scope), Found { peers: peers.to_vec(), at: now });
    }

    /// The peers that are to take an offer again; none if they have to be looked for.
    pub(super) fn of(&self, key: RecordKey, scope: AddressScope, now: Instant) -> Option<Vec<PeerId>> {
        let found = self.0.get(&(key, scope)).filter(|found| now.duration_since(found.at) < HOLD)?;
        Some(found.peers.clone())
    }

    /// Forgets those of one offer: one of them did not take it.
    pub(super) fn forget(&mut self, key: RecordKey, scope: AddressScope) {
        self.0.remove(&(key, scope));
    }

    /// Forgets those of a scope: a peer has come that may be closer.
    pub(super) fn forget_all_of(&mut self, scope: AddressScope) {
        self.0.retain(|(_, other), _| *other != scope);
    }

    /// Forgets all but those of these offers.
    pub(super) fn keep(&mut self, is_published: impl Fn(&RecordKey) -> bool) {
        self.0.retain(|(key, _), _| is_published(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takers_are_believed_for_an_hour_unless_a_peer_comes_or_one_of_them_fails() {
        let (mut takers, start) = (Takers::default(), Instant::now());
        let [first, second] = [1, 2].map(|seed| RecordKey::from_bytes([seed; 32]));
        let peers = [PeerId::random(), PeerId::random()];
        let find = |takers: &mut Takers| {
            for (key, scope) in [(first, AddressScope::Wan), (first, AddressScope::Lan), (second, AddressScope::Wan)] {
                takers.found(key, scope, &peers, start);
            }
        };
        find(&mut takers);
        let last = start + HOLD - Duration::from_secs(1);
        assert_eq!(takers.of(first, AddressScope::Wan, last).as_deref(), Some(&peers[..]));
        assert_eq!(takers.of(first, AddressScope::Wan, start + HOLD), None);

        takers.forget_all_of(AddressScope::Wan);
        assert_eq!(takers.of(first, AddressScope::Wan, start), None);
        assert!(takers.of(first, AddressScope::Lan, start).is_some());

        find(&mut takers);
        takers.forget(first, AddressScope::Wan);
        assert_eq!(takers.of(first, AddressScope::Wan, start), None);
        takers.keep(|key| *key == first);
        assert_eq!(takers.of(second, AddressScope::Wan, start), None);
    }
}
