//! What a site is: all that stands between hosts and everybody else.
//!
//! What it is not: how it is built (`network`), or what people call it (`scenario::presets`, `nat::scenario`).

use std::{net::Ipv4Addr, time::Duration};

use super::{
    core::Rate,
    rules::{Filtering, Mapping, Refusal},
};

/// How long routers remember connections, unless told. RFC 5382 asks for more; few runs last as long.
const FORGETS_AFTER: Duration = Duration::from_secs(600);

/// The longest packet of Ethernet.
const MTU: u16 = 1500;

/// Everything that can be said of a site.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Properties {
    /// What hosts have of IPv4.
    pub(crate) ipv4: Ipv4,
    /// What hosts have of IPv6.
    pub(crate) ipv6: Ipv6,
    /// How a NAT chooses the port of a mapping.
    pub(crate) mapping: Mapping,
    /// Whom a NAT lets in by a mapping.
    pub(crate) filtering: Filtering,
    /// What routers do with what they do not let in.
    pub(crate) refusal: Refusal,
    /// Whether hosts behind a NAT reach each other by the public address.
    pub(crate) hairpin: bool,
    /// Whether the home router maps ports when asked by UPnP, NAT-PMP or PCP.
    pub(crate) upnp: bool,
    /// The ports that connections may go out to; empty where all may.
    pub(crate) outward_ports: Vec<u16>,
    /// How long routers remember a connection without packets.
    pub(crate) forgets_after: Duration,
    /// Whether routers take up connections that they have not seen begin, as Linux does by default.
    pub(crate) picks_up: bool,
    /// The longest packet on the line to the core, in bytes.
    pub(crate) mtu: u16,
    /// Whether there is a line to the core at all.
    pub(crate) uplink: bool,
    /// What the line carries into the core, where it has a rate of its own.
    pub(crate) up: Option<Rate>,
    /// What the line carries out of the core, where it has a rate of its own.
    pub(crate) down: Option<Rate>,
    /// The outer IPv4 network (/24), where it is not the one that the lab gives.
    pub(crate) network: Option<Ipv4Addr>,
}

/// What hosts of a site have of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ipv4 {
    /// Nothing.
    None,
    /// A public address; the site has one host, which is the end of the line.
    Public,
    /// A private address behind a NAT.
    Nat,
    /// A private address behind a NAT behind the NAT of the carrier; both have the same properties.
    CarrierNat,
}

/// What hosts of a site have of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ipv6 {
    /// Nothing.
    None,
    /// A public address that everybody reaches; the site has one host, which is the end of the line.
    Public,
    /// A public address behind a firewall that lets in only what was asked for from inside.
    Firewalled,
}

impl Properties {
    /// Most homes: IPv4 behind a NAT with endpoint-independent mapping and address-and-port-dependent filtering.
    pub(crate) const fn home() -> Self {
        Self {
            ipv4: Ipv4::Nat,
            ipv6: Ipv6::None,
            mapping: Mapping::EndpointIndependent,
            filtering: Filtering::AddressAndPortDependent,
            refusal: Refusal::Drop,
            hairpin: false,
            upnp: false,
            outward_ports: Vec::new(),
            forgets_after: FORGETS_AFTER,
            picks_up: true,
            mtu: MTU,
            uplink: true,
            up: None,
            down: None,
            network: None,
        }
    }

    /// A host that everybody reaches, by IPv4 and IPv6.
    pub(crate) fn public() -> Self {
        Self { ipv4: Ipv4::Public, ipv6: Ipv6::Public, ..Self::home() }
    }

    /// IPv6 only, with public addresses behind a stateful firewall.
    pub(crate) fn v6_only() -> Self {
        Self { ipv4: Ipv4::None, ipv6: Ipv6::Firewalled, ..Self::home() }
    }

    /// Whether the one host of the site is the end of the line.
    pub(crate) fn is_public(&self) -> bool {
        self.ipv4 == Ipv4::Public || self.ipv6 == Ipv6::Public
    }

    /// Routers between hosts and the core.
    pub(crate) fn routers(&self) -> usize {
        match self.ipv4 {
            Ipv4::CarrierNat => 2,
            _ if self.is_public() => 0,
            _ => 1,
        }
    }

    /// Whether hosts have IPv4, with or without NAT.
    pub(crate) fn has_v4(&self) -> bool {
        self.ipv4 != Ipv4::None
    }

    /// Whether hosts have IPv6.
    pub(crate) fn has_v6(&self) -> bool {
        self.ipv6 != Ipv6::None
    }
}
