//! The rules, one by one, against a made-up machine.

use if_addrs::{IfOperStatus, Ifv4Addr, Ifv6Addr};

use super::*;

fn interface(ip: &str, prefixlen: u8) -> Interface {
    let addr = match ip.parse().expect("an address") {
        IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr { ip, netmask: Ipv4Addr::UNSPECIFIED, prefixlen, broadcast: None }),
        IpAddr::V6(ip) => IfAddr::V6(Ifv6Addr { ip, netmask: Ipv6Addr::UNSPECIFIED, prefixlen, broadcast: None }),
    };
    Interface { name: "test".into(), addr, index: None, oper_status: IfOperStatus::Up, is_p2p: false }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A machine at 192.168.7.20/24 and 2001:db8:7::20/64 whose node listens on port 4000 of all addresses.
fn policy() -> AddressPolicy {
    let interfaces = [
        interface("127.0.0.1", 8),
        interface("::1", 128),
        interface("192.168.7.20", 24),
        interface("2001:db8:7::20", 64),
        interface("fe80::20", 64),
    ];
    AddressPolicy::from_interfaces(&[addr("0.0.0.0:4000"), addr("[::]:4000")], &interfaces)
}

#[test]
fn nobody_can_make_it_dial_what_is_no_host_or_link_local() {
    let never = [
        ("0.0.0.0:1", AddressRefusal::NotAHost),
        ("0.1.2.3:1", AddressRefusal::NotAHost),
        ("[::]:1", AddressRefusal::NotAHost),
        ("224.0.0.251:5353", AddressRefusal::NotAHost),
        ("[ff02::fb]:5353", AddressRefusal::NotAHost),
        ("255.255.255.255:1", AddressRefusal::NotAHost),
        ("250.1.1.1:1", AddressRefusal::NotAHost),
        ("192.0.2.1:0", AddressRefusal::NotAHost),
        ("169.254.169.254:80", AddressRefusal::LinkLocal),
        ("[::ffff:169.254.169.254]:80", AddressRefusal::LinkLocal),
        ("[64:ff9b::a9fe:a9fe]:80", AddressRefusal::LinkLocal),
        ("[2002:a9fe:a9fe::1]:80", AddressRefusal::LinkLocal),
        ("[fd00:ec2::254]:80", AddressRefusal::LinkLocal),
        ("[fe80::1]:1", AddressRefusal::LinkLocal),
    ];
    for (text, why) in never {
        for source in [AddressSource::Offer, AddressSource::User] {
            assert_eq!(policy().check(addr(text), source), Err(why), "{text}");
        }
    }
}

#[test]
fn nobody_can_make_it_dial_itself() {
    let own = [
        "192.168.7.20:4000",
        "127.0.0.1:4000",
        "127.9.9.9:4000",
        "[::1]:4000",
        "[2001:db8:7::20]:4000",
        "[::ffff:127.0.0.1]:4000",
    ];
    for text in own {
        for source in [AddressSource::Offer, AddressSource::User] {
            assert_eq!(policy().check(addr(text), source), Err(AddressRefusal::OwnListener), "{text}");
        }
    }
    assert_eq!(policy().check(addr("192.168.7.20:4001"), AddressSource::Offer), Ok(()), "another node on this machine");
}

#[test]
fn an_offer_reaches_private_ranges_only_within_a_shared_subnet() {
    let foreign = [
        "192.168.8.1:22",
        "10.0.0.1:22",
        "172.16.0.1:22",
        "100.64.0.1:22",
        "198.18.0.1:22",
        "192.0.0.4:22",
        "192.88.99.1:22",
        "[fd12::1]:22",
        "[fec0::1]:22",
        "[5f00::1]:22",
    ];
    for text in foreign.into_iter().chain(["[::ffff:10.0.0.1]:22", "[2002:a00:1::1]:22", "[64:ff9b::a00:1]:22"]) {
        assert_eq!(policy().check(addr(text), AddressSource::Offer), Err(AddressRefusal::ForeignPrivate), "{text}");
        assert_eq!(policy().check(addr(text), AddressSource::User), Ok(()), "{text}");
    }
    for text in ["192.168.7.99:22", "198.51.100.1:443", "[2001:db8:7::9]:1", "[2001:db8:9::9]:1"] {
        assert_eq!(policy().check(addr(text), AddressSource::Offer), Ok(()), "{text}");
    }
}

#[test]
fn an_offer_reaches_loopback_only_if_the_node_is_there_itself() {
    let there = addr("127.0.0.1:5000");
    assert_eq!(policy().check(there, AddressSource::Offer), Err(AddressRefusal::Loopback));
    assert_eq!(policy().check(there, AddressSource::User), Ok(()));

    let bound = AddressPolicy::from_interfaces(&[addr("127.0.0.1:4000")], &[interface("192.168.7.20", 24)]);
    assert_eq!(bound.check(there, AddressSource::Offer), Ok(()));

    let alone = AddressPolicy::from_interfaces(&[addr("0.0.0.0:4000")], &[interface("127.0.0.1", 8)]);
    assert_eq!(alone.check(there, AddressSource::Offer), Ok(()));
}

#[test]
fn hints_come_first_then_what_is_near_and_twins_once() {
    let offered =
        ["198.51.100.1:1", "192.168.7.99:1", "192.168.7.20:1", "10.0.0.1:1", "[::ffff:192.168.7.99]:1"].map(addr);
    let admitted = policy().admit(&offered, &[addr("203.0.113.9:1"), addr("198.51.100.1:1")]);
    assert_eq!(admitted.addrs, ["203.0.113.9:1", "198.51.100.1:1", "192.168.7.20:1", "192.168.7.99:1"].map(addr));
    assert_eq!(admitted.refused, [(addr("10.0.0.1:1"), AddressRefusal::ForeignPrivate)]);
}

#[test]
fn an_offer_with_very_many_addresses_costs_a_few_attempts() {
    let offered: Vec<SocketAddr> =
        (0..10_000u32).map(|i| SocketAddr::new(Ipv4Addr::from_bits(0xc633_6400 + i).into(), 9)).collect();
    let admitted = policy().admit(&offered, &[]);
    assert_eq!(admitted.addrs.len(), MAX_DIALLED);
    assert_eq!(admitted.refused.len(), MAX_DIALLED);
}

#[test]
fn scopes_are_told_apart() {
    for (text, scope) in [
        ("127.0.0.1:1", PathScope::ThisMachine),
        ("192.168.7.20:1", PathScope::ThisMachine),
        ("192.168.7.21:1", PathScope::Lan),
        ("[2001:db8:7::9]:1", PathScope::Lan),
        ("192.168.8.21:1", PathScope::Internet),
    ] {
        assert_eq!(policy().scope(addr(text)), scope, "{text}");
    }
}
