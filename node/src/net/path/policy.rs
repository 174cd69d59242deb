//! What the words of a stranger may make this node dial: an offer must not turn it into a scanner of ports on its own
//! machine, its network or somebody else's.
//!
//! | address, by its [`Class`]                           | from an offer                        | given by the user |
//! |-----------------------------------------------------|--------------------------------------|-------------------|
//! | no host, port 0                                     | never                                | never             |
//! | link-local (with the metadata service)              | never                                | never             |
//! | this node's own listeners                           | never                                | never             |
//! | loopback                                            | if this node has nothing else        | yes               |
//! | private, reserved                                   | if this machine is in that subnet    | yes               |
//! | global                                              | yes                                  | yes               |
//!
//! An IPv6 address that wraps an IPv4 one (mapped, compatible, NAT64, 6to4, Teredo) is judged by what it wraps.
//!
//! What it is not: a firewall. The proof of identity shows who is behind an allowed address.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use if_addrs::{IfAddr, Interface};
use keyferry_net::ip::{Class, Network, unwrap_v4};

/// How many addresses of one peer are dialled at most; those that come first are kept.
pub const MAX_DIALLED: usize = 16;

/// Who named an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressSource {
    /// An offer, a provider record or anything else that a stranger wrote.
    Offer,
    /// The user, in a `via` hint or an option.
    User,
}

/// Where an address is, seen from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathScope {
    /// On this machine.
    ThisMachine,
    /// In a subnet that this machine is in.
    Lan,
    /// Anywhere else.
    Internet,
}

impl fmt::Display for PathScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThisMachine => "this machine",
            Self::Lan => "LAN",
            Self::Internet => "internet",
        })
    }
}

/// Why an address is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefusal {
    /// It is not that of a single host, or has port 0: nobody can listen there.
    #[error("not an address of a single host")]
    NotAHost,
    /// Link-local, the cloud metadata service included.
    #[error("a link-local address")]
    LinkLocal,
    /// One of this node's own listeners.
    #[error("an address of this node itself")]
    OwnListener,
    /// Loopback, while this node is reachable from elsewhere.
    #[error("a loopback address, which only the user may give")]
    Loopback,
    /// A private or reserved range that this machine has no address in.
    #[error("a private address of a network that this machine is not in")]
    ForeignPrivate,
    /// There were too many.
    #[error("more than {MAX_DIALLED} addresses")]
    TooMany,
}

/// The addresses that may be dialled, nearest first, and those that may not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admitted {
    /// What to dial, in order: the user's hints, then this machine, this network, the rest. At most [`MAX_DIALLED`].
    pub addrs: Vec<SocketAddr>,
    /// What not to dial, and why. At most [`MAX_DIALLED`].
    pub refused: Vec<(SocketAddr, AddressRefusal)>,
}

/// The rules for one node, made from what it listens on and the networks that its machine is in.
#[derive(Debug, Clone)]
pub struct AddressPolicy {
    own_listeners: Vec<SocketAddr>,
    own_ips: Vec<IpAddr>,
    subnets: Vec<Network>,
    loopback: bool,
}

impl AddressPolicy {
    /// Reads the machine's interfaces and makes the rules for a node with these listeners. Make them again when the
    /// network changes.
    pub fn for_listeners(listeners: &[SocketAddr]) -> io::Result<Self> {
        Ok(Self::from_interfaces(listeners, &if_addrs::get_if_addrs()?))
    }

    /// Makes the rules from a list of interfaces.
    pub(crate) fn from_interfaces(listeners: &[SocketAddr], interfaces: &[Interface]) -> Self {
        let own_ips: Vec<IpAddr> = interfaces.iter().map(|interface| unwrap_v4(interface.ip())).collect();
        let elsewhere = own_ips.iter().any(|ip| !matches!(Class::of(*ip), Class::Loopback | Class::LinkLocal));
        let bound_to_loopback = listeners.iter().any(|addr| unwrap_v4(addr.ip()).is_loopback());
        let mut own_listeners = Vec::new();
        for addr in listeners {
            let ip = unwrap_v4(addr.ip());
            if ip.is_unspecified() {
                let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
                let all = own_ips.iter().copied().chain(loopback);
                own_listeners.extend(all.map(|own| SocketAddr::new(own, addr.port())));
            } else {
                own_listeners.push(SocketAddr::new(ip, addr.port()));
            }
        }
        let subnets = interfaces.iter().filter(|interface| !interface.is_loopback()).map(subnet).collect();
        Self { own_listeners, own_ips, subnets, loopback: bound_to_loopback || !elsewhere }
    }

