//! Relaying calls for others: how much of it a reachable node does. Calls carry a few KiB; files never go this way.
//!
//! What it is not: the decision when to relay, which depends on how this node can be reached.

use std::{num::NonZeroU32, time::Duration};

use libp2p::{PeerId, relay};

/// Nodes that may be reachable through this one at once.
const MAX_RESERVATIONS: usize = 128;
/// Reservations of one rendezvous peer: one for each of its connections, in effect.
const MAX_RESERVATIONS_PER_PEER: usize = 2;
/// How long a reservation holds; it is renewed when three quarters are over.
const RESERVATION_DURATION: Duration = Duration::from_secs(60 * 60);
/// Circuits at once.
const MAX_CIRCUITS: usize = 64;
/// Circuits of one calling peer at once.
const MAX_CIRCUITS_PER_PEER: usize = 4;
/// How long a circuit lasts at most.
const MAX_CIRCUIT_TIME: Duration = Duration::from_secs(2 * 60);
/// Bytes that may go over a circuit in each direction.
const MAX_CIRCUIT_BYTES: u64 = 256 * 1024;
/// Reservations, and circuits, that one host may ask for in a burst; many nodes may be behind one address.
const BURST_PER_HOST: NonZeroU32 = NonZeroU32::new(256).expect("not zero");
/// Reservations, and circuits, that one peer may ask for in a burst.
const BURST_PER_PEER: NonZeroU32 = NonZeroU32::new(32).expect("not zero");
/// How long after a burst until one more may be asked for.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes the relay. It is closed until somebody opens it.
pub(super) fn relay(own: PeerId) -> relay::Behaviour {
    let limits = relay::Config {
        max_reservations: MAX_RESERVATIONS,
        max_reservations_per_peer: MAX_RESERVATIONS_PER_PEER,
        reservation_duration: RESERVATION_DURATION,
        reservation_rate_limiters: Vec::new(),
        max_circuits: MAX_CIRCUITS,
        max_circuits_per_peer: MAX_CIRCUITS_PER_PEER,
        max_circuit_duration: MAX_CIRCUIT_TIME,
        max_circuit_bytes: MAX_CIRCUIT_BYTES,
        circuit_src_rate_limiters: Vec::new(),
    };
    let limits = limits
        .reservation_rate_per_ip(BURST_PER_HOST, PAUSE)
        .reservation_rate_per_peer(BURST_PER_PEER, PAUSE)
        .circuit_src_per_ip(BURST_PER_HOST, PAUSE)
        .circuit_src_per_peer(BURST_PER_PEER, PAUSE);
    let mut relay = relay::Behaviour::new(own, limits);
    relay.set_status(Some(relay::Status::Disable));
    relay
}
