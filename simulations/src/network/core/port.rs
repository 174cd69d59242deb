//! The end of one line into the core: its device, and what is reached over it.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use rand::Rng;
use tun_rs::{AsyncDevice, VIRTIO_NET_HDR_LEN};

use super::{
    capture::Capture,
    line_id::{Carried, LineId},
    packet::Router,
    way::{LineState, Rate, Way, WayState},
};

/// Ports that this process has made.
static PORTS: AtomicU64 = AtomicU64::new(0);

pub(super) struct Port {
    pub(super) device: AsyncDevice,
    /// Networks with their prefix lengths.
    networks: Vec<(IpAddr, u8)>,
    /// The router at its end.
    pub(super) edge: Router,
    pub(super) id: LineId,
    /// Whether the line has a rate of its own, or is captured: what is asked for each packet.
    is_slow: AtomicBool,
    is_captured: AtomicBool,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
    traffic: Mutex<Traffic>,
    capture: Mutex<Option<Capture>>,
}

/// What has come of its packets so far.
#[derive(Default)]
struct Traffic {
    up: Option<Rate>,
    down: Option<Rate>,
    into_core: LineState,
    out_of_core: LineState,
    /// By the port at the other end. Those of ports that are gone stay as long as this one.
    ways: HashMap<LineId, (LineState, WayState)>,
}

impl Port {
    pub(super) fn new(
        device: AsyncDevice,
        networks: Vec<(IpAddr, u8)>,
        edge: Router,
        up: Option<Rate>,
        down: Option<Rate>,
    ) -> Self {
        let port = Self {
            device,
            networks,
            edge,
            id: LineId(PORTS.fetch_add(1, Ordering::Relaxed)),
            is_slow: AtomicBool::default(),
            is_captured: AtomicBool::default(),
            up_bytes: AtomicU64::default(),
            down_bytes: AtomicU64::default(),
            traffic: Mutex::default(),
            capture: Mutex::default(),
        };
        port.set_rates(up, down);
        port
    }

    /// Whether an address is in one of its networks.
    pub(super) fn reaches(&self, to: IpAddr) -> bool {
        self.networks.iter().any(|network| contains(*network, to))
    }

    pub(super) fn set_rates(&self, up: Option<Rate>, down: Option<Rate>) {
        let mut traffic = self.traffic();
        (traffic.up, traffic.down) = (up, down);
        self.is_slow.store(up.is_some() || down.is_some(), Ordering::Relaxed);
    }

    pub(super) fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    pub(super) fn capture_to(&self, capture: Capture) {
        *self.capture.lock().unwrap_or_else(PoisonError::into_inner) = Some(capture);
        self.is_captured.store(true, Ordering::Relaxed);
    }

    pub(super) fn carried(&self) -> Carried {
        let bytes = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Carried { up_bytes: bytes(&self.up_bytes), down_bytes: bytes(&self.down_bytes) }
    }

    /// Takes a packet, with its virtio header, to the end of the line.
    pub(super) fn send(&self, buffer: &[u8]) -> io::Result<usize> {
        let sent = self.device.try_send(buffer);
        if sent.is_ok() {
            let packet = &buffer[VIRTIO_NET_HDR_LEN..];
            self.down_bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
            self.keep(packet);
        }
        sent
    }

    /// Notes a packet that came from the end of the line.
    pub(super) fn count_up(&self, packet: &[u8]) {
        self.up_bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
        self.keep(packet);
    }

    fn keep(&self, packet: &[u8]) {
        if self.is_captured.load(Ordering::Relaxed)
            && let Some(capture) = &mut *self.capture.lock().unwrap_or_else(PoisonError::into_inner)
        {
            capture.keep(packet, SystemTime::now());
        }
    }

    /// When the line has carried a packet into the core that comes to it now; none if it had to wait too long. Unless the line has a rate
    /// of its own, it has the usual one.
    pub(super) fn carried_in(&self, usual: Option<Rate>, now: Instant, bytes: usize) -> Option<Instant> {
        let mut traffic = self.traffic();
        let Some(rate) = traffic.up.or(usual) else { return Some(now) };
        traffic.into_core.carried(&rate, now, bytes)
    }

    /// The same, out of the core.
    pub(super) fn carried_out(&self, usual: Option<Rate>, now: Instant, bytes: usize) -> Option<Instant> {
        let mut traffic = self.traffic();
        let Some(rate) = traffic.down.or(usual) else { return Some(now) };
        traffic.out_of_core.carried(&rate, now, bytes)
    }

    /// The same, on the way to another port, if that has a rate.
    pub(super) fn carried_to(&self, other: &Port, rate: Option<Rate>, now: Instant, bytes: usize) -> Option<Instant> {
        let Some(rate) = rate else { return Some(now) };
        self.traffic().ways.entry(other.id).or_default().0.carried(&rate, now, bytes)
    }

    /// When a packet reaches another port that sets out now; none if it is lost.
    pub(super) fn arrival_at(&self, other: &Port, way: &Way, now: Instant, random: &mut impl Rng) -> Option<Instant> {
        self.traffic().ways.entry(other.id).or_default().1.arrival(way, now, random)
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
