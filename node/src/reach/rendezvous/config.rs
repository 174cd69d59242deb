//! How the rendezvous is set up, and why it cannot be.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use libp2p::Multiaddr;
use zeroize::Zeroizing;

use super::turn::TurnService;
use crate::net::path::PathStream;

/// Resident memory of the process above which no further libp2p connection is made, by default, in bytes.
pub const DEFAULT_MEMORY_LIMIT: usize = 512 * 1024 * 1024;

/// Incoming connections that may stand, by default.
const DEFAULT_MAX_INCOMING: usize = 256;

/// How the rendezvous is to work.
#[derive(Debug, Clone)]
pub struct RendezvousConfig {
    /// The rendezvous key, an ed25519 secret: 32 random bytes, fresh at each start.
    pub secret: Zeroizing<[u8; 32]>,
    /// Where to enter the DHT: multiaddrs with or without `/p2p/…` (which is ignored, because it changes at a restart).
    pub bootstrap: Vec<Multiaddr>,
    /// Whether to find peers of the local network by multicast. This needs the feature `mdns`.
    pub mdns: bool,
    /// Whether to try [`crate::net::port::DEFAULT_PORT`] of this machine, where another node may be.
    pub local_bootstrap: bool,
    /// Whether the node is reachable from everywhere, so that it serves the wide-area DHT without a test.
    pub public: bool,
    /// How the node calls and is called if it tells nobody where it is: it lets no peer in, counts as one that cannot be reached, serves no
    /// DHT and relays no calls, whatever others find out.
    pub hidden: Option<HiddenCircuits>,
    /// Where records of others are kept over a restart.
    pub records: Option<sled::Tree>,
    /// Resident memory of the process above which no further connection is made, in bytes.
    pub memory_limit: usize,
    /// Incoming connections that may stand. One more pushes out that of the busiest host which is idle longest.
    pub max_incoming: usize,
    /// What to answer and announce as a TURN relay, if this node is one.
    pub turn: Option<TurnService>,
}

impl RendezvousConfig {
    /// The defaults of a node: multicast and the default port of this machine are tried, nothing else is known.
    pub fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        Self {
            secret,
            bootstrap: Vec::new(),
            mdns: cfg!(feature = "mdns"),
            local_bootstrap: true,
            public: false,
            hidden: None,
            records: None,
            memory_limit: DEFAULT_MEMORY_LIMIT,
            max_incoming: DEFAULT_MAX_INCOMING,
            turn: None,
        }
    }
}

/// Whatever connects to circuit relays for a node that hides where it is.
pub trait CircuitDialler: Send + Sync + fmt::Debug {
    /// Connects to a circuit relay. The caller sets the deadline.
    fn connect(&self, relay: SocketAddr) -> BoxFuture<'static, io::Result<PathStream>>;
}

/// How a node that hides where it is calls and is called.
#[derive(Clone)]
pub struct HiddenCircuits {
    /// The key of its circuits, an ed25519 secret: 32 random bytes, fresh at each start, and not the rendezvous key.
    pub secret: Zeroizing<[u8; 32]>,
    /// What connects to circuit relays in its stead.
    pub dialler: Arc<dyn CircuitDialler>,
}

impl fmt::Debug for HiddenCircuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HiddenCircuits").field("dialler", &self.dialler).finish_non_exhaustive()
    }
}

/// Why the rendezvous could not be started. The fault is this machine's.
#[derive(Debug, thiserror::Error)]
pub enum RendezvousError {
    /// The port has no address that libp2p could listen on.
    #[error("the port has no address to listen on")]
    NoAddress,
    /// libp2p refuses its configuration.
    #[error("libp2p cannot be set up: {0}")]
    Setup(String),
    /// Multicast is wanted, and this build has none.
    #[error("nodes on the local network cannot be found: keyferry was built without its feature `mdns`")]
    WithoutMdns,
}
