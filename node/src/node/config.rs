//! How a node is to run.
//!
//! What it is not: the command line, which has options for it.

use std::net::SocketAddr;

use libp2p::Multiaddr;

use crate::{
    base::{data_dir::AdmissionPolicy, secret_text::SecretText},
    net::path::RelayMode,
    reach::{gather::StunServer, rendezvous::DEFAULT_MEMORY_LIMIT, turn_server::RelayConfig},
};

/// How a node is to run. The default is what `keyferry node` does without options.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The socket addresses to listen on; none means [`crate::net::port::DEFAULT_PORT`] on all addresses, or any port if that is taken.
    pub listen: Vec<SocketAddr>,
    /// Whether the operator vouches that the node can be reached from everywhere.
    pub public: bool,
    /// Nodes through which to find the others.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether to look for nodes on the local network. Fails without the feature `mdns`.
    pub mdns: bool,
    /// Servers that tell how this node's NAT works, beside the peers that do.
    pub stun: Vec<StunServer>,
    /// Whether to ask the router for a port. Fails without the feature `port-mapping`.
    pub port_mapping: bool,
    /// Whether relays are used, and whether anything else is.
    pub relay_mode: RelayMode,
    /// TURN servers that may be used, as URIs (RFC 7065) with credentials in front of the host.
    pub turn: Vec<SecretText>,
    /// The proxy through which TURN servers are reached, as a URL.
    pub turn_proxy: Option<SecretText>,
    /// Whose calls to take.
    pub calls: AdmissionPolicy,
    /// Whether to say in the DHT where this node is and what it has. A node that only fetches need not.
    pub announce: bool,
    /// How to relay for others, if it does. Without the feature `turn-server`, no [`RelayConfig`] can be made.
    pub relay: Option<RelayConfig>,
    /// Resident memory of the whole process above which the node neither takes nor makes a connection in the DHT, in bytes. A program that
    /// needs much itself, or has several nodes, sets it higher.
    pub memory_limit: usize,
    /// Whether to do without any network: for commands that concern only the data folder.
    pub offline: bool,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            public: false,
            bootstrap: Vec::new(),
            mdns: cfg!(feature = "mdns"),
            stun: Vec::new(),
            port_mapping: cfg!(feature = "port-mapping"),
            relay_mode: RelayMode::default(),
            turn: Vec::new(),
            turn_proxy: None,
            calls: AdmissionPolicy::default(),
            announce: true,
            relay: None,
            memory_limit: DEFAULT_MEMORY_LIMIT,
            offline: false,
        }
    }
}
