//! What the lab is made of: the sites that people have, which two of them meet, and their addresses.
//!
//! What it is not: how it is built (`network`), or what should come of it (`expectation`).

use std::{fmt, net::Ipv4Addr, str::FromStr};

use crate::network::{Filtering, Ipv4, Line, Mapping, Properties, Refusal};

/// Public nodes that everybody enters the network through: DHT, STUN and signalling.
pub(crate) const PUBLIC_NODES: usize = 3;

/// The port of the public nodes: the one that every firewall lets out.
pub(crate) const PUBLIC_PORT: u16 = 443;

/// What stands between a host and the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Site {
    /// Nothing: public IPv4 and IPv6 addresses.
    Public,
    /// Nothing, and the node listens on port 443.
    Public443,
    /// A NAT with endpoint-independent mapping and endpoint-independent filtering.
    EndpointIndependent,
    /// A NAT with endpoint-independent mapping and address-dependent filtering.
    AddressDependent,
    /// A NAT with endpoint-independent mapping and address-and-port-dependent filtering: most homes.
    PortDependent,
    /// The same, and it answers an unsolicited SYN with RST.
    PortDependentRst,
    /// A NAT with address-and-port-dependent mapping: a random port for each connection.
    Symmetric,
    /// The same, and it answers an unsolicited SYN with RST.
    SymmetricRst,
    /// A home NAT behind the NAT of the carrier.
    CarrierGrade,
    /// The same, and both answer an unsolicited SYN with RST.
    CarrierGradeRst,
    /// A home NAT that maps ports when asked by UPnP, NAT-PMP or PCP.
    PortMapping,
    /// A NAT that lets only connections to port 443 out.
    Only443,
    /// IPv6 only, with public addresses behind a stateful firewall that drops.
    V6Drop,
    /// The same, and the firewall answers an unsolicited SYN with RST.
    V6Rst,
    /// The same, and the firewall answers it with ICMPv6 “administratively prohibited”.
    V6Prohibited,
}

impl Site {
    /// All that are paired with each other.
    pub(crate) const PAIRED: [Site; 14] = [
        Site::Public,
        Site::EndpointIndependent,
        Site::AddressDependent,
        Site::PortDependent,
        Site::PortDependentRst,
        Site::Symmetric,
        Site::SymmetricRst,
        Site::CarrierGrade,
        Site::CarrierGradeRst,
        Site::PortMapping,
        Site::V6Drop,
        Site::V6Rst,
        Site::V6Prohibited,
        Site::Only443,
    ];

    const ALL: [Site; 15] = {
        let mut all = [Site::Public443; 15];
        let mut at = 0;
        while at < Self::PAIRED.len() {
            all[at] = Self::PAIRED[at];
            at += 1;
        }
        all
    };

    /// The short name, as options and reports have it.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Site::Public => "public",
            Site::Public443 => "public-443",
            Site::EndpointIndependent => "eif",
            Site::AddressDependent => "adf",
            Site::PortDependent => "apdf",
            Site::PortDependentRst => "apdf-rst",
            Site::Symmetric => "sym",
            Site::SymmetricRst => "sym-rst",
            Site::CarrierGrade => "cgn",
            Site::CarrierGradeRst => "cgn-rst",
            Site::PortMapping => "upnp",
            Site::Only443 => "only-443",
            Site::V6Drop => "v6-drop",
            Site::V6Rst => "v6-rst",
            Site::V6Prohibited => "v6-prohibited",
        }
    }

    /// A few words for a person.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Site::Public => "public address",
            Site::Public443 => "public address, port 443",
            Site::EndpointIndependent => "NAT, endpoint-independent filtering",
            Site::AddressDependent => "NAT, address-dependent filtering",
            Site::PortDependent => "NAT, address-and-port-dependent filtering",
            Site::PortDependentRst => "the same, answers with RST",
            Site::Symmetric => "NAT, address-and-port-dependent mapping",
            Site::SymmetricRst => "the same, answers with RST",
            Site::CarrierGrade => "carrier-grade double NAT",
            Site::CarrierGradeRst => "the same, answers with RST",
            Site::PortMapping => "NAT with UPnP, NAT-PMP and PCP",
            Site::Only443 => "NAT, only port 443 out",
            Site::V6Drop => "IPv6 only, firewall drops",
            Site::V6Rst => "IPv6 only, firewall answers with RST",
            Site::V6Prohibited => "IPv6 only, firewall prohibits",
        }
    }

    /// Whether hosts there have IPv4, with or without NAT.
    pub(crate) fn has_v4(self) -> bool {
        !self.is_v6_only()
    }

    /// Whether hosts there have IPv6.
    pub(crate) fn has_v6(self) -> bool {
        self.is_public() || self.is_v6_only()
    }

    /// Whether hosts there have a public address that everybody reaches.
    pub(crate) fn is_public(self) -> bool {
        matches!(self, Site::Public | Site::Public443)
    }

    /// Whether hosts there have nothing but IPv6.
    pub(crate) fn is_v6_only(self) -> bool {
        matches!(self, Site::V6Drop | Site::V6Rst | Site::V6Prohibited)
    }

    /// What it is built as.
    pub(crate) fn properties(self) -> Properties {
        let (home, v6_only) = (Properties::home(), Properties::v6_only());
        match self {
            Site::Public | Site::Public443 => Properties::public(),
            Site::EndpointIndependent => Properties { filtering: Filtering::EndpointIndependent, ..home },
            Site::AddressDependent => Properties { filtering: Filtering::AddressDependent, ..home },
            Site::PortDependent => home,
            Site::PortDependentRst => Properties { refusal: Refusal::Reset, ..home },
            Site::Symmetric => Properties { mapping: Mapping::AddressAndPortDependent, ..home },
            Site::SymmetricRst => {
                Properties { mapping: Mapping::AddressAndPortDependent, refusal: Refusal::Reset, ..home }
            }
            Site::CarrierGrade => Properties { ipv4: Ipv4::CarrierNat, ..home },
            Site::CarrierGradeRst => Properties { ipv4: Ipv4::CarrierNat, refusal: Refusal::Reset, ..home },
            Site::PortMapping => Properties { upnp: true, ..home },
            Site::Only443 => Properties { outward_ports: vec![443], ..home },
            Site::V6Drop => v6_only,
            Site::V6Rst => Properties { refusal: Refusal::Reset, ..v6_only },
            Site::V6Prohibited => Properties { refusal: Refusal::Prohibited, ..v6_only },
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl FromStr for Site {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|site| site.id() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|site| site.id()).collect();
            format!("{text:?} is no site; there are {}", known.join(", "))
        })
    }
}

