//! The relays at hand, those that may become some, and those that the node leaves alone for a while.
//!
//! What it is not: asking, or looking for more; the task does both.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use keyferry_proto::{
    identity::NodeKey,
    relaying::{RelayCredentials, RelayRefusal},
};
use libp2p::PeerId;

use crate::reach::rendezvous::{AskRelayError, Provider};

/// How many relays to keep at hand.
pub const MAX_FOUND: usize = 4;
/// How many candidates may wait to be asked; more are left out, unless they belong to contacts.
const MAX_CANDIDATES: usize = 64;
/// How many relays to ask at a time.
const MAX_ASKING: usize = 4;
/// How many of the relays that are left alone to remember.
const MAX_PAUSED: usize = 256;
/// How long after the last time to ask a relay again, at the latest: the answer tells that it is still there. New credentials replace
/// the old ones when half of the time of those is over.
const RENEW_AFTER: Duration = Duration::from_secs(10 * 60);
/// How long to leave a relay alone that is busy at the moment, or that this node could not ask or use.
const SHORT_PAUSE: Duration = Duration::from_secs(60);
/// How long to leave a relay alone that cannot be reached.
const PAUSE: Duration = Duration::from_secs(10 * 60);
/// How long to leave a relay alone that does not relay for this node, or talks nonsense.
const LONG_PAUSE: Duration = Duration::from_secs(60 * 60);

/// A relay that has given this node leave to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundRelay {
    /// Its rendezvous peer.
    pub peer: PeerId,
    /// The contact whose relay it says to be; none for one that is for everyone.
    pub whose: Option<NodeKey>,
    /// Where it is, on the one port of its node, the surest first; never empty, and each may be dialled.
    pub addrs: Vec<SocketAddr>,
    /// What it has issued. New credentials come before these are void. Their addresses are the relay's word; `addrs` are to
    /// be used.
    pub credentials: RelayCredentials,
}

/// A peer that may relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProspectiveRelay {
    pub(super) provider: Provider,
    /// The contact under whose key it was found.
    pub(super) whose: Option<NodeKey>,
}

/// Why a relay is not at hand, or not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayFailure {
    /// It is busy, or this node was: its credentials still hold.
    Passing,
    /// This node could ask it, but not use it: its fault, or that of the network in between.
    Useless,
    /// It cannot be reached.
    Gone,
    /// It does not relay for this node.
    Unwilling,
}

/// The pool.
#[derive(Debug, Default)]
pub(super) struct Pool {
    held: Vec<KnownRelay>,
    candidates: Vec<ProspectiveRelay>,
    asking: HashMap<PeerId, ProspectiveRelay>,
    paused: HashMap<PeerId, Instant>,
}

#[derive(Debug)]
struct KnownRelay {
    relay: FoundRelay,
    origin: ProspectiveRelay,
    renew_at: Instant,
    /// When newer credentials begin to replace these.
    stale_at: Instant,
    void_at: Instant,
}

impl ProspectiveRelay {
    fn peer(&self) -> PeerId {
        self.provider.peer
    }

    /// Whom to ask first: the least.
    fn rank(&self) -> (bool, bool) {
        (self.whose.is_none(), !self.provider.is_connected)
    }
}

impl FoundRelay {
    /// Whether it is the same relay, whatever the credentials: users of it need not hear of new ones before they need them.
    fn is_as_good_as(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.credentials, &other.credentials);
        (self.peer, &self.addrs, &ours.realm, ours.tls_pin) == (other.peer, &other.addrs, &theirs.realm, theirs.tls_pin)
    }
}

impl fmt::Debug for FoundRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoundRelay")
            .field("peer", &self.peer)
            .field("addrs", &self.addrs)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl RelayFailure {
    /// How long to leave the relay alone.
    fn pause(self) -> Duration {
        match self {
            Self::Passing | Self::Useless => SHORT_PAUSE,
            Self::Gone => PAUSE,
            Self::Unwilling => LONG_PAUSE,
        }
    }

    /// What a failure to ask means for the relay.
    pub(super) fn of(error: &AskRelayError) -> Self {
        match error {
            AskRelayError::TooMany | AskRelayError::Ended | AskRelayError::Refused(RelayRefusal::Busy) => Self::Passing,
            AskRelayError::Address | AskRelayError::Unreachable(_) => Self::Gone,
            AskRelayError::Key
            | AskRelayError::NotARelay
            | AskRelayError::Reply(_)
            | AskRelayError::Refused(RelayRefusal::Policy) => Self::Unwilling,
        }
    }
}

