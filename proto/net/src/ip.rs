//! What kind of place an IP address names, by IANA's registries of special-purpose addresses (RFC 6890, with what was entered since).
//!
//! | class      | IPv4                                                                | IPv6                                             |
//! |------------|---------------------------------------------------------------------|--------------------------------------------------|
//! | no host    | 0/8, 224/4 (multicast), 240/4 (reserved, with broadcast)            | `::`, ff00::/8 (multicast)                       |
//! | loopback   | 127/8                                                               | `::1`                                            |
//! | link-local | 169.254/16, with the metadata services of clouds                    | fe80::/10, and the metadata at fd00:ec2::254     |
//! | private    | 10/8, 172.16/12, 192.168/16, 100.64/10 (shared), 192.0.0/24, 198.18/15 (benchmarks) | fc00::/7, fec0::/10 (site-local), 64:ff9b:1::/48 (local NAT64), 2001:2::/48 (benchmarks) |
//! | reserved   | 192.31.196/24, 192.52.193/24, 192.88.99/24, 192.175.48/24 (anycast) | the rest of 2001::/23, 2620:4f:8000::/48 (anycast), 5f00::/16 and all else outside 2000::/3 |
//! | global     | the rest, with 192.0.2/24, 198.51.100/24, 203.0.113/24              | the rest of 2000::/3, with 2001:db8::/32, 3fff::/20 |
//!
//! An IPv6 address that wraps an IPv4 one is of the class of the latter; see [`unwrap_v4`]. Where the registries leave room:
//!
//! - 192.0.0/24 is private. Hosts have 192.0.0.0/29 behind DS-Lite and 464XLAT (RFC 7335), and nobody reaches them there.
//! - 198.18/15 and 2001:2::/48 are private. Proxies and test beds give them to hosts, and nobody routes them.
//! - 240/4 is no host. Most systems refuse to send there.
//! - Documentation is global. Nobody has these addresses on the internet, and laboratories that play the internet use them.
//!
//! What it is not: a decision on what may be reached; each user of it has rules of its own.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// What kind of place an address names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// No single host has it: unspecified, multicast, broadcast, or reserved for ever.
    NoHost,
    /// This machine.
    Loopback,
    /// This link, or the metadata service of a cloud.
    LinkLocal,
    /// One network, which may be that of a carrier. Others use the same addresses for theirs.
    Private,
    /// Set aside for something else than hosts, or not given out yet.
    Reserved,
    /// The internet.
    Global,
}

impl Class {
    /// The class of an address, or of the IPv4 address that it wraps.
    pub fn of(ip: IpAddr) -> Self {
        let ip = unwrap_v4(ip);
        SPECIAL.iter().find(|(network, _)| network.contains(ip)).map_or(Self::Global, |(_, class)| *class)
    }
}

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
        // The client's address, with its bits inverted.
        [0x2001, 0, ..] => low(!v6.to_bits()),
        _ => ip,
    }
}

/// What counts as one host: an IPv4 address, or the /64 of an IPv6 one, since a host has a whole /64 to itself.
pub fn host_of(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

/// The networks that are not global; exceptions come before the networks that they lie in.
const SPECIAL: [(Network, Class); 28] = [
    v4([0, 0, 0, 0], 8, Class::NoHost),                 // this network (RFC 791 §3.2)
    v4([10, 0, 0, 0], 8, Class::Private),               // RFC 1918
    v4([100, 64, 0, 0], 10, Class::Private),            // shared, behind carrier-grade NAT (RFC 6598)
    v4([127, 0, 0, 0], 8, Class::Loopback),             // RFC 1122 §3.2.1.3
    v4([169, 254, 0, 0], 16, Class::LinkLocal),         // RFC 3927
    v4([172, 16, 0, 0], 12, Class::Private),            // RFC 1918
    v4([192, 0, 0, 0], 24, Class::Private),             // protocol assignments (RFC 6890 §2.1)
    v4([192, 31, 196, 0], 24, Class::Reserved),         // AS112 (RFC 7535)
    v4([192, 52, 193, 0], 24, Class::Reserved),         // AMT (RFC 7450)
    v4([192, 88, 99, 0], 24, Class::Reserved),          // routers of 6to4 (RFC 7526)
    v4([192, 168, 0, 0], 16, Class::Private),           // RFC 1918
    v4([192, 175, 48, 0], 24, Class::Reserved),         // AS112 (RFC 7534)
    v4([198, 18, 0, 0], 15, Class::Private),            // benchmarks (RFC 2544)
    v4([224, 0, 0, 0], 4, Class::NoHost),               // multicast (RFC 5771)
    v4([240, 0, 0, 0], 4, Class::NoHost),               // reserved (RFC 1112 §4), and broadcast
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, Class::NoHost),   // unspecified (RFC 4291 §2.5.2)
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, Class::Loopback), // RFC 4291 §2.5.3
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Class::Private), // NAT64 of a network's own (RFC 8215)
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, Class::Private), // benchmarks (RFC 5180)
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Class::Reserved), // protocol assignments (RFC 2928)
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48, Class::Reserved), // AS112 (RFC 7534)
    v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, Class::Global), // RFC 4291 §2.5.4
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, Class::LinkLocal), // metadata, at which no node listens
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Class::Private), // unique local (RFC 4193)
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Class::LinkLocal), // RFC 4291 §2.5.6
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Class::Private), // site-local (RFC 3879)
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Class::NoHost), // multicast (RFC 4291 §2.7)
    v6([0, 0, 0, 0, 0, 0, 0, 0], 0, Class::Reserved),   // not given out, or for no host: 100::/64, 5f00::/16
];

