//! Sites: presets, with what the file says besides.

use std::{net::Ipv4Addr, ops::RangeInclusive, time::Duration};

use super::{
    layers::name,
    names::{Names, members},
};
use crate::{
    network::{Filtering, Ipv4, Ipv6, Mapping, Properties, Refusal},
    scenario::{
        file::{
            form::{Fields, text_of},
            keys,
            problem::{Problems, quoted, suggestion},
            scalar,
            source::At,
            tree::{Kind, Table, Value},
        },
        model::{Site, SiteId},
        presets::{PRESETS, preset},
    },
};

/// How many sites there are at most, all counts together.
pub(crate) const MAX_SITES: usize = 256;
/// How long routers may remember a connection.
const FORGETS_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
/// From what every IPv4 host takes (RFC 791) to what Ethernet carries.
const MTU: RangeInclusive<i64> = 576..=1500;
/// What every IPv6 link carries (RFC 8200 §5).
const LEAST_MTU_OF_IPV6: u16 = 1280;
/// How many ports may be let out by number.
const MAX_OUTWARD_PORTS: usize = 16;

const MAPPINGS: [(&str, Mapping); 2] = [
    ("endpoint-independent", Mapping::EndpointIndependent),
    ("address-and-port-dependent", Mapping::AddressAndPortDependent),
];
const FILTERINGS: [(&str, Filtering); 3] = [
    ("endpoint-independent", Filtering::EndpointIndependent),
    ("address-dependent", Filtering::AddressDependent),
    ("address-and-port-dependent", Filtering::AddressAndPortDependent),
];
const REFUSALS: [(&str, Refusal); 3] =
    [("drop", Refusal::Drop), ("reset", Refusal::Reset), ("prohibited", Refusal::Prohibited)];
const IPV4: [(&str, Ipv4); 4] =
    [("none", Ipv4::None), ("public", Ipv4::Public), ("nat", Ipv4::Nat), ("carrier-nat", Ipv4::CarrierNat)];
const IPV6: [(&str, Ipv6); 3] = [("none", Ipv6::None), ("public", Ipv6::Public), ("firewalled", Ipv6::Firewalled)];

/// All sites of a scenario.
#[derive(Debug)]
pub(crate) struct Sites {
    pub(crate) list: Vec<Site>,
    /// Where each is written.
    pub(crate) at: Vec<At>,
    pub(crate) names: Names<SiteId>,
}

impl Sites {
    pub(crate) fn get(&self, id: SiteId) -> &Site {
        &self.list[id.0]
    }
}

pub(crate) fn read(tables: &[Table], problems: &Problems) -> Sites {
    let mut sites = Sites { list: Vec::new(), at: Vec::new(), names: Names::of("a site") };
    for table in tables {
        sites.add(&Fields::of(table, &keys::SITE, problems));
    }
    sites
}

impl Sites {
    fn add(&mut self, fields: &Fields<'_>) {
        let problems = fields.problems();
        let named = name(fields);
        let Some((preset, mut properties)) = preset_of(fields) else { return };
        overlay(&mut properties, fields);
        check(&properties, fields);
        let count = fields.count("count", 1..=MAX_SITES);
        let capture = fields.truth("capture").unwrap_or_default();
        let Some((name, at)) = named else { return };
        self.check_network(&properties, count, fields);
        let first = self.list.len();
        if first + count.unwrap_or(1) > MAX_SITES {
            return problems.add(fields.at_of("count"), "there are too many sites", format!("at most {MAX_SITES}"));
        }
        for name in members(name, count) {
            self.list.push(Site { name: name.clone(), preset, properties: properties.clone(), capture });
            self.at.push(fields.at());
            self.names.add(&name, vec![SiteId(self.list.len() - 1)], at, problems);
        }
        if count.is_some() {
            self.names.add(name, (first..self.list.len()).map(SiteId).collect(), at, problems);
        }
    }

    fn check_network(&self, properties: &Properties, count: Option<usize>, fields: &Fields<'_>) {
        let Some(network) = properties.network else { return };
        let (at, problems) = (fields.at_of("network"), fields.problems());
        if count.is_some_and(|count| count > 1) {
            problems.add(at, "several sites cannot have one network", "take `count` or `network` out");
        }
        if self.list.iter().any(|other| other.properties.network == Some(network)) {
            problems.add(at, format!("another site has the network {network}"), "take another one");
        }
    }
}

fn preset_of(fields: &Fields<'_>) -> Option<(&'static str, Properties)> {
    let value = fields.required("preset", "\"home\"")?;
    let named = text_of(value, fields.problems())?;
    let found = preset(named);
    if found.is_none() {
        let known = PRESETS.iter().map(|(name, _)| *name);
        fields.problems().add(value.at, format!("there is no preset {}", quoted(named)), suggestion(named, known));
    }
    found
}

