//! Sites by the names that people know, as properties.

use std::time::Duration;

use crate::network::{Ipv4, Mapping, Properties, Refusal};

/// The port that a `keyferry` at `server-443` listens on.
pub(crate) const PORT_443: u16 = 443;

/// All names, with a few words on each.
pub(crate) const PRESETS: [(&str, &str); 12] = [
    ("home", "a home router that keeps ports and drops what nobody asked for"),
    ("home-upnp", "the same, and it maps ports when asked by UPnP, NAT-PMP or PCP"),
    ("home-strict", "a home router with a new port for each connection"),
    ("hotel", "the same, with RST for what nobody asked for; only ports 80 and 443 go out"),
    ("corporate-443", "as home, and only port 443 goes out"),
    ("cgnat", "a home router behind the carrier's; both drop"),
    ("phone", "the same, but both answer with RST and forget after five minutes"),
    ("server", "public IPv4 and IPv6 addresses"),
    ("server-443", "the same; a keyferry there listens on port 443"),
    ("v6-only", "IPv6 alone, behind a firewall that drops"),
    ("office-lan", "as home, for several hosts in one network"),
    ("offline-lan", "the same, without a line to the outside"),
];

/// What a preset stands for, with its name.
pub(crate) fn preset(name: &str) -> Option<(&'static str, Properties)> {
    let (name, _) = PRESETS.iter().find(|(other, _)| *other == name)?;
    Some((name, properties(name)?))
}

fn properties(name: &str) -> Option<Properties> {
    let home = Properties::home();
    let symmetric = Mapping::AddressAndPortDependent;
    Some(match name {
        "home" | "office-lan" => home,
        "home-upnp" => Properties { upnp: true, ..home },
        "home-strict" => Properties { mapping: symmetric, ..home },
        "hotel" => {
            Properties { mapping: symmetric, refusal: Refusal::Reset, outward_ports: vec![80, PORT_443], ..home }
        }
        "corporate-443" => Properties { outward_ports: vec![PORT_443], ..home },
        "cgnat" => Properties { ipv4: Ipv4::CarrierNat, ..home },
        "phone" => Properties {
            ipv4: Ipv4::CarrierNat,
            refusal: Refusal::Reset,
            forgets_after: Duration::from_secs(300),
            ..home
        },
        "server" | "server-443" => Properties::public(),
        "v6-only" => Properties::v6_only(),
        "offline-lan" => Properties { uplink: false, ..home },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_for_something() {
        for (name, _) in PRESETS {
            assert_eq!(preset(name).map(|(name, _)| name), Some(name));
        }
        assert_eq!(preset("castle"), None);
    }
}