const fn v4(octets: [u8; 4], prefix: u8, class: Class) -> (Network, Class) {
    (Network { ip: IpAddr::V4(Ipv4Addr::from_octets(octets)), prefix }, class)
}

const fn v6(segments: [u16; 8], prefix: u8, class: Class) -> (Network, Class) {
    (Network { ip: IpAddr::V6(Ipv6Addr::from_segments(segments)), prefix }, class)
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

    /// Every special range at its first and last address, with its neighbours.
    const CLASSES: [(Class, &str, &str); 55] = [
        (Class::NoHost, "0.0.0.0", "0.255.255.255"),
        (Class::Global, "1.0.0.0", "9.255.255.255"),
        (Class::Private, "10.0.0.0", "10.255.255.255"),
        (Class::Global, "11.0.0.0", "100.63.255.255"),
        (Class::Private, "100.64.0.0", "100.127.255.255"),
        (Class::Global, "100.128.0.0", "126.255.255.255"),
        (Class::Loopback, "127.0.0.0", "127.255.255.255"),
        (Class::Global, "128.0.0.0", "169.253.255.255"),
        (Class::LinkLocal, "169.254.0.0", "169.254.255.255"),
        (Class::Global, "169.255.0.0", "172.15.255.255"),
        (Class::Private, "172.16.0.0", "172.31.255.255"),
        (Class::Global, "172.32.0.0", "191.255.255.255"),
        (Class::Private, "192.0.0.0", "192.0.0.255"),
        (Class::Global, "192.0.1.0", "192.31.195.255"),
        (Class::Global, "192.0.2.0", "192.0.2.255"),
        (Class::Reserved, "192.31.196.0", "192.31.196.255"),
        (Class::Global, "192.31.197.0", "192.52.192.255"),
        (Class::Reserved, "192.52.193.0", "192.52.193.255"),
        (Class::Global, "192.52.194.0", "192.88.98.255"),
        (Class::Reserved, "192.88.99.0", "192.88.99.255"),
        (Class::Global, "192.88.100.0", "192.167.255.255"),
        (Class::Private, "192.168.0.0", "192.168.255.255"),
        (Class::Global, "192.169.0.0", "192.175.47.255"),
        (Class::Reserved, "192.175.48.0", "192.175.48.255"),
        (Class::Global, "192.175.49.0", "198.17.255.255"),
        (Class::Private, "198.18.0.0", "198.19.255.255"),
        (Class::Global, "198.20.0.0", "223.255.255.255"),
        (Class::Global, "198.51.100.0", "198.51.100.255"),
        (Class::Global, "203.0.113.0", "203.0.113.255"),
        (Class::NoHost, "224.0.0.0", "239.255.255.255"),
        (Class::NoHost, "240.0.0.0", "255.255.255.255"),
        (Class::NoHost, "::", "::"),
        (Class::Loopback, "::1", "::1"),
        (Class::Reserved, "0:0:0:0:1::", "64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Private, "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
        (Class::Reserved, "64:ff9b:2::", "ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Reserved, "100::", "100::ffff:ffff:ffff:ffff"),
        (Class::Reserved, "100:0:0:1::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Global, "2000::", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Reserved, "2001:1::", "2001:1:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Private, "2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff"),
        (Class::Reserved, "2001:2:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Global, "2001:200::", "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Global, "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Global, "2003::", "2620:4f:7fff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Reserved, "2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff"),
        (Class::Global, "2620:4f:8001::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Global, "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Reserved, "4000::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Reserved, "5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Private, "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::LinkLocal, "fd00:ec2::254", "fd00:ec2::254"),
        (Class::LinkLocal, "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::Private, "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (Class::NoHost, "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ];

    #[test]
    fn every_special_range_has_its_class_from_its_first_to_its_last_address() {
        for (class, first, last) in CLASSES {
            assert_eq!((Class::of(ip(first)), Class::of(ip(last))), (class, class), "{first} to {last}");
        }
    }

    #[test]
    fn an_address_that_wraps_another_is_of_its_class() {
        for (class, first, last) in CLASSES {
            for wrapped in [first, last] {
                let IpAddr::V4(v4) = ip(wrapped) else { continue };
                let bits = u128::from(v4.to_bits());
                let forms = [
                    ("mapped", 0xffff << 32 | bits),
                    ("compatible", bits),
                    ("NAT64", 0x64_ff9b << 96 | bits),
                    ("6to4", 0x2002 << 112 | bits << 80 | 1),
                    ("Teredo", 0x2001_0000 << 96 | u128::from(!v4.to_bits())),
                ];
                for (form, bits) in forms {
                    assert_eq!(Class::of(Ipv6Addr::from_bits(bits).into()), class, "{form} form of {wrapped}");
                }
            }
        }
    }

    #[test]
    fn an_interface_identifier_does_not_change_the_class() {
        for (class, first, _) in CLASSES {
            let IpAddr::V6(first) = ip(first) else { continue };
            let is_a_network = first.to_bits().trailing_zeros() >= 64 && first.segments()[..4] != [0; 4];
            if is_a_network {
                assert_eq!(Class::of(Ipv6Addr::from_bits(first.to_bits() | 0x5eed).into()), class, "{first}");
            }
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