/// Changes what the fields say, of a `[[site]]` or a `set`.
pub(crate) fn overlay(properties: &mut Properties, fields: &Fields<'_>) {
    fn put<T>(property: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *property = value;
        }
    }
    overlay_addresses(properties, fields);
    put(&mut properties.mapping, fields.choice("mapping", &MAPPINGS));
    put(&mut properties.filtering, fields.choice("filtering", &FILTERINGS));
    put(&mut properties.refusal, fields.choice("refusal", &REFUSALS));
    put(&mut properties.hairpin, fields.truth("hairpin"));
    put(&mut properties.upnp, fields.truth("upnp"));
    put(&mut properties.outward_ports, outward_ports(fields));
    put(&mut properties.forgets_after, fields.duration("forgets-after", FORGETS_AFTER));
    put(&mut properties.picks_up, fields.truth("picks-up"));
    put(&mut properties.mtu, fields.integer("mtu", MTU).map(|mtu| mtu as u16));
    put(&mut properties.uplink, fields.truth("uplink"));
}

/// What cannot change while a site is there.
fn overlay_addresses(properties: &mut Properties, fields: &Fields<'_>) {
    if fields.is_of(&keys::SET) {
        return;
    }
    if let Some(ipv4) = fields.choice("ipv4", &IPV4) {
        properties.ipv4 = ipv4;
    }
    if let Some(ipv6) = fields.choice("ipv6", &IPV6) {
        properties.ipv6 = ipv6;
    }
    if let Some(text) = fields.text("network") {
        properties.network = network(text);
        if properties.network.is_none() {
            let what = format!("{} is no network that a site can have", quoted(text));
            fields.problems().add(
                fields.at_of("network"),
                what,
                "write the first address of a /24, such as 100.128.7.0",
            );
        }
    }
}

fn network(text: &str) -> Option<Ipv4Addr> {
    let network: Ipv4Addr = text.parse().ok()?;
    let [first, .., last] = network.octets();
    // Nothing of this machine itself, of the lab's own core, or of groups.
    let routed = !network.is_loopback() && !network.is_link_local() && (1..224).contains(&first);
    let of_lab = network.octets().starts_with(&[192, 0, 2]) || network.octets().starts_with(&[192, 168, 1]);
    (last == 0 && routed && !of_lab && !network.octets().starts_with(&[100, 64, 0])).then_some(network)
}

fn outward_ports(fields: &Fields<'_>) -> Option<Vec<u16>> {
    let value = fields.value("outward-ports")?;
    let problems = fields.problems();
    let Kind::List(list) = &value.kind else {
        problems.add(value.at, format!("`outward-ports` is a list, and this is {}", value.words()), "write [443]");
        return None;
    };
    if list.len() > MAX_OUTWARD_PORTS {
        problems.add(value.at, "these are too many ports", format!("at most {MAX_OUTWARD_PORTS}"));
    }
    let port = |value: &Value| match scalar::integer(value, &(1..=65_535)) {
        Ok(port) => Some(port as u16),
        Err(wrong) => {
            problems.add(value.at, format!("`outward-ports`: {}", wrong.what), wrong.advice);
            None
        }
    };
    Some(list.iter().filter_map(port).collect())
}

/// Tells of properties that do not go together.
pub(crate) fn check(properties: &Properties, fields: &Fields<'_>) {
    let problems = fields.problems();
    let wrong = |key: &str, what: &str, advice: &str| problems.add(fields.at_of(key), what, advice);
    let nat = matches!(properties.ipv4, Ipv4::Nat | Ipv4::CarrierNat);
    let has_public = properties.ipv4 == Ipv4::Public || properties.ipv6 == Ipv6::Public;
    let firewalled = properties.ipv6 == Ipv6::Firewalled;
    let address = if fields.is_of(&keys::SITE) && fields.has("ipv6") { "ipv6" } else { "ipv4" };
    if properties.ipv4 == Ipv4::None && properties.ipv6 == Ipv6::None {
        wrong(address, "hosts there have no address at all", "give the site ipv4 or ipv6");
    }
    if has_public && (nat || firewalled) {
        let advice = "a public host is the end of its line: both kinds are public, or one is none";
        wrong(address, "a site is public or behind a router, not both", advice);
    }
    if properties.upnp && properties.ipv4 != Ipv4::Nat {
        wrong("upnp", "`upnp` needs a home router with a NAT of its own", "write ipv4 = \"nat\", or take it out");
    }
    if properties.hairpin && !nat {
        wrong("hairpin", "`hairpin` needs a NAT", "write ipv4 = \"nat\", or take it out");
    }
    if properties.hairpin && properties.filtering == Filtering::AddressAndPortDependent {
        let advice = "write filtering = \"endpoint-independent\" or \"address-dependent\"";
        wrong("hairpin", "the lab's NATs hairpin by mappings that others may come in by", advice);
    }
    if !properties.outward_ports.is_empty() && !nat && !firewalled {
        wrong("outward-ports", "`outward-ports` needs a NAT or a firewall", "write ipv4 = \"nat\", or take it out");
    }
    if properties.refusal == Refusal::Prohibited && !firewalled {
        wrong("refusal", "only a firewall of IPv6 refuses with `prohibited`", "write ipv6 = \"firewalled\"");
    }
    if properties.ipv6 != Ipv6::None && properties.mtu < LEAST_MTU_OF_IPV6 {
        wrong("mtu", "IPv6 needs an mtu of 1280 or more", "write mtu = 1280, or ipv6 = \"none\"");
    }
}
