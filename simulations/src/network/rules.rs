//! What routers do to packets, as texts for nftables. The outer interface is `wan`, all others are inside.
//!
//! | behaviour (RFC 4787, RFC 5382)        | how                                                                             |
//! |---------------------------------------|---------------------------------------------------------------------------------|
//! | endpoint-independent mapping          | `masquerade`: the port is kept                                                  |
//! | address-and-port-dependent mapping    | `masquerade random,fully-random`: a port for each connection                    |
//! | address-and-port-dependent filtering  | connection tracking alone                                                       |
//! | endpoint-independent filtering        | what goes out writes a map of ports; what comes in by such a port goes to its host |
//! | address-dependent filtering           | the same, for addresses that the port has sent to                               |
//! | hairpinning                           | the same map for what comes from inside, with the public address as its source  |
//!
//! What it is not: addresses or interfaces; those are of `line` and `Network`.

use std::net::Ipv4Addr;

/// How a NAT chooses the port of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// One for each port inside.
    EndpointIndependent,
    /// A new one for each connection.
    AddressAndPortDependent,
}

/// Whom a NAT lets in by a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filtering {
    /// Everybody.
    EndpointIndependent,
    /// Addresses that were sent to.
    AddressDependent,
    /// Addresses and ports that were sent to.
    AddressAndPortDependent,
}

/// What a router does with what it lets not in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing.
    Drop,
    /// It answers a SYN with RST.
    Reset,
    /// It answers with ICMPv6 “administratively prohibited”.
    Prohibited,
}

/// A NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nat<'a> {
    /// How it chooses ports.
    pub(crate) mapping: Mapping,
    /// Whom it lets in.
    pub(crate) filtering: Filtering,
    /// How it answers those whom it does not let in.
    pub(crate) refusal: Refusal,
    /// Whether hosts inside reach each other by the public address, given here.
    pub(super) hairpin: Option<Ipv4Addr>,
    /// The ports that connections may go out to; empty where all may.
    pub(crate) outward_ports: &'a [u16],
    /// How long a mapping without packets is kept, in seconds.
    pub(crate) lifetime_seconds: u64,
    /// Whether miniupnpd keeps chains in it.
    pub(crate) upnp: bool,
}

impl Nat<'_> {
    /// The rules for `nft -f`.
    pub(super) fn rules(&self) -> String {
        let mut rules = firewall(self.refusal, self.outward_ports);
        rules += &self.translation();
        if self.upnp {
            rules += CHAINS_OF_MINIUPNPD;
        }
        rules
    }

    fn translation(&self) -> String {
        let masquerade = match self.mapping {
            Mapping::EndpointIndependent => "masquerade",
            Mapping::AddressAndPortDependent => "masquerade random,fully-random",
        };
        let (learned, admitted) = match self.filtering {
            Filtering::AddressAndPortDependent => {
                return format!("table ip nat {{\n{}}}\n", postrouting(masquerade, ""));
            }
            Filtering::EndpointIndependent => ("", ""),
            Filtering::AddressDependent => {
                (" update @contacted { tcp sport . ip daddr }", "tcp dport . ip saddr @contacted ")
            }
        };
        let (hairpin_in, hairpin_out) = match self.hairpin {
            None => (String::new(), String::new()),
            Some(public) => (
                format!("    iifname != \"wan\" ip daddr {public} dnat ip to tcp dport map @mappings\n"),
                format!(
                    "    oifname != \"wan\" ct status dnat ct original ip daddr {public} iifname != \"wan\" snat to {public}\n"
                ),
            ),
        };
        let lifetime = self.lifetime_seconds;
        format!(
            "table ip nat {{
  map mappings {{ type inet_service : ipv4_addr . inet_service; size 65536; flags dynamic,timeout; timeout {lifetime}s; }}
  set contacted {{ type inet_service . ipv4_addr; size 65536; flags dynamic,timeout; timeout {lifetime}s; }}
  chain learn {{
    type filter hook postrouting priority srcnat - 10;
    iifname != \"wan\" oifname \"wan\" meta l4proto tcp update @mappings {{ tcp sport : ip saddr . tcp sport }}{learned}
  }}
  chain inward {{
    type nat hook prerouting priority dstnat;
    iifname \"wan\" {admitted}dnat ip to tcp dport map @mappings
{hairpin_in}  }}
{}}}
",
            postrouting(masquerade, &hairpin_out)
        )
    }
}

