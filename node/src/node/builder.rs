//! How a node is set up, with the defaults of the program.
//!
//! What it is not: starting it (`running`).

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use libp2p::Multiaddr;

use super::{Error, Node, NodeConfig};
use crate::{
    base::{data_dir::AdmissionPolicy, secret_text::SecretText},
    net::path::RelayMode,
    reach::{gather::StunServer, turn_server::RelayConfig},
};

impl Node {
    /// Sets up a node on a data folder, which is made if need be. Without further words it is the node that `keyferry node`
    /// would start.
    pub fn builder(folder: impl Into<PathBuf>) -> NodeBuilder {
        NodeBuilder { folder: folder.into(), passphrase: None, config: NodeConfig::default() }
    }
}

/// A node that is set up, and not started yet.
#[derive(Debug, Clone)]
#[must_use = "no node runs until it is spawned"]
pub struct NodeBuilder {
    folder: PathBuf,
    passphrase: Option<SecretText>,
    config: NodeConfig,
}

impl NodeBuilder {
    /// Unlocks the identity key, which is encrypted.
    pub fn passphrase(self, passphrase: impl Into<SecretText>) -> Self {
        Self { passphrase: Some(passphrase.into()), ..self }
    }

    /// Listens on these addresses; by default on the usual port of all addresses, or any port if that is taken.
    pub fn listen(self, addrs: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.with(|config| config.listen = addrs.into_iter().collect())
    }

    /// Enters the network through these nodes, beside those that it knows or finds nearby.
    pub fn bootstrap(self, addrs: impl IntoIterator<Item = Multiaddr>) -> Self {
        self.with(|config| config.bootstrap = addrs.into_iter().collect())
    }

    /// Vouches that the node can be reached from everywhere.
    pub fn public(self, public: bool) -> Self {
        self.with(|config| config.public = public)
    }

    /// Looks for nodes on the local network, or not.
    pub fn mdns(self, mdns: bool) -> Self {
        self.with(|config| config.mdns = mdns)
    }

    /// Asks the router for a port, or not.
    pub fn port_mapping(self, port_mapping: bool) -> Self {
        self.with(|config| config.port_mapping = port_mapping)
    }

    /// Asks these servers, beside the peers, how this machine's NAT works.
    pub fn stun(self, servers: impl IntoIterator<Item = StunServer>) -> Self {
        self.with(|config| config.stun = servers.into_iter().collect())
    }

    /// Uses relays, or nothing else, or none.
    pub fn relay_mode(self, mode: RelayMode) -> Self {
        self.with(|config| config.relay_mode = mode)
    }

    /// May use these TURN servers: URIs (RFC 7065) with credentials in front of the host.
    pub fn turn(self, servers: impl IntoIterator<Item = impl Into<SecretText>>) -> Self {
        self.with(|config| config.turn = servers.into_iter().map(Into::into).collect())
    }

    /// Reaches TURN servers through this proxy, a URL.
    pub fn turn_proxy(self, proxy: impl Into<SecretText>) -> Self {
        self.with(|config| config.turn_proxy = Some(proxy.into()))
    }

    /// Takes the calls of these.
    pub fn calls(self, whose: AdmissionPolicy) -> Self {
        self.with(|config| config.calls = whose)
    }

    /// Says in the DHT where this node is and what it has, or not. A node that only fetches need not.
    pub fn announce(self, announce: bool) -> Self {
        self.with(|config| config.announce = announce)
    }

    /// Relays for others.
    pub fn relay(self, relay: RelayConfig) -> Self {
        self.with(|config| config.relay = Some(relay))
    }

    /// Neither takes nor makes a connection in the DHT while the whole process has more resident memory than this, in bytes; 512 MiB by
    /// default.
    pub fn memory_limit(self, bytes: usize) -> Self {
        self.with(|config| config.memory_limit = bytes)
    }

    /// Opens the data folder, and joins the network.
    ///
    /// # Errors
    ///
    /// If the folder is in use or cannot be used, or the port cannot.
    pub async fn spawn(self) -> Result<Arc<Node>, Error> {
        Node::open(self.folder, self.passphrase, self.config).await
    }

    fn with(mut self, change: impl FnOnce(&mut NodeConfig)) -> Self {
        change(&mut self.config);
        self
    }
}
