//! The addresses of the lab: of each line into the core, and of the network inside a site.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::core::Router;

/// How many lines [`Line::numbered`] knows.
pub(crate) const MOST_LINES: usize = 1024;

/// One line into the core, with its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// The address of the host or router at its end.
    pub(crate) v4: Ipv4Addr,
    /// How many bits of it are the network's.
    pub(crate) v4_prefix: u8,
    /// The IPv6 address at its end; the /48 around it is reached over the line.
    pub(crate) v6: Ipv6Addr,
    /// The router that it ends at.
    pub(crate) edge: Router,
}

impl Line {
    /// The line of a network of IPv4, and of one of the 65,536 /48 of the documentation prefix.
    pub(crate) fn new(v4_network: Ipv4Addr, v4_prefix: u8, v6_network: u16) -> Self {
        let v4 = |host: u32| Ipv4Addr::from_bits(v4_network.to_bits() + host);
        let v6 = |host: u16| Ipv6Addr::new(0x2001, 0xdb8, v6_network, 0, 0, 0, 0, host);
        Self { v4: v4(2), v4_prefix, v6: v6(2), edge: Router { v4: v4(1), v6: v6(1) } }
    }

    /// One of many lines, each with a /24 that counts as public. Those reserved for documentation are too few, and miniupnpd maps no
    /// port while its own address is of one; nobody is at these here.
    pub(crate) fn numbered(index: usize) -> Self {
        debug_assert!(index < MOST_LINES);
        let (high, low) = ((index / 256) as u8, (index % 256) as u8);
        Self::new(Ipv4Addr::new(100, 128 + high, low, 0), 24, 0x100 + index as u16)
    }

    /// The same line with another network of IPv4 (/24).
    pub(crate) fn with_v4(self, network: Ipv4Addr) -> Self {
        Self::new(network, 24, self.v6.segments()[2])
    }

    /// What the core sends over it.
    pub(crate) fn networks(&self) -> Vec<(IpAddr, u8)> {
        vec![(self.v4.into(), self.v4_prefix), (self.v6.into(), 48)]
    }
}

/// The router in the middle of the core.
pub(crate) const BACKBONE: Router =
    Router { v4: Ipv4Addr::new(192, 0, 2, 254), v6: Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1) };

/// The network behind a home router. Every home has the same of IPv4, as people have.
pub(crate) mod lan {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::Line;

    /// The home router, seen from inside.
    pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
    /// The carrier's router, seen from the home.
    pub(crate) const CARRIER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
    /// The home router, seen from the carrier.
    pub(crate) const SUBSCRIBER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);

    /// How many addresses for hosts there are.
    pub(crate) const MOST_HOSTS: usize = 240;

    /// A host, by its number at the site.
    pub(crate) fn host(number: usize) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 1, 10 + number as u8)
    }

    /// The router, seen from inside a site with this line.
    pub(crate) fn router_v6(line: &Line) -> Ipv6Addr {
        inside(line, 1)
    }

    /// A host, by its number at the site.
    pub(crate) fn host_v6(line: &Line, number: usize) -> Ipv6Addr {
        inside(line, 0x10 + number as u16)
    }

    fn inside(line: &Line, host: u16) -> Ipv6Addr {
        let [a, b, network, ..] = line.v6.segments();
        Ipv6Addr::new(a, b, network, 1, 0, 0, 0, host)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbered_lines_do_not_overlap_and_leave_the_range_of_carriers_alone() {
        let lines: Vec<Line> = (0..MOST_LINES).map(Line::numbered).collect();
        let v4: HashSet<[u8; 3]> = lines.iter().map(|line| line.v4.octets()).map(|[a, b, c, _]| [a, b, c]).collect();
        let v6: HashSet<u16> = lines.iter().map(|line| line.v6.segments()[2]).collect();
        assert_eq!((v4.len(), v6.len()), (MOST_LINES, MOST_LINES));
        assert!(lines.iter().all(|line| line.v4.octets()[1] >= 128));
    }

    #[test]
    fn hosts_inside_are_reached_over_the_line() {
        let line = Line::numbered(7);
        assert_eq!(lan::host_v6(&line, 0).segments()[..3], line.v6.segments()[..3]);
        assert_eq!(lan::host(1), Ipv4Addr::new(192, 168, 1, 11));
        assert_eq!(line.with_v4(Ipv4Addr::new(100, 200, 1, 0)).v6, line.v6);
    }
}
