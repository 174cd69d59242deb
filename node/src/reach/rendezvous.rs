//! Rendezvous: how a node finds another by its key. libp2p on the node's one port, with two Kademlia DHTs: one of the
//! wide area and one of the local network.
//!
//! One task owns the libp2p `Swarm` (`actor`); [`Rendezvous`] is the handle that others hold. Under the rendezvous
//! key, made at each start, nobody learns which node this is. Records are what `keyferry_proto::offer` defines, and are
//! checked on put and on get.
//!
//! What it is not: a path for file data, or the place where offers are made, opened or dialled.

mod actor;
mod address_proofs;
mod announce;
mod behaviour;
mod call_stream;
mod calls;
mod circuit;
mod circuit_relay;
mod clocks;
mod config;
mod connections;
mod counters;
mod doubts;
mod entry_points;
mod handle;
mod handshake;
mod hidden_line;
mod keep_alive;
mod liveness;
mod lookup;
mod metered;
#[cfg(feature = "mdns")]
mod multicast;
#[cfg(not(feature = "mdns"))]
#[path = "rendezvous/without_multicast.rs"]
mod multicast;
mod observed;
mod panic_guard;
mod probe;
mod providers;
mod quiet_yamux;
mod reachability;
mod record_store;
mod records;
mod reservations;
mod routing;
mod scope;
mod scope_filter;
mod shares;
mod status;
mod transport;
mod turn;
mod upkeep;
mod writes;

pub use libp2p::{Multiaddr, PeerId};

pub use self::{
    announce::PublishError,
    behaviour::VERSION,
    call_stream::{CallBytes, CallIo, CallStream, OpenCallError},
    calls::CallOver,
    config::{CircuitDialler, DEFAULT_MEMORY_LIMIT, HiddenCircuits, RendezvousConfig, RendezvousError},
    handle::Rendezvous,
    lookup::Provider,
    observed::Observation,
    records::MAX_PROVIDED,
    scope::{AddressScope, multiaddr_of, socket_addr_of},
    status::RendezvousStatus,
    turn::{AnnouncedTo, AskAs, AskRelayError, CredentialIssuer, Granted, Requester, TurnService},
};

#[cfg(test)]
mod tests;
