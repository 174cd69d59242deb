//! What `doctor` has found, in words: one line for each fact, then what it amounts to.
//!
//! What it is not: the judgement (`keyferry::node`).

use std::{fmt::Write as _, net::IpAddr};

use keyferry::control::{
    ClockSkew, Diagnosis, FamilyInfo, FilteringInfo, Finding, MappingInfo, PortMappingInfo, Reach, StunInfo, TurnInfo,
    Verdict,
};

use super::path::turn_text;
use crate::text::{plural, safe};

/// The whole report.
pub(super) fn diagnosis_text(found: &Diagnosis) -> String {
    let mut text = String::new();
    let mut row = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<12} {value}");
    };
    for interface in &found.interfaces {
        row("interface", format!("{}: {}", safe(&interface.name), joined(&interface.addrs)));
    }
    found.listen.iter().for_each(|addr| row("listening", addr.to_string()));
    for (label, family) in [("IPv4", &found.ipv4), ("IPv6", &found.ipv6)] {
        family_lines(family, label == "IPv4").into_iter().for_each(|line| row(label, line));
    }
    row("router", router_text(&found.port_mapping));
    row("hairpin", hairpin_text(found.hairpin).to_owned());
    found.stun.iter().for_each(|server| row("STUN", stun_text(server)));
    turn_lines(found.turn.as_deref()).into_iter().for_each(|line| row("relay", line));
    row("opening SYN", if found.opening_syn { "can be sent" } else { "this system cannot send it" }.to_owned());
    row("clock", clock_text(found.clock));
    let (wide, local) = (plural(found.wan_peers, "node", "nodes"), plural(found.lan_peers, "node", "nodes"));
    row("DHT", format!("{wide} wide, {local} local"));
    text.push('\n');
    text.push_str(&verdict_text(&found.verdict));
    text
}

fn family_lines(family: &FamilyInfo, is_ipv4: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if !family.own_public.is_empty() {
        lines.push(format!("public addresses of this machine: {}", joined(&family.own_public)));
    }
    for seen in &family.seen {
        lines.push(format!("seen from outside as {} by {}", seen.addr, plural(seen.seen_by as u64, "host", "hosts")));
    }
    family.confirmed.iter().for_each(|addr| lines.push(format!("hosts outside got in at {addr}")));
    if lines.is_empty() && !is_ipv4 {
        return vec!["no public address".to_owned()];
    }
    if lines.is_empty() {
        return vec!["nobody outside has seen this node".to_owned()];
    }
    lines.push(nat_text(family.nat).to_owned());
    if family.nat != Finding::No {
        lines.push(mapping_text(family.mapping).to_owned());
    }
    lines.push(filtering_text(family.filtering).to_owned());
    lines
}

fn nat_text(nat: Finding) -> &'static str {
    match nat {
        Finding::Yes => "there is a NAT",
        Finding::No => "there is no NAT",
        Finding::NotKnown => "whether there is a NAT is not known",
    }
}

fn mapping_text(mapping: MappingInfo) -> &'static str {
    match mapping {
        MappingInfo::EndpointIndependent => "mapping: one port for everyone (endpoint-independent)",
        MappingInfo::EndpointDependent => "mapping: another port for each host (endpoint-dependent)",
        MappingInfo::Unknown => "mapping: not known; two hosts outside have to tell",
    }
}

fn filtering_text(filtering: FilteringInfo) -> &'static str {
    match filtering {
        FilteringInfo::ContactedHosts => {
            "filtering: hosts that this node has contacted get in (address-dependent, or none at all)"
        }
        FilteringInfo::ContactedPorts => "filtering: only answers get in (address- and port-dependent, or a firewall)",
        FilteringInfo::NotKnown => "filtering: not known; nobody outside has tried to get in",
    }
}

fn router_text(router: &PortMappingInfo) -> String {
    if !router.asked {
        return "not asked to map a port (--no-port-mapping)".to_owned();
    }
    let spoken = if router.protocols.is_empty() {
        String::new()
    } else {
        format!("; it speaks {}", router.protocols.join(", "))
    };
    match (&router.external, &router.by, &router.reason) {
        (Some(external), Some(by), _) => format!("maps {external} to this node by {}{spoken}", safe(by)),
        (_, _, Some(reason)) => format!("maps no port: {}{spoken}", safe(reason)),
        _ => format!("maps no port{spoken}"),
    }
}

fn hairpin_text(hairpin: Finding) -> &'static str {
    match hairpin {
        Finding::Yes => "works: this node reaches itself by its outer address",
        Finding::No => "does not work: this node does not reach itself by its outer address",
        Finding::NotKnown => "not known; no outer address behind a NAT is known",
    }
}

fn stun_text(server: &StunInfo) -> String {
    let name = safe(&server.server);
    match (&server.mapped, &server.took_ms, &server.reason) {
        (Some(mapped), Some(took), _) => format!("{name} saw {mapped}, after {took} ms"),
        (_, _, Some(reason)) => format!("{name}: {}", safe(reason)),
        _ => format!("{name}: no answer"),
    }
}

fn clock_text(clock: Option<ClockSkew>) -> String {
    clock.map_or_else(|| "not compared: no peer has told its own".to_owned(), |skew| skew.to_string())
}

fn turn_lines(relays: Option<&[TurnInfo]>) -> Vec<String> {
    match relays {
        None => vec!["none is used (--no-relay)".to_owned()],
        Some([]) => vec!["none is known; --turn names one".to_owned()],
        Some(relays) => relays.iter().map(turn_text).collect(),
    }
}

fn verdict_text(verdict: &Verdict) -> String {
    let how = match verdict.reach {
        Reach::Direct => "Others can reach you directly",
        Reach::HolePunching => "Others can reach you by hole punching",
        Reach::HolePunchingWithSome => {
            "Others can reach you by hole punching if their own router lets them, and only by a relay if not"
        }
        Reach::LocalOnly => "Others cannot reach you",
        Reach::NotKnown => "Whether others can reach you is not known",
    };
    let mut text = format!("{how}, because {}.\n", safe(&verdict.because));
    for advice in &verdict.advice {
        let _ = writeln!(text, "  try: {}", safe(advice));
    }
    text
}

fn joined(addrs: &[IpAddr]) -> String {
    addrs.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}