impl Pool {
    /// The relays that can be used, those of contacts first.
    pub(super) fn relays(&self) -> Vec<FoundRelay> {
        let (of_contacts, others): (Vec<_>, Vec<_>) =
            self.held.iter().map(|held| held.relay.clone()).partition(|relay| relay.whose.is_some());
        [of_contacts, others].concat()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether there are fewer relays than there may be.
    pub(super) fn is_lacking(&self) -> bool {
        self.held.len() < MAX_FOUND
    }

    /// Forgets the candidates that were never asked: what a new search finds is more likely to be there.
    pub(super) fn forget_candidates(&mut self) {
        self.candidates.clear();
    }

    /// Takes a candidate, unless it is known or to be left alone.
    pub(super) fn add(&mut self, candidate: ProspectiveRelay, now: Instant) {
        let peer = candidate.peer();
        let is_paused = self.paused.get(&peer).is_some_and(|until| *until > now);
        if is_paused || self.asking.contains_key(&peer) || self.held.iter().any(|held| held.relay.peer == peer) {
            return;
        }
        if let Some(known) = self.candidates.iter_mut().find(|known| known.peer() == peer) {
            if known.whose.is_none() {
                *known = candidate;
            }
        } else if self.candidates.len() < MAX_CANDIDATES {
            self.candidates.push(candidate);
        } else if candidate.whose.is_some()
            && let Some(stranger) = self.candidates.iter_mut().find(|known| known.whose.is_none())
        {
            *stranger = candidate;
        }
    }

    /// Whom to ask now, if anybody. `may_ask_strangers`: whether relays of contacts have had their head start. `chance` decides
    /// among equals.
    pub(super) fn next_to_ask(
        &mut self,
        now: Instant,
        may_ask_strangers: bool,
        chance: impl FnOnce(usize) -> usize,
    ) -> Option<ProspectiveRelay> {
        if self.asking.len() >= MAX_ASKING {
            return None;
        }
        let is_due = |held: &&KnownRelay| held.renew_at <= now && !self.asking.contains_key(&held.relay.peer);
        let next = match self.held.iter().find(is_due) {
            Some(held) => held.origin.clone(),
            None => {
                let may = |candidate: &ProspectiveRelay| match candidate.whose {
                    Some(_) => self.has_room(|whose| whose.is_some()),
                    None => may_ask_strangers && self.has_room(|_| true),
                };
                let best = self.candidates.iter().filter(|it| may(it)).map(ProspectiveRelay::rank).min()?;
                let equals: Vec<usize> =
                    (0..self.candidates.len()).filter(|at| self.candidates[*at].rank() == best).collect();
                let chosen = *equals.get(chance(equals.len()) % equals.len())?;
                self.candidates.swap_remove(chosen)
            }
        };
        self.asking.insert(next.peer(), next.clone());
        Some(next)
    }

    /// Takes what a relay has issued; `lifetime` is how long it holds.
    pub(super) fn on_granted(&mut self, relay: FoundRelay, lifetime: Duration, now: Instant) {
        let Some(origin) = self.asking.remove(&relay.peer) else { return };
        let renew_at = now + RENEW_AFTER.min(lifetime / 2);
        if let Some(held) = self.held.iter_mut().find(|held| held.relay.is_as_good_as(&relay) && held.stale_at > now) {
            held.renew_at = renew_at.min(held.stale_at);
            return;
        }
        self.held.retain(|held| held.relay.peer != relay.peer);
        if self.held.len() >= MAX_FOUND {
            // The node asked it because it is a contact's, or while there was room: it replaces a stranger's relay, or is not kept.
            let stranger = self.held.iter().position(|held| held.relay.whose.is_none());
            match stranger.filter(|_| relay.whose.is_some()) {
                Some(at) => drop(self.held.remove(at)),
                None => return,
            }
        }
        let (stale_at, void_at) = (now + lifetime / 2, now + lifetime);
        self.held.push(KnownRelay { relay, origin, renew_at, stale_at, void_at });
    }

    /// Notes that a relay that was asked has issued nothing.
    pub(super) fn on_failed(&mut self, peer: PeerId, failure: RelayFailure, now: Instant) {
        self.asking.remove(&peer);
        if failure != RelayFailure::Passing {
            self.drop_relay(peer, failure, now);
        } else if let Some(held) = self.held.iter_mut().find(|held| held.relay.peer == peer) {
            held.renew_at = now + failure.pause();
        } else {
            self.pause(peer, now + failure.pause());
        }
    }

    /// Notes that a relay does not work. Returns whether it was at hand.
    pub(super) fn drop_relay(&mut self, peer: PeerId, failure: RelayFailure, now: Instant) -> bool {
        let before = self.held.len();
        self.held.retain(|held| held.relay.peer != peer);
        self.candidates.retain(|candidate| candidate.peer() != peer);
        self.pause(peer, now + failure.pause());
        self.held.len() < before
    }

    /// Drops relays whose credentials are void.
    pub(super) fn expire(&mut self, now: Instant) {
        self.held.retain(|held| held.void_at > now);
        self.paused.retain(|_, until| *until > now);
    }

    /// When to renew or drop something.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |held: &KnownRelay| match self.asking.contains_key(&held.relay.peer) {
            true => held.void_at,
            false => held.renew_at.min(held.void_at),
        };
        self.held.iter().map(due).min()
    }

    /// Whether there is room for one more besides those of a kind that are at hand or being asked.
    fn has_room(&self, kind: impl Fn(&Option<NodeKey>) -> bool) -> bool {
        let held = self.held.iter().map(|held| (held.relay.peer, &held.relay.whose));
        let known: HashMap<_, _> = held.chain(self.asking.iter().map(|(peer, it)| (*peer, &it.whose))).collect();
        known.values().filter(|whose| kind(whose)).count() < MAX_FOUND
    }

    fn pause(&mut self, peer: PeerId, until: Instant) {
        if self.paused.len() >= MAX_PAUSED
            && let Some(first) = self.paused.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer)
        {
            self.paused.remove(&first);
        }
        self.paused.insert(peer, until);
    }
}

