//! The end of one line into the core: its device, and what is reached over it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use rand::Rng;
use tun_rs::AsyncDevice;

use super::{
    packet::Router,
    way::{LineState, Way, WayState},
};

/// Ports that this process has made.
static PORTS: AtomicU64 = AtomicU64::new(0);

pub(super) struct Port {
    pub(super) device: AsyncDevice,
    /// Networks with their prefix lengths.
    networks: Vec<(IpAddr, u8)>,
    /// The router at its end.
    pub(super) edge: Router,
    id: u64,
    traffic: Mutex<Traffic>,
}

/// What has come of its packets so far.
#[derive(Default)]
struct Traffic {
    into_core: LineState,
    out_of_core: LineState,
    /// By the port at the other end. Those of ports that are gone stay as long as this one.
    ways: HashMap<u64, WayState>,
}

impl Port {
    pub(super) fn new(device: AsyncDevice, networks: Vec<(IpAddr, u8)>, edge: Router) -> Self {
        let id = PORTS.fetch_add(1, Ordering::Relaxed);
        Self { device, networks, edge, id, traffic: Mutex::default() }
    }

    /// Whether an address is in one of its networks.
    pub(super) fn reaches(&self, to: IpAddr) -> bool {
        self.networks.iter().any(|network| contains(*network, to))
    }

    /// When the line has carried a packet into the core that comes to it now; none if it had to wait too long.
    pub(super) fn carried_in(&self, way: &Way, now: Instant, bytes: usize) -> Option<Instant> {
        let Some(rate) = &way.rate else { return Some(now) };
        self.traffic().into_core.carried(rate, now, bytes)
    }

    /// The same, out of the core.
    pub(super) fn carried_out(&self, way: &Way, now: Instant, bytes: usize) -> Option<Instant> {
        let Some(rate) = &way.rate else { return Some(now) };
        self.traffic().out_of_core.carried(rate, now, bytes)
    }

    /// When a packet reaches another port that sets out now; none if it is lost.
    pub(super) fn arrival_at(&self, other: &Port, way: &Way, now: Instant, random: &mut impl Rng) -> Option<Instant> {
        self.traffic().ways.entry(other.id).or_default().arrival(way, now, random)
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn contains((network, prefix): (IpAddr, u8), ip: IpAddr) -> bool {
    let (differing, width) = match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => (u128::from(network.to_bits() ^ ip.to_bits()), 32),
        (IpAddr::V6(network), IpAddr::V6(ip)) => (network.to_bits() ^ ip.to_bits(), 128),
        _ => return false,
    };
    differing.checked_shr(width - u32::from(prefix)).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_begins_like_them() {
        let within =
            |network: &str, prefix, ip: &str| contains((network.parse().unwrap(), prefix), ip.parse().unwrap());
        assert!(within("198.51.100.0", 24, "198.51.100.77"));
        assert!(!within("198.51.100.0", 24, "198.51.101.77"));
        assert!(within("192.0.2.16", 28, "192.0.2.31"));
        assert!(!within("192.0.2.16", 28, "192.0.2.32"));
        assert!(within("2001:db8:a::", 48, "2001:db8:a:1::10"));
        assert!(!within("2001:db8:a::", 48, "2001:db8:b:1::10"));
        assert!(!within("0.0.0.0", 0, "::1"));
        assert!(within("0.0.0.0", 0, "9.9.9.9"));
    }
}
