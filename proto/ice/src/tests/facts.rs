//! The virtual network does what real kernels and routers were seen to do.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    nat::{Filtering, MappingBehaviour, NatKind, Unsolicited},
    network::{Core, HostId, Network},
    segment::FULL_TTL,
    tcp::{TcpEvent, Tuple},
};
use crate::ConnectFailure;

const PORT: u16 = 4001;
const FIREWALL: NatKind = NatKind::firewall(Unsolicited::Drop);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nat(mapping: MappingBehaviour, filtering: Filtering, unsolicited: Unsolicited) -> NatKind {
    NatKind::new(mapping, filtering, unsolicited)
}

fn strict(unsolicited: Unsolicited) -> NatKind {
    nat(MappingBehaviour::EndpointIndependent, Filtering::AddressAndPortDependent, unsolicited)
}

/// Two hosts, each behind its own router of this kind, and their addresses as the other can use them.
struct Lab {
    net: Network,
    hosts: [HostId; 2],
    bases: [SocketAddr; 2],
    outer: [SocketAddr; 2],
}

impl Lab {
    fn new(kinds: [NatKind; 2], core: Core) -> Self {
        let mut net = Network::new(core, 1);
        let bases = [addr("192.168.1.10:4001"), addr("192.168.1.10:4001")];
        let outer_ips = [ip("198.51.100.2"), ip("203.0.113.2")];
        let hosts = [0, 1].map(|side| {
            let router = net.add_router(None, outer_ips[side], kinds[side], FIREWALL);
            net.add_host(Some(router), &[bases[side].ip()], PORT)
        });
        let outer =
            [0, 1].map(|side| net.reflexive(hosts[side], bases[side], addr("192.0.2.1:3478")).unwrap_or(bases[side]));
        Self { net, hosts, bases, outer }
    }

    /// Connects from one side's port to the other side's outer address.
    fn connect(&mut self, side: usize, ttl: u8) -> Tuple {
        let tuple = Tuple { local: self.bases[side], remote: self.outer[1 - side] };
        self.net.connect(self.hosts[side], tuple, ttl).unwrap();
        tuple
    }

    fn wait(&mut self, until_ms: u64) {
        self.net.advance(Duration::from_millis(until_ms));
    }

    fn events(&mut self, side: usize) -> Vec<TcpEvent> {
        std::iter::from_fn(|| self.net.poll_event(self.hosts[side])).collect()
    }
}

const CORE: Core = Core { hops: 1, latency: Duration::from_millis(20), jitter: Duration::ZERO, loss_one_in: 0 };

#[test]
fn plain_connects_through_nats_that_drop_cross_and_become_one_connection() {
    let mut lab = Lab::new([strict(Unsolicited::Drop); 2], CORE);
    let tuples = [lab.connect(0, FULL_TTL), lab.connect(1, FULL_TTL)];
    lab.wait(200);
    assert_eq!(lab.events(0), [TcpEvent::Connected(tuples[0])]);
    assert_eq!(lab.events(1), [TcpEvent::Connected(tuples[1])]);
}

#[test]
fn a_lone_syn_that_is_dropped_is_repeated_after_one_second_and_meets_the_other_side_then() {
    let mut lab = Lab::new([strict(Unsolicited::Drop); 2], CORE);
    let first = lab.connect(0, FULL_TTL);
    lab.wait(900);
    assert_eq!(lab.events(0), []);
    let second = lab.connect(1, FULL_TTL);
    lab.wait(1000);
    assert_eq!(lab.events(0), [TcpEvent::Connected(first)]);
    assert_eq!(lab.events(1), [TcpEvent::Connected(second)]);
}

#[test]
fn plain_connects_through_nats_that_answer_with_rst_are_refused_when_not_simultaneous() {
    let mut lab = Lab::new([strict(Unsolicited::Reset); 2], CORE);
    let first = lab.connect(0, FULL_TTL);
    lab.wait(60);
    assert_eq!(lab.events(0), [TcpEvent::Failed(first, ConnectFailure::Refused)]);
    let second = lab.connect(1, FULL_TTL);
    lab.wait(120);
    assert_eq!(lab.events(1), [TcpEvent::Failed(second, ConnectFailure::Refused)]);
}

#[test]
fn crossing_syns_within_the_one_way_delay_succeed_through_nats_that_answer_with_rst() {
    let mut lab = Lab::new([strict(Unsolicited::Reset); 2], CORE);
    let first = lab.connect(0, FULL_TTL);
    lab.wait(15);
    let second = lab.connect(1, FULL_TTL);
    lab.wait(200);
    assert_eq!(lab.events(0), [TcpEvent::Connected(first)]);
    assert_eq!(lab.events(1), [TcpEvent::Connected(second)]);
}

#[test]
fn an_opening_syn_lets_the_peer_in_through_nats_that_answer_with_rst() {
    let mut lab = Lab::new([strict(Unsolicited::Reset); 2], CORE);
    let first = lab.connect(0, 2);
    lab.wait(500);
    assert_eq!(lab.events(0), [], "the SYN dies silently, and its socket waits");
    let second = lab.connect(1, FULL_TTL);
    lab.wait(700);
    assert_eq!(lab.events(0), [TcpEvent::Connected(first)]);
    assert_eq!(lab.events(1), [TcpEvent::Connected(second)]);
}