#[cfg(test)]
mod tests {
    use keyferry_net::time::UnixTime;
    use keyferry_proto::{identity::NodeSecret, relaying::RelayCredentials};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn candidate(whose: Option<u8>, is_connected: bool) -> ProspectiveRelay {
        let whose = whose.map(|seed| NodeSecret::from_bytes(&[seed; 32]).public());
        let addrs = vec!["203.0.113.1:4600".parse().unwrap()];
        ProspectiveRelay { provider: Provider { peer: PeerId::random(), addrs, is_connected }, whose }
    }

    fn relay(of: &ProspectiveRelay) -> FoundRelay {
        FoundRelay {
            peer: of.peer(),
            whose: of.whose,
            addrs: of.provider.addrs.clone(),
            credentials: RelayCredentials {
                realm: "r".to_owned(),
                username: "u".to_owned(),
                password: "p".to_owned(),
                expires: UnixTime(0),
                addrs: Vec::new(),
                tls_pin: None,
            },
        }
    }

    fn pool_of(candidates: impl IntoIterator<Item = ProspectiveRelay>, now: Instant) -> Pool {
        let mut pool = Pool::default();
        candidates.into_iter().for_each(|candidate| pool.add(candidate, now));
        pool
    }

    /// Asks all that are to be asked, who all say yes.
    fn ask_all(pool: &mut Pool, now: Instant) -> Vec<ProspectiveRelay> {
        let mut asked = Vec::new();
        while let Some(next) = pool.next_to_ask(now, true, |_| 0) {
            pool.on_granted(relay(&next), HOUR, now);
            asked.push(next);
        }
        asked
    }

    #[test]
    fn contacts_are_asked_first_then_connected_peers_and_chance_decides_among_equals() {
        let now = Instant::now();
        let (far, near, friend) = (candidate(None, false), candidate(None, true), candidate(Some(1), false));
        let mut pool = pool_of([far.clone(), near.clone(), friend.clone()], now);
        assert_eq!(ask_all(&mut pool, now), [friend.clone(), near, far]);
        assert_eq!(pool.relays()[0], relay(&friend));

        let equals: Vec<_> = (0..3).map(|_| candidate(None, false)).collect();
        let mut pool = pool_of(equals.clone(), now);
        assert_eq!(pool.next_to_ask(now, true, |count| count - 1), Some(equals[2].clone()));
    }

    #[test]
    fn strangers_wait_for_the_head_start_of_contacts() {
        let now = Instant::now();
        let mut pool = pool_of([candidate(None, true)], now);
        assert_eq!(pool.next_to_ask(now, false, |_| 0), None);
        assert!(pool.next_to_ask(now, true, |_| 0).is_some());
    }

    #[test]
    fn no_more_are_asked_than_there_is_room_for() {
        let now = Instant::now();
        let mut pool = pool_of((0..20).map(|_| candidate(None, false)), now);
        assert_eq!((0..20).filter(|_| pool.next_to_ask(now, true, |_| 0).is_some()).count(), MAX_FOUND);
        let mut pool = pool_of((0..20).map(|_| candidate(None, false)), now);
        assert_eq!(ask_all(&mut pool, now).len(), MAX_FOUND);
        assert!(!pool.is_lacking());
    }

