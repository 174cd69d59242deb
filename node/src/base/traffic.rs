//! Bytes that a node has sent and received, by what they were for: typed for code, named for `status`.
//!
//! The names are this node's own, and few; no peer can add one. What TCP and IP put around the bytes is not in them, nor is UDP
//! (multicast, the router).
//!
//! What it is not: the bytes of one connection or peer, or anything with a history.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What bytes were for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrafficPurpose {
    /// Agreeing on keys at the beginning of a connection of the rendezvous.
    Handshake,
    /// All else on connections of the rendezvous: what is in streams, with the encryption and multiplexing around it.
    Connection,
    /// What peers say of themselves when they meet.
    Identify,
    /// What peers say of themselves when it changes.
    IdentifyPush,
    /// Whether the other end is still there.
    Ping,
    /// Looking for the peers that are closest to a key.
    FindNode,
    /// Looking for an offer.
    GetRecord,
    /// Announcing an offer.
    PutRecord,
    /// Looking for providers.
    GetProviders,
    /// Announcing a provider.
    AddProvider,
    /// Whether addresses can be reached.
    AutoNat,
    /// Reservations on relays, and what goes through those as circuits.
    Circuit,
    /// Signalling.
    Call,
    /// Credentials for TURN relays.
    Credentials,
    /// Streams of the rendezvous that agreed on no protocol.
    OtherStream,
    /// STUN, asked and answered.
    Stun,
}

impl TrafficPurpose {
    const COUNT: usize = Self::ALL.len();
    /// All purposes.
    const ALL: [Self; 16] = [
        Self::Handshake,
        Self::Connection,
        Self::Identify,
        Self::IdentifyPush,
        Self::Ping,
        Self::FindNode,
        Self::GetRecord,
        Self::PutRecord,
        Self::GetProviders,
        Self::AddProvider,
        Self::AutoNat,
        Self::Circuit,
        Self::Call,
        Self::Credentials,
        Self::OtherStream,
        Self::Stun,
    ];

    /// The name under which `status` shows it.
    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            // Only what is not in streams is shown.
            Self::Connection => "framing",
            Self::Identify => "identify",
            Self::IdentifyPush => "identify_push",
            Self::Ping => "ping",
            Self::FindNode => "kad_find_node",
            Self::GetRecord => "kad_get_record",
            Self::PutRecord => "kad_put_record",
            Self::GetProviders => "kad_get_providers",
            Self::AddProvider => "kad_add_provider",
            Self::AutoNat => "autonat",
            Self::Circuit => "circuit",
            Self::Call => "call",
            Self::Credentials => "relay_credentials",
            Self::OtherStream => "other_stream",
            Self::Stun => "stun",
        }
    }

    fn is_in_connection(self) -> bool {
        !matches!(self, Self::Handshake | Self::Connection | Self::Stun)
    }
}

/// Bytes in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByteCount {
    /// Received.
    pub received: u64,
    /// Sent.
    pub sent: u64,
}

impl std::ops::AddAssign for ByteCount {
    fn add_assign(&mut self, more: Self) {
        self.received += more.received;
        self.sent += more.sent;
    }
}

impl ByteCount {
    /// So many bytes received.
    pub(crate) fn received(bytes: usize) -> Self {
        Self { received: bytes as u64, sent: 0 }
    }

    /// So many bytes sent.
    pub(crate) fn sent(bytes: usize) -> Self {
        Self { received: 0, sent: bytes as u64 }
    }
}

/// What several tasks count up; clones are one.
#[derive(Debug, Clone, Default)]
pub struct Traffic(Arc<[[AtomicU64; 2]; TrafficPurpose::COUNT]>);

impl Traffic {
    /// Counts bytes.
    pub(crate) fn count(&self, purpose: TrafficPurpose, bytes: ByteCount) {
        let [received, sent] = &self.0[purpose as usize];
        received.fetch_add(bytes.received, Ordering::Relaxed);
        sent.fetch_add(bytes.sent, Ordering::Relaxed);
    }

    /// Returns the bytes so far, for those purposes alone for which there were some, by name.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, ByteCount)> {
        let in_streams = TrafficPurpose::ALL
            .into_iter()
            .filter(|purpose| purpose.is_in_connection())
            .map(|purpose| self.get(purpose));
        let in_streams = in_streams.fold(ByteCount::default(), |mut sum, bytes| {
            sum += bytes;
            sum
        });
        let shown = TrafficPurpose::ALL.into_iter().map(move |purpose| {
            let bytes = self.get(purpose);
            let shown = match purpose {
                // What a stream has taken and the connection has yet to send can make the difference negative for a moment.
                TrafficPurpose::Connection => ByteCount {
                    received: bytes.received.saturating_sub(in_streams.received),
                    sent: bytes.sent.saturating_sub(in_streams.sent),
                },
                _ => bytes,
            };
            (purpose.name(), shown)
        });
        shown.filter(|(_, bytes)| *bytes != ByteCount::default())
    }

    fn get(&self, purpose: TrafficPurpose) -> ByteCount {
        let [received, sent] = &self.0[purpose as usize];
        ByteCount { received: received.load(Ordering::Relaxed), sent: sent.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_is_around_streams_is_told_apart_from_what_is_in_them() {
        let traffic = Traffic::default();
        traffic.count(TrafficPurpose::Handshake, ByteCount { received: 7, sent: 8 });
        traffic.count(TrafficPurpose::Connection, ByteCount { received: 100, sent: 200 });
        traffic.count(TrafficPurpose::Ping, ByteCount::received(60));
        traffic.clone().count(TrafficPurpose::Identify, ByteCount::sent(201));
        let shown: Vec<_> = traffic.by_name().collect();
        let expected = [
            ("handshake", ByteCount { received: 7, sent: 8 }),
            ("framing", ByteCount::received(40)),
            ("identify", ByteCount::sent(201)),
            ("ping", ByteCount::received(60)),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn each_purpose_has_a_place_and_a_name_of_its_own() {
        let names: HashSet<_> = TrafficPurpose::ALL.iter().map(|purpose| purpose.name()).collect();
        assert_eq!(names.len(), TrafficPurpose::COUNT);
        assert!(TrafficPurpose::ALL.iter().enumerate().all(|(place, purpose)| *purpose as usize == place));
    }
}