#[test]
fn an_opening_syn_that_reaches_the_peer_s_router_is_refused() {
    let mut lab = Lab::new([strict(Unsolicited::Reset); 2], CORE);
    let first = lab.connect(0, 3);
    lab.wait(100);
    assert_eq!(lab.events(0), [TcpEvent::Failed(first, ConnectFailure::Refused)]);
}

#[test]
fn the_syn_ack_of_a_listener_behind_an_opening_syn_is_invalid() {
    let mut lab = Lab::new([strict(Unsolicited::Reset); 2], CORE);
    let opening = lab.connect(0, 2);
    lab.wait(10);
    // Without the socket that opened, the listener takes the SYN, with another number.
    lab.net.close(lab.hosts[0], opening);
    lab.connect(1, FULL_TTL);
    lab.wait(900);
    assert_eq!(lab.events(0), []);
    assert_eq!(lab.events(1), []);
}

#[test]
fn after_a_rst_a_router_lets_nothing_in_until_a_new_syn_goes_out() {
    let mut lab = Lab::new([strict(Unsolicited::Reset); 2], CORE);
    lab.connect(0, FULL_TTL);
    lab.wait(100);
    let refused = lab.connect(1, FULL_TTL);
    lab.wait(200);
    assert_eq!(lab.events(1), [TcpEvent::Failed(refused, ConnectFailure::Refused)]);
    lab.events(0);
    let first = lab.connect(0, 2);
    lab.wait(300);
    lab.connect(1, FULL_TTL);
    lab.wait(400);
    assert_eq!(lab.events(0), [TcpEvent::Connected(first)]);
}

#[test]
fn filtering_decides_who_may_come_in_by_a_mapping() {
    let cases = [
        (Filtering::EndpointIndependent, false, true),
        (Filtering::AddressDependent, false, false),
        (Filtering::AddressDependent, true, true),
        (Filtering::AddressAndPortDependent, true, false),
    ];
    for (filtering, contacted, comes_in) in cases {
        let behaviour = nat(MappingBehaviour::EndpointIndependent, filtering, Unsolicited::Drop);
        let mut lab = Lab::new([behaviour, strict(Unsolicited::Drop)], CORE);
        if contacted {
            lab.connect(0, 2);
        }
        let tuple = Tuple { local: addr("192.168.1.10:50000"), remote: lab.outer[0] };
        lab.net.connect(lab.hosts[1], tuple, FULL_TTL).unwrap();
        lab.wait(500);
        assert_eq!(lab.events(1) == [TcpEvent::Connected(tuple)], comes_in, "{filtering:?}, contacted: {contacted}");
    }
}

#[test]
fn mapping_decides_whether_two_servers_see_the_same_address() {
    let servers = [addr("192.0.2.1:3478"), addr("192.0.2.1:3479"), addr("192.0.2.2:3478")];
    let cases = [
        (MappingBehaviour::Identity, [true, true]),
        (MappingBehaviour::EndpointIndependent, [true, true]),
        (MappingBehaviour::AddressDependent, [true, false]),
        (MappingBehaviour::AddressAndPortDependent, [false, false]),
    ];
    for (mapping, same) in cases {
        let kind = nat(mapping, Filtering::EndpointIndependent, Unsolicited::Drop);
        let mut lab = Lab::new([kind, kind], CORE);
        let seen = servers.map(|server| lab.net.reflexive(lab.hosts[0], lab.bases[0], server).unwrap());
        assert_eq!([seen[0] == seen[1], seen[0] == seen[2]], same, "{mapping:?}");
    }
}

#[test]
fn an_opening_syn_must_pass_both_routers_of_a_carrier_grade_nat() {
    for (ttl, opens) in [(2, false), (3, true), (4, false)] {
        let mut net = Network::new(CORE, 7);
        let carrier = net.add_router(None, ip("198.51.100.2"), strict(Unsolicited::Reset), FIREWALL);
        let home = net.add_router(Some(carrier), ip("100.64.0.2"), strict(Unsolicited::Reset), FIREWALL);
        let inner = addr("192.168.1.10:4001");
        let behind = net.add_host(Some(home), &[inner.ip()], PORT);
        let other = net.add_router(None, ip("203.0.113.2"), strict(Unsolicited::Reset), FIREWALL);
        let peer = net.add_host(Some(other), &[inner.ip()], PORT);
        let outer = [behind, peer].map(|host| net.reflexive(host, inner, addr("192.0.2.1:3478")).unwrap());
        net.connect(behind, Tuple { local: inner, remote: outer[1] }, ttl).unwrap();
        net.advance(Duration::from_millis(100));
        let tuple = Tuple { local: inner, remote: outer[0] };
        net.connect(peer, tuple, FULL_TTL).unwrap();
        net.advance(Duration::from_millis(300));
        assert_eq!(net.poll_event(peer) == Some(TcpEvent::Connected(tuple)), opens, "TTL {ttl}");
    }
}

