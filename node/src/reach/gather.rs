//! Gathering: at which addresses this node can be reached, as far as it can tell by itself, kept true for as long as the
//! node runs.
//!
//! ```text
//! interfaces (if-watch) ─┐
//! STUN servers ──────────┤                      ┌─▶ Gathered: candidates, mapping ─▶ ICE agents, the offer, `doctor`
//! peers' observations ───┼─▶ one task (`task`) ─┤
//! confirmed addresses ───┤                      └─▶ NetworkChange ─▶ whoever has connections to renew
//! router (port mapping) ─┤
//! signs of trouble ──────┘
//! ```
//! After a change of this machine's addresses, and after a sign of trouble, connections leave from a fresh port, and everybody is
//! asked anew from there, before anybody else is told: whatever is made anew then goes by addresses that are true.
//!
//! Whatever comes from outside is bounded, and one word of a stranger changes little: a wrong address costs one attempt,
//! and the mapping counts as endpoint-independent only if two hosts agree.
//!
//! What it is not: choosing or trying pairs of addresses (the ICE agent), or telling others (the announcer).

mod hosts;
mod interfaces;
mod observers;
mod port_mapping;
mod reflexive;
mod servers;
mod task;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use keyferry_ice::{LocalCandidate, Mapping};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

pub(crate) use self::reflexive::mapping_of;
pub use self::{
    port_mapping::{MappingProtocol, PortMapping, RouterProtocols},
    servers::{DEFAULT_STUN_PORT, ParseServerError, StunServer},
    task::spawn,
};
pub use crate::reach::rendezvous::Observation;

/// How many STUN servers a user may name.
pub const MAX_STUN_SERVERS: usize = 8;

/// How to gather.
#[derive(Debug, Clone, Default)]
pub struct GatherConfig {
    /// STUN servers to ask, at most [`MAX_STUN_SERVERS`], beside the peers that answer STUN.
    pub stun: Vec<StunServer>,
    /// Whether to ask the router for a port (UPnP-IGD, NAT-PMP, PCP). This needs the feature `port-mapping`.
    pub port_mapping: bool,
    /// Whether to gather no candidates, because nobody may learn an address of this node.
    pub hidden: bool,
    /// Whether connections leave from the node's port whatever happens, because its operator says that it can be reached there.
    pub fixed_port: bool,
}

/// Why gathering could not be started. The fault is the caller's.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// A port of the router is wanted, and this build can ask for none.
    #[error("no router can be asked for a port: keyferry was built without its feature `port-mapping`")]
    WithoutPortMapping,
}

/// What has been gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    /// The candidates, best first; never more than may be signalled.
    pub candidates: Vec<LocalCandidate>,
    /// How the NAT of IPv4 chooses outer ports if this machine has private IPv4 addresses only, else how that of IPv6 does.
    pub mapping: Mapping,
    /// Whether everybody who was asked since the last change of the network has answered or run out of time.
    pub complete: bool,
    /// From where others saw this node's connections come, one word for each host.
    pub observations: Vec<Observation>,
    /// What became of each STUN server that was asked.
    pub stun: Vec<StunReport>,
    /// What the router does.
    pub port_mapping: PortMapping,
}

/// What became of a STUN server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StunReport {
    /// As the user named it, or the address of a peer.
    pub server: String,
    /// The address that was asked, if the name has one.
    pub addr: Option<SocketAddr>,
    /// The answer.
    pub state: StunState,
}

/// The answer of a STUN server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StunState {
    /// Not there yet.
    Asking,
    /// It has answered.
    Answered {
        /// From which address of this machine it was asked.
        local: SocketAddr,
        /// The address that it saw.
        mapped: SocketAddr,
        /// From the first SYN to the answer.
        took: Duration,
    },
    /// It has not.
    Failed {
        /// Why, in words.
        reason: String,
    },
}

/// The addresses of this machine have changed, or there was a sign of trouble. Connections that hung on an address that is gone are
/// dead, even if nobody has said so; any other may be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkChange {
    /// How often that was so since the start; 0 before the first time.
    pub generation: u64,
    /// The addresses that came with the last change.
    pub added: Vec<IpAddr>,
    /// The addresses that went with the last change.
    pub removed: Vec<IpAddr>,
}

/// The handle to the task that gathers. [`Gatherer::shutdown`] ends the task after it has given a mapped port back; dropping
/// the handle ends it at once.
#[derive(Debug)]
pub struct Gatherer {
    gathered: watch::Receiver<Gathered>,
    network: watch::Receiver<NetworkChange>,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Gatherer {
    /// What has been gathered, as it changes.
    pub fn gathered(&self) -> watch::Receiver<Gathered> {
        self.gathered.clone()
    }

    /// Changes of this machine's addresses, after those at the start, and signs of trouble.
    pub fn network(&self) -> watch::Receiver<NetworkChange> {
        self.network.clone()
    }

    /// Ends the task, and returns when a mapped port has been given back.
    pub async fn shutdown(self) {
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

impl Default for Gathered {
    fn default() -> Self {
        Self {
            candidates: Vec::new(),
            mapping: Mapping::Unknown,
            complete: false,
            observations: Vec::new(),
            stun: Vec::new(),
            port_mapping: PortMapping::default(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
