//! What a server has counted: for `status`, and for the tests that limits hold.
//!
//! What it is not: a record of single clients, peers or addresses.

use super::request::Refusal;
use crate::peer_policy::PeerRefusal;

/// Numbers since the start, but for the first two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Allocations now.
    pub allocations: u64,
    /// Connections with peers now.
    pub connections: u64,
    /// Allocations made.
    pub allocated: u64,
    /// Connections of clients and peers that were joined.
    pub joined: u64,
    /// Bytes relayed.
    pub bytes: u64,
    /// Requests answered with success.
    pub answered: u64,
    /// Messages that are no STUN message, or none that a client sends; each closed its connection.
    pub malformed: u64,
    /// Requests without credentials, with which every client begins.
    pub unauthenticated: u64,
    /// Requests whose credentials have run out.
    pub expired: u64,
    /// Requests whose credentials are not those of anybody.
    pub forged: u64,
    /// Requests with a nonce that has run out, or is of another host.
    pub stale_nonce: u64,
    /// Requests that make no sense.
    pub bad_request: u64,
    /// Requests that do not fit what the client has.
    pub mismatch: u64,
    /// Requests for what the server does not do: other transports and families, unknown attributes.
    pub unsupported: u64,
    /// Peers refused because of their address: the relay itself.
    pub peer_relay: u64,
    /// Peers refused because of their address: loopback.
    pub peer_loopback: u64,
    /// Peers refused because of their address: link-local.
    pub peer_link_local: u64,
    /// Peers refused because of their address: anything else that is not public.
    pub peer_not_public: u64,
    /// Peers refused because of their port.
    pub peer_port: u64,
    /// What was refused because an identity, a host or all have enough.
    pub quota: u64,
    /// Connections that were ended because an identity, a host or all have had their bytes.
    pub quota_bytes: u64,
    /// What was refused for want of a port or of memory.
    pub capacity: u64,
    /// Connects that a peer did not answer.
    pub connect_failed: u64,
    /// Connects to a peer that is connected already.
    pub connected_already: u64,
    /// ConnectionBinds of a connection that is not there, is somebody else's or is taken.
    pub bad_bind: u64,
    /// Connections of peers without permission.
    pub unpermitted: u64,
    /// Connections of peers that their client did not take in time.
    pub unbound: u64,
    /// Connections of clients that asked for nothing in time.
    pub half_open: u64,
    /// Connections of clients that were closed because their requests had no valid credentials too often.
    pub unproven: u64,
    /// Connections of clients that gave way to others.
    pub pushed_out: u64,
}

/// What came of what a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, or is how things go: every client begins without credentials.
    Done,
    /// A request was refused.
    Refused,
    /// A connection was closed.
    Closed,
}

impl ServerCounters {
    /// Every counter with what came of what it counts, and its name.
    pub fn named(self) -> impl Iterator<Item = (Outcome, &'static str, u64)> {
        // Without `..`, so that no counter is forgotten.
        let Self {
            allocations,
            connections,
            allocated,
            joined,
            bytes,
            answered,
            malformed,
            unauthenticated,
            expired,
            forged,
            stale_nonce,
            bad_request,
            mismatch,
            unsupported,
            peer_relay,
            peer_loopback,
            peer_link_local,
            peer_not_public,
            peer_port,
            quota,
            quota_bytes,
            capacity,
            connect_failed,
            connected_already,
            bad_bind,
            unpermitted,
            unbound,
            unproven,
            half_open,
            pushed_out,
        } = self;
        [
            (Outcome::Done, "allocations", allocations),
            (Outcome::Done, "connections", connections),
            (Outcome::Done, "allocated", allocated),
            (Outcome::Done, "joined", joined),
            (Outcome::Done, "bytes", bytes),
            (Outcome::Done, "answered", answered),
            (Outcome::Closed, "malformed", malformed),
            (Outcome::Done, "unauthenticated", unauthenticated),
            (Outcome::Refused, "expired", expired),
            (Outcome::Refused, "forged", forged),
            (Outcome::Refused, "stale_nonce", stale_nonce),
            (Outcome::Refused, "bad_request", bad_request),
            (Outcome::Refused, "mismatch", mismatch),
            (Outcome::Refused, "unsupported", unsupported),
            (Outcome::Refused, "peer_relay", peer_relay),
            (Outcome::Refused, "peer_loopback", peer_loopback),
            (Outcome::Refused, "peer_link_local", peer_link_local),
            (Outcome::Refused, "peer_not_public", peer_not_public),
            (Outcome::Refused, "peer_port", peer_port),
            (Outcome::Refused, "quota", quota),
            (Outcome::Closed, "quota_bytes", quota_bytes),
            (Outcome::Refused, "capacity", capacity),
            (Outcome::Done, "connect_failed", connect_failed),
            (Outcome::Refused, "connected_already", connected_already),
            (Outcome::Refused, "bad_bind", bad_bind),
            (Outcome::Closed, "unpermitted", unpermitted),
            (Outcome::Closed, "unbound", unbound),
            (Outcome::Closed, "unproven", unproven),
            (Outcome::Closed, "half_open", half_open),
            (Outcome::Closed, "too_many", pushed_out),
        ]
        .into_iter()
    }

    pub(super) fn count(&mut self, refusal: &Refusal) {
        let counter = match refusal {
            Refusal::Unauthenticated => &mut self.unauthenticated,
            Refusal::Expired => &mut self.expired,
            Refusal::Forged => &mut self.forged,
            Refusal::StaleNonce => &mut self.stale_nonce,
            Refusal::BadRequest => &mut self.bad_request,
            Refusal::BadBind => &mut self.bad_bind,
            Refusal::Mismatch | Refusal::WrongCredentials | Refusal::PeerFamilyMismatch => &mut self.mismatch,
            Refusal::UnknownAttributes(_) | Refusal::Family | Refusal::Transport => &mut self.unsupported,
            Refusal::Peer(why) => return self.count_peer(*why),
            Refusal::ConnectedAlready => &mut self.connected_already,
            Refusal::ConnectFailed => &mut self.connect_failed,
            Refusal::Quota => &mut self.quota,
            Refusal::Capacity => &mut self.capacity,
        };
        *counter += 1;
    }

    fn count_peer(&mut self, why: PeerRefusal) {
        let counter = match why {
            PeerRefusal::Relay => &mut self.peer_relay,
            PeerRefusal::Loopback => &mut self.peer_loopback,
            PeerRefusal::LinkLocal => &mut self.peer_link_local,
            PeerRefusal::NotPublic | PeerRefusal::NotAHost => &mut self.peer_not_public,
            PeerRefusal::Port => &mut self.peer_port,
        };
        *counter += 1;
    }
}
