//! What a server has counted: for `status`, and for tests that check its limits.
//!
//! What it is not: a record of single clients, peers or addresses.

use super::request::TurnRefusal;
use crate::peer_policy::PeerRefusal;

/// Numbers since the start, except the first two.
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
    /// Peers refused because of their address: a network that the relay stands in.
    pub peer_on_link: u64,
    /// Peers refused because of their port.
    pub peer_port: u64,
    /// What the server refused because an identity, a host or all together have enough.
    pub quota: u64,
    /// Connections that the server ended because an identity, a host or all together have used up their bytes.
    pub quota_bytes: u64,
    /// What the server refused for want of a port or of memory.
    pub capacity: u64,
    /// Connects that a peer did not answer.
    pub connect_failed: u64,
    /// Connects to a peer that is connected already.
    pub connected_already: u64,
    /// ConnectionBinds of a connection that is not there, is somebody else's or is taken.
    pub bad_bind: u64,
    /// Connections that did not begin with a check each way, although they had to: somebody who takes the relay for a proxy.
    pub unchecked: u64,
    /// Connections of peers without permission.
    pub unpermitted: u64,
    /// Connections of peers that their client did not take in time.
    pub unbound: u64,
    /// Connections of clients that asked for nothing in time.
    pub half_open: u64,
    /// Connections of clients that were closed because their requests had no valid credentials too often.
    pub unproven: u64,
    /// Connections of clients that had to give way to others.
    pub pushed_out: u64,
}

/// What came of what a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedOutcome {
    /// It was done, or is how things go: every client begins without credentials.
    Done,
    /// A request was refused.
    Refused,
    /// A connection was closed.
    Closed,
}

impl ServerCounters {
    /// Every counter with what came of what it counts, and its name.
    pub fn named(self) -> impl Iterator<Item = (CountedOutcome, &'static str, u64)> {
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
            peer_on_link,
            peer_port,
            quota,
            quota_bytes,
            capacity,
            connect_failed,
            connected_already,
            bad_bind,
            unchecked,
            unpermitted,
            unbound,
            unproven,
            half_open,
            pushed_out,
        } = self;
        [
            (CountedOutcome::Done, "allocations", allocations),
            (CountedOutcome::Done, "connections", connections),
            (CountedOutcome::Done, "allocated", allocated),
            (CountedOutcome::Done, "joined", joined),
            (CountedOutcome::Done, "bytes", bytes),
            (CountedOutcome::Done, "answered", answered),
            (CountedOutcome::Closed, "malformed", malformed),
            (CountedOutcome::Done, "unauthenticated", unauthenticated),
            (CountedOutcome::Refused, "expired", expired),
            (CountedOutcome::Refused, "forged", forged),
            (CountedOutcome::Refused, "stale_nonce", stale_nonce),
            (CountedOutcome::Refused, "bad_request", bad_request),
            (CountedOutcome::Refused, "mismatch", mismatch),
            (CountedOutcome::Refused, "unsupported", unsupported),
            (CountedOutcome::Refused, "peer_relay", peer_relay),
            (CountedOutcome::Refused, "peer_loopback", peer_loopback),
            (CountedOutcome::Refused, "peer_link_local", peer_link_local),
            (CountedOutcome::Refused, "peer_not_public", peer_not_public),
            (CountedOutcome::Refused, "peer_on_link", peer_on_link),
            (CountedOutcome::Refused, "peer_port", peer_port),
            (CountedOutcome::Refused, "quota", quota),
            (CountedOutcome::Closed, "quota_bytes", quota_bytes),
            (CountedOutcome::Refused, "capacity", capacity),
            (CountedOutcome::Done, "connect_failed", connect_failed),
            (CountedOutcome::Refused, "connected_already", connected_already),
            (CountedOutcome::Refused, "bad_bind", bad_bind),
            (CountedOutcome::Closed, "unchecked", unchecked),
            (CountedOutcome::Closed, "unpermitted", unpermitted),
            (CountedOutcome::Closed, "unbound", unbound),
            (CountedOutcome::Closed, "unproven", unproven),
            (CountedOutcome::Closed, "half_open", half_open),
            (CountedOutcome::Closed, "too_many", pushed_out),
        ]
        .into_iter()
    }

    pub(super) fn count(&mut self, refusal: &TurnRefusal) {
        let counter = match refusal {
            TurnRefusal::Unauthenticated => &mut self.unauthenticated,
            TurnRefusal::Expired => &mut self.expired,
            TurnRefusal::Forged => &mut self.forged,
            TurnRefusal::StaleNonce => &mut self.stale_nonce,
            TurnRefusal::BadRequest => &mut self.bad_request,
            TurnRefusal::BadBind => &mut self.bad_bind,
            TurnRefusal::Mismatch | TurnRefusal::WrongCredentials | TurnRefusal::PeerFamilyMismatch => {
                &mut self.mismatch
            }
            TurnRefusal::UnknownAttributes(_) | TurnRefusal::Family | TurnRefusal::Transport => &mut self.unsupported,
            TurnRefusal::Peer(why) => return self.count_peer(*why),
            TurnRefusal::ConnectedAlready => &mut self.connected_already,
            TurnRefusal::ConnectFailed => &mut self.connect_failed,
            TurnRefusal::Quota => &mut self.quota,
            TurnRefusal::Capacity => &mut self.capacity,
        };
        *counter += 1;
    }

    fn count_peer(&mut self, why: PeerRefusal) {
        let counter = match why {
            PeerRefusal::Relay => &mut self.peer_relay,
            PeerRefusal::Loopback => &mut self.peer_loopback,
            PeerRefusal::LinkLocal => &mut self.peer_link_local,
            PeerRefusal::NotPublic | PeerRefusal::NotAHost => &mut self.peer_not_public,
            PeerRefusal::OnLink => &mut self.peer_on_link,
            PeerRefusal::Port => &mut self.peer_port,
        };
        *counter += 1;
    }
}
