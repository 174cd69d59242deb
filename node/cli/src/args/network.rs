//! Options for taking part in the network: where to listen, whom to know, which relays to use.
//!
//! What it is not: options for relaying for others (`relay`).

use std::{net::SocketAddr, path::PathBuf};

use clap::{ArgAction, Args, ValueHint, builder::FalseyValueParser};
use keyferry::Multiaddr;

use keyferry::{
    config::{AdmissionPolicy, RelayMode, SecretText, StunServer},
    control::{Failure, NetworkTerms},
};

/// How to take part in the network.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Network options (a node that runs already must have been started with them)")]
pub struct NetworkOptions {
    /// Listen on this address and port, such as 0.0.0.0:41414; a port alone means all of IPv4 and IPv6. May be repeated.
    #[arg(long, env = "KEYFERRY_LISTEN", value_name = "ADDR", value_delimiter = ',', value_parser = parse_listen)]
    pub listen: Vec<Listen>,
    /// A node to enter the network through, such as /ip4/192.0.2.1/tcp/41414. May be repeated.
    #[arg(long, env = "KEYFERRY_BOOTSTRAP", value_name = "MULTIADDR", value_delimiter = ',', value_parser = parse_multiaddr)]
    pub bootstrap: Vec<Multiaddr>,
    /// This machine can be reached from the whole network: serve the DHT without waiting for proof.
    #[arg(long, env = "KEYFERRY_PUBLIC", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub public: bool,
    /// Do not look for other nodes on the local network, and do not announce this one there.
    #[arg(long, env = "KEYFERRY_NO_MDNS", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub no_mdns: bool,
    /// A STUN server (TCP) to ask how this machine's NAT works, beside other nodes. May be repeated.
    #[arg(long, env = "KEYFERRY_STUN", value_name = "HOST:PORT", value_delimiter = ',')]
    pub stun: Vec<StunServer>,
    /// Do not ask the router for a port (UPnP-IGD, NAT-PMP, PCP).
    #[arg(long, env = "KEYFERRY_NO_PORT_MAPPING", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub no_port_mapping: bool,
    /// Whose calls to take, of nodes that can reach this one by no other way: everyone (the default), contacts or nobody.
    #[arg(long, env = "KEYFERRY_CALLS", value_name = "WHOSE", hide_possible_values = true)]
    pub calls: Option<AdmissionPolicy>,
    /// A TURN server (TCP or TLS) to relay through where there is no direct path, such as turn:user:password@host or
    /// turns:user:password@host:443. May be repeated. Others see command lines: --turn-file keeps the password from them.
    #[arg(long, env = "KEYFERRY_TURN", value_name = "URI", value_delimiter = ',', hide_env_values = true)]
    pub turn: Vec<SecretText>,
    /// A file with TURN servers, one a line in the form of --turn.
    #[arg(long, env = "KEYFERRY_TURN_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub turn_file: Option<PathBuf>,
    /// A proxy to reach TURN servers through, such as `http://proxy.example.org:3128` or `socks5://127.0.0.1:1080`.
    #[arg(long, env = "KEYFERRY_TURN_PROXY", value_name = "URL", hide_env_values = true)]
    pub turn_proxy: Option<SecretText>,
    /// A file with the proxy, in the form of --turn-proxy, for one with a password.
    #[arg(long, env = "KEYFERRY_TURN_PROXY_FILE", value_name = "FILE", conflicts_with = "turn_proxy", value_hint = ValueHint::FilePath)]
    pub turn_proxy_file: Option<PathBuf>,
    /// Hide this machine's address: connect through relays only, and tell nobody where it is.
    #[arg(long, env = "KEYFERRY_RELAY_ONLY", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub relay_only: bool,
    /// Use no relays, not even those of the other side.
    #[arg(long, env = "KEYFERRY_NO_RELAY", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub no_relay: bool,
}

impl NetworkOptions {
    /// What a node that runs already must have been started with, to do as these options say.
    pub fn terms(&self) -> NetworkTerms {
        NetworkTerms {
            listen: self.listen_addrs(),
            bootstrap: self.bootstrap.clone(),
            public: self.public,
            no_mdns: self.no_mdns,
            stun: self.stun.clone(),
            no_port_mapping: self.no_port_mapping,
            calls: self.calls,
            turn: self.turn.clone(),
            turn_proxy: self.turn_proxy.clone(),
            relay_only: self.relay_only,
            no_relay: self.no_relay,
        }
    }

