//! Who may hold one of a limited number of things that strangers take: each host has a share of them, each key, and contacts have
//! some for themselves.
//!
//! When all are taken, the host that has most gives one back to a host that has less: the one that has been idle longest. Among hosts
//! that have as much, only what has been idle for a while gives way. A contact takes from any stranger, and no stranger from a contact.
//! It is deterministic: the caller says what time it is.
//!
//! What it is not: the things, or the waiting for a place ([`super::places`]).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use keyferry_net::ip::host_of;

/// How many may be held, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlaceLimits {
    pub(crate) in_all: usize,
    /// How many of these no stranger gets.
    pub(crate) for_contacts: usize,
    /// How many the strangers of one host may hold.
    pub(crate) per_host: usize,
    pub(crate) per_key: usize,
    /// How long an idle one stays its holder's own although others of no greater share want it.
    pub(crate) grace: Duration,
}

/// Who wants to hold one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlaceClaim<K> {
    host: IpAddr,
    key: Option<K>,
    is_contact: bool,
}

/// A thing that is held, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PlaceNumber(u64);

/// A place that was given, and who has lost one for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GivenPlace {
    pub(crate) number: PlaceNumber,
    pub(crate) pushed_out: Option<PlaceNumber>,
}

/// Nobody gives way now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all places are taken")]
pub(crate) struct PlacesFull {
    /// When somebody will, if nothing changes by then.
    pub(crate) until: Option<Instant>,
}

/// The places that are held.
#[derive(Debug)]
pub(crate) struct PlaceTable<K> {
    limits: PlaceLimits,
    next: u64,
    places: BTreeMap<PlaceNumber, PlaceHolder<K>>,
}

#[derive(Debug)]
struct PlaceHolder<K> {
    claim: PlaceClaim<K>,
    entered: Instant,
    uses: usize,
    /// Since when it is not used.
    idle_since: Instant,
}

impl<K> PlaceClaim<K> {
    /// A claim of whoever is at this address.
    #[cfg(test)]
    pub(crate) fn of_host(remote: IpAddr) -> Self {
        Self { host: host_of(remote), key: None, is_contact: false }
    }

    /// A claim of whoever has this key.
    pub(crate) fn of_key(remote: IpAddr, key: K, is_contact: bool) -> Self {
        Self { host: host_of(remote), key: Some(key), is_contact }
    }
}

impl<K> PlaceHolder<K> {
    /// Who goes first: the longest idle, then whoever is in use longest.
    fn rank(&self) -> (bool, Instant) {
        if self.uses == 0 { (false, self.idle_since) } else { (true, self.entered) }
    }

    /// When others of no greater share may have it; never while it is in use.
    fn free_at(&self, grace: Duration) -> Option<Instant> {
        (self.uses == 0).then(|| self.idle_since + grace)
    }
}

impl<K: Copy + Eq> PlaceTable<K> {
    pub(crate) fn new(limits: PlaceLimits) -> Self {
        Self { limits, next: 0, places: BTreeMap::new() }
    }

    /// Gives a place, which is idle at first.
    pub(crate) fn enter(&mut self, claim: PlaceClaim<K>, now: Instant) -> Result<GivenPlace, PlacesFull> {
        let pushed_out = self.make_room(&claim, now)?;
        pushed_out.inspect(|number| self.leave(*number));
        let number = PlaceNumber(self.next);
        self.next += 1;
        self.places.insert(number, PlaceHolder { claim, entered: now, uses: 0, idle_since: now });
        Ok(GivenPlace { number, pushed_out })
    }

    /// Takes a place back.
    pub(crate) fn leave(&mut self, number: PlaceNumber) {
        self.places.remove(&number);
    }

    /// Notes that a place is used once more.
    pub(crate) fn begin_use(&mut self, number: PlaceNumber) {
        if let Some(place) = self.places.get_mut(&number) {
            place.uses += 1;
        }
    }

