//! What the facts amount to: how others reach this node, why, and what to do about it.
//!
//! What it is not: a promise. It says what should work, from what has been seen.

use std::net::{IpAddr, SocketAddr};

use crate::{
    node::api::{FamilyInfo, FilteringInfo, Finding, MappingInfo, PortMappingInfo, Reach, Verdict},
    reach::rendezvous::AddressScope,
};

/// Judges the facts, the best way in first.
pub(super) fn verdict(
    listen: &[SocketAddr],
    ipv4: &FamilyInfo,
    ipv6: &FamilyInfo,
    router: &PortMappingInfo,
) -> Verdict {
    direct(ipv4, ipv6, router)
        .or_else(|| punching(listen, ipv4, ipv6, router))
        .unwrap_or_else(|| outside_unknown(listen, ipv4, ipv6))
}

fn direct(ipv4: &FamilyInfo, ipv6: &FamilyInfo, router: &PortMappingInfo) -> Option<Verdict> {
    let direct = |because: String| Some(Verdict { reach: Reach::Direct, because, advice: Vec::new() });
    if let (Some(external), Some(by)) = (router.external, &router.by)
        && is_public(external.ip())
    {
        let agrees = ipv4.seen.is_empty() || ipv4.seen.iter().any(|seen| seen.addr.ip() == external.ip());
        if agrees {
            return direct(format!("the router has mapped {external} to this node ({by})"));
        }
    }
    let confirmed = |family: &FamilyInfo| {
        let own = family.confirmed.iter().find(|addr| family.own_public.contains(&addr.ip()));
        own.map(|addr| format!("hosts outside got in at {addr}, an address of this machine"))
    };
    if let Some(because) = confirmed(ipv4).or_else(|| confirmed(ipv6)) {
        return direct(because);
    }
    None
}

fn punching(listen: &[SocketAddr], ipv4: &FamilyInfo, ipv6: &FamilyInfo, router: &PortMappingInfo) -> Option<Verdict> {
    let verdict = |reach, because: &str| {
        let advice = advice(listen, router, ipv4.nat == Finding::Yes);
        Some(Verdict { reach, because: because.to_owned(), advice })
    };
    let predictable = |family: &FamilyInfo| {
        family.mapping == MappingInfo::EndpointIndependent || family.nat == Finding::No && !family.seen.is_empty()
    };
    if predictable(ipv4) {
        return match (ipv4.nat, ipv4.filtering) {
            (Finding::No, _) => verdict(
                Reach::HolePunching,
                "this machine has a public IPv4 address, and no host outside is known to have got in: a firewall may be \
                 in the way",
            ),
            (_, FilteringInfo::ContactedHosts) => verdict(
                Reach::HolePunching,
                "the router shows everyone the same address, and lets in whom this node has contacted",
            ),
            _ => verdict(Reach::HolePunching, "the router shows everyone the same address"),
        };
    }
    if !ipv6.own_public.is_empty() && !ipv6.seen.is_empty() {
        return verdict(
            Reach::HolePunching,
            "this machine has a public IPv6 address; peers without IPv6 may need a relay",
        );
    }
    if ipv4.mapping == MappingInfo::EndpointDependent {
        return verdict(
            Reach::HolePunchingWithSome,
            "the router shows each host another port, so that nobody can tell where to connect",
        );
    }
    None
}

fn outside_unknown(listen: &[SocketAddr], ipv4: &FamilyInfo, ipv6: &FamilyInfo) -> Verdict {
    if !listen.is_empty() && listen.iter().all(|addr| addr.ip().is_loopback()) {
        return Verdict {
            reach: Reach::LocalOnly,
            because: "the node listens on this machine's loopback address only".to_owned(),
            advice: vec!["start it without --listen, or with --listen 4600".to_owned()],
        };
    }
    let because = match ipv4.seen.len() + ipv6.seen.len() {
        0 => "no host outside has said from where this node's connections come",
        _ => "one host outside is not enough to tell how the router maps",
    };
    let advice = vec![
        "name a node that can be reached from everywhere with --bootstrap /ip4/ADDRESS/tcp/PORT".to_owned(),
        "name two STUN servers that speak TCP with --stun HOST:PORT".to_owned(),
    ];
    Verdict { reach: Reach::NotKnown, because: because.to_owned(), advice }
}

/// What would let everybody in.
fn advice(listen: &[SocketAddr], router: &PortMappingInfo, behind_nat: bool) -> Vec<String> {
    let port = listen.first().map_or(0, SocketAddr::port);
    let mut advice = Vec::new();
    match router.external {
        Some(external) if is_public(external.ip()) => advice.push(format!(
            "the router maps {external}, but hosts outside see another address: a second router is before it; ask the \
             provider for a public address, or make the second router forward the port too"
        )),
        Some(external) => advice.push(format!(
            "the router's own outer address {} is private: the provider, or a second router, is before it; ask for a \
             public address, or use IPv6",
            external.ip()
        )),
        None if behind_nat => {
            if router.asked && router.protocols.is_empty() {
                advice.push("switch on UPnP or PCP at the router, so that it maps a port by itself".to_owned());
            }
            if !router.asked {
                advice.push("leave out --no-port-mapping, so that the router can be asked for a port".to_owned());
            }
            advice.push(format!("or forward TCP port {port} at the router to this machine"));
        }
        None => advice.push(format!("let TCP port {port} through the firewall of this machine and of its network")),
    }
    advice
}

