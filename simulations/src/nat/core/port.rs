//! The end of one line into the core: its device, and what is reached over it.

use std::net::IpAddr;

use tun_rs::AsyncDevice;

use super::packet::Router;

pub(super) struct Port {
    pub(super) device: AsyncDevice,
    /// Networks with their prefix lengths.
    pub(super) networks: Vec<(IpAddr, u8)>,
    /// The router at its end.
    pub(super) edge: Router,
}

impl Port {
    /// Whether an address is in one of its networks.
    pub(super) fn reaches(&self, to: IpAddr) -> bool {
        self.networks.iter().any(|network| contains(*network, to))
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