/// The rules of a firewall that lets in only what was asked for from inside.
pub(super) fn firewall(refusal: Refusal, outward_ports: &[u16]) -> String {
    let refuse = match refusal {
        Refusal::Drop => "drop",
        Refusal::Reset => "meta l4proto tcp reject with tcp reset",
        Refusal::Prohibited => "reject with icmpv6 type admin-prohibited",
    };
    let ports: Vec<String> = outward_ports.iter().map(u16::to_string).collect();
    let outward = match ports.is_empty() {
        true => String::new(),
        false => format!("    oifname \"wan\" ct state new tcp dport != {{ {} }} drop\n", ports.join(", ")),
    };
    // Neighbour discovery and errors of IPv6 have to pass (RFC 4890); TUN devices need no more of it.
    format!(
        "table inet firewall {{
  chain own {{
    type filter hook input priority filter;
    iifname \"wan\" ct state established,related accept
    iifname \"wan\" {refuse}
    iifname \"wan\" drop
  }}
  chain through {{
    type filter hook forward priority filter;
{outward}    iifname \"wan\" ct state established,related accept
    iifname \"wan\" ct status dnat accept
    iifname \"wan\" {refuse}
    iifname \"wan\" drop
  }}
}}
"
    )
}

fn postrouting(masquerade: &str, more: &str) -> String {
    format!(
        "  chain outward {{
    type nat hook postrouting priority srcnat;
    oifname \"wan\" {masquerade}
{more}  }}
"
    )
}

/// The chains that miniupnpd writes to, by its default names.
const CHAINS_OF_MINIUPNPD: &str = "table inet filter {
  chain forward { type filter hook forward priority filter; jump miniupnpd; }
  chain miniupnpd { }
  chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }
  chain postrouting { type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
}
";

/// The settings of miniupnpd for a router whose inside is `lan`.
pub(super) fn miniupnpd_conf() -> &'static str {
    "ext_ifname=wan
listening_ip=lan
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
system_uptime=yes
notify_interval=60
uuid=00000000-0000-4000-8000-000000000001
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
allow 1024-65535 192.168.1.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Nat<'_> = Nat {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressAndPortDependent,
        refusal: Refusal::Drop,
        hairpin: None,
        outward_ports: &[],
        lifetime_seconds: 600,
        upnp: false,
    };

    #[test]
    fn a_plain_home_keeps_ports_and_relies_on_connection_tracking() {
        let rules = HOME.rules();
        assert!(rules.contains("    oifname \"wan\" masquerade\n"), "{rules}");
        assert!(!rules.contains("dnat ip to") && !rules.contains("reset") && !rules.contains("443"), "{rules}");
    }

    #[test]
    fn each_behaviour_has_its_rule() {
        let symmetric = Nat { mapping: Mapping::AddressAndPortDependent, refusal: Refusal::Reset, ..HOME };
        assert!(symmetric.rules().contains("masquerade random,fully-random"));
        assert_eq!(symmetric.rules().matches("reject with tcp reset").count(), 2);
        let adf = Nat { filtering: Filtering::AddressDependent, ..HOME }.rules();
        assert!(adf.contains("tcp dport . ip saddr @contacted dnat"), "{adf}");
        let eif = Nat { filtering: Filtering::EndpointIndependent, ..HOME }.rules();
        assert!(eif.contains("iifname \"wan\" dnat ip to tcp dport map @mappings"), "{eif}");
        assert!(Nat { outward_ports: &[80, 443], ..HOME }.rules().contains("tcp dport != { 80, 443 } drop"));
        assert!(Nat { upnp: true, ..HOME }.rules().contains("chain prerouting_miniupnpd"));
    }

    #[test]
    fn braces_match() {
        let all = Nat {
            filtering: Filtering::AddressDependent,
            hairpin: Some(Ipv4Addr::new(198, 51, 100, 2)),
            outward_ports: &[443],
            upnp: true,
            ..HOME
        };
        for rules in [all.rules(), firewall(Refusal::Prohibited, &[])] {
            assert_eq!(rules.matches('{').count(), rules.matches('}').count(), "{rules}");
        }
    }
}