fn is_public(ip: IpAddr) -> bool {
    AddressScope::of_ip(ip) == Some(AddressScope::Wan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::api::SeenAddr;

    const EVERYWHERE: &str = "0.0.0.0:4600";

    fn behind_nat(mapping: MappingInfo) -> FamilyInfo {
        let seen = vec![SeenAddr { addr: "198.51.100.9:700".parse().unwrap(), seen_by: 2 }];
        FamilyInfo { seen, nat: Finding::Yes, mapping, ..FamilyInfo::default() }
    }

    fn mapped(external: &str) -> PortMappingInfo {
        PortMappingInfo {
            asked: true,
            protocols: vec!["PCP".to_owned()],
            by: Some("PCP".to_owned()),
            external: Some(external.parse().unwrap()),
            reason: None,
        }
    }

    fn judge(ipv4: &FamilyInfo, ipv6: &FamilyInfo, router: &PortMappingInfo) -> Verdict {
        verdict(&[EVERYWHERE.parse().unwrap()], ipv4, ipv6, router)
    }

    #[test]
    fn a_mapped_port_or_a_confirmed_own_address_is_direct() {
        let nat = behind_nat(MappingInfo::EndpointDependent);
        let by_router = judge(&nat, &FamilyInfo::default(), &mapped("198.51.100.9:4600"));
        assert_eq!(by_router.reach, Reach::Direct);
        let public = FamilyInfo {
            own_public: vec!["2001:db8::7".parse().unwrap()],
            confirmed: vec!["[2001:db8::7]:4600".parse().unwrap()],
            ..FamilyInfo::default()
        };
        let by_ipv6 = judge(&nat, &public, &PortMappingInfo::default());
        assert_eq!(by_ipv6.reach, Reach::Direct);
        assert!(by_ipv6.because.contains("[2001:db8::7]:4600"), "{}", by_ipv6.because);
    }

    #[test]
    fn a_port_mapped_by_a_router_that_is_behind_another_is_not_direct() {
        let nat = behind_nat(MappingInfo::EndpointIndependent);
        for (external, word) in [("100.64.3.4:4600", "private"), ("203.0.113.5:4600", "second router")] {
            let verdict = judge(&nat, &FamilyInfo::default(), &mapped(external));
            assert_eq!(verdict.reach, Reach::HolePunching);
            assert!(verdict.advice[0].contains(word), "{:?}", verdict.advice);
        }
    }

    #[test]
    fn an_address_confirmed_behind_a_nat_is_not_called_direct() {
        let nat = FamilyInfo {
            confirmed: vec!["198.51.100.9:700".parse().unwrap()],
            filtering: FilteringInfo::ContactedHosts,
            ..behind_nat(MappingInfo::EndpointIndependent)
        };
        let verdict = judge(&nat, &FamilyInfo::default(), &PortMappingInfo::default());
        assert_eq!(verdict.reach, Reach::HolePunching, "hosts that this node has contacted prove no more");
    }

    #[test]
    fn a_port_for_each_destination_works_with_some_and_says_what_to_do() {
        let nat = behind_nat(MappingInfo::EndpointDependent);
        let verdict = judge(&nat, &FamilyInfo::default(), &PortMappingInfo { asked: true, ..Default::default() });
        assert_eq!(verdict.reach, Reach::HolePunchingWithSome);
        assert!(verdict.advice.iter().any(|advice| advice.contains("UPnP")), "{:?}", verdict.advice);
        assert!(verdict.advice.iter().any(|advice| advice.contains("4600")), "{:?}", verdict.advice);
    }

    #[test]
    fn what_nobody_has_told_is_not_known() {
        let nothing = FamilyInfo::default();
        assert_eq!(judge(&nothing, &nothing, &PortMappingInfo::default()).reach, Reach::NotKnown);
        let one = FamilyInfo { nat: Finding::Yes, ..behind_nat(MappingInfo::Unknown) };
        let verdict = judge(&one, &nothing, &PortMappingInfo::default());
        assert_eq!(verdict.reach, Reach::NotKnown);
        assert!(verdict.because.contains("not enough"), "{}", verdict.because);
    }

    #[test]
    fn a_node_on_loopback_is_local() {
        let nothing = FamilyInfo::default();
        let loopback = ["127.0.0.1:4600".parse().unwrap()];
        assert_eq!(verdict(&loopback, &nothing, &nothing, &PortMappingInfo::default()).reach, Reach::LocalOnly);
    }
}
