//! A site that stands, and the addresses in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    core::LineId,
    line::{Line, lan},
    script,
    site::{Ipv4, Ipv6, Properties},
};

/// A site that stands.
#[derive(Clone)]
pub(super) struct Standing {
    pub(super) properties: Properties,
    pub(super) line: Line,
    /// None while nobody is plugged into a public one, or where there is no uplink.
    pub(super) id: Option<LineId>,
    /// Numbers of hosts that were given out. None is given twice.
    pub(super) numbers: usize,
}

impl Standing {
    /// The line as a public host with this number has it: the first has its address, others those after it.
    pub(super) fn line_of(&self, number: usize) -> Line {
        let v4 = Ipv4Addr::from_bits(self.line.v4.to_bits() + number as u32);
        let v6 = Ipv6Addr::from_bits(self.line.v6.to_bits() + number as u128);
        Line { v4, v6, ..self.line }
    }

    /// The addresses of a host, with the lengths of their networks' prefixes.
    pub(super) fn addresses(&self, number: usize) -> Vec<(IpAddr, u8)> {
        let public = self.line_of(number);
        let v4 = match self.properties.ipv4 {
            Ipv4::None => None,
            Ipv4::Public => Some((public.v4, self.line.v4_prefix)),
            Ipv4::Nat | Ipv4::CarrierNat => Some((lan::host(number), 24)),
        };
        let v6 = match self.properties.ipv6 {
            Ipv6::None => None,
            Ipv6::Public => Some((public.v6, 64)),
            Ipv6::Firewalled => Some((lan::host_v6(&self.line, number), 64)),
        };
        let v4 = v4.map(|(address, prefix)| (address.into(), prefix));
        v4.into_iter().chain(v6.map(|(address, prefix)| (address.into(), prefix))).collect()
    }

    /// What a host reaches everything else by.
    pub(super) fn gateways(&self) -> Vec<IpAddr> {
        let v4 = match self.properties.ipv4 {
            Ipv4::None => None,
            Ipv4::Public => Some(self.line.edge.v4),
            Ipv4::Nat | Ipv4::CarrierNat => Some(lan::ROUTER),
        };
        let v6 = match self.properties.ipv6 {
            Ipv6::None => None,
            Ipv6::Public => Some(self.line.edge.v6),
            Ipv6::Firewalled => Some(lan::router_v6(&self.line)),
        };
        v4.map(IpAddr::from).into_iter().chain(v6.map(IpAddr::from)).collect()
    }

    /// Gives the home router its addresses inside.
    pub(super) fn inner_addrs(&self, router: &str) -> String {
        let mut lines = String::new();
        if self.properties.has_v4() {
            lines += &script::addr(router, "lan", format_args!("{}/24", lan::ROUTER));
        }
        if self.properties.has_v6() {
            lines += &script::addr(router, "lan", format_args!("{}/64 nodad", lan::router_v6(&self.line)));
        }
        lines
    }

    /// Gives the end of the line its routes again: a device that goes down loses them.
    pub(super) fn wan_routes(&self, place: &str) -> String {
        let v4 = self.properties.has_v4().then_some(IpAddr::from(self.line.edge.v4));
        let v6 = self.properties.has_v6().then_some(IpAddr::from(self.line.edge.v6));
        v4.into_iter().chain(v6).map(|gateway| script::default_route(place, gateway, "wan")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(properties: Properties) -> Standing {
        Standing { properties, line: Line::numbered(3), id: None, numbers: 0 }
    }

    fn texts(addresses: Vec<(IpAddr, u8)>) -> Vec<String> {
        addresses.into_iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect()
    }

    #[test]
    fn hosts_have_addresses_of_the_families_of_their_site_and_none_twice() {
        let home = standing(Properties { ipv6: Ipv6::Firewalled, ..Properties::home() });
        assert_eq!(texts(home.addresses(0)), ["192.168.1.10/24", "2001:db8:103:1::10/64"]);
        assert_eq!(texts(home.addresses(1)), ["192.168.1.11/24", "2001:db8:103:1::11/64"]);
        assert_eq!(
            home.gateways(),
            ["192.168.1.1", "2001:db8:103:1::1"].map(|address| address.parse::<IpAddr>().unwrap())
        );
        let server = standing(Properties::public());
        assert_eq!(texts(server.addresses(1)), ["100.128.3.3/24", "2001:db8:103::3/64"]);
        assert_eq!(texts(standing(Properties::v6_only()).addresses(0)), ["2001:db8:103:1::10/64"]);
    }
}
