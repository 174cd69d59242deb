//! How much of the relay each identity, each host and all together use.
//!
//! What it is not: the rate of bytes, which whoever moves them keeps within bounds.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    config::{Quota, RelayLimits},
    users::UserIdentity,
};
use keyferry_net::ip::host_of;

/// Who uses something: quotas hold for each of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Who it is.
    pub identity: UserIdentity,
    /// Where it comes from: an IPv4 address, or the /64 of an IPv6 one.
    pub host: IpAddr,
}

impl Holder {
    pub(super) fn new(identity: UserIdentity, remote: IpAddr) -> Self {
        Self { identity, host: host_of(remote) }
    }
}

/// What somebody may have several of at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    Allocation,
    Connection,
}

/// A quota does not allow one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UsedUp;

/// What is in use.
#[derive(Debug)]
pub(super) struct Usage {
    limits: RelayLimits,
    identities: BTreeMap<UserIdentity, Used>,
    hosts: BTreeMap<IpAddr, Used>,
    all: Used,
}

#[derive(Debug, Clone)]
struct Used {
    allocations: usize,
    connections: usize,
    bytes: u64,
    /// When the period began for which bytes are counted.
    since: Instant,
}

impl Usage {
    pub(super) fn new(limits: RelayLimits, now: Instant) -> Self {
        Self { limits, identities: BTreeMap::new(), hosts: BTreeMap::new(), all: Used::new(now) }
    }

    /// Takes one more of something, if every quota allows it.
    pub(super) fn take(&mut self, now: Instant, holder: &Holder, thing: Thing) -> Result<(), UsedUp> {
        self.make_room(now, holder);
        let RelayLimits { period, identity, host, all, remembered, .. } = &self.limits;
        let of_identity = self.identities.get(&holder.identity);
        let of_host = self.hosts.get(&holder.host);
        let allowed =
            |used: Option<&Used>, quota: &Quota| used.is_none_or(|used| used.allows(now, *period, thing, quota));
        let has_room = (of_identity.is_some() || self.identities.len() < *remembered)
            && (of_host.is_some() || self.hosts.len() < *remembered);
        if !has_room || !allowed(of_identity, identity) || !allowed(of_host, host) || !allowed(Some(&self.all), all) {
            return Err(UsedUp);
        }
        self.identities.entry(holder.identity.clone()).or_insert_with(|| Used::new(now)).add(thing);
        self.hosts.entry(holder.host).or_insert_with(|| Used::new(now)).add(thing);
        self.all.add(thing);
        Ok(())
    }

    /// Gives one back.
    pub(super) fn give_back(&mut self, holder: &Holder, thing: Thing) {
        for used in [self.identities.get_mut(&holder.identity), self.hosts.get_mut(&holder.host), Some(&mut self.all)]
            .into_iter()
            .flatten()
        {
            used.remove(thing);
        }
    }

    /// Counts relayed bytes; an error if that is more than somebody may have.
    pub(super) fn charge(&mut self, now: Instant, holder: &Holder, bytes: u64) -> Result<(), UsedUp> {
        let period = self.limits.period;
        let of_identity = self.identities.get_mut(&holder.identity).map(|used| (used, &self.limits.identity));
        let of_host = self.hosts.get_mut(&holder.host).map(|used| (used, &self.limits.host));
        let mut within = true;
        for (used, quota) in [of_identity, of_host, Some((&mut self.all, &self.limits.all))].into_iter().flatten() {
            used.renew(now, period);
            used.bytes = used.bytes.saturating_add(bytes);
            within &= quota.bytes.is_none_or(|most| used.bytes <= most);
        }
        if within { Ok(()) } else { Err(UsedUp) }
    }

    /// Allocations and connections now.
    pub(super) fn in_use(&self) -> (usize, usize) {
        (self.all.allocations, self.all.connections)
    }

    /// Makes room for one more to remember: forgets those who have nothing now and whose period is over, or else the one of them who
    /// has used least. So nobody gets rid of a large sum, or locks others out, by making up identities.
    fn make_room(&mut self, now: Instant, holder: &Holder) {
        let RelayLimits { period, remembered, .. } = self.limits;
        forget(&mut self.identities, &holder.identity, remembered, now, period);
        forget(&mut self.hosts, &holder.host, remembered, now, period);
    }
}

fn forget<K: Ord + Clone>(table: &mut BTreeMap<K, Used>, newcomer: &K, most: usize, now: Instant, period: Duration) {
    if table.len() < most || table.contains_key(newcomer) {
        return;
    }
    table.retain(|_, used| !used.is_idle() || used.bytes > 0 && !used.is_over(now, period));
    if table.len() >= most {
        let idle = table.iter().filter(|(_, used)| used.is_idle());
        let least = idle.min_by_key(|(_, used)| used.bytes).map(|(key, _)| key.clone());
        least.and_then(|key| table.remove(&key));
    }
}

impl Used {
    fn new(now: Instant) -> Self {
        Self { allocations: 0, connections: 0, bytes: 0, since: now }
    }

    fn allows(&self, now: Instant, period: Duration, thing: Thing, quota: &Quota) -> bool {
        let has_bytes = quota.bytes.is_none_or(|most| self.bytes < most || self.is_over(now, period));
        let fits = match thing {
            Thing::Allocation => self.allocations < quota.allocations,
            Thing::Connection => self.connections < quota.connections,
        };
        has_bytes && fits
    }

    fn add(&mut self, thing: Thing) {
        match thing {
            Thing::Allocation => self.allocations += 1,
            Thing::Connection => self.connections += 1,
        }
    }

