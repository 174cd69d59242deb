//! Which of the two DHTs an address belongs to.
//!
//! What it is not: a judgement whether an address can be reached, or which candidates of an offer may be dialled.

use std::net::{IpAddr, SocketAddr};

use keyferry_net::ip::Class;
use libp2p::{Multiaddr, StreamProtocol, multiaddr::Protocol};

/// The Kademlia protocol of the wide area.
pub(super) const WAN_PROTOCOL: StreamProtocol = StreamProtocol::new("/keyferry/kad/1");
/// The Kademlia protocol of the local network.
pub(super) const LAN_PROTOCOL: StreamProtocol = StreamProtocol::new("/keyferry/lan/kad/1");

/// Addresses of one peer that are kept in a routing table, and so named to others, or dialled.
pub(super) const MAX_PEER_ADDRS: usize = 8;

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressScope {
    /// This machine or the local network: [`Class::Loopback`] and [`Class::Private`].
    Lan,
    /// The internet: [`Class::Global`].
    Wan,
}

impl AddressScope {
    /// Both, the nearer one first.
    pub const ALL: [AddressScope; 2] = [AddressScope::Lan, AddressScope::Wan];

    /// The scope of an IP address; none for those that no peer can have, or that nobody may be made to dial: link-local ones
    /// would need an interface, and clouds serve credentials there.
    pub fn of_ip(ip: IpAddr) -> Option<AddressScope> {
        match Class::of(ip) {
            Class::NoHost | Class::LinkLocal | Class::Reserved => None,
            Class::Loopback | Class::Private => Some(AddressScope::Lan),
            Class::Global => Some(AddressScope::Wan),
        }
    }

    /// The scope of a TCP multiaddr; none if it is not one, or has port 0 or an address that no peer can have.
    pub fn of(addr: &Multiaddr) -> Option<AddressScope> {
        Self::of_ip(socket_addr_of(addr)?.ip())
    }
}

/// The socket address of a multiaddr `/ip4|ip6/…/tcp/PORT[/p2p/…]`; none for any other form or port 0.
pub fn socket_addr_of(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return None };
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) if port != 0 => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// The multiaddr `/ip4|ip6/…/tcp/PORT` of a socket address.
pub fn multiaddr_of(addr: SocketAddr) -> Multiaddr {
    Multiaddr::from(addr.ip().to_canonical()).with(Protocol::Tcp(addr.port()))
}

/// Whether a multiaddr names this machine itself.
pub(super) fn is_loopback(addr: &Multiaddr) -> bool {
    socket_addr_of(addr).is_some_and(|addr| addr.ip().to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Option<AddressScope> {
        AddressScope::of_ip(text.parse().unwrap())
    }

    #[test]
    fn addresses_of_machine_and_house_are_lan() {
        for text in ["127.0.0.1", "10.1.2.3", "192.168.0.9", "172.16.0.1", "100.64.0.1", "::1", "fd12::1"] {
            assert_eq!(scope(text), Some(AddressScope::Lan), "{text}");
        }
        assert_eq!(scope("::ffff:10.0.0.1"), Some(AddressScope::Lan));
        assert_eq!(scope("198.18.0.1"), Some(AddressScope::Lan), "what proxies give to hosts");
    }

    #[test]
    fn public_and_documentation_addresses_are_wan() {
        for text in ["203.0.113.7", "198.51.100.1", "192.0.2.1", "100.128.0.1", "2001:db8::1", "172.32.0.1"] {
            assert_eq!(scope(text), Some(AddressScope::Wan), "{text}");
        }
    }

    #[test]
    fn addresses_that_no_peer_can_have_have_no_scope() {
        for text in [
            "0.0.0.0",
            "224.0.0.251",
            "240.0.0.1",
            "255.255.255.255",
            "169.254.3.4",
            "169.254.169.254",
            "::",
            "ff02::fb",
            "fe80::1",
        ] {
            assert_eq!(scope(text), None, "{text}");
        }
        assert_eq!(scope("::ffff:169.254.169.254"), None);
    }

    #[test]
    fn only_plain_tcp_multiaddrs_are_socket_addresses() {
        let addr: SocketAddr = "192.0.2.1:7".parse().unwrap();
        let peer = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        assert_eq!(socket_addr_of(&multiaddr_of(addr)), Some(addr));
        assert_eq!(socket_addr_of(&format!("/ip4/192.0.2.1/tcp/7/p2p/{peer}").parse().unwrap()), Some(addr));
        for text in ["/ip4/192.0.2.1/udp/7", "/ip4/192.0.2.1", "/dns4/example.org/tcp/7", "/ip4/192.0.2.1/tcp/0"] {
            assert_eq!(socket_addr_of(&text.parse().unwrap()), None, "{text}");
        }
        assert_eq!(socket_addr_of(&"/ip4/192.0.2.1/tcp/7/ws".parse().unwrap()), None);
    }
}
