//! Every timer and limit of the agent, in one place.
//!
//! What it is not: anything that peers agree on; each side may have its own.

use std::time::Duration;

/// The timers and limits of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The least time between the starts of two connection attempts (RFC 8445 §14: Ta).
    pub pacing: Duration,
    /// The signalling's round trip, until it has been measured.
    pub initial_round_trip: Duration,
    /// How long one connection attempt to a candidate that accepts may take, beyond two round trips of the signalling. A
    /// lost SYN is repeated after a second.
    pub connect_timeout: Duration,
    /// How long one attempt that leaves from a relay may take, beyond two round trips of the signalling: the relay has to
    /// connect, and then this side once more to the relay, perhaps with TLS.
    pub relayed_connect_timeout: Duration,
    /// How long to wait before the second attempt at a relayed address that has turned this side away; twice as long before each
    /// further one. Its owner has to learn of this side's addresses and ask its relay to let them in (RFC 8656 §9).
    pub permission_patience: Duration,
    /// Attempts at one relayed address that turns this side away.
    pub relayed_tries: usize,
    /// How long the checks of a connection that stands may take. TCP repeats what is lost.
    pub check_timeout: Duration,
    /// How long an accepted connection may take to show a check.
    pub first_check_timeout: Duration,
    /// How long the controlling side waits for a better pair once it has a valid one.
    pub nomination_patience: Duration,
    /// How long the whole negotiation may take from the peer's description on, beyond [`Self::deadline_round_trips`].
    pub deadline: Duration,
    /// Round trips of the signalling that the whole negotiation may take in addition.
    pub deadline_round_trips: u32,
    /// The first TTL of an opening SYN: it passes one NAT.
    pub first_opening_ttl: u8,
    /// The last TTL of an opening SYN: it passes several.
    pub last_opening_ttl: u8,
    /// How long to wait for the other side's connection in one round of opening, beyond the signalling's round trip.
    pub round_patience: Duration,
    /// How much longer to wait in a round of opening as long as no round trip was measured: nothing has been heard of the peer then since
    /// this side described itself, and that may take a lost packet's time to arrive.
    pub unheard_patience: Duration,
    /// Attempts with crossing SYNs after the opening SYNs, or in their place.
    pub crossings: u8,
    /// Candidate pairs to keep (RFC 8445 §6.1.2.5).
    pub max_pairs: usize,
    /// Connections that stand or are attempted, at once.
    pub max_conns: usize,
    /// Accepted connections that have not shown a valid check, at once.
    pub max_unproven: usize,
    /// Attempts that one negotiation may make in all, whatever the peer says.
    pub max_attempts: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pacing: Duration::from_millis(20),
            initial_round_trip: Duration::from_millis(200),
            connect_timeout: Duration::from_millis(1200),
            relayed_connect_timeout: Duration::from_secs(4),
            permission_patience: Duration::from_millis(100),
            relayed_tries: 5,
            check_timeout: Duration::from_millis(2500),
            first_check_timeout: Duration::from_millis(2500),
            nomination_patience: Duration::from_millis(50),
            deadline: Duration::from_secs(8),
            deadline_round_trips: 8,
            first_opening_ttl: 2,
            last_opening_ttl: 5,
            round_patience: Duration::from_millis(300),
            unheard_patience: Duration::from_secs(4),
            crossings: 3,
            max_pairs: 64,
            max_conns: 32,
            max_unproven: 16,
            max_attempts: 128,
        }
    }
}
