//! Host candidates: the addresses of this machine's interfaces at which the node listens.
//!
//! What it is not: addresses that others see (server-reflexive) or that a router maps; those come with ICE.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use if_addrs::Interface;
use keyferry_ice::Candidate;
use keyferry_net::ip::Class;

/// How many host candidates are gathered at most.
pub const MAX_HOST_CANDIDATES: usize = 32;

/// Gathers the node's passive host candidates, best first. Loopback is among them only if the node is bound to it by
/// name, or the machine has nothing else; link-local addresses never are.
pub fn host_candidates(listeners: &[SocketAddr]) -> io::Result<Vec<Candidate>> {
    Ok(from_interfaces(listeners, &if_addrs::get_if_addrs()?))
}

fn from_interfaces(listeners: &[SocketAddr], interfaces: &[Interface]) -> Vec<Candidate> {
    let usable = |ip: &IpAddr| !matches!(Class::of(*ip), Class::NoHost | Class::LinkLocal);
    let ips: Vec<IpAddr> = interfaces.iter().map(Interface::ip).filter(usable).collect();
    let nothing_else = ips.iter().all(IpAddr::is_loopback);
    let mut addrs: Vec<SocketAddr> = Vec::new();
    let mut add = |addr: SocketAddr| {
        if !addrs.contains(&addr) && addrs.len() < MAX_HOST_CANDIDATES {
            addrs.push(addr);
        }
    };
    for listener in listeners {
        if listener.ip().is_unspecified() {
            let of_family = ips.iter().filter(|ip| ip.is_ipv4() == listener.is_ipv4());
            for ip in of_family.filter(|ip| nothing_else || !ip.is_loopback()) {
                add(SocketAddr::new(*ip, listener.port()));
            }
        } else if usable(&listener.ip()) {
            add(*listener);
        }
    }
    let best = u16::try_from(MAX_HOST_CANDIDATES).unwrap_or(u16::MAX);
    (0..best).rev().zip(addrs).map(|(preference, addr)| Candidate::host_passive(addr, preference)).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use if_addrs::{IfAddr, IfOperStatus, Ifv4Addr, Ifv6Addr};

    use super::*;

    fn interface(ip: &str) -> Interface {
        let addr = match ip.parse().expect("an address") {
            IpAddr::V4(ip) => {
                IfAddr::V4(Ifv4Addr { ip, netmask: Ipv4Addr::UNSPECIFIED, prefixlen: 24, broadcast: None })
            }
            IpAddr::V6(ip) => {
                IfAddr::V6(Ifv6Addr { ip, netmask: Ipv6Addr::UNSPECIFIED, prefixlen: 64, broadcast: None })
            }
        };
        Interface { name: "test".into(), addr, index: None, oper_status: IfOperStatus::Up, is_p2p: false }
    }

    fn gathered(listeners: &[&str], interfaces: &[&str]) -> Vec<String> {
        let listeners: Vec<SocketAddr> = listeners.iter().map(|text| text.parse().expect("an address")).collect();
        let interfaces: Vec<Interface> = interfaces.iter().map(|ip| interface(ip)).collect();
        from_interfaces(&listeners, &interfaces).iter().map(|candidate| candidate.addr.to_string()).collect()
    }

    #[test]
    fn a_node_on_all_addresses_offers_each_but_loopback_and_link_local() {
        let interfaces = ["127.0.0.1", "::1", "192.168.7.20", "169.254.3.4", "2001:db8::20", "fe80::20"];
        assert_eq!(gathered(&["0.0.0.0:9", "[::]:9"], &interfaces), ["192.168.7.20:9", "[2001:db8::20]:9"]);
    }

    #[test]
    fn loopback_is_offered_if_there_is_nothing_else_or_it_was_asked_for() {
        assert_eq!(gathered(&["0.0.0.0:9"], &["127.0.0.1", "::1"]), ["127.0.0.1:9"]);
        assert_eq!(gathered(&["127.0.0.1:9"], &["127.0.0.1", "192.168.7.20"]), ["127.0.0.1:9"]);
    }

    #[test]
    fn candidates_are_unique_capped_and_fall_in_priority() {
        let many: Vec<String> = (1..100).map(|i| format!("10.0.0.{i}")).collect();
        let interfaces: Vec<Interface> = many.iter().chain(&many).map(|ip| interface(ip)).collect();
        let candidates = from_interfaces(&["0.0.0.0:9".parse().expect("an address")], &interfaces);
        assert_eq!(candidates.len(), MAX_HOST_CANDIDATES);
        assert!(candidates.windows(2).all(|pair| pair[0].priority > pair[1].priority && pair[0].addr != pair[1].addr));
    }
}
