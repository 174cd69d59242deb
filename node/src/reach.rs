//! Where nodes can be reached: this node's own candidates, the offers of others in the DHT, and TURN servers, found or run.
//!
//! What it is not: connecting to anybody for data.

pub mod gather;
pub mod rendezvous;
pub mod turn_client;
pub mod turn_discovery;
#[cfg(feature = "turn-server")]
pub mod turn_server;
#[cfg(not(feature = "turn-server"))]
#[path = "reach/without_turn_server.rs"]
pub mod turn_server;
pub(crate) mod turn_service;
