//! Keeps the routing tables true while nothing else does.
//!
//! A contact with a connection is watched by [`super::liveness`]. One without is connected to every [`CHECK_AFTER`], and at once where
//! its connection broke: if it cannot be reached, it leaves the tables. New peers come by themselves, since whoever joins looks for
//! its neighbours; this node looks for some ever more seldom while all is quiet, and soon again after a contact was lost.
//!
//! What it is not: Kademlia's own look around a table that is small or has a first peer, or after the network has changed.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, Swarm,
    swarm::dial_opts::{DialOpts, PeerCondition},
};

use super::{behaviour::Behaviour, connections::PeerConnections, scope::AddressScope};

/// How long after a contact was connected last to connect to it again. With [`LOOK_EVERY`] and the time that a dial may take, a death
/// is found within five minutes.
const CHECK_AFTER: Duration = Duration::from_secs(4 * 60);
/// How often to look which contacts are due.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Contacts that one look connects to.
const MAX_CHECKS: usize = 8;
/// How long after this node has joined, or a contact was lost, to look for new peers. Something by chance comes on top of each time, so that not all nodes look at one moment.
const FIRST_SEARCH: Duration = Duration::from_secs(2 * 60);
const SEARCH_AFTER_LOSS: Duration = Duration::from_secs(5 * 60);
/// How long after that to look again; doubles each time.
const SEARCH_PAUSE: Duration = Duration::from_secs(30 * 60);
const MAX_SEARCH_PAUSE: Duration = Duration::from_secs(60 * 60);
/// How many peers a search looks for. Each that is asked names the twenty that are closest by what it knows.
const SOUGHT: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

/// What is due when.
pub(super) struct Upkeep {
    look_at: Instant,
    /// When to connect to the contacts that have no connection.
    checks: HashMap<PeerId, Instant>,
    /// When the connections of contacts broke that were checked at once.
    broken: HashMap<PeerId, Instant>,
    searches: SearchSchedule,
}

/// When to look for new peers.
#[derive(Debug)]
struct SearchSchedule {
    at: Instant,
    pause: Duration,
    count: u64,
}

/// Whose neighbours to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SearchTarget {
    /// This node's own.
    Own,
    /// Those of a place by chance.
    Random,
}

impl Upkeep {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            look_at: now + LOOK_EVERY,
            checks: HashMap::new(),
            broken: HashMap::new(),
            searches: SearchSchedule::new(now, rand::random()),
        }
    }

    /// Notes that the last connection of a peer broke, or was closed by the peer, which cannot be told apart. One that does so again
    /// and again has no room for it, and is not in a hurry.
    pub(super) fn on_broken(&mut self, peer: PeerId, now: Instant) {
        if self.broken.get(&peer).is_none_or(|before| *before + CHECK_AFTER <= now) {
            self.broken.insert(peer, now);
            self.checks.insert(peer, now);
            self.look_at = now;
        }
    }

    /// Notes that a contact cannot be reached, and has left the tables.
    pub(super) fn on_lost(&mut self, now: Instant) {
        self.searches.on_loss(now);
    }

    /// Notes that this node has just become part of the network.
    pub(super) fn on_joined(&mut self, now: Instant) {
        self.searches = SearchSchedule::new(now, rand::random());
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next_due(&self) -> Instant {
        self.look_at.min(self.searches.at)
    }

    /// Connects to contacts that are due, and looks for new peers where that is.
    pub(super) fn tick(&mut self, swarm: &mut Swarm<Behaviour>, connections: &PeerConnections, now: Instant) {
        if self.look_at <= now {
            self.look_at = now + LOOK_EVERY;
            // Without any connection it may be this node's own network that is down.
            if !connections.is_empty() {
                self.check(swarm, connections, now);
            }
        }
        if let Some(target) = self.searches.next(now, rand::random()) {
            search(swarm, target);
        }
    }

    fn check(&mut self, swarm: &mut Swarm<Behaviour>, connections: &PeerConnections, now: Instant) {
        let contacts = contacts(swarm.behaviour_mut());
        for peer in self.due(&contacts.keys().copied().collect(), |peer| connections.contains(peer), now) {
            let addrs = contacts.get(&peer).cloned().unwrap_or_default();
            let dial = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).addresses(addrs);
            let _ = swarm.dial(dial.build());
        }
    }

    /// The contacts that are to be connected to now, those that have waited longest first.
    fn due(&mut self, contacts: &HashSet<PeerId>, is_connected: impl Fn(&PeerId) -> bool, now: Instant) -> Vec<PeerId> {
        let is_waiting = |peer: &PeerId| contacts.contains(peer) && !is_connected(peer);
        self.checks.retain(|peer, _| is_waiting(peer));
        self.broken.retain(|peer, at| contacts.contains(peer) && *at + CHECK_AFTER > now);
        for peer in contacts.iter().filter(|peer| is_waiting(peer)) {
            self.checks.entry(*peer).or_insert(now + CHECK_AFTER);
        }
        let mut due: Vec<_> = self.checks.iter_mut().filter(|(_, at)| **at <= now).collect();
        due.sort_by_key(|(_, at)| **at);
        due.truncate(MAX_CHECKS);
        // It is connected by then, or has left the tables, or could not be dialled at all.
        due.iter_mut().for_each(|(_, at)| **at = now + CHECK_AFTER);
        due.into_iter().map(|(peer, _)| *peer).collect()
    }
}

