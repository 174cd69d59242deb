//! What the rendezvous counts: bad input, and limits that were reached.

use crate::base::counters::{Counter, counters};

/// Says which counter is meant, where the counters themselves are out of reach.
pub(crate) type WhichCounter = fn(&RendezvousCounters) -> &Counter;

counters! {
    /// What the rendezvous has refused, dropped and closed.
    pub(crate) struct RendezvousCounters {
        /// Addresses where the DHT can be entered and that were too many.
        pub(crate) bootstrap_refused = "bootstrap_refused",
        /// Lookups that were too many.
        pub(crate) lookup_refused = "lookup_refused",
        /// Incoming connections that came to nothing.
        pub(crate) libp2p_incoming_failed = "libp2p_incoming_failed",
        /// Incoming connections closed because their host had most of all, and others needed the place.
        pub(crate) libp2p_pushed_out = "libp2p_pushed_out",
        /// Connections closed because this machine lost the address that they hung on.
        pub(crate) closed_with_address = "closed_with_address",
        /// Connections closed because they did not answer after a sign of trouble, or not before one that was made in their stead.
        pub(crate) closed_in_doubt = "closed_in_doubt",
        /// Addresses of this node that peers found reachable and that were too many.
        pub(crate) external_address_dropped = "external_address_dropped",
        /// Connections closed because the peer spoke of itself too often.
        pub(crate) identified_too_often = "identified_too_often",
        /// Peers that speak something else than Keyferry.
        pub(crate) peer_of_another_network = "peer_of_another_network",
        /// Peers that speak another version of the rendezvous.
        pub(crate) peer_of_another_version = "peer_of_another_version",
        /// Provider records with a wrong key or no address that the provider can have, or for which others have the room.
        pub(crate) provider_refused = "provider_refused",
        /// Provider records of peers or hosts that announce too many.
        pub(crate) provider_refused_busy = "provider_refused_busy",
        /// Records of another version.
        pub(crate) record_refused_version = "record_refused_version",
        /// Records of a wrong length.
        pub(crate) record_refused_length = "record_refused_length",
        /// Records under a key that is not theirs.
        pub(crate) record_refused_wrong_key = "record_refused_wrong_key",
        /// Records with a signature that does not hold.
        pub(crate) record_refused_bad_signature = "record_refused_bad_signature",
        /// Records that have expired.
        pub(crate) record_refused_expired = "record_refused_expired",
        /// Records of the future, or of another day.
        pub(crate) record_refused_wrong_time = "record_refused_wrong_time",
        /// Records under a key of a wrong length.
        pub(crate) record_refused_malformed = "record_refused_malformed",
        /// Records that are no newer than the one that is there.
        pub(crate) record_refused_not_newer = "record_refused_not_newer",
        /// Records that replace one too soon after it has replaced others.
        pub(crate) record_refused_too_often = "record_refused_too_often",
        /// Records of peers or hosts that put too many, or more than could be checked.
        pub(crate) record_refused_busy = "record_refused_busy",
        /// Records for which there is no room.
        pub(crate) record_refused_full = "record_refused_full",
        /// Relays that wanted their reservation renewed too often.
        pub(crate) relay_left = "relay_left",
        /// Requests for relaying to a node that does not relay.
        pub(crate) turn_request_unwanted = "turn_request_unwanted",
        /// Requests for relaying that are malformed or prove nothing.
        pub(crate) turn_request_wrong = "turn_request_wrong",
        /// Requests for relaying whose stream failed.
        pub(crate) turn_request_failed = "turn_request_failed",
        /// Requests for relaying that got credentials.
        pub(crate) turn_issued = "turn_issued",
        /// Requests for relaying that the policy refused.
        pub(crate) turn_refused_policy = "turn_refused_policy",
        /// Requests for relaying that were too many.
        pub(crate) turn_refused_busy = "turn_refused_busy",
        /// Credentials of this node's own relay that no node would take.
        pub(crate) turn_issuer_wrong = "turn_issuer_wrong",
        /// Requesters that were gone before their answer.
        pub(crate) turn_requester_gone = "turn_requester_gone",
        /// Incoming circuits refused because all others carry calls.
        pub(crate) call_circuit_refused = "call_circuit_refused",
        /// Incoming circuits closed for a newer one because they carried no call.
        pub(crate) call_circuit_pushed_out = "call_circuit_pushed_out",
        /// Streams for calls beyond those that a connection may have.
        pub(crate) call_too_many_streams = "call_too_many_streams",
        /// Calls that came over no circuit to a node that hides its address.
        pub(crate) call_shows_address = "call_shows_address",
        /// Calls that nobody here takes.
        pub(crate) call_not_taken = "call_not_taken",
        /// Calls that were more than could wait.
        pub(crate) call_dropped = "call_dropped",
        /// Streams for calls on which nobody called.
        pub(crate) call_silent = "call_silent",
        /// Calls for another node.
        pub(crate) call_for_other_node = "call_for_other_node",
        /// Calls with a message that is wrong.
        pub(crate) call_bad_message = "call_bad_message",
        /// Calls that the policy refused.
        pub(crate) call_refused_policy = "call_refused_policy",
        /// Calls that came while too many went on.
        pub(crate) call_refused_busy = "call_refused_busy",
        /// Calls that took too long.
        pub(crate) call_too_long = "call_too_long",
        /// Calls that ended because another one got their place.
        pub(crate) call_pushed_out = "call_pushed_out",
    }
}