    fn remove(&mut self, thing: Thing) {
        match thing {
            Thing::Allocation => self.allocations = self.allocations.saturating_sub(1),
            Thing::Connection => self.connections = self.connections.saturating_sub(1),
        }
    }

    fn renew(&mut self, now: Instant, period: Duration) {
        if self.is_over(now, period) {
            self.bytes = 0;
            self.since = now;
        }
    }

    fn is_idle(&self) -> bool {
        self.allocations == 0 && self.connections == 0
    }

    fn is_over(&self, now: Instant, period: Duration) -> bool {
        now.saturating_duration_since(self.since) >= period
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // any instant will do as the first one
mod tests {
    use super::*;

    fn holder(name: &str, host: &str) -> Holder {
        Holder::new(UserIdentity::Issued(name.to_owned()), host.parse().unwrap())
    }

    fn limits() -> RelayLimits {
        RelayLimits {
            identity: Quota { allocations: 2, connections: 3, bytes: Some(1000) },
            host: Quota { allocations: 3, connections: 4, bytes: Some(1500) },
            all: Quota { allocations: 4, connections: 6, bytes: Some(5000) },
            period: Duration::from_secs(100),
            remembered: 8,
            ..RelayLimits::default()
        }
    }

    fn take(usage: &mut Usage, now: Instant, holder: &Holder, thing: Thing, times: usize) -> usize {
        (0..times).filter(|_| usage.take(now, holder, thing).is_ok()).count()
    }

    #[test]
    fn an_identity_a_host_and_all_have_their_own_limits() {
        let now = Instant::now();
        for (thing, [identity, host, all]) in [(Thing::Allocation, [2, 3, 4]), (Thing::Connection, [3, 4, 6])] {
            let mut usage = Usage::new(limits(), now);
            assert_eq!(take(&mut usage, now, &holder("ada", "192.0.2.1"), thing, 9), identity);
            assert_eq!(take(&mut usage, now, &holder("bob", "192.0.2.1"), thing, 9), host - identity, "one host");
            let before = host;
            let others: usize = (0..4)
                .map(|i| take(&mut usage, now, &holder(&format!("x{i}"), &format!("198.51.100.{i}")), thing, 1))
                .sum();
            assert_eq!(before + others, all, "all");
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let now = Instant::now();
        let mut usage = Usage::new(limits(), now);
        let ada = holder("ada", "192.0.2.1");
        assert_eq!(take(&mut usage, now, &ada, Thing::Allocation, 9), 2);
        usage.give_back(&ada, Thing::Allocation);
        assert_eq!(take(&mut usage, now, &ada, Thing::Allocation, 9), 1);
        assert_eq!(usage.in_use(), (2, 0));
    }

    #[test]
    fn bytes_are_counted_for_a_period_and_then_anew() {
        let now = Instant::now();
        let mut usage = Usage::new(limits(), now);
        let ada = holder("ada", "192.0.2.1");
        usage.take(now, &ada, Thing::Connection).unwrap();
        assert_eq!(usage.charge(now, &ada, 1000), Ok(()));
        assert_eq!(usage.take(now, &ada, Thing::Connection), Err(UsedUp), "nothing new once the bytes are used up");
        assert_eq!(usage.charge(now, &ada, 1), Err(UsedUp));
        let later = now + Duration::from_secs(100);
        assert_eq!(usage.take(later, &ada, Thing::Connection), Ok(()));
        assert_eq!(usage.charge(later, &ada, 1000), Ok(()));
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_one_host() {
        let now = Instant::now();
        let mut usage = Usage::new(limits(), now);
        let taken: usize = (1..9)
            .map(|i| take(&mut usage, now, &holder(&format!("x{i}"), &format!("2001:db8::{i}")), Thing::Allocation, 1))
            .sum();
        assert_eq!(taken, 3);
    }

    #[test]
    fn those_who_are_remembered_are_bounded_and_who_has_used_much_is_not_forgotten() {
        let now = Instant::now();
        let mut usage = Usage::new(limits(), now);
        for i in 0..100 {
            let one = holder(&format!("x{i}"), &format!("192.0.2.{i}"));
            usage.take(now, &one, Thing::Allocation).unwrap();
            usage.charge(now, &one, if i == 7 { 1000 } else { 1 }).unwrap();
            usage.give_back(&one, Thing::Allocation);
            assert!(usage.identities.len() <= 8 && usage.hosts.len() <= 8);
        }
        assert_eq!(
            usage.take(now, &holder("x7", "192.0.2.200"), Thing::Allocation),
            Err(UsedUp),
            "its bytes are used up"
        );
        let later = now + Duration::from_secs(100);
        assert_eq!(usage.take(later, &holder("new", "203.0.113.1"), Thing::Allocation), Ok(()));
        assert_eq!(usage.identities.len(), 1, "the period is over");
    }

    #[test]
    fn who_has_something_now_is_never_forgotten() {
        let now = Instant::now();
        let all = Quota { allocations: 100, connections: 100, bytes: None };
        let mut usage = Usage::new(RelayLimits { all, ..limits() }, now);
        let holders: Vec<_> = (0..9).map(|i| holder(&format!("x{i}"), &format!("192.0.2.{i}"))).collect();
        let taken: Vec<bool> = holders.iter().map(|one| usage.take(now, one, Thing::Allocation).is_ok()).collect();
        assert_eq!(taken, [true, true, true, true, true, true, true, true, false]);
    }
}
