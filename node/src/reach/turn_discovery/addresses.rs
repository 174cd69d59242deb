//! Which addresses of a relay this node takes: what it says of itself is a stranger's word.
//!
//! What it is not: the rules for strangers' addresses; those are [`AddressPolicy`].

use std::net::SocketAddr;

use keyferry_proto::relaying::MAX_ADDRS;

use crate::{
    net::path::{AddressPolicy, AddressSource},
    reach::rendezvous::{AddressScope, Granted},
};

/// The addresses of a provider at which this node may ask it: public ones.
pub(super) fn to_ask(stated: &[SocketAddr], policy: &AddressPolicy) -> Vec<SocketAddr> {
    stated.iter().copied().filter(|addr| is_public(*addr, policy)).collect()
}

/// The addresses of a relay at which this node may use it, the surest first: where this node dialled it; others of the host that its
/// connection comes from, which it may well have; and public ones.
pub(super) fn to_use(granted: &Granted, policy: &AddressPolicy) -> Vec<SocketAddr> {
    let via = canonical(granted.via);
    let stated: Vec<_> = granted.issued.addrs.iter().copied().map(canonical).collect();
    let of_its_host = |addr: &SocketAddr| addr.ip() == via.ip() && policy.check(*addr, AddressSource::User).is_ok();
    let own_host = stated.iter().copied().filter(of_its_host);
    let public = stated.iter().copied().filter(|addr| addr.ip() != via.ip() && is_public(*addr, policy));
    let mut addrs: Vec<SocketAddr> = Vec::new();
    for addr in granted.is_dialled.then_some(via).into_iter().chain(own_host).chain(public) {
        if addrs.len() < MAX_ADDRS && !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs
}

fn is_public(addr: SocketAddr, policy: &AddressPolicy) -> bool {
    AddressScope::of_ip(addr.ip()) == Some(AddressScope::Wan) && policy.check(addr, AddressSource::Offer).is_ok()
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use keyferry_net::time::UnixTime;
    use keyferry_proto::relaying::RelayCredentials;

    use super::*;

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn granted(via: &str, is_dialled: bool, stated: &[&str]) -> Granted {
        let issued = RelayCredentials {
            realm: "r".to_owned(),
            username: "u".to_owned(),
            password: "p".to_owned(),
            expires: UnixTime(1),
            addrs: addrs(stated),
            tls_pin: None,
        };
        Granted { issued, via: via.parse().unwrap(), is_dialled }
    }

    fn policy() -> AddressPolicy {
        AddressPolicy::from_interfaces(&addrs(&["198.51.100.9:4600"]), &[])
    }

    const LIES: [&str; 8] = [
        "127.0.0.1:4600",
        "10.0.0.1:4600",
        "100.64.0.1:4600",
        "169.254.169.254:80",
        "224.0.0.1:4600",
        "[fd00::1]:4600",
        "[::1]:4600",
        "198.51.100.9:4600",
    ];

    #[test]
    fn what_a_relay_says_of_others_and_of_this_node_is_left_out() {
        let honest = ["203.0.113.1:4600", "[2001:db8::1]:4600"];
        let stated = [&LIES[..], &honest[..]].concat();
        assert_eq!(to_use(&granted("203.0.113.1:50000", false, &stated), &policy()), addrs(&honest));
        assert_eq!(to_ask(&addrs(&stated), &policy()), addrs(&honest));
    }

    #[test]
    fn where_it_was_dialled_comes_first_and_is_enough() {
        assert_eq!(to_use(&granted("203.0.113.1:4600", true, &[]), &policy()), addrs(&["203.0.113.1:4600"]));
        assert_eq!(to_use(&granted("203.0.113.1:50000", false, &[]), &policy()), []);
        let both = ["192.0.2.1:1", "203.0.113.1:443", "203.0.113.1:4600"];
        let expected = addrs(&["203.0.113.1:4600", "203.0.113.1:443", "192.0.2.1:1"]);
        assert_eq!(to_use(&granted("203.0.113.1:4600", true, &both), &policy()), expected);
    }

    #[test]
    fn a_relay_in_this_network_may_be_used_at_the_host_that_it_is_connected_from_and_nowhere_else_there() {
        let stated = ["10.0.0.1:4600", "10.0.0.2:4600"];
        assert_eq!(to_use(&granted("10.0.0.1:50000", false, &stated), &policy()), addrs(&["10.0.0.1:4600"]));
    }

    #[test]
    fn addresses_are_capped() {
        let stated: Vec<_> = (1..=MAX_ADDRS).map(|host| format!("192.0.2.{host}:1")).collect();
        let stated: Vec<_> = stated.iter().map(String::as_str).collect();
        assert_eq!(to_use(&granted("203.0.113.1:4600", true, &stated), &policy()).len(), MAX_ADDRS);
    }
}