#[test]
fn two_hosts_behind_one_router_meet_by_its_outer_address_only_with_hairpinning() {
    for hairpin in [false, true] {
        let mut net = Network::new(CORE, 3);
        let kind = nat(MappingBehaviour::EndpointIndependent, Filtering::EndpointIndependent, Unsolicited::Drop);
        let kind = NatKind { hairpin, ..kind };
        let router = net.add_router(None, ip("198.51.100.2"), kind, FIREWALL);
        let bases = [addr("192.168.1.10:4001"), addr("192.168.1.11:4001")];
        let hosts = bases.map(|base| net.add_host(Some(router), &[base.ip()], PORT));
        let outer = net.reflexive(hosts[1], bases[1], addr("192.0.2.1:3478")).unwrap();
        let tuple = Tuple { local: bases[0], remote: outer };
        net.connect(hosts[0], tuple, FULL_TTL).unwrap();
        net.advance(Duration::from_millis(500));
        assert_eq!(net.poll_event(hosts[0]) == Some(TcpEvent::Connected(tuple)), hairpin);
    }
}

#[test]
fn a_stateful_firewall_of_ipv6_lets_crossing_syns_through() {
    let mut net = Network::new(CORE, 3);
    let bases = [addr("[2001:db8:1::10]:4001"), addr("[2001:db8:2::10]:4001")];
    let outer_ips = [ip("198.51.100.2"), ip("203.0.113.2")];
    let hosts = [0, 1].map(|side| {
        let router = net.add_router(None, outer_ips[side], FIREWALL, FIREWALL);
        net.add_host(Some(router), &[bases[side].ip()], PORT)
    });
    let tuples = [0, 1].map(|side| Tuple { local: bases[side], remote: bases[1 - side] });
    net.connect(hosts[0], tuples[0], FULL_TTL).unwrap();
    net.advance(Duration::from_millis(500));
    assert_eq!(net.poll_event(hosts[1]), None, "nothing comes in unasked");
    net.connect(hosts[1], tuples[1], FULL_TTL).unwrap();
    net.advance(Duration::from_millis(1500));
    assert_eq!(net.poll_event(hosts[0]), Some(TcpEvent::Connected(tuples[0])));
    assert_eq!(net.poll_event(hosts[1]), Some(TcpEvent::Connected(tuples[1])));
}

#[test]
fn a_mapped_port_leads_inside_and_a_port_filter_keeps_the_rest_in() {
    let closed = strict(Unsolicited::Reset);
    let mut lab = Lab::new([closed, closed.only_to_port(443)], CORE);
    let mapped = lab.net.forward_port(lab.hosts[0], lab.bases[0]);
    let tuple = Tuple { local: lab.bases[1], remote: mapped };
    lab.net.connect(lab.hosts[1], tuple, FULL_TTL).unwrap();
    lab.wait(100);
    assert_eq!(lab.events(1), [TcpEvent::Failed(tuple, ConnectFailure::Refused)]);
    let mut lab = Lab::new([closed; 2], CORE);
    let mapped = lab.net.forward_port(lab.hosts[0], lab.bases[0]);
    let tuple = Tuple { local: lab.bases[1], remote: mapped };
    lab.net.connect(lab.hosts[1], tuple, FULL_TTL).unwrap();
    lab.wait(200);
    assert_eq!(lab.events(1), [TcpEvent::Connected(tuple)]);
    assert!(matches!(lab.events(0)[..], [TcpEvent::Accepted(_)]));
}

#[test]
fn a_stream_arrives_whole_and_in_order_in_spite_of_loss_and_reordering() {
    for seed in 0..50 {
        let core = Core { jitter: Duration::from_millis(30), loss_one_in: 5, ..CORE };
        let mut net = Network::new(core, seed);
        let bases = [addr("192.0.2.10:4001"), addr("192.0.2.11:4001")];
        let hosts = bases.map(|base| net.add_host(None, &[base.ip()], PORT));
        let tuple = Tuple { local: bases[0], remote: bases[1] };
        net.connect(hosts[0], tuple, FULL_TTL).unwrap();
        for part in 0..10 {
            net.write(hosts[0], tuple, &[part; 3]);
            net.advance(Duration::from_millis(20 * u64::from(part)));
        }
        net.advance(Duration::from_secs(30));
        net.close(hosts[0], tuple);
        net.advance(Duration::from_secs(300));
        let mut bytes = Vec::new();
        let mut closed = 0;
        while let Some(event) = net.poll_event(hosts[1]) {
            match event {
                TcpEvent::Bytes(_, more) => bytes.extend(more),
                TcpEvent::Closed(_) => closed += 1,
                _ => {}
            }
        }
        let expected: Vec<u8> = (0..10).flat_map(|part| [part; 3]).collect();
        assert_eq!((bytes, closed), (expected, 1), "seed {seed}");
    }
}