/// A pair that meets: the one that shares, and the one that gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cell {
    /// Each at a site of its own.
    Apart(Site, Site),
    /// Both behind one NAT.
    OneNat {
        /// Whether the NAT lets a host reach another by its public address.
        hairpin: bool,
    },
}

impl Cell {
    /// All of the matrix: every two sites, and what does not fit into a square.
    pub(crate) fn all() -> Vec<Cell> {
        let sites = Site::PAIRED;
        let later = |at: usize| sites[at..].iter().map(move |b| Cell::Apart(sites[at], *b));
        let mut cells: Vec<Cell> = (0..sites.len()).flat_map(later).collect();
        cells.push(Cell::Apart(Site::Public443, Site::Only443));
        cells.extend([Cell::OneNat { hairpin: true }, Cell::OneNat { hairpin: false }]);
        cells
    }

    /// Whether one of the two is there.
    pub(crate) fn has(self, site: Site) -> bool {
        matches!(self, Cell::Apart(a, b) if a == site || b == site)
    }

    /// The sharer's site, as reports have it.
    pub(crate) fn a(self) -> &'static str {
        match self {
            Cell::Apart(a, _) => a.id(),
            Cell::OneNat { hairpin: true } => "one-nat-hairpin",
            Cell::OneNat { hairpin: false } => "one-nat",
        }
    }

    /// The getter's site, as reports have it.
    pub(crate) fn b(self) -> &'static str {
        match self {
            Cell::Apart(_, b) => b.id(),
            Cell::OneNat { .. } => self.a(),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.a(), self.b())
    }
}

impl FromStr for Cell {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for cell in [Cell::OneNat { hairpin: true }, Cell::OneNat { hairpin: false }] {
            if text == cell.a() || text == cell.to_string() {
                return Ok(cell);
            }
        }
        let (a, b) = text.split_once(':').ok_or_else(|| format!("{text:?} is no cell; write two sites as a:b"))?;
        Ok(Cell::Apart(a.parse()?, b.parse()?))
    }
}

/// Who of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Shares.
    A,
    /// Gets.
    B,
}

impl Side {
    /// The name of its host, and of its site.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::A => "a",
            Side::B => "b",
        }
    }
}

/// The line of a public node.
pub(crate) fn line_of_public_node(index: usize) -> Line {
    let base = 16 * (index as u8 + 1);
    Line::new(Ipv4Addr::new(192, 0, 2, base), 28, 0x10 + index as u16)
}

/// The line of one side.
pub(crate) fn line_of_site(side: Side, site: Site) -> Line {
    let network = match (side, site) {
        // miniupnpd maps no port while its own address is out of a documentation range; nobody is at these here.
        (Side::A, Site::PortMapping) => Ipv4Addr::new(100, 128, 10, 0),
        (Side::B, Site::PortMapping) => Ipv4Addr::new(100, 128, 11, 0),
        (Side::A, _) => Ipv4Addr::new(198, 51, 100, 0),
        (Side::B, _) => Ipv4Addr::new(203, 0, 113, 0),
    };
    Line::new(network, 24, if side == Side::A { 0xa } else { 0xb })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_sites_meet_once() {
        let cells = Cell::all();
        assert_eq!(cells.len(), 14 * 15 / 2 + 3);
        for (at, cell) in cells.iter().enumerate() {
            assert!(!cells[at + 1..].contains(cell), "{cell} twice");
            assert_eq!(cell.to_string().parse(), Ok(*cell));
        }
    }

    #[test]
    fn names_of_sites_are_read_back() {
        for site in Site::ALL {
            assert_eq!(site.id().parse(), Ok(site));
        }
        assert!("nat".parse::<Site>().unwrap_err().contains("apdf-rst"));
        assert!("public".parse::<Cell>().is_err());
    }

    #[test]
    fn lines_do_not_overlap() {
        let mut lines: Vec<Line> = (0..PUBLIC_NODES).map(line_of_public_node).collect();
        for site in [Site::Public, Site::PortMapping] {
            lines.extend([Side::A, Side::B].map(|side| line_of_site(side, site)));
        }
        lines.dedup_by_key(|line| line.v6);
        let v4: std::collections::HashSet<u32> = lines.iter().map(|line| line.v4.to_bits() >> 4).collect();
        assert_eq!(v4.len(), lines.len());
    }
}
