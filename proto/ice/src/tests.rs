//! Tests of the ICE agent, on a virtual network with virtual time.
//!
//! `network`, `nat`, `conntrack`, `tcp` and `segment` are the network, and `facts` shows that it behaves as real kernels do.
//! `topology` puts two sides into it, `theory` says what is possible there, `pair` and `driver` run two agents. `cells` are
//! the scenes that have names; `properties` are random ones. `relay` is a relay, and `relayed` are scenes of the relayed
//! stream.

mod cells;
mod conntrack;
mod driver;
mod facts;
mod hostile;
mod nat;
mod network;
mod pair;
mod properties;
mod relay;
mod relayed;
mod rng;
mod segment;
mod solo;
mod tcp;
mod theory;
mod topology;
mod vectors;