    #[test]
    fn a_contacts_relay_takes_the_place_of_a_strangers() {
        let now = Instant::now();
        let mut pool = pool_of((0..MAX_FOUND).map(|_| candidate(None, false)), now);
        ask_all(&mut pool, now);
        let friends: Vec<_> = (0..6).map(|seed| candidate(Some(seed + 1), false)).collect();
        friends.iter().for_each(|friend| pool.add(friend.clone(), now));
        assert_eq!(ask_all(&mut pool, now).len(), MAX_FOUND);
        assert!(pool.relays().iter().all(|relay| relay.whose.is_some()));
        assert_eq!(pool.relays().len(), MAX_FOUND);
    }

    #[test]
    fn credentials_are_renewed_when_half_of_their_time_is_over_and_dropped_at_its_end() {
        let now = Instant::now();
        let mut pool = pool_of([candidate(None, false)], now);
        let only = pool.next_to_ask(now, true, |_| 0).unwrap();
        pool.on_granted(relay(&only), Duration::from_secs(100), now);
        assert_eq!(pool.next_due(), Some(now + Duration::from_secs(50)));
        assert_eq!(pool.next_to_ask(now + Duration::from_secs(49), true, |_| 0), None);
        assert_eq!(pool.next_to_ask(now + Duration::from_secs(50), true, |_| 0), Some(only.clone()));
        assert_eq!(pool.next_to_ask(now + Duration::from_secs(50), true, |_| 0), None, "it is being asked");
        pool.on_failed(only.peer(), RelayFailure::Passing, now + Duration::from_secs(51));
        assert_eq!(pool.relays().len(), 1, "the credentials still hold");
        pool.expire(now + Duration::from_secs(100));
        assert!(pool.is_empty());
    }

    #[test]
    fn long_credentials_are_renewed_sooner_to_see_whether_the_relay_is_there() {
        let now = Instant::now();
        let mut pool = pool_of([candidate(None, false)], now);
        ask_all(&mut pool, now);
        assert_eq!(pool.next_due(), Some(now + RENEW_AFTER));
        let due = pool.next_to_ask(now + RENEW_AFTER, true, |_| 0).unwrap();
        let mut newer = relay(&due);
        newer.credentials.username = "newer".to_owned();
        pool.on_granted(newer.clone(), HOUR, now + RENEW_AFTER);
        assert_eq!(pool.relays(), [relay(&due)], "the old ones are good for long");
        let later = now + HOUR / 2;
        pool.next_to_ask(later, true, |_| 0).unwrap();
        pool.on_granted(newer.clone(), HOUR, later);
        assert_eq!(pool.relays(), [newer]);
        pool.next_to_ask(later + RENEW_AFTER, true, |_| 0).unwrap();
        pool.on_failed(due.peer(), RelayFailure::Gone, later + RENEW_AFTER);
        assert!(pool.is_empty());
    }

    #[test]
    fn those_that_fail_are_left_alone_for_a_time_and_for_how_long_depends() {
        let pauses = [
            (RelayFailure::Passing, SHORT_PAUSE),
            (RelayFailure::Useless, SHORT_PAUSE),
            (RelayFailure::Gone, PAUSE),
            (RelayFailure::Unwilling, LONG_PAUSE),
        ];
        for (failure, pause) in pauses {
            let now = Instant::now();
            let it = candidate(None, false);
            let mut pool = pool_of([it.clone()], now);
            pool.next_to_ask(now, true, |_| 0);
            pool.on_failed(it.peer(), failure, now);
            pool.add(it.clone(), now + pause - Duration::from_secs(1));
            assert_eq!(pool.next_to_ask(now, true, |_| 0), None, "{failure:?}");
            pool.add(it.clone(), now + pause);
            assert_eq!(pool.next_to_ask(now, true, |_| 0), Some(it), "{failure:?}");
        }
    }

    #[test]
    fn whatever_is_found_or_fails_memory_is_bounded() {
        let now = Instant::now();
        let mut pool = pool_of((0..1000).map(|_| candidate(None, false)), now);
        assert!((0..1000).all(|_| !pool.drop_relay(PeerId::random(), RelayFailure::Gone, now)));
        assert_eq!((pool.candidates.len(), pool.paused.len()), (MAX_CANDIDATES, MAX_PAUSED));
        pool.add(candidate(Some(1), false), now);
        assert!(pool.next_to_ask(now, false, |_| 0).is_some(), "a contact's is not left out for them");
    }
}