    /// Notes that one use of a place has ended.
    pub(crate) fn end_use(&mut self, number: PlaceNumber, now: Instant) {
        if let Some(place) = self.places.get_mut(&number) {
            place.uses = place.uses.saturating_sub(1);
            place.idle_since = now;
        }
    }

    /// Since when a place is not used; none while it is.
    pub(crate) fn idle_since(&self, number: PlaceNumber) -> Option<Instant> {
        self.places.get(&number).filter(|place| place.uses == 0).map(|place| place.idle_since)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whom the claim pushes out, if anybody has to go for it.
    fn make_room(&self, claim: &PlaceClaim<K>, now: Instant) -> Result<Option<PlaceNumber>, PlacesFull> {
        let of_key = |place: &PlaceHolder<K>| claim.key.is_some() && place.claim.key == claim.key;
        if self.count(of_key) >= self.limits.per_key {
            let own = self.idle_of(of_key, now)?;
            // It may have come from elsewhere, where there is more room.
            let fits = self.places.get(&own).is_some_and(|place| place.claim == *claim) || self.has_room(claim, own);
            return if fits { Ok(Some(own)) } else { Err(PlacesFull { until: None }) };
        }
        let of_host = |place: &PlaceHolder<K>| !place.claim.is_contact && place.claim.host == claim.host;
        let own = self.count(of_host);
        if !claim.is_contact && own >= self.limits.per_host {
            return self.idle_of(of_host, now).map(Some);
        }
        let strangers = self.count(|place| !place.claim.is_contact);
        if self.len() < self.limits.in_all && (claim.is_contact || strangers < self.for_strangers()) {
            return Ok(None);
        }
        let by_host = self.strangers_by_host();
        let most = by_host.values().copied().max().unwrap_or(0);
        let of_busiest =
            |place: &PlaceHolder<K>| !place.claim.is_contact && by_host.get(&place.claim.host) == Some(&most);
        match claim.is_contact {
            true if strangers > 0 => Ok(self.first_of(of_busiest)),
            true => self.idle_of(|_| true, now).map(Some),
            false if most >= own + 2 => Ok(self.first_of(of_busiest)),
            false if own == most => self.idle_of(of_host, now).map(Some),
            false => self.idle_of(of_busiest, now).map(Some),
        }
    }

    /// Whether there is room without pushing anybody out but this one.
    fn has_room(&self, claim: &PlaceClaim<K>, but: PlaceNumber) -> bool {
        let strangers = || self.places.iter().filter(|(number, place)| **number != but && !place.claim.is_contact);
        claim.is_contact
            || strangers().count() < self.for_strangers()
                && strangers().filter(|(_, place)| place.claim.host == claim.host).count() < self.limits.per_host
    }

    fn for_strangers(&self) -> usize {
        self.limits.in_all.saturating_sub(self.limits.for_contacts)
    }

    fn count(&self, which: impl Fn(&PlaceHolder<K>) -> bool) -> usize {
        self.places.values().filter(|place| which(place)).count()
    }

    fn strangers_by_host(&self) -> HashMap<IpAddr, usize> {
        let mut by_host = HashMap::new();
        for place in self.places.values().filter(|place| !place.claim.is_contact) {
            *by_host.entry(place.claim.host).or_default() += 1;
        }
        by_host
    }

    /// Of these the one that goes first, used or not.
    fn first_of(&self, which: impl Fn(&PlaceHolder<K>) -> bool) -> Option<PlaceNumber> {
        let those = self.places.iter().filter(|(_, place)| which(place));
        those.min_by_key(|(number, place)| (place.rank(), **number)).map(|(number, _)| *number)
    }

    /// Of these the one that has been idle longest, if it has been for long enough.
    fn idle_of(&self, which: impl Fn(&PlaceHolder<K>) -> bool, now: Instant) -> Result<PlaceNumber, PlacesFull> {
        let those = self.places.iter().filter(|(_, place)| which(place));
        let free = those.filter_map(|(number, place)| Some((place.free_at(self.limits.grace)?, *number)));
        match free.min() {
            Some((at, number)) if at <= now => Ok(number),
            later => Err(PlacesFull { until: later.map(|(at, _)| at) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: PlaceLimits =
        PlaceLimits { in_all: 10, for_contacts: 2, per_host: 6, per_key: 3, grace: Duration::from_secs(2) };

    fn host(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    fn stranger(of: u8) -> PlaceClaim<u32> {
        PlaceClaim::of_host(host(of))
    }

    fn keyed(of: u8, key: u32) -> PlaceClaim<u32> {
        PlaceClaim::of_key(host(of), key, false)
    }

    fn contact(key: u32) -> PlaceClaim<u32> {
        PlaceClaim::of_key(host(200), key, true)
    }

    fn enter(table: &mut PlaceTable<u32>, claim: PlaceClaim<u32>, now: Instant) -> PlaceNumber {
        table.enter(claim, now).expect("a place").number
    }

    #[test]
    fn the_busiest_host_gives_way_to_another_even_what_it_uses_the_longest_idle_first() {
        let (mut table, now) = (PlaceTable::new(LIMITS), Instant::now());
        let busy: Vec<_> = (0..6).map(|_| enter(&mut table, stranger(1), now)).collect();
        busy.iter().for_each(|number| table.begin_use(*number));
        table.end_use(busy[3], now);
        let others = [2, 3].map(|of| enter(&mut table, stranger(of), now));

        let first = table.enter(stranger(4), now).unwrap();
        let second = table.enter(stranger(5), now).unwrap();

        assert_eq!((first.pushed_out, second.pushed_out), (Some(busy[3]), Some(busy[0])));
        assert!(others.iter().all(|number| table.places.contains_key(number)));
    }

    #[test]
    fn among_equals_only_who_has_been_idle_for_a_while_gives_way() {
        let (mut table, now) = (PlaceTable::new(LIMITS), Instant::now());
        let held: Vec<_> = (0..8).map(|of| enter(&mut table, stranger(of), now)).collect();
        table.begin_use(held[0]);

        assert_eq!(table.enter(stranger(9), now), Err(PlacesFull { until: Some(now + LIMITS.grace) }));
        assert_eq!(table.enter(stranger(9), now + LIMITS.grace).unwrap().pushed_out, Some(held[1]));

        held.iter().for_each(|number| table.begin_use(*number));
        let mut table = PlaceTable::new(LIMITS);
        (0..8).for_each(|of| {
            let number = enter(&mut table, stranger(of), now);
            table.begin_use(number);
        });
        assert_eq!(table.enter(stranger(9), now + LIMITS.grace), Err(PlacesFull { until: None }));
    }

    #[test]
    fn contacts_have_places_of_their_own_and_take_from_strangers_but_never_the_other_way() {
        let (mut table, now) = (PlaceTable::new(LIMITS), Instant::now());
        let strangers: Vec<_> = (0..8).map(|of| enter(&mut table, stranger(of), now)).collect();
        strangers.iter().for_each(|number| table.begin_use(*number));
        for key in 0..2 {
            assert_eq!(table.enter(contact(key), now).unwrap().pushed_out, None);
        }
        for (key, loser) in (2..10).zip(&strangers) {
            assert_eq!(table.enter(contact(key), now).unwrap().pushed_out, Some(*loser));
        }
        let later = now + Duration::from_secs(3600);
        assert_eq!(table.enter(stranger(1), later), Err(PlacesFull { until: None }));
        assert!(table.enter(contact(11), later).unwrap().pushed_out.is_some());
    }

    #[test]
    fn a_key_and_a_host_have_no_more_than_their_share_while_there_is_room() {
        let (mut table, now) = (PlaceTable::new(LIMITS), Instant::now());
        let own: Vec<_> = (0..3).map(|_| enter(&mut table, keyed(1, 7), now)).collect();
        assert!(table.enter(keyed(1, 7), now).is_err());
        assert_eq!(table.enter(keyed(1, 7), now + LIMITS.grace).unwrap().pushed_out, Some(own[0]));
        for key in 0..3 {
            enter(&mut table, keyed(1, key), now);
        }
        assert!(table.enter(keyed(1, 99), now).is_err());
        assert!(table.enter(keyed(2, 99), now).is_ok());
    }

    #[test]
    fn addresses_of_one_v6_network_are_one_host() {
        let (mut table, now) = (PlaceTable::new(LIMITS), Instant::now());
        let at = |low: u16| PlaceClaim::<u32>::of_host(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, low]));
        for low in 0..6 {
            enter(&mut table, at(low), now);
        }
        assert!(table.enter(at(99), now).is_err());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter { of: u8, key: u32, is_contact: bool },
        Leave(prop::sample::Index),
        Use(prop::sample::Index),
        EndUse(prop::sample::Index),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..6_u8, 0..20_u32, prop::bool::weighted(0.2))
                .prop_map(|(of, key, is_contact)| Step::Enter { of, key, is_contact }),
            1 => any::<prop::sample::Index>().prop_map(Step::Leave),
            2 => any::<prop::sample::Index>().prop_map(Step::Use),
            1 => any::<prop::sample::Index>().prop_map(Step::EndUse),
            1 => (0..3000_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_no_limit_is_passed_and_a_host_with_less_than_its_share_gets_in(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let (mut table, mut now) = (PlaceTable::new(LIMITS), Instant::now());
            for step in steps {
                let at = |index: prop::sample::Index, table: &PlaceTable<u32>| {
                    (table.len() > 0).then(|| *table.places.keys().nth(index.index(table.len())).unwrap())
                };
                match step {
                    Step::Enter { of, key, is_contact } => {
                        let claim = PlaceClaim::of_key(host(of), key, is_contact);
                        let before: HashSet<_> = table.places.keys().copied().collect();
                        let contacts = table.count(|place| place.claim.is_contact);
                        let most = table.strangers_by_host().into_values().max().unwrap_or(0);
                        let own = table.count(|place| !place.claim.is_contact && place.claim.host == host(of));
                        let of_key = table.count(|place| place.claim.key == Some(key));
                        match table.enter(claim, now) {
                            Ok(given) => {
                                let lost: Vec<_> = before.iter().filter(|n| !table.places.contains_key(n)).collect();
                                prop_assert_eq!(lost, given.pushed_out.iter().collect::<Vec<_>>());
                                let contacts_now = table.count(|place| place.claim.is_contact);
                                prop_assert!(contacts_now + usize::from(of_key >= LIMITS.per_key) >= contacts);
                            }
                            Err(full) => {
                                let has_share = own < LIMITS.per_host && most >= own + 2;
                                prop_assert!(is_contact || !has_share || of_key >= LIMITS.per_key);
                                prop_assert!(full.until.is_none_or(|until| until > now));
                            }
                        }
                    }
                    Step::Leave(index) => at(index, &table).into_iter().for_each(|number| table.leave(number)),
                    Step::Use(index) => at(index, &table).into_iter().for_each(|number| table.begin_use(number)),
                    Step::EndUse(index) => at(index, &table).into_iter().for_each(|number| table.end_use(number, now)),
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
                prop_assert!(table.len() <= LIMITS.in_all);
                prop_assert!(table.count(|place| !place.claim.is_contact) <= LIMITS.in_all - LIMITS.for_contacts);
                prop_assert!(table.strangers_by_host().values().all(|count| *count <= LIMITS.per_host));
                for key in 0..20 {
                    prop_assert!(table.count(|place| place.claim.key == Some(key)) <= LIMITS.per_key);
                }
            }
        }
    }
}
