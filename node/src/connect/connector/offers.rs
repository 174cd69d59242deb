//! The ways to a node that its newest offer names.
//!
//! What it is not: taking these ways, or the DHT that the offers come from.

use std::net::SocketAddr;

use futures::{StreamExt, stream};
use keyferry_ice::{CandidateKind, TcpType};
use keyferry_proto::{
    identity::NodeKey,
    offer::{Offer, OfferError, SealedOffer, UnsealError, record_key, resolve_days},
};
use libp2p::Multiaddr;
use tokio::sync::mpsc;

use crate::{base::clock, net::path::RelayMode, reach::rendezvous::Rendezvous};

/// Offers that may wait to be looked at.
const WAITING_OFFERS: usize = 4;

/// What one offer says of where its node can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// Addresses that accept connections, the best first.
    pub(crate) passive: Vec<SocketAddr>,
    /// Circuits at which the node can be called.
    pub(crate) circuits: Vec<Multiaddr>,
    /// The sequence number of the offer.
    pub(crate) sequence: u64,
}

/// What a record of the node turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FoundOffer {
    /// An offer, newer than any before.
    Ways(Ways),
    /// An offer of a version that this program does not read.
    OtherVersion(u8),
}

/// What the node's offers say, as they come in, of whatever day. It leaves out those that are not the node's, or are older than one
/// before.
pub(crate) fn ways_to(rendezvous: &Rendezvous, node: NodeKey, relay_mode: RelayMode) -> mpsc::Receiver<FoundOffer> {
    let (sender, receiver) = mpsc::channel(WAITING_OFFERS);
    let mut records = stream::select_all(resolve_days(clock::now()).into_iter().map(|day| {
        let mut records = rendezvous.resolve(record_key(&node, day));
        stream::poll_fn(move |context| records.poll_recv(context))
    }));
    tokio::spawn(async move {
        let mut newest = Newest::default();
        loop {
            tokio::select! {
                record = records.next() => {
                    let Some(sealed) = record else { return };
                    if let Some(found) = newest.read(&sealed, &node, relay_mode)
                        && sender.send(found).await.is_err()
                    {
                        return;
                    }
                }
                () = sender.closed() => return,
            }
        }
    });
    receiver
}

/// The sequence number of the newest offer that was read. It is the one inside: the number of a record says nothing about that
/// of another day.
#[derive(Debug, Default)]
struct Newest(Option<u64>);

impl Newest {
    fn read(&mut self, sealed: &SealedOffer, node: &NodeKey, relay_mode: RelayMode) -> Option<FoundOffer> {
        match sealed.open(node, clock::now()) {
            Ok(signed) if self.0.is_some_and(|newest| signed.offer().sequence <= newest) => None,
            Ok(signed) => {
                self.0 = Some(signed.offer().sequence);
                Some(FoundOffer::Ways(ways_of(signed.offer(), relay_mode)))
            }
            Err(UnsealError::Offer(OfferError::Version { got })) => Some(FoundOffer::OtherVersion(got)),
            Err(error) => {
                tracing::debug!(%error, "an offer does not open");
                None
            }
        }
    }
}

/// What an offer says, without what this node may not use.
fn ways_of(offer: &Offer, relay_mode: RelayMode) -> Ways {
    let mut candidates = offer.candidates.clone();
    candidates.retain(|candidate| {
        candidate.tcp_type == TcpType::Passive
            && (relay_mode.allows_relays() || candidate.kind != CandidateKind::Relayed)
    });
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.priority));
    let passive = candidates.into_iter().map(|candidate| candidate.addr).collect();
    Ways { passive, circuits: offer.signalling.clone(), sequence: offer.sequence }
}

#[cfg(test)]
mod tests {
    use keyferry_ice::Candidate;
    use keyferry_net::time::{UnixTime, UtcDay};
    use keyferry_proto::{
        identity::NodeSecret,
        offer::{SignedOffer, seal},
    };

    use super::*;

    #[test]
    fn of_the_offers_of_two_days_the_one_with_the_greater_sequence_inside_counts() {
        let secret = NodeSecret::from_bytes(&[1; 32]);
        let (node, today) = (secret.public(), clock::now().day().0);
        let record = |day: u32, sequence, port: u16| {
            let addr = SocketAddr::from(([192, 0, 2, 7], port));
            let candidates = vec![Candidate::new(CandidateKind::Host, TcpType::Passive, addr, 1)];
            let expires = clock::now().plus(std::time::Duration::from_secs(3600));
            let offer = Offer { candidates, signalling: Vec::new(), sequence, expires };
            seal(&SignedOffer::sign(offer, &secret).unwrap(), &secret, UtcDay(day), rand::random()).unwrap()
        };
        // No matter which of the two days' records has the greater number outside.
        for (day, next) in (today..today + 10).map(|day| (day, day + 1)) {
            let mut newest = Newest::default();
            let mut port = |record| match newest.read(&record, &node, RelayMode::Both) {
                Some(FoundOffer::Ways(ways)) => Some(ways.passive[0].port()),
                _ => None,
            };
            assert_eq!(port(record(day, 5, 1)), Some(1));
            assert_eq!(port(record(next, 4, 2)), None);
            assert_eq!(port(record(next, 6, 3)), Some(3));
            assert_eq!(port(record(day, 5, 1)), None);
            assert_eq!(port(record(day, 7, 4)), Some(4));
        }
    }

    #[test]
    fn relayed_addresses_of_a_peer_are_not_dialled_by_a_node_that_uses_no_relays() {
        let passive = |kind, addr: &str| Candidate::new(kind, TcpType::Passive, addr.parse().unwrap(), 1);
        let offer = Offer {
            candidates: vec![
                passive(CandidateKind::Relayed, "203.0.113.1:50000"),
                passive(CandidateKind::Host, "192.0.2.7:4600"),
            ],
            signalling: Vec::new(),
            sequence: 1,
            expires: UnixTime(1),
        };
        let dialled = |mode| ways_of(&offer, mode).passive.iter().map(ToString::to_string).collect::<Vec<_>>();

        assert_eq!(dialled(RelayMode::Both), ["192.0.2.7:4600", "203.0.113.1:50000"]);
        assert_eq!(dialled(RelayMode::NoRelay), ["192.0.2.7:4600"]);
    }
}
