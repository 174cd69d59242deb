//! The connections whose protocol is not known yet: how many there may be, and which one gives way.
//!
//! What it is not: deciding. Each connection has a task of its own, which this ends when others need its place.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use keyferry_net::ip::host_of;
use tokio::sync::oneshot;

/// Connections from one remote host that may be undecided at a time. One more pushes out that host's oldest.
pub(crate) const MAX_PER_HOST: usize = 64;
/// Connections that may be undecided at a time. One more pushes out the oldest of the host that has most.
pub(super) const MAX_IN_ALL: usize = 1024;

/// The undecided connections, by remote host.
#[derive(Clone)]
pub(crate) struct Undecided(Arc<Mutex<UndecidedConnections>>);

struct UndecidedConnections {
    max_in_all: usize,
    next: u64,
    count: usize,
    hosts: HashMap<IpAddr, Vec<(u64, oneshot::Sender<()>)>>,
}

/// A place among the undecided connections; given back when dropped.
#[derive(Debug)]
pub(crate) struct UndecidedPlace {
    undecided: Undecided,
    host: IpAddr,
    number: u64,
    /// Resolves when another connection takes this place.
    pub(crate) pushed_out: oneshot::Receiver<()>,
}

impl Undecided {
    /// Makes room for this many connections.
    pub(crate) fn new(max_in_all: usize) -> Self {
        Self(Arc::new(Mutex::new(UndecidedConnections { max_in_all, next: 0, count: 0, hosts: HashMap::new() })))
    }

    /// Takes a place; the oldest connection of a host that has too many loses its own.
    pub(crate) fn enter(&self, remote: IpAddr) -> UndecidedPlace {
        let host = host_of(remote);
        let (sender, pushed_out) = oneshot::channel();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = waiting.next;
        waiting.next += 1;
        let own = waiting.hosts.get(&host).map_or(0, Vec::len);
        if own >= MAX_PER_HOST {
            waiting.push_out_oldest(host);
        } else if waiting.count >= waiting.max_in_all
            && let Some(busiest) = waiting.hosts.iter().max_by_key(|(_, list)| list.len()).map(|(host, _)| *host)
        {
            waiting.push_out_oldest(busiest);
        }
        waiting.hosts.entry(host).or_default().push((number, sender));
        waiting.count += 1;
        UndecidedPlace { undecided: self.clone(), host, number, pushed_out }
    }

    /// How many connections are undecided now.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}

impl std::fmt::Debug for Undecided {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Undecided")
    }
}

impl UndecidedConnections {
    fn push_out_oldest(&mut self, host: IpAddr) {
        if let Some(list) = self.hosts.get_mut(&host)
            && !list.is_empty()
        {
            // Ending the task drops its place, which then finds nothing left to give back.
            let (_, sender) = list.remove(0);
            let _ = sender.send(());
            self.count -= 1;
        }
    }
}

impl Drop for UndecidedPlace {
    fn drop(&mut self) {
        let mut waiting = self.undecided.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = waiting.hosts.get_mut(&self.host) else { return };
        let before = list.len();
        list.retain(|(number, _)| *number != self.number);
        let removed = before - list.len();
        if list.is_empty() {
            waiting.hosts.remove(&self.host);
        }
        waiting.count -= removed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_pushes_out_only_its_own_oldest() {
        let undecided = Undecided::new(MAX_IN_ALL);
        let mut other = undecided.enter("192.0.2.9".parse().unwrap());
        let mut places: Vec<_> = (0..=MAX_PER_HOST).map(|_| undecided.enter("192.0.2.1".parse().unwrap())).collect();
        assert!(places[0].pushed_out.try_recv().is_ok());
        assert!(places[1].pushed_out.try_recv().is_err());
        assert!(other.pushed_out.try_recv().is_err());
        assert_eq!(undecided.count(), MAX_PER_HOST + 1);
        drop(places);
        drop(other);
        assert_eq!(undecided.count(), 0);
    }

    #[test]
    fn a_full_house_pushes_out_the_host_that_has_most() {
        let undecided = Undecided::new(MAX_IN_ALL);
        let mut greedy: Vec<_> = (0..MAX_PER_HOST).map(|_| undecided.enter("192.0.2.1".parse().unwrap())).collect();
        let others: Vec<_> = (0..MAX_IN_ALL - MAX_PER_HOST)
            .map(|i| undecided.enter(IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + i as u32))))
            .collect();
        let last = undecided.enter("198.51.100.1".parse().unwrap());
        assert!(greedy[0].pushed_out.try_recv().is_ok());
        assert_eq!(undecided.count(), MAX_IN_ALL);
        drop((greedy, others, last));
        assert_eq!(undecided.count(), 0);
    }
}
