//! Lines of shell that set places up, in which `@` begins the name of a place (see [`super::namespaces::Namespaces::script`]).
//!
//! What it is not: what is set up where; that is `Network`'s.

use std::{
    fmt::{Display, Write as _},
    net::IpAddr,
};

use super::{
    line::Line,
    site::{Ipv4, Ipv6, Properties},
};

pub(super) fn new_place(place: &str) -> String {
    format!("add_place @{place}\nip -n @{place} link set lo up\n")
}

pub(super) fn forwarding(place: &str) -> String {
    format!("ip netns exec @{place} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n")
}

/// How routers treat connections. The settings are there once rules that track connections are.
pub(super) fn tracking(place: &str, properties: &Properties) -> String {
    let (lifetime, loose) = (properties.forgets_after.as_secs().max(1), u8::from(properties.picks_up));
    format!(
        "ip netns exec @{place} sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_established={lifetime} \
         net.netfilter.nf_conntrack_tcp_loose={loose}\n"
    )
}

/// Two ends of a cable, both up.
pub(super) fn cable(place: &str, device: &str, other: &str, other_device: &str) -> String {
    format!(
        "ip link add {device} netns @{place} type veth peer name {other_device} netns @{other}
ip -n @{place} link set {device} up
ip -n @{other} link set {other_device} up
"
    )
}

/// A switch, to which the ends of cables are added.
pub(super) fn switch(place: &str, device: &str) -> String {
    format!("ip link add {device} netns @{place} type bridge\nip -n @{place} link set {device} up\n")
}

pub(super) fn join_switch(place: &str, device: &str, switch: &str) -> String {
    format!("ip -n @{place} link set {device} master {switch}\n")
}

pub(super) fn addr(place: &str, device: &str, addr: impl Display) -> String {
    format!("ip -n @{place} addr add {addr} dev {device}\n")
}

pub(super) fn without_addr(place: &str, device: &str, addr: impl Display) -> String {
    format!("ip -n @{place} addr del {addr} dev {device}\n")
}

pub(super) fn default_route(place: &str, gateway: IpAddr, device: &str) -> String {
    let family = if gateway.is_ipv4() { "-4" } else { "-6" };
    format!("ip -n @{place} {family} route replace default via {gateway} dev {device}\n")
}

/// The outer end of a line in a place, with the addresses that the site has there.
pub(super) fn wan(place: &str, line: &Line, properties: &Properties, with_v4: bool) -> String {
    let mut script = String::new();
    let with_v4 = with_v4 && properties.ipv4 != Ipv4::None;
    let with_v6 = properties.ipv6 != Ipv6::None;
    if with_v4 {
        script += &addr(place, "wan", format_args!("{}/{}", line.v4, line.v4_prefix));
    }
    if with_v6 {
        script += &addr(place, "wan", format_args!("{}/64 nodad", line.v6));
    }
    let _ = writeln!(script, "ip -n @{place} link set wan mtu {} up", properties.mtu);
    if with_v4 {
        script += &default_route(place, line.edge.v4.into(), "wan");
    }
    if with_v6 {
        script += &default_route(place, line.edge.v6.into(), "wan");
    }
    script
}

/// Has a router carry packets between its inner devices itself, where there is no switch.
pub(super) fn routed_inside(place: &str, device: &str) -> String {
    format!(
        "ip netns exec @{place} sysctl -qw net.ipv4.conf.{device}.proxy_arp=1 net.ipv4.neigh.{device}.proxy_delay=0 \
         net.ipv4.conf.{device}.send_redirects=0\n"
    )
}
