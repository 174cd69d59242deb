//! What a server has counted: for `status`, and for the tests that limits hold.
//!
//! What it is not: a record of single clients, peers or addresses.

use super::request::Refusal;
use crate::peer_policy::PeerRefusal;

/// Numbers since the start, but for the first two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
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

impl Counters {
    /// Every counter with its name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("relay_allocations", self.allocations),
            ("relay_connections", self.connections),
            ("relay_allocated", self.allocated),
            ("relay_joined", self.joined),
            ("relay_bytes", self.bytes),
            ("relay_answered", self.answered),
            ("relay_closed_malformed", self.malformed),
            ("relay_refused_unauthenticated", self.unauthenticated),
            ("relay_refused_expired", self.expired),
            ("relay_refused_forged", self.forged),
            ("relay_refused_stale_nonce", self.stale_nonce),
            ("relay_refused_bad_request", self.bad_request),
            ("relay_refused_mismatch", self.mismatch),
            ("relay_refused_unsupported", self.unsupported),
            ("relay_refused_peer_relay", self.peer_relay),
            ("relay_refused_peer_loopback", self.peer_loopback),
            ("relay_refused_peer_link_local", self.peer_link_local),
            ("relay_refused_peer_not_public", self.peer_not_public),
            ("relay_refused_peer_port", self.peer_port),
            ("relay_refused_quota", self.quota),
            ("relay_closed_quota_bytes", self.quota_bytes),
            ("relay_refused_capacity", self.capacity),
            ("relay_connect_failed", self.connect_failed),
            ("relay_refused_connected_already", self.connected_already),
            ("relay_refused_bad_bind", self.bad_bind),
            ("relay_closed_unpermitted", self.unpermitted),
            ("relay_closed_unbound", self.unbound),
            ("relay_closed_unproven", self.unproven),
            ("relay_closed_half_open", self.half_open),
            ("relay_closed_too_many", self.pushed_out),
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
