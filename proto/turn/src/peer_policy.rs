//! With whom a relay may connect its clients: it must not be a way into the networks that it stands in.
//!
//! | peer, unwrapped (mapped, compatible, NAT64, 6to4, Teredo)                              | allowed                     |
//! |----------------------------------------------------------------------------------------|-----------------------------|
//! | the relay's own listeners                                                              | never                       |
//! | the relay's own addresses                                                              | if the operator names them  |
//! | of any class but [`Class::Global`]                                                     | if the operator names them  |
//! | in a network that the relay stands in                                                  | if the operator names them  |
//! | port 0; ports below 1024 but for 80 and 443                                            | never                       |
//! | any other; documentation ranges too, which laboratories use                            | yes                         |
//!
//! Ports below 1024 belong to services that no peer of a relay is: a relay for everyone would be a way to send mail or
//! to guess passwords under the relay's name. 80 and 443 stay, since peers in closed networks listen there.
//!
//! Neighbours of the relay's machine have addresses of the whole internet, with IPv6 nearly always, and a router in front of them that
//! lets nobody in: the relay, which is in, must not be the way around it.
//!
//! What it is not: a permission (RFC 8656 §9), which a client gives on top of this.

use std::net::{IpAddr, SocketAddr};

use keyferry_net::ip::{self, Class, Network};

/// Ports below 1024 that a peer may listen on.
const OPEN_LOW_PORTS: [u16; 2] = [80, 443];

/// Why a peer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum PeerRefusal {
    /// Unspecified, multicast, broadcast or reserved.
    #[error("not an address of a single host")]
    NotAHost,
    /// This machine.
    #[error("a loopback address")]
    Loopback,
    /// Link-local, the metadata services among them.
    #[error("a link-local address")]
    LinkLocal,
    /// Of a private network, behind carrier-grade NAT, or not for the internet at all.
    #[error("an address that is not of the public internet")]
    NotPublic,
    /// The relay itself.
    #[error("an address of the relay itself")]
    Relay,
    /// In a network that the relay stands in, behind whatever keeps others out of it.
    #[error("an address of a network that the relay stands in")]
    OnLink,
    /// A port that no peer listens on.
    #[error("a port of a service that no peer is")]
    Port,
}

/// The rules of one relay.
#[derive(Debug, Clone, Default)]
pub struct PeerPolicy {
    /// Networks that the operator allows, whatever they are.
    pub allowed: Vec<Network>,
    /// The addresses of the relay's machine, those that a NAT in front of it has among them.
    pub own_ips: Vec<IpAddr>,
    /// The networks of its interfaces, which it reaches without a router.
    pub on_link: Vec<Network>,
    /// The ports that the relay itself listens on.
    pub own_ports: Vec<u16>,
}

impl PeerPolicy {
    /// Decides on an address that is to get a permission: any port of it.
    pub fn check_ip(&self, peer: IpAddr) -> Result<(), PeerRefusal> {
        let ip = ip::unwrap_v4(peer);
        if self.names(peer) {
            return Ok(());
        }
        if self.is_own(ip) {
            return Err(PeerRefusal::Relay);
        }
        match Class::of(ip) {
            Class::NoHost => Err(PeerRefusal::NotAHost),
            Class::Loopback => Err(PeerRefusal::Loopback),
            Class::LinkLocal => Err(PeerRefusal::LinkLocal),
            Class::Private | Class::Reserved => Err(PeerRefusal::NotPublic),
            Class::Global if self.on_link.iter().any(|network| network.contains(ip)) => Err(PeerRefusal::OnLink),
            Class::Global => Ok(()),
        }
    }

    /// Decides on an address that is to be connected to.
    pub fn check(&self, peer: SocketAddr) -> Result<(), PeerRefusal> {
        self.check_ip(peer.ip())?;
        let ip = ip::unwrap_v4(peer.ip());
        // All of 127.0.0.0/8 and the unspecified addresses lead to this machine.
        let leads_here = self.is_own(ip) || ip.is_loopback() || ip.is_unspecified();
        if leads_here && self.own_ports.contains(&peer.port()) {
            return Err(PeerRefusal::Relay);
        }
        match peer.port() {
            port if port >= 1024 || OPEN_LOW_PORTS.contains(&port) => Ok(()),
            _ => Err(PeerRefusal::Port),
        }
    }

