//! What kind of place an IP address names, by the registries of special-purpose addresses (RFC 6890).
//!
//! | kind         | IPv4                                                              | IPv6                                    |
//! |--------------|-------------------------------------------------------------------|-----------------------------------------|
//! | no one host  | 0/8, 224/4, 240/4 (broadcast is in it)                            | `::`, ff00::/8                          |
//! | link-local   | 169.254/16 (metadata services)                                    | fe80::/10, fd00:ec2::254                |
//! | private      | 10/8, 172.16/12, 192.168/16, 100.64/10, 192.0.0/24, 198.18/15     | fc00::/7, fec0::/10, 64:ff9b:1::/48     |
//!
//! What it is not: a decision on what may be reached; each user of it has rules of its own.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A network: its address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    prefix: u8,
}

/// Text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a network; write it as 192.0.2.0/24, 2001:db8::/32 or a single address")]
pub struct NotANetwork;

impl Network {
    /// Makes a network; a prefix that is too long counts as the longest.
    pub fn new(ip: IpAddr, prefix: u8) -> Self {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        Self { ip, prefix: prefix.min(longest) }
    }

    /// Whether an address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (ip, self.ip) {
            (IpAddr::V4(ip), IpAddr::V4(network)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                ip.to_bits() & mask == network.to_bits() & mask
            }
            (IpAddr::V6(ip), IpAddr::V6(network)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                ip.to_bits() & mask == network.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix.parse::<u8>().map_err(|_| NotANetwork)?)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| NotANetwork)?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        match prefix.unwrap_or(longest) {
            prefix if prefix <= longest => Ok(Self { ip, prefix }),
            _ => Err(NotANetwork),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// The IPv4 address that an IPv6 address leads to, if it does: mapped, compatible, NAT64 (RFC 6052), 6to4 (RFC 3056) or
/// Teredo (RFC 4380 §4). Any other address as it is.
pub fn unwrap_v4(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else {
        return ip;
    };
    let low = |bits: u128| IpAddr::V4(Ipv4Addr::from_bits(bits as u32));
    match v6.segments() {
        _ if v6.is_loopback() || v6.is_unspecified() => ip,
        [0, 0, 0, 0, 0, 0xffff | 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => low(v6.to_bits()),
        [0x2002, ..] => low(v6.to_bits() >> 80),
        // The client's address, its bits turned round.
        [0x2001, 0, ..] => low(!v6.to_bits()),
        _ => ip,
    }
}

/// Whether one host can have the address.
pub fn is_single_host(ip: IpAddr) -> bool {
    match ip {
        // 0.0.0.0/8 means this network, 240.0.0.0/4 is reserved and holds the broadcast address.
        IpAddr::V4(ip) => ip.octets()[0] != 0 && ip.octets()[0] < 224,
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    }
}

/// Whether the address is link-local, or that of a metadata service.
pub fn is_link_local(ip: IpAddr) -> bool {
    // Metadata services also live at fd00:ec2::254, which no node listens on.
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip == METADATA_V6,
    }
}

/// Whether the address means something only within one network: private, carrier-grade NAT, benchmarks, unique local.
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let carrier_grade_nat = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (b == 18 || b == 19);
            let protocol_assignments = (a, b, c) == (192, 0, 0);
            ip.is_private() || carrier_grade_nat || benchmark || protocol_assignments
        }
        // fc00::/7, the deprecated site-local fec0::/10, and NAT64 prefixes for local use (RFC 8215).
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0 || ip.segments()[..3] == [0x64, 0xff9b, 1]
        }
    }
}

/// What counts as one host: an IPv4 address, or the /64 of an IPv6 one, since a host has a whole /64 to itself.
pub fn host_of(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_that_wraps_an_ipv4_address_is_unwrapped() {
        let forms = ["::ffff:10.1.2.3", "::10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::1", "2001:0:5ef5::f5fe:fdfc"];
        for form in forms {
            assert_eq!(unwrap_v4(ip(form)), ip("10.1.2.3"), "{form}");
        }
        for other in ["::1", "::", "2001:db8::1", "2001:1::1", "192.0.2.1"] {
            assert_eq!(unwrap_v4(ip(other)), ip(other));
        }
    }

    #[test]
    fn a_network_is_read_from_text_and_contains_its_addresses() {
        let network: Network = "10.1.0.0/16".parse().unwrap();
        assert!(
            network.contains(ip("10.1.255.9")) && !network.contains(ip("10.2.0.1")) && !network.contains(ip("::1"))
        );
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains(ip("203.0.113.9")));
        assert!("::1".parse::<Network>().unwrap().contains(ip("::1")));
        assert_eq!(network.to_string(), "10.1.0.0/16");
        for bad in ["", "10.0.0.0/33", "::/129", "ten/8", "10.0.0.0/"] {
            assert_eq!(bad.parse::<Network>(), Err(NotANetwork), "{bad}");
        }
    }
}
