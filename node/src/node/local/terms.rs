//! What a command requires of the network of the node that carries it out, and whether a node that runs already meets it.
//!
//! A running node takes none of it over. So an option passes if the node was started with the same, and a command with any other
//! is refused: else `--relay-only` would be ignored, and show the address that it is to hide.
//!
//! What it is not: reading the command line, or starting a node with these options.

use std::net::SocketAddr;

use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::{
    base::{data_dir::AdmissionPolicy, secret_text::SecretText},
    net::path::RelayMode,
    node::{
        api::{Failure, FailureKind},
        config::NodeConfig,
    },
    reach::gather::StunServer,
};

/// The network options that a command was given. What was not given is empty, and may be anything.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkTerms {
    /// `--listen`: exactly these.
    pub listen: Vec<SocketAddr>,
    /// `--bootstrap`: these among others.
    pub bootstrap: Vec<Multiaddr>,
    /// `--public`.
    pub public: bool,
    /// `--no-mdns`.
    pub no_mdns: bool,
    /// `--stun`: these among others.
    pub stun: Vec<StunServer>,
    /// `--no-port-mapping`.
    pub no_port_mapping: bool,
    /// `--calls`.
    pub calls: Option<AdmissionPolicy>,
    /// `--turn`: these among others.
    pub turn: Vec<SecretText>,
    /// `--turn-proxy`.
    pub turn_proxy: Option<SecretText>,
    /// `--relay-only`.
    pub relay_only: bool,
    /// `--no-relay`.
    pub no_relay: bool,
}

impl NetworkTerms {
    /// Whether there is nothing that a node would have to meet.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Finds that a node that was started with `config` is as required.
    pub(super) fn met_by(&self, config: &NodeConfig) -> Result<(), Failure> {
        let unmet = self.unmet(config);
        if unmet.is_empty() {
            return Ok(());
        }
        let variables: Vec<_> =
            unmet.iter().map(|option| format!("KEYFERRY_{}", option[2..].replace('-', "_").to_uppercase())).collect();
        let (options, variables) = (unmet.join(", "), variables.join(", "));
        let what =
            format!("the node that runs on this data folder was started otherwise, and does not take over {options}");
        let advice = format!(
            "the command without it (it may come from {variables} in the environment), or stop that node and start it with \
             {options}, or use another --home"
        );
        Err(Failure::new(FailureKind::Usage, what).try_to(advice))
    }

    /// The options that the node does not have. By name alone: the values may be secret.
    fn unmet(&self, config: &NodeConfig) -> Vec<&'static str> {
        let contain = |all: &[SecretText], some: &[SecretText]| some.iter().all(|one| all.contains(one));
        let same = |one: &[SocketAddr], other: &[SocketAddr]| {
            one.iter().all(|addr| other.contains(addr)) && other.iter().all(|addr| one.contains(addr))
        };
        [
            ("--listen", self.listen.is_empty() || same(&self.listen, &config.listen)),
            ("--bootstrap", self.bootstrap.iter().all(|addr| config.bootstrap.contains(addr))),
            ("--public", !self.public || config.public),
            ("--no-mdns", !self.no_mdns || !config.mdns),
            ("--stun", self.stun.iter().all(|server| config.stun.contains(server))),
            ("--no-port-mapping", !self.no_port_mapping || !config.port_mapping),
            ("--calls", self.calls.is_none_or(|calls| calls == config.calls)),
            ("--turn", contain(&config.turn, &self.turn)),
            ("--turn-proxy", self.turn_proxy.is_none() || self.turn_proxy == config.turn_proxy),
            ("--relay-only", !self.relay_only || config.relay_mode == RelayMode::RelayOnly),
            ("--no-relay", !self.no_relay || config.relay_mode == RelayMode::NoRelay),
        ]
        .into_iter()
        .filter_map(|(option, met)| (!met).then_some(option))
        .collect()
    }
}

impl std::fmt::Debug for NetworkTerms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NetworkTerms").field(&self.unmet(&NodeConfig::default())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every option at once.
    fn all() -> NetworkTerms {
        NetworkTerms {
            listen: vec!["127.0.0.1:4600".parse().unwrap()],
            bootstrap: vec!["/ip4/192.0.2.1/tcp/1".parse().unwrap()],
            public: true,
            no_mdns: true,
            stun: vec!["192.0.2.1:3478".parse().unwrap()],
            no_port_mapping: true,
            calls: Some(AdmissionPolicy::Contacts),
            turn: vec!["turn:ada:lovelace@192.0.2.1".into()],
            turn_proxy: Some("http://ada:lovelace@192.0.2.2:3128".into()),
            relay_only: true,
            no_relay: true,
        }
    }

    /// A node of which every option says otherwise.
    fn other() -> NodeConfig {
        NodeConfig { mdns: true, port_mapping: true, ..NodeConfig::default() }
    }

    #[test]
    fn each_option_that_the_node_does_not_have_is_named_and_no_value() {
        let failure = all().met_by(&other()).unwrap_err();
        assert_eq!((failure.kind.exit_code(), failure.message.lines().count()), (2, 1));
        let advice = failure.advice.unwrap();
        let options = ["listen", "bootstrap", "public", "no-mdns", "stun", "no-port-mapping", "calls", "turn"];
        for option in options.into_iter().chain(["turn-proxy", "relay-only", "no-relay"]) {
            assert!(failure.message.contains(&format!("--{option}")), "{option}: {}", failure.message);
            let variable = format!("KEYFERRY_{}", option.replace('-', "_").to_uppercase());
            assert!(advice.contains(&variable), "{variable}: {advice}");
        }
        let told = format!("{} {advice} {:?}", failure.message, all());
        assert!(!told.contains("lovelace"), "{told}");
    }

    #[test]
    fn what_was_not_given_may_be_anything() {
        assert!(NetworkTerms::default().is_empty() && !all().is_empty());
        let hidden = NodeConfig { relay_mode: RelayMode::RelayOnly, public: true, ..other() };
        for config in [NodeConfig::default(), other(), hidden] {
            NetworkTerms::default().met_by(&config).unwrap();
        }
    }

    #[test]
    fn options_that_the_node_was_started_with_are_met_also_among_others() {
        let given = NetworkTerms { no_relay: false, ..all() };
        let config = NodeConfig {
            listen: given.listen.clone(),
            bootstrap: [vec!["/ip4/192.0.2.9/tcp/9".parse().unwrap()], given.bootstrap.clone()].concat(),
            public: true,
            mdns: false,
            stun: [given.stun.clone(), vec!["192.0.2.9".parse().unwrap()]].concat(),
            port_mapping: false,
            calls: AdmissionPolicy::Contacts,
            turn: [given.turn.clone(), vec!["turn:c:d@192.0.2.9".into()]].concat(),
            turn_proxy: given.turn_proxy.clone(),
            relay_mode: RelayMode::RelayOnly,
            ..NodeConfig::default()
        };
        given.met_by(&config).unwrap();
        let wider = NodeConfig { listen: vec!["0.0.0.0:4600".parse().unwrap(), given.listen[0]], ..config.clone() };
        assert_eq!(given.unmet(&wider), ["--listen"], "whoever wants one address does not want another");
        let calls = NetworkTerms { calls: Some(AdmissionPolicy::Everyone), ..NetworkTerms::default() };
        assert_eq!(calls.unmet(&config), ["--calls"]);
    }
}