    /// Whether an address is one of the relay's machine.
    pub fn is_own(&self, peer: IpAddr) -> bool {
        let ip = ip::unwrap_v4(peer);
        self.own_ips.iter().any(|own| ip::unwrap_v4(*own) == ip)
    }

    /// Whether the operator has named a network that the address is in. A network of wrapped addresses must be named as such:
    /// who allows 10.0.0.0/8 does not allow a 6to4 router to be used.
    fn names(&self, peer: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(peer.to_canonical()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn policy() -> PeerPolicy {
        let own_ips = ["203.0.113.9", "10.0.0.9", "2001:db8:9::9"].map(|ip| ip.parse().unwrap()).to_vec();
        PeerPolicy { own_ips, own_ports: vec![41414], ..PeerPolicy::default() }
    }

    fn check(text: &str) -> Result<(), PeerRefusal> {
        policy().check(text.parse().unwrap())
    }

    #[test]
    fn the_public_internet_is_allowed_and_so_are_laboratories() {
        for peer in ["8.8.4.4:4600", "198.51.100.7:41414", "192.0.2.1:443", "[2001:db8::1]:80", "[2600::1]:65535"] {
            assert_eq!(check(peer), Ok(()), "{peer}");
        }
        assert_eq!(check("[2002:808:404::1]:4600"), Ok(()), "6to4 of a public address");
    }

    #[test]
    fn what_is_not_of_the_public_internet_is_refused_in_whatever_form() {
        use PeerRefusal::{LinkLocal, Loopback, NotAHost, NotPublic};
        let forbidden = [
            ("0.0.0.0", NotAHost),
            ("0.1.2.3", NotAHost),
            ("224.0.0.251", NotAHost),
            ("255.255.255.255", NotAHost),
            ("250.1.1.1", NotAHost),
            ("127.0.0.1", Loopback),
            ("127.9.9.9", Loopback),
            ("169.254.169.254", LinkLocal),
            ("10.0.0.1", NotPublic),
            ("172.16.0.1", NotPublic),
            ("192.168.0.1", NotPublic),
            ("100.64.0.1", NotPublic),
            ("100.127.255.255", NotPublic),
            ("192.0.0.8", NotPublic),
            ("198.18.0.1", NotPublic),
            ("192.88.99.1", NotPublic),
        ];
        for (v4, why) in forbidden {
            let ip: Ipv4Addr = v4.parse().unwrap();
            let bits = u128::from(ip.to_bits());
            // "::" itself and ::0.0.0.1 are IPv6 addresses of their own.
            let compatible = Ipv6Addr::from_bits(bits);
            let wrapped = [
                IpAddr::V4(ip),
                ip.to_ipv6_mapped().into(),
                if bits > 1 { compatible.into() } else { IpAddr::V4(ip) },
                Ipv6Addr::from_bits(0x64_ff9b << 96 | bits).into(),
                Ipv6Addr::from_bits(0x2002 << 112 | bits << 80 | 1).into(),
                Ipv6Addr::from_bits(0x2001_0000 << 96 | u128::from(!ip.to_bits())).into(),
            ];
            for form in wrapped {
                assert_eq!(policy().check_ip(form), Err(why), "{form}");
                assert_eq!(policy().check(SocketAddr::new(form, 4600)), Err(why), "{form}");
            }
        }
        let forbidden_v6 = [
            ("::", NotAHost),
            ("::1", Loopback),
            ("ff02::1", NotAHost),
            ("fe80::1", LinkLocal),
            ("fd00:ec2::254", LinkLocal),
            ("fc00::1", NotPublic),
            ("fd12:3456::1", NotPublic),
            ("fec0::1", NotPublic),
            ("64:ff9b:1::a00:1", NotPublic),
            ("100::1", NotPublic),
            ("2001:2::1", NotPublic),
            ("2001:10::1", NotPublic),
            ("5f00::1", NotPublic),
            ("::8.8.8.8:0", NotAHost),
        ];
        for (ip, why) in forbidden_v6 {
            let Ok(ip) = ip.parse() else { continue };
            assert_eq!(policy().check_ip(ip), Err(why), "{ip}");
        }
    }

    #[test]
    fn the_relay_itself_is_no_peer() {
        for own in ["203.0.113.9:4600", "10.0.0.9:4600", "[2001:db8:9::9]:4600", "[::ffff:203.0.113.9]:4600"] {
            assert_eq!(check(own), Err(PeerRefusal::Relay), "{own}");
        }
        let named = PeerPolicy { allowed: vec!["127.0.0.0/8".parse().unwrap()], ..policy() };
        assert_eq!(named.check("127.3.3.3:41414".parse().unwrap()), Err(PeerRefusal::Relay), "its own listener");
        assert_eq!(named.check("127.3.3.3:4600".parse().unwrap()), Ok(()));
    }

    #[test]
    fn neighbours_of_the_relay_are_refused_unless_the_operator_names_them() {
        let on_link =
            ["2001:db8:9::9/64", "203.0.113.9/26", "10.0.0.9/8"].map(|network| network.parse().unwrap()).to_vec();
        let mut policy = PeerPolicy { on_link, ..policy() };
        let neighbours =
            ["[2001:db8:9::1]:8080", "203.0.113.1:443", "[::ffff:203.0.113.1]:443", "[2002:cb00:7101::1]:443"];
        for neighbour in neighbours {
            assert_eq!(policy.check(neighbour.parse().unwrap()), Err(PeerRefusal::OnLink), "{neighbour}");
        }
        for other in ["[2001:db8:9:1::1]:8080", "203.0.113.64:443"] {
            assert_eq!(policy.check(other.parse().unwrap()), Ok(()), "{other}");
        }
        policy.allowed = vec!["203.0.113.0/24".parse().unwrap()];
        assert_eq!(policy.check(neighbours[1].parse().unwrap()), Ok(()));
        assert_eq!(policy.check(neighbours[0].parse().unwrap()), Err(PeerRefusal::OnLink));
    }

    #[test]
    fn low_ports_are_refused_but_those_of_the_web() {
        for port in [0, 22, 25, 53, 445, 1023] {
            assert_eq!(check(&format!("192.0.2.1:{port}")), Err(PeerRefusal::Port), "{port}");
        }
    }

    #[test]
    fn a_network_that_the_operator_names_is_allowed_and_nothing_beside_it() {
        let policy = PeerPolicy { allowed: vec!["10.1.0.0/16".parse().unwrap()], ..policy() };
        assert_eq!(policy.check("10.1.2.3:4600".parse().unwrap()), Ok(()));
        assert_eq!(policy.check("[::ffff:10.1.2.3]:4600".parse().unwrap()), Ok(()), "the same address");
        assert_eq!(policy.check("10.2.0.1:4600".parse().unwrap()), Err(PeerRefusal::NotPublic));
        assert_eq!(policy.check("[2002:a01:203::1]:4600".parse().unwrap()), Err(PeerRefusal::NotPublic));
    }

    proptest! {
        #[test]
        fn nothing_that_wraps_a_private_address_is_allowed(low: u16, high in 0u16..=0xffff) {
            let v4 = Ipv4Addr::from_bits(10 << 24 | u32::from(low));
            let forms: [u128; 4] = [
                0xffff << 32,
                0x64_ff9b << 96,
                0x2002 << 112 | u128::from(v4.to_bits()) << 80 | u128::from(high) << 32,
                0x64_ff9b_0001 << 80 | u128::from(high) << 48,
            ];
            for form in forms {
                let ip = Ipv6Addr::from_bits(form | u128::from(v4.to_bits()));
                prop_assert!(policy().check_ip(ip.into()).is_err(), "{}", ip);
            }
        }
    }
}