    /// Decides on one address.
    pub fn check(&self, addr: SocketAddr, source: AddressSource) -> Result<(), AddressRefusal> {
        let ip = unwrap_v4(addr.ip());
        match Class::of(ip) {
            _ if addr.port() == 0 => Err(AddressRefusal::NotAHost),
            Class::NoHost => Err(AddressRefusal::NotAHost),
            Class::LinkLocal => Err(AddressRefusal::LinkLocal),
            _ if self.is_own_listener(ip, addr.port()) => Err(AddressRefusal::OwnListener),
            _ if source == AddressSource::User => Ok(()),
            Class::Loopback if !self.loopback => Err(AddressRefusal::Loopback),
            Class::Private | Class::Reserved if !self.in_own_subnet(ip) => Err(AddressRefusal::ForeignPrivate),
            Class::Loopback | Class::Private | Class::Reserved | Class::Global => Ok(()),
        }
    }

    /// Sorts out what to dial from the addresses of an offer and the user's hints, each at most once.
    pub fn admit(&self, offered: &[SocketAddr], hints: &[SocketAddr]) -> Admitted {
        let mut admitted = Admitted::default();
        let mut near_first: Vec<SocketAddr> = Vec::new();
        for (addrs, source) in [(hints, AddressSource::User), (offered, AddressSource::Offer)] {
            let mut allowed = Vec::new();
            for addr in addrs.iter().map(|addr| SocketAddr::new(unwrap_mapped(addr.ip()), addr.port())) {
                match self.check(addr, source) {
                    Ok(()) if near_first.contains(&addr) || allowed.contains(&addr) => {}
                    Ok(()) if near_first.len() + allowed.len() >= MAX_DIALLED => {
                        admitted.refuse(addr, AddressRefusal::TooMany);
                    }
                    Ok(()) => allowed.push(addr),
                    Err(why) => admitted.refuse(addr, why),
                }
            }
            allowed.sort_by_key(|addr| self.scope(*addr));
            near_first.extend(allowed);
        }
        admitted.addrs = near_first;
        admitted
    }

    /// Tells where an address is.
    pub fn scope(&self, addr: SocketAddr) -> PathScope {
        let ip = unwrap_v4(addr.ip());
        match ip {
            _ if ip.is_loopback() || self.own_ips.contains(&ip) => PathScope::ThisMachine,
            _ if Class::of(ip) == Class::LinkLocal || self.in_own_subnet(ip) => PathScope::Lan,
            _ => PathScope::Internet,
        }
    }

    fn is_own_listener(&self, ip: IpAddr, port: u16) -> bool {
        // The whole of 127.0.0.0/8 is this machine, so any of it reaches a listener that is bound to all addresses.
        let reaches = |own: &SocketAddr| own.ip() == ip || ip.is_loopback() && own.ip().is_loopback();
        self.own_listeners.iter().any(|own| own.port() == port && reaches(own))
    }

    fn in_own_subnet(&self, ip: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(ip))
    }
}

impl Admitted {
    fn refuse(&mut self, addr: SocketAddr, why: AddressRefusal) {
        tracing::debug!(%addr, %why, "an address is not dialled");
        if self.refused.len() < MAX_DIALLED {
            self.refused.push((addr, why));
        }
    }
}

fn subnet(interface: &Interface) -> Network {
    match &interface.addr {
        IfAddr::V4(addr) => Network::new(addr.ip.into(), addr.prefixlen),
        IfAddr::V6(addr) => Network::new(addr.ip.into(), addr.prefixlen),
    }
}

/// The same address in its plain form, for dialling: an IPv4-mapped one becomes IPv4.
fn unwrap_mapped(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests;