impl SearchSchedule {
    /// `random` is from 0 to 1, here and below.
    fn new(now: Instant, random: f64) -> Self {
        Self { at: now + FIRST_SEARCH.mul_f64(1.0 + random), pause: SEARCH_PAUSE, count: 0 }
    }

    fn on_loss(&mut self, now: Instant) {
        self.at = self.at.min(now + SEARCH_AFTER_LOSS);
        self.pause = SEARCH_PAUSE;
    }

    /// What to look for, if it is time.
    fn next(&mut self, now: Instant, random: f64) -> Option<SearchTarget> {
        if self.at > now {
            return None;
        }
        self.at = now + self.pause.mul_f64(1.0 + random / 4.0);
        self.pause = (self.pause * 2).min(MAX_SEARCH_PAUSE);
        self.count += 1;
        Some(if self.count % 2 == 1 { SearchTarget::Own } else { SearchTarget::Random })
    }
}

/// The peers in both tables, with their addresses.
fn contacts(behaviour: &mut Behaviour) -> HashMap<PeerId, Vec<Multiaddr>> {
    let mut contacts: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
    for scope in AddressScope::ALL {
        for bucket in behaviour.kad(scope).kbuckets() {
            for entry in bucket.iter() {
                contacts.entry(*entry.node.key.preimage()).or_default().extend(entry.node.value.iter().cloned());
            }
        }
    }
    contacts
}

fn search(swarm: &mut Swarm<Behaviour>, target: SearchTarget) {
    let own = *swarm.local_peer_id();
    let behaviour = swarm.behaviour_mut();
    for scope in AddressScope::ALL {
        if behaviour.peers(scope) > 0 {
            let target = match target {
                SearchTarget::Own => own,
                SearchTarget::Random => PeerId::random(),
            };
            behaviour.kad(scope).get_n_closest_peers(target, SOUGHT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_become_rare_while_all_is_quiet_and_come_soon_after_a_loss() {
        let start = Instant::now();
        let mut searches = SearchSchedule::new(start, 0.0);
        let mut times = Vec::new();
        for minute in 0..200 {
            let now = start + Duration::from_secs(60 * minute);
            times.extend(searches.next(now, 0.0).map(|target| (minute, target)));
        }
        let (own, random) = (SearchTarget::Own, SearchTarget::Random);
        assert_eq!(times, [(2, own), (32, random), (92, own), (152, random)]);

        let now = start + Duration::from_secs(60 * 200);
        searches.on_loss(now);
        assert_eq!(searches.next(now + SEARCH_AFTER_LOSS - Duration::from_secs(1), 0.0), None);
        assert_eq!(searches.next(now + SEARCH_AFTER_LOSS, 0.0), Some(own));
        assert_eq!(searches.next(now + SEARCH_AFTER_LOSS + SEARCH_PAUSE, 0.0), Some(random));
    }

    #[test]
    fn contacts_without_a_connection_are_looked_at_within_five_minutes_and_a_broken_one_at_once() {
        let start = Instant::now();
        let mut upkeep = Upkeep::new(start);
        let [connected, idle, broken, stranger] = [(); 4].map(|()| PeerId::random());
        let contacts = HashSet::from([connected, idle, broken]);
        let due = |upkeep: &mut Upkeep, now| upkeep.due(&contacts, |peer| *peer == connected, now);

        assert!(due(&mut upkeep, start).is_empty());
        upkeep.on_broken(broken, start);
        upkeep.on_broken(stranger, start);
        assert_eq!(upkeep.next_due(), start);
        assert_eq!(due(&mut upkeep, start), [broken]);
        assert!(due(&mut upkeep, start + LOOK_EVERY).is_empty());
        upkeep.on_broken(broken, start + LOOK_EVERY);
        assert!(due(&mut upkeep, start + LOOK_EVERY * 2).is_empty(), "it has no room for a connection");
        assert_eq!(due(&mut upkeep, start + CHECK_AFTER).len(), 2);
        assert!(CHECK_AFTER + LOOK_EVERY < Duration::from_secs(5 * 60));
        assert!(!upkeep.checks.contains_key(&stranger) && !upkeep.checks.contains_key(&connected));
    }

    #[test]
    fn one_look_connects_to_so_many_contacts_and_to_the_others_next() {
        let start = Instant::now();
        let mut upkeep = Upkeep::new(start);
        let contacts: HashSet<_> = (0..3 * MAX_CHECKS).map(|_| PeerId::random()).collect();
        let mut seen = HashSet::new();
        upkeep.due(&contacts, |_| false, start);
        for look in 0..3 {
            let due = upkeep.due(&contacts, |_| false, start + CHECK_AFTER + LOOK_EVERY * look);
            assert_eq!(due.len(), MAX_CHECKS);
            seen.extend(due);
        }
        assert_eq!(seen, contacts);
    }
}