    /// Whether relays are used, and whether anything else is.
    ///
    /// # Errors
    ///
    /// Options that exclude each other; also where one of them stands in the environment.
    pub fn relay_mode(&self) -> Result<RelayMode, Failure> {
        match (self.relay_only, self.no_relay) {
            (true, true) => Err(Failure::usage("--relay-only and --no-relay exclude each other").try_to(
                "one of them; they may come from KEYFERRY_RELAY_ONLY and KEYFERRY_NO_RELAY in the environment",
            )),
            (true, false) if self.public => {
                Err(Failure::usage("--relay-only hides this machine's address, and --public tells it to everyone")
                    .try_to(
                        "one of them; they may come from KEYFERRY_RELAY_ONLY and KEYFERRY_PUBLIC in the environment",
                    ))
            }
            (true, false) => Ok(RelayMode::RelayOnly),
            (false, true) => Ok(RelayMode::NoRelay),
            (false, false) => Ok(RelayMode::Both),
        }
    }

    /// The socket addresses to listen on; none means the default of the node.
    pub fn listen_addrs(&self) -> Vec<SocketAddr> {
        self.listen.iter().flat_map(|listen| listen.0.iter().copied()).collect()
    }
}

/// One value of `--listen`: one socket address, or the two that a port alone stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen(Vec<SocketAddr>);

fn parse_listen(text: &str) -> Result<Listen, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(Listen(vec![
            SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)),
        ]));
    }
    text.parse()
        .map(|addr| Listen(vec![addr]))
        .map_err(|_| "this is not an address with a port; write it as 0.0.0.0:4600, [::]:4600 or just 4600".to_owned())
}

fn parse_multiaddr(text: &str) -> Result<Multiaddr, String> {
    match text.parse::<Multiaddr>() {
        Ok(addr) if !addr.is_empty() => Ok(addr),
        _ => Err("this is not a multiaddr; it looks like /ip4/192.0.2.1/tcp/41414 (`keyferry status` on the other \
                  node prints its own)"
            .to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Action, Cli};

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn port_alone_listens_on_both_families() {
        let cli = parse("keyferry node --listen 4600").unwrap();
        let Action::Node(node) = cli.action else { panic!("not a node: {:?}", cli.action) };
        let network = node.network;
        assert_eq!(network.listen_addrs(), ["0.0.0.0:4600".parse().unwrap(), "[::]:4600".parse().unwrap()]);
    }

    #[test]
    fn network_options_may_be_repeated_or_separated_by_commas() {
        let cli = parse(
            "keyferry get keyferry:x --bootstrap /ip4/127.0.0.1/tcp/1,/ip4/127.0.0.1/tcp/2 --bootstrap /ip6/::1/tcp/3",
        )
        .unwrap();
        let Action::Get(get) = cli.action else { panic!("not a get") };
        assert_eq!(get.network.bootstrap.len(), 3);
    }

    #[test]
    fn relays_are_used_unless_they_are_refused_or_nothing_else_is_wanted() {
        let network = |options: &str| match parse(&format!("keyferry node {options}")).unwrap().action {
            Action::Node(node) => node.network,
            other => panic!("not a node: {other:?}"),
        };
        assert_eq!(network("").relay_mode().unwrap(), RelayMode::Both);
        assert_eq!(network("--relay-only").relay_mode().unwrap(), RelayMode::RelayOnly);
        assert_eq!(network("--no-relay --public").relay_mode().unwrap(), RelayMode::NoRelay);
        assert!(network("--no-relay").terms().no_relay && network("--relay-only").terms().relay_only);
        for (options, named) in [("--relay-only --no-relay", "--no-relay"), ("--relay-only --public", "--public")] {
            let refused = network(options).relay_mode().unwrap_err();
            assert!(refused.message.contains("--relay-only") && refused.message.contains(named), "{refused:?}");
            assert_eq!((refused.message.lines().count(), refused.advice.is_some()), (1, true));
        }
    }

    #[test]
    fn turn_servers_may_be_repeated_or_separated_by_commas() {
        let cli =
            parse("keyferry node --turn turn:a:b@192.0.2.1,turns:a:b@192.0.2.2 --turn turn:c:d@192.0.2.3").unwrap();
        let Action::Node(node) = cli.action else { panic!("not a node: {:?}", cli.action) };
        let network = node.network;
        let servers = ["turn:a:b@192.0.2.1", "turns:a:b@192.0.2.2", "turn:c:d@192.0.2.3"];
        assert_eq!(network.turn, servers.map(SecretText::from));
        assert_eq!(network.terms().turn, network.turn);
    }
}
